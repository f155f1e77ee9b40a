/**
 * QEMU's own client, `-device vfio-user-pci`, on emulated devices. VFIO_USER_QEMU names a qemu-system-x86_64 of version
 * 10.1 or later.
 *
 * With a guest as well: VFIO_USER_QEMU_KERNEL names a Linux kernel and VFIO_USER_QEMU_INITRD an initramfs that has busybox
 * in /bin; its /init mounts /proc, /sys and /dev, loads the drivers nvme and uio_pci_generic, runs `sh /command`, which is
 * added to it here, and powers off. VFIO_USER_QEMU_ARGS are more arguments, such as `-L DIRECTORY` for the firmware. QEMU
 * emulates the processor (TCG): KVM is not needed.
 */
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import {
  EduDevice,
  MemoryStore,
  NvmeDevice,
  RamDevice,
  serve,
  type DeviceModel,
  type EmulatorServer,
} from '../../lib/emulator/index.js';
import { Scratch } from '../cli/cli.js';
import { cpio, padded } from '../support/cpio.js';

/** To boot a kernel takes 10 s on an idle machine. */
const BOOT_TIMEOUT_MS = 300_000;

jest.setTimeout(60_000);

const program = process.env['VFIO_USER_QEMU'] ?? '';
const kernel = process.env['VFIO_USER_QEMU_KERNEL'] ?? '';
const initrd = process.env['VFIO_USER_QEMU_INITRD'] ?? '';
const more = (process.env['VFIO_USER_QEMU_ARGS'] ?? '').split(' ').filter((arg) => arg !== '');
const hasClient =
  program !== '' &&
  /vfio-user-pci/.test(spawnSync(program, ['-device', 'help'], { encoding: 'utf8' }).stdout);
const withClient = hasClient ? describe : describe.skip;
const withGuest = hasClient && kernel !== '' && initrd !== '' ? describe : describe.skip;

/** QEMU says this of every server whose device has no ERR interrupt, as devices that are not PCI Express have not. */
const WARNING = /^.*: warning: .*Could not enable error recovery for the device\n/gm;

/** What a command asked for, as `intercept` sees it: its name, and the index of SET_IRQS. */
type Seen = { name: string; fds: number; payload: Buffer };

class Machine implements AsyncDisposable {
  readonly scratch = new Scratch();
  readonly seen: Seen[][] = [];
  readonly errors: unknown[] = [];
  readonly #servers: EmulatorServer[] = [];
  #child: ChildProcess | undefined;
  #stderr = '';

  /** Serves the devices, which are at 00:04.0 and on, and starts QEMU with them. */
  async start(devices: readonly DeviceModel[], args: readonly string[]): Promise<ChildProcess> {
    const device = [];
    for (const [i, model] of devices.entries()) {
      const socket = this.scratch.path(`${i}.sock`);
      const seen: Seen[] = [];
      this.seen.push(seen);
      const server = await serve(model, {
        path: socket,
        onError: (error) => this.errors.push(error),
        intercept: ({ name, fdCount, payload }) => {
          seen.push({ name, fds: fdCount, payload: Buffer.from(payload.subarray(0, 32)) });
          return 'pass';
        },
      });
      this.#servers.push(server);
      const json = { driver: 'vfio-user-pci', addr: `${4 + i}`, socket: { type: 'unix', path: socket } };
      device.push('-device', JSON.stringify(json));
    }
    const memory = ['-m', '512', '-object', 'memory-backend-memfd,id=m,size=512M,share=on'];
    const machine = ['-M', 'q35,memory-backend=m', '-accel', 'tcg', '-nodefaults', '-display', 'none'];
    const env = { ...process.env, LD_PRELOAD: '' };
    this.#child = spawn(program, [...machine, ...memory, ...device, ...args], { env, stdio: 'pipe' });
    this.#child.stderr!.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    return this.#child;
  }

  /** What QEMU has said on stderr, without the one warning that is expected. */
  get complaints(): string {
    return this.#stderr.replace(WARNING, '');
  }

