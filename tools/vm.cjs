'use strict';

/**
 * Runs the specs of spec/silicon in a Linux guest, on devices that its vfio-pci has: QEMU emulates them, and an IOMMU, without
 * KVM. The kernel is Debian's, downloaded by name; the guest's root is this machine's, read-only.
 *
 *     npm run test:vm                    all of spec/silicon
 *     npm run test:vm -- --short         edu and NVMe alone, as CI does
 *     npm run test:vm -- --only PATTERN  the tests with such names
 *     npm run test:vm -- serve           spec files of that name alone
 *     npm run test:vm -- --run COMMAND   a command instead of the specs
 *
 * Without QEMU, busybox, cpio and kmod, or where no kernel can be had, it says that it is skipped, and ends well: apt-get install qemu-system-x86
 * busybox-static cpio kmod.
 */
const { execFileSync, spawn, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const ts = require('typescript');

const ROOT = path.join(__dirname, '..');
const WORK = path.join(ROOT, 'build', 'vm');
const NEEDED = ['qemu-system-x86_64', 'busybox', 'cpio', 'modprobe', 'depmod', 'dpkg', 'apt-get', 'gzip'];
const MODULES = ['vfio-pci', 'vfio_iommu_type1', 'virtio_pci', '9pnet_virtio', '9p'];
/** Loaded when vfio-pci has the functions, so that they can be given to their drivers. */
const DRIVERS = ['nvme', 'e1000e'];
/** A guest that has not begun by then is started again: emulated timers are late on a machine with other things to do. */
const BOOT_MS = 180_000;
const RUN_MS = 1_200_000;
const ATTEMPTS = 3;
/** What stands before it on the line is the command's. */
const STATUS = /lab: status (\d+)$/;

const EDU = '0000:00:04.0';
const NVME = '0000:00:05.0';
const E1000E = '0000:00:06.0';
const VIRTIO = '0000:00:07.0';
const NVME_BEHIND_PORT = '0000:01:00.0';
/** Two functions of one bus, none of which can be reset without the other. */
const EDU_FUNCTION = '0000:02:00.0';
/** What the specs in the guest leave for those outside; in the guest it is /mnt. */
const OUT = path.join(WORK, 'out');

function has(command) {
  return spawnSync('sh', ['-c', `command -v ${command}`], { env: environment() }).status === 0;
}

function environment() {
  return { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
}

function run(command, args, options = {}) {
  return execFileSync(command, args, { encoding: 'utf8', env: environment(), ...options });
}

/** The kernel and its modules, in the order in which they are loaded. Kept between runs. */
function kernel() {
  const image = path.join(WORK, 'image');
  if (!fs.existsSync(path.join(image, 'complete'))) {
    fs.rmSync(image, { recursive: true, force: true });
    fs.mkdirSync(image, { recursive: true });
    const depends = run('apt-cache', ['depends', 'linux-image-amd64']);
    const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
    if (name === undefined) throw new Error('apt-cache knows no linux-image-amd64: apt-get update');
    run('apt-get', ['-qq', 'download', name], { cwd: image, stdio: ['ignore', 'ignore', 'pipe'] });
    const archive = fs.readdirSync(image).find((file) => file.endsWith('.deb'));
    run('dpkg', ['-x', archive, '.'], { cwd: image });
    fs.rmSync(path.join(image, archive));
    run('depmod', ['-b', image, release(image)]);
    fs.writeFileSync(path.join(image, 'complete'), '');
  }
  const filesOf = (names) =>
    names.flatMap((module) =>
      run('modprobe', ['-d', image, '-S', release(image), '--show-depends', module])
        .split('\n')
        .filter((line) => line.startsWith('insmod'))
        .map((line) => line.split(' ')[1]),
    );
  const modules = [...new Set(filesOf(MODULES))];
  return {
    file: path.join(
      image,
      'boot',
      fs.readdirSync(path.join(image, 'boot')).find((one) => one.startsWith('vmlinuz')),
    ),
    modules,
    drivers: [...new Set(filesOf(DRIVERS))].filter((one) => !modules.includes(one)),
  };
}

function release(image) {
  return fs.readdirSync(path.join(image, 'lib', 'modules'))[0];
}

const INIT = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module"; done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host /host
mount -t tmpfs tmp /host/var/tmp; mount -t tmpfs run /host/run; mount --bind /proc /host/proc; mount --bind /sys /host/sys; mount --bind /dev /host/dev
mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 out /host/mnt
for device in /sys/bus/pci/devices/*; do
  address=\${device##*/}
  case $(cat $device/class)-$address in 0x06*|*1f.*|*00:0[0-3].0) continue;; esac
  [ -e $device/driver ] && echo $address >$device/driver/unbind
  echo vfio-pci >$device/driver_override; echo $address >/sys/bus/pci/drivers_probe
