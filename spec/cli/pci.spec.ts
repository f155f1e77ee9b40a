/** The verbs that look at this machine's PCI functions, on a machine of files. */
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { mkdirSync, symlinkSync } from 'node:fs';
import { space } from '../pci/config-bytes.js';
import { MadeMachine } from '../support/machine.js';
import { MAIN, environment, outcomeOf, type Outcome } from './cli.js';

jest.setTimeout(60_000);

const NVME = '0000:01:00.0';
const NIC = '0000:02:00.0';
const BOUND = '0000:03:00.0';
const RESOURCE =
  '0x00000000fe780000 0x00000000fe783fff 0x0000000000140204\n' +
  '0x0000000000000000 0x0000000000000000 0x0000000000000000\n';
let machine: MadeMachine;

beforeAll(() => {
  machine = new MadeMachine();
  machine.driver('vfio-pci');
  const config = space(256, { 0: '361b 1000', 8: '02 02 08 01' });
  machine.add({ address: NVME, driver: 'nvme', group: '7', config, resource: RESOURCE });
  machine.put(`sys/bus/pci/devices/${NVME}/reset`, '');
  machine.put(`sys/bus/pci/devices/${NVME}/reset_method`, 'flr\n');
  machine.disk(NVME, 'nvme0n1', '259:0', { nvme0n1p1: '259:1' });
  machine.put('proc/self/mountinfo', '22 1 259:1 / / rw - ext4 /dev/root rw\n');
  machine.add({
    address: NIC,
    driver: 'e1000e',
    group: '8',
    vendor: 0x8086,
    device: 0x10d3,
    classCode: 0x020000,
  });
  machine.add({ address: BOUND, driver: 'vfio-pci', group: '9', resource: RESOURCE });
  machine.add({ address: '0000:03:00.1', driver: 'snd', group: '9', classCode: 0x040300 });
  machine.put('sys/module/vfio_iommu_type1/x', '');
  machine.put('dev/vfio/vfio', '');
  machine.put('proc/interrupts', ' 24:  0  IR-PCI-MSI 512000-edge  nvme0q0\n');
  machine.put('proc/self/status', 'CapEff:\t0000000000000000\n');
  machine.put(
    'proc/self/limits',
    'Max locked memory         65536                65536                bytes\n',
  );
});

afterAll(() => machine.remove());

function vfioUser(...args: string[]): Promise<Outcome> {
  const env = environment({ VFIO_USER_MACHINE: machine.root });
  return outcomeOf(spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env }));
}

describe('pci list', () => {
  test('has a line for each function, and what hinders vfio-pci', async () => {
    const { status, stdout } = await vfioUser('pci', 'list');
    expect(status).toBe(0);
    const lines = stdout.split('\n').map((line) => line.trim().replaceAll(/ {2,}/g, ' | '));
    expect(lines).toEqual([
      'address | ids | driver | group | what it is',
      `${NVME} | 1b36:0010 | nvme | 7 | Non-volatile memory controller (NVMe): QEMU NVMe`,
      'nvme0n1p1 is mounted at /',
      `${NIC} | 8086:10d3 | e1000e | 8 | Ethernet controller: Intel 82574L (e1000e)`,
      `${BOUND} | 1b36:0010 | vfio-pci | 9 | Non-volatile memory controller (NVMe): QEMU NVMe`,
      '0000:03:00.1 of its group is bound to snd: `vfio-user pci bind 0000:03:00.1`',
      '0000:03:00.1 | 1b36:0010 | snd | 9 | High definition audio device: QEMU NVMe',
      '',
    ]);
  });

  test('is JSON for programs', async () => {
    const { status, stdout } = await vfioUser('pci', 'list', '--json');
    expect(status).toBe(0);
    expect((JSON.parse(stdout) as unknown[])[0]).toMatchObject({
      address: NVME,
      vendorId: 0x1b36,
      driver: 'nvme',
      iommuGroup: '7',
      groupMembers: [{ address: NVME, driver: 'nvme' }],
      hindrances: ['nvme0n1p1 is mounted at /'],
    });
  });

  test('a root that is none is wrong usage', async () => {
    const env = environment({ VFIO_USER_MACHINE: '/nonexistent' });
    const child = spawn(process.execPath, [MAIN, 'pci', 'list'], { stdio: ['ignore', 'pipe', 'pipe'], env });
    expect(await outcomeOf(child)).toMatchObject({ status: 2, stdout: '' });
  });
});