  names(device: number): Set<string> {
    return new Set(this.seen[device]!.map(({ name }) => name));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child?.kill('SIGKILL');
    for (const server of this.#servers) await server.close();
    this.scratch.remove();
  }
}

/** Gives commands to the QEMU monitor at `child`'s stdio, and their answers (QEMU: docs/interop/qmp-spec.rst). */
async function monitor(child: ChildProcess): Promise<(command: string) => Promise<unknown>> {
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const next = async () => JSON.parse((await lines.next()).value as string) as Record<string, unknown>;
  const execute = async (command: string): Promise<unknown> => {
    child.stdin!.write(`${JSON.stringify({ execute: command })}\n`);
    for (;;) {
      const message = await next();
      if ('return' in message) return message['return'];
      // Events come in between.
      if ('error' in message) throw new Error(JSON.stringify(message));
    }
  };
  await next();
  await execute('qmp_capabilities');
  return execute;
}

interface QemuPciDevice {
  slot: number;
  id: { vendor: number; device: number };
}

withClient('its start, which is all that it asks a server before there is a guest (VFIO_USER_QEMU)', () => {
  const devices: (DeviceModel & { close?: () => Promise<void> | void })[] = [];
  afterEach(async () => {
    for (const device of devices.splice(0)) await device.close?.();
  });

  test('ends well for each emulated device', async () => {
    devices.push(
      new EduDevice(),
      new NvmeDevice({ namespaces: [{ store: new MemoryStore(1 << 20) }] }),
      new RamDevice(),
    );
    await using machine = new Machine();
    // Firmware that never runs, as the machine is stopped, and none that QEMU looks for in its own directory.
    const bios = machine.scratch.path('bios');
    writeFileSync(bios, Buffer.alloc(65_536));
    const firmware = ['-bios', bios, '-global', 'apic-common.vapic=off'];
    const child = await machine.start(devices, ['-S', ...firmware, '-qmp', 'stdio']);
    const exited = once(child, 'exit');
    const execute = await monitor(child);
    const [bus] = (await execute('query-pci')) as { devices: QemuPciDevice[] }[];
    const found = new Map(bus!.devices.map(({ slot, id }) => [slot, id]));
    expect([4, 5, 6].map((slot) => found.get(slot))).toMatchObject([
      { vendor: 0x1234, device: 0x11e8 },
      { vendor: 0x1234, device: 0x5845 },
      { vendor: 0x1234, device: 0x5241 },
    ]);
    await execute('quit');
    expect((await exited)[0]).toBe(0);
    expect(machine.complaints).toBe('');
    expect(machine.errors).toEqual([]);
    for (const [i] of devices.entries()) {
      expect([...machine.names(i)]).toEqual(
        expect.arrayContaining([
          ...['VERSION', 'DMA_MAP', 'DEVICE_GET_INFO', 'DEVICE_GET_REGION_INFO', 'DEVICE_GET_IRQ_INFO'],
          ...['REGION_READ', 'REGION_WRITE', 'DEVICE_RESET'],
        ]),
      );
      // The BARs and config space.
      const regions = machine.seen[i]!.filter(({ name }) => name === 'DEVICE_GET_REGION_INFO');
      expect(new Set(regions.map(({ payload }) => payload.readUInt32LE(8)))).toEqual(
        new Set([0, 1, 2, 3, 4, 5, 7]),
      );
    }
    // INTx is armed at once where a device has it.
    const armed = machine.seen.map((seen) =>
      seen.filter(({ name, fds }) => name === 'DEVICE_SET_IRQS' && fds === 1),
    );
    expect(armed[0]!.length).toBeGreaterThan(0);
    expect(armed[1]).toEqual([]);
  });
});

/** What the guest does, and says of it: lines of `name: value`. */
const COMMAND = `
echo "guest: begin"
for d in /sys/bus/pci/devices/*; do
  echo "pci $(basename $d): $(cat $d/vendor) $(cat $d/device) $(cat $d/class)"
done

n=/dev/nvme0n1; i=0
while [ ! -e $n ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
echo "nvme model: $(cat /sys/class/nvme/nvme0/model)"
echo "nvme sectors: $(cat /sys/block/nvme0n1/size)"
echo "nvme first block: $(dd if=$n bs=512 count=1 2>/dev/null | head -n 1)"
dd if=/dev/urandom of=/tmp/written bs=64k count=32 2>/dev/null
dd if=/tmp/written of=$n bs=64k seek=16 oflag=direct conv=fsync 2>/dev/null
dd if=$n bs=64k skip=16 count=32 iflag=direct of=/tmp/read 2>/dev/null
cmp /tmp/written /tmp/read && echo "nvme read back: same"
echo "nvme written: $(sha256sum /tmp/written | cut -d ' ' -f 1)"
blkdiscard -o 8388608 -l 65536 $n && echo "nvme deallocated: $(dd if=$n bs=64k skip=128 count=1 iflag=direct 2>/dev/null | tr -d '\\0' | wc -c) bytes left"
echo "nvme interrupts: $(grep -c 'nvme0q[01]' /proc/interrupts) $(awk '/nvme0q1/ { print ($2 > 0) }' /proc/interrupts)"

d=/sys/bus/pci/devices/0000:00:04.0
echo 1234 11e8 >/sys/bus/pci/drivers/uio_pci_generic/new_id
bar=$(head -n 1 $d/resource | cut -d ' ' -f 1)
at() { echo $((bar + $1)); }
echo "edu identification: $(devmem $(at 0))"
devmem $(at 4) 32 0x12345678
echo "edu liveness: $(devmem $(at 4))"
devmem $(at 8) 32 5
while [ $(($(devmem $(at 0x20)) & 1)) = 1 ]; do :; done
echo "edu factorial: $(devmem $(at 8))"
interrupts() { awk '/uio_pci_generic/ { print $2 }' /proc/interrupts; }
# The driver disables INTx with each interrupt; whoever has the device acknowledges it there and enables INTx again.
for wanted in 1 2 3; do
  printf '\\0' | dd of=$d/config bs=1 seek=5 conv=notrunc 2>/dev/null
  devmem $(at 0x60) 32 $wanted
  i=0; while [ "$(interrupts)" != $wanted ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done
  echo "edu interrupt $wanted: $(interrupts) $(devmem $(at 0x24))"
  devmem $(at 0x64) 32 0xffffffff
done
echo "guest: end"
`;

withGuest('its guest (VFIO_USER_QEMU_KERNEL and VFIO_USER_QEMU_INITRD)', () => {
  const SIZE = 64 << 20;
  const WRITTEN = { offset: 1 << 20, length: 2 << 20 };
  const DEALLOCATED = { offset: 8 << 20, length: 65_536 };
  const store = new MemoryStore(SIZE);
  const said: Record<string, string> = {};
  let machine: Machine;
  let nvme: NvmeDevice;
  let output = '';

  beforeAll(async () => {
    machine = new Machine();
    nvme = new NvmeDevice({ namespaces: [{ store }] });
    store.write(0, Buffer.from('put there by the host\n'));
    store.write(DEALLOCATED.offset, Buffer.alloc(DEALLOCATED.length, 1));
    const overlaid = machine.scratch.path('initrd');
    writeFileSync(overlaid, Buffer.concat([padded(readFileSync(initrd)), cpio({ command: COMMAND })]));
    const child = await machine.start(
      [new EduDevice(), nvme],
      [
        ...['-no-reboot', '-serial', 'stdio', '-kernel', kernel, '-initrd', overlaid],
        ...['-append', 'console=ttyS0 quiet panic=-1', ...more],
      ],
    );
    child.stdout!.on('data', (chunk: Buffer) => (output += chunk.toString()));
    await once(child, 'exit');
    for (const line of output.split(/\r?\n/)) {
      const [, name, value] = /^((?:pci|nvme|edu) .*?): (.*)$/.exec(line) ?? [];
      if (name !== undefined) said[name] = value!.trim();
    }
  }, BOOT_TIMEOUT_MS);

  afterAll(async () => {
    await machine[Symbol.asyncDispose]();
    await nvme.close();
  });

  test('ran to its end, and QEMU had nothing to complain of', () => {
    expect(output).toContain('guest: end');
    expect(machine.complaints).toBe('');
    expect(machine.errors).toEqual([]);
  });

  test('enumerates the devices', () => {
    expect(said).toMatchObject({
      'pci 0000:00:04.0': '0x1234 0x11e8 0x00ff00',
      'pci 0000:00:05.0': '0x1234 0x5845 0x010802',
    });
  });

  test('drives the NVMe controller with its own driver, on interrupts', () => {
    expect(said).toMatchObject({
      'nvme model': 'vfio-user emulated NVMe controller',
      'nvme sectors': `${SIZE / 512}`,
      'nvme first block': 'put there by the host',
      'nvme read back': 'same',
      'nvme interrupts': '2 1',
    });
    expect(nvme.commandCount).toBeGreaterThan(32);
  });

  test('has written what is on the disk', () => {
    const digest = createHash('sha256').update(store.read(WRITTEN.offset, WRITTEN.length)).digest('hex');
    expect(said['nvme written']).toBe(digest);
  });

  test('has deallocated what it discarded', () => {
    expect(said['nvme deallocated']).toBe('0 bytes left');
    const { offset, length } = DEALLOCATED;
    expect(store.read(offset, length).equals(Buffer.alloc(length))).toBe(true);
  });

  test('reaches the registers of edu, and is interrupted by it', () => {
    expect(said).toMatchObject({
      'edu identification': '0x010000ED',
      'edu liveness': '0xEDCBA987',
      'edu factorial': '0x00000078',
      'edu interrupt 1': '1 0x00000001',
      'edu interrupt 2': '2 0x00000002',
      'edu interrupt 3': '3 0x00000003',
    });
  });

  test('keeps the MSI-X table to QEMU: nothing of it arrives', () => {
    const MSIX_BAR = 4;
    const seen = machine.seen[1]!;
    const armed = seen.filter(({ name, fds }) => name === 'DEVICE_SET_IRQS' && fds === 1);
    expect(armed.length).toBeGreaterThanOrEqual(2);
    const writes = seen.filter(({ name }) => name === 'REGION_WRITE');
    expect(writes.filter(({ payload }) => payload.readUInt32LE(8) === MSIX_BAR)).toEqual([]);
  });
});