done
for module in /drivers/*; do insmod "$module"; done
echo "lab: begin"
chroot /host /bin/sh /var/tmp/command
echo "lab: status $?"
poweroff -f
`;

/** The guest's first file system: busybox, the modules, and the command. */
function initrd({ modules, drivers }, command) {
  const root = path.join(WORK, 'root');
  fs.rmSync(root, { recursive: true, force: true });
  for (const folder of ['bin', 'modules', 'drivers', 'proc', 'sys', 'dev', 'host', 'tmp']) {
    fs.mkdirSync(path.join(root, folder), { recursive: true });
  }
  fs.copyFileSync(run('sh', ['-c', 'command -v busybox']).trim(), path.join(root, 'bin', 'busybox'));
  for (const name of run('busybox', ['--list']).split('\n')) {
    if (name !== '' && name !== 'busybox') fs.symlinkSync('busybox', path.join(root, 'bin', name));
  }
  modules.forEach((file, i) => fs.copyFileSync(file, path.join(root, 'modules', String(100 + i))));
  drivers.forEach((file, i) => fs.copyFileSync(file, path.join(root, 'drivers', String(100 + i))));
  fs.writeFileSync(path.join(root, 'command'), command);
  const init = INIT.replace('chroot /host', 'cp /command /host/var/tmp/command; chroot /host');
  fs.writeFileSync(path.join(root, 'init'), init, { mode: 0o755 });
  const out = path.join(WORK, 'initrd');
  run('sh', ['-c', `find . | cpio -o -H newc 2>/dev/null | gzip -1 >${JSON.stringify(out)}`], { cwd: root });
  return out;
}

/** The library and the specs as JavaScript: an emulated processor would take long to compile them. */
function compile() {
  const out = path.join(WORK, 'js');
  fs.rmSync(out, { recursive: true, force: true });
  const files = ['lib', 'spec/silicon', 'spec/support', 'spec/emulator'].flatMap((folder) =>
    fs
      .readdirSync(path.join(ROOT, folder), { recursive: true })
      .filter((file) => file.endsWith('.ts'))
      .map((file) => path.join(folder, file)),
  );
  const compilerOptions = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };
  for (const file of files) {
    const target = path.join(out, file.replace(/\.ts$/, '.js'));
    fs.mkdirSync(path.dirname(target), { recursive: true });
    const source = fs.readFileSync(path.join(ROOT, file), 'utf8');
    fs.writeFileSync(target, ts.transpileModule(source, { compilerOptions, fileName: file }).outputText);
  }
  const config = {
    rootDir: out,
    testMatch: ['<rootDir>/spec/silicon/*.spec.js'],
    transform: {},
    testTimeout: 120_000,
    cacheDirectory: '/var/tmp/jest',
    haste: { enableSymlinks: false },
  };
  fs.writeFileSync(path.join(out, 'jest.config.json'), JSON.stringify(config));
  const { version } = JSON.parse(fs.readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
  fs.writeFileSync(path.join(out, 'package.json'), JSON.stringify({ type: 'module', version }));
  return path.join(out, 'jest.config.json');
}

function specs(config, short, only, patterns) {
  const jest = path.join(path.dirname(require.resolve('jest/package.json')), 'bin', 'jest.js');
  const variables = {
    VFIO_USER_ADDON: path.join(ROOT, 'build', 'Release', 'vfio_user.node'),
    VFIO_USER_TEST_EDU: `pci:${EDU}`,
    VFIO_USER_TEST_NVME: short ? `pci:${NVME}` : `pci:${NVME} pci:${NVME_BEHIND_PORT}`,
    VFIO_USER_TEST_PCI: (short ? [NVME] : [EDU, NVME, E1000E, VIRTIO, NVME_BEHIND_PORT, EDU_FUNCTION]).join(
      ' ',
    ),
    VFIO_USER_TEST_HOT_RESET: short ? '' : `${NVME_BEHIND_PORT} ${EDU_FUNCTION}`,
    VFIO_USER_TEST_ROOT_BUS: short ? '' : EDU,
    VFIO_USER_TEST_E1000E: short ? '' : E1000E,
    VFIO_USER_TEST_VIRTIO_RNG: short ? '' : VIRTIO,
    VFIO_USER_TEST_OWNERS: short ? '' : EDU,
    VFIO_USER_TEST_CAPTURED: NVME,
    VFIO_USER_TEST_OUT: '/mnt',
    VFIO_USER_TEST_FUNCTIONS: short ? '' : [EDU, NVME, E1000E].join(' '),
    // The serial line is a terminal, and is not for the eyes of one.
    CI: 'true',
    HOME: '/var/tmp',
    TMPDIR: '/var/tmp',
  };
  const set = Object.entries(variables).map(([name, value]) => `export ${name}='${value}'`);
  const flags = '--experimental-vm-modules --disable-warning=ExperimentalWarning';
  const run = `'${process.execPath}' ${flags} '${jest}' --config '${config}' --runInBand --watchman=false`;
  const quoted = patterns.map((pattern) => `'${pattern}'`).join(' ');
  return `${set.join('\n')}
cd '${ROOT}'
exec ${run} ${only} ${quoted} 2>&1
`;
}