describe('pci bind and unbind', () => {
  test('a mounted disk is not taken', async () => {
    const { status, stdout, stderr } = await vfioUser('pci', 'bind', NVME);
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(stderr).toBe(
      `vfio-user: ${NVME} is in use: nvme0n1p1 is mounted at /. --force takes it away all the same [EBUSY]\n`,
    );
    expect(machine.text('sys/bus/pci/devices', NVME, 'driver_override')).toBe('(null)');
  });

  test('what vfio-pci has is left as it is', async () => {
    expect(await vfioUser('pci', 'bind', `pci:${BOUND}`)).toMatchObject({
      status: 0,
      stdout: `${BOUND} is bound to vfio-pci already\n`,
    });
  });

  test.each([
    [['bind', 'x'], 2, /'x' is no PCI function: it must be a PCI address/],
    [['unbind', '../..'], 2, /is no PCI function/],
    [['bind', '0000:7f:00.0'], 1, /there is no PCI device 0000:7f:00\.0/],
    [['unbind', NVME], 1, /is bound to nvme, and is not vfio-pci's/],
  ])('%j', async (args, wanted, message) => {
    const { status, stderr } = await vfioUser('pci', ...args);
    expect(stderr).toMatch(message);
    expect(status).toBe(wanted);
  });
});

describe('without binding', () => {
  test('info says what sysfs says', async () => {
    const { status, stdout, stderr } = await vfioUser('info', `pci:${NVME}`, '--json');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const report = JSON.parse(stdout) as { regions: unknown[] };
    expect(report).toMatchObject({
      socket: `pci:${NVME}`,
      vendorId: 0x1b36,
      deviceId: 0x0010,
      name: 'QEMU NVMe',
      flagNames: ['RESET', 'PCI'],
      negotiated: null,
      pci: { address: NVME, driver: 'nvme', iommuGroup: '7' },
      config: { size: 256 },
    });
    expect(report.regions).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ name: 'bar0', size: 0x4000, flagNames: ['READ', 'WRITE'] }),
      ]),
    );
    const text = (await vfioUser('info', `pci:${NVME}`)).stdout;
    expect(text).toMatch(
      /PCI function\n +what +Non-volatile memory controller \(NVMe\): QEMU NVMe\n +driver +nvme\n +IOMMU group +7\n/,
    );
    expect(text).not.toMatch(/Protocol/);
  });

  test('lspci dumps config space, in the slot that the function has', async () => {
    const { status, stdout } = await vfioUser('lspci', 'pci:01:00.0');
    expect(status).toBe(0);
    expect(stdout).toMatch(/^0000:01:00\.0 .*\n00: 36 1b 10 00 /);
    expect((await vfioUser('lspci', 'pci:01:00.0', '--slot', '00:07.0')).stdout).toMatch(/^00:07\.0 /);
  });

  test('--sysfs is so also of what vfio-pci has, and of no socket', async () => {
    expect(await vfioUser('info', `pci:${BOUND}`, '--sysfs')).toMatchObject({ status: 0 });
    expect(await vfioUser('info', '/run/dev.sock', '--sysfs')).toMatchObject({ status: 2 });
  });

  test('a user who is shown 64 bytes of config space is told so', async () => {
    const bytes = machine.bytes('sys/bus/pci/devices', NVME, 'config')!;
    machine.put(`sys/bus/pci/devices/${NVME}/config`, bytes.subarray(0, 64));
    const { status, stderr } = await vfioUser('lspci', `pci:${NVME}`);
    expect({ status, stderr }).toEqual({
      status: 0,
      stderr: 'vfio-user: the first 64 bytes of config space: all of it is for root\n',
    });
    machine.put(`sys/bus/pci/devices/${NVME}/config`, bytes);
  });
});

interface Diagnosis {
  checks: { id: string; verdict: string; detail: string; remedy: string | null }[];
}

describe('doctor pci:', () => {
  async function diagnosis(address: string): Promise<Record<string, [string, string | null]>> {
    const { stdout } = await vfioUser('doctor', `pci:${address}`, '--json', '--gentle');
    const { checks } = JSON.parse(stdout) as Diagnosis;
    return Object.fromEntries(checks.map(({ id, verdict, remedy }) => [id, [verdict, remedy]]));
  }

  test('says what is in the way, with what mends it', async () => {
    const { status, stdout, stderr } = await vfioUser('doctor', `pci:${NVME}`);
    expect(status).toBe(1);
    expect(stderr).toBe(
      `vfio-user: 2 things in the way of driving ${NVME}: driver, locked-memory [ERR_VFIO_USER_NOT_READY]\n`,
    );
    expect(stdout).toMatch(/broken +driver +nvme has it, and it is in use: nvme0n1p1 is mounted at \//);
    expect(stdout).toMatch(/vfio-user pci bind 0000:01:00\.0/);
    expect(stdout).toMatch(/broken +locked-memory +65536 bytes may be locked/);
    expect(stdout).toMatch(/ok +interrupt-remapping/);
    expect(stdout).toMatch(/ok +reset +flr/);
    expect(stdout).toMatch(/ok +bars +BAR 0: 0x4000/);
  });

  test('of one that vfio-pci has', async () => {
    expect(await diagnosis(BOUND)).toMatchObject({
      driver: ['ok', null],
      group: ['broken', 'vfio-user pci bind 0000:03:00.1'],
      permission: ['broken', 'modprobe vfio-pci'],
      reset: ['note', null],
      open: ['not run', null],
    });
    machine.put('dev/vfio/9', '');
    mkdirSync(machine.path('proc/4711/fd'), { recursive: true });
    symlinkSync('/dev/vfio/9', machine.path('proc/4711/fd/3'));
    expect(await diagnosis(BOUND)).toMatchObject({
      permission: ['ok', null],
      'in-use': ['broken', 'kill 4711'],
    });
  });

  test('--only takes names of checks, and the exit status is theirs', async () => {
    expect(await vfioUser('doctor', `pci:${NVME}`, '--only', 'iommu')).toMatchObject({
      status: 0,
      stderr: '',
    });
    expect((await vfioUser('doctor', `pci:${NVME}`, '--only', 'stream')).status).toBe(2);
    expect((await vfioUser('doctor', `pci:${NVME}`, '--markdown')).status).toBe(2);
  });
});