function disk(name) {
  const file = path.join(WORK, name);
  if (!fs.existsSync(file)) fs.writeFileSync(file, '');
  fs.truncateSync(file, 64 << 20);
  return `if=none,format=raw,file=${file},id=${path.parse(name).name}`;
}

/** Boots once. Resolves with the command's exit status, or undefined where the guest did not begin. */
function boot(kernelFile, initrdFile) {
  const args = [
    ...[
      '-M',
      'q35,kernel-irqchip=split',
      '-accel',
      'tcg',
      '-m',
      '1536',
      '-nographic',
      '-no-reboot',
      '-nodefaults',
    ],
    ...['-serial', 'stdio', '-kernel', kernelFile, '-initrd', initrdFile],
    ...['-append', 'console=ttyS0 intel_iommu=on iommu=pt quiet panic=-1 no_timer_check'],
    ...['-device', 'intel-iommu,intremap=on'],
    ...['-fsdev', 'local,id=host,path=/,security_model=none,readonly=on,multidevs=remap'],
    ...['-device', 'virtio-9p-pci,fsdev=host,mount_tag=host,addr=3'],
    ...['-fsdev', `local,id=out,path=${OUT},security_model=none`],
    ...['-device', 'virtio-9p-pci,fsdev=out,mount_tag=out,addr=2'],
    // From 8 GT/s on Linux waits for the link after a reset of the bus, and QEMU 7.2 does not say that it is up again.
    ...['-drive', disk('disk0.img'), '-drive', disk('disk1.img')],
    ...['-device', 'edu,addr=4', '-device', 'nvme,serial=LAB0,drive=disk0,addr=5'],
    ...['-device', 'e1000e,addr=6', '-device', 'virtio-rng-pci,addr=7,disable-legacy=on,iommu_platform=on'],
    ...[
      '-device',
      'pcie-root-port,id=root8,addr=8,chassis=1,x-speed=5',
      '-device',
      'nvme,serial=LAB1,drive=disk1,bus=root8',
    ],
    ...['-device', 'pcie-root-port,id=root9,addr=9,chassis=2,x-speed=5'],
    ...['-device', 'edu,bus=root9,addr=0.0,multifunction=on', '-device', 'edu,bus=root9,addr=0.1'],
  ];
  return new Promise((resolve) => {
    const qemu = spawn('qemu-system-x86_64', args, {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: environment(),
    });
    let begun = false;
    let status;
    let rest = '';
    const early = [];
    let timer = setTimeout(() => qemu.kill('SIGKILL'), BOOT_MS);
    qemu.stdout.on('data', (chunk) => {
      const lines = (rest + chunk.toString('utf8')).replaceAll('\r', '').split('\n');
      rest = lines.pop();
      for (const line of lines) {
        if (line.endsWith('lab: begin')) {
          begun = true;
          clearTimeout(timer);
          timer = setTimeout(() => qemu.kill('SIGKILL'), RUN_MS);
        } else if (STATUS.test(line)) status = Number(STATUS.exec(line)[1]);
        else if (begun && status === undefined) console.log(line);
        else if (!begun) early.push(line);
      }
    });
    qemu.on('exit', () => {
      clearTimeout(timer);
      if (!begun) console.error([...early.slice(-12), 'the guest did not begin'].join('\n'));
      resolve(begun ? (status ?? 1) : undefined);
    });
  });
}

function onlyArguments() {
  const at = process.argv.indexOf('--only');
  return at > 0 ? `-t '${process.argv[at + 1].replaceAll("'", '.')}'` : '';
}

/** What is left of the command line is jest's. */
function patterns() {
  return process.argv.slice(2).filter((one, i, all) => !one.startsWith('--') && all[i - 1] !== '--only');
}

async function main() {
  const missing = NEEDED.filter((command) => !has(command));
  if (missing.length > 0) {
    console.log(`skip: no ${missing.join(', ')}, so nothing is run on a guest's vfio-pci`);
    return;
  }
  fs.mkdirSync(OUT, { recursive: true });
  const at = process.argv.indexOf('--run');
  const command =
    at > 0
      ? `cd '${ROOT}'\n${process.argv.slice(at + 1).join(' ')}\n`
      : specs(compile(), process.argv.includes('--short'), onlyArguments(), patterns());
  let found;
  try {
    found = kernel();
  } catch (error) {
    console.log(`skip: Debian's kernel cannot be had, so nothing is run in a guest: ${error.message}`);
    return;
  }
  const { file, ...modules } = found;
  const first = initrd(modules, command);
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const status = await boot(file, first);
    if (status === undefined) continue;
    process.exitCode = status;
    return;
  }
  process.exitCode = 1;
}

void main();
