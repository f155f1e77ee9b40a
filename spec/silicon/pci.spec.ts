/** Drivers of the guest's functions: bound, unbound, refused; what sysfs says of them; `doctor` and `pci list`. In a guest alone. */
import { afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { describeFunction, localFunction } from '../../lib/cli/local-function.js';
import { KernelDevice } from '../../lib/vfio/index.js';
import { Machine } from '../../lib/vfio/machine.js';
import { bindToVfio, unbindFromVfio, type Rebound } from '../../lib/vfio/pci-binding.js';
import { diagnoseFunction } from '../../lib/vfio/pci-doctor.js';
import { pciFunction, pciFunctions, type PciFunction } from '../../lib/vfio/pci-functions.js';
import { PciNames } from '../../lib/vfio/pci-names.js';
import { until } from '../support/until.js';
import { FUNCTIONS, NOBODY, vfioUser, vfioUserAs } from './cli.js';

jest.setTimeout(300_000);

const [EDU, NVME, E1000E] = FUNCTIONS as [string, string, string];
const inGuest = FUNCTIONS.length === 0 ? describe.skip : describe;
let machine: Machine;
const at = (address: string): PciFunction => pciFunction(machine, new PciNames(machine), address);
const bind = (address: string, force = false): Rebound => bindToVfio(machine, at(address), force);
const unbind = (address: string): Rebound => unbindFromVfio(machine, address, false);
const busybox = (...args: string[]): string => execFileSync('busybox', args, { encoding: 'utf8' });

beforeAll(() => {
  machine = new Machine();
});

/** As the other specs want them. */
afterEach(() => {
  for (const address of FUNCTIONS) if (at(address).driver !== 'vfio-pci') bind(address, true);
});

inGuest('drivers of functions', () => {
  test('a network card goes to its driver and back, and is kept while it is up', () => {
    expect(unbind(E1000E)).toEqual({ from: 'vfio-pci', to: 'e1000e' });
    const [name] = machine.list('/sys/bus/pci/devices', E1000E, 'net');
    busybox('ip', 'link', 'set', name!, 'up');
    expect(() => bind(E1000E)).toThrow(`${E1000E} is in use: network interface ${name} is up. --force`);
    expect(at(E1000E).driver).toBe('e1000e');
    busybox('ip', 'link', 'set', name!, 'down');
    expect(bind(E1000E)).toEqual({ from: 'e1000e', to: 'vfio-pci' });
    expect(unbind(E1000E)).toEqual({ from: 'vfio-pci', to: 'e1000e' });
    busybox('ip', 'link', 'set', machine.list('/sys/bus/pci/devices', E1000E, 'net')[0]!, 'up');
    expect(bind(E1000E, true)).toEqual({ from: 'e1000e', to: 'vfio-pci' });
    new KernelDevice(E1000E).close();
  });

  test('a disk goes to its driver and back, and is kept while it is swap', async () => {
    expect(unbind(NVME)).toEqual({ from: 'vfio-pci', to: 'nvme' });
    const disk = (): string | undefined =>
      machine.list('/sys/class/block').find((name) => /^nvme\d+n\d+$/.test(name));
    await until(() => disk() !== undefined && machine.has('/dev', disk()!), 'a disk', 20);
    const file = `/dev/${disk()}`;
    busybox('mkswap', file);
    busybox('swapon', file);
    expect(() => bind(NVME)).toThrow(`${NVME} is in use: ${disk()} is swap. --force`);
    busybox('swapoff', file);
    expect(bind(NVME)).toEqual({ from: 'nvme', to: 'vfio-pci' });
    new KernelDevice(NVME).close();
  });

  test('one that is open stays where it is', () => {
    const device = new KernelDevice(EDU);
    try {
      expect(() => unbind(EDU)).toThrow(`is open in process ${process.pid}; with --force`);
    } finally {
      device.close();
    }
    expect(at(EDU).driver).toBe('vfio-pci');
  });

  test('without vfio-pci sysfs says the same as with it', () => {
    unbind(E1000E);
    const local = localFunction(`pci:${E1000E}`, false)!;
    expect(local.isToBeOpened).toBe(false);
    const { regions, config, irqs } = describeFunction(local);
    expect(at(E1000E).driver).toBe('e1000e');
    bind(E1000E, true);
    const device = new KernelDevice(E1000E);
    try {
      const size = (index: number): number => device.regions.find((one) => one.index === index)?.size ?? 0;
      for (const { index } of regions.slice(0, 6))
        expect([index, regions[index]!.size]).toEqual([index, size(index)]);
      expect(config!.size).toBe(size(7));
      expect(irqs.map(({ count }) => count)).toEqual([0, 1, 2].map((index) => device.irqs[index]!.count));
    } finally {
      device.close();
    }
  });
});

inGuest('looking', () => {
  test('doctor finds nothing in the way, and what is', async () => {
    const opens = (address: string): string => {
      new KernelDevice(address).close();
      return 'it opens';
    };
    const verdicts = (): Record<string, string> =>
      Object.fromEntries(diagnoseFunction(machine, at(EDU), opens).map(({ id, verdict }) => [id, verdict]));
    expect(verdicts()).toEqual({
      function: 'ok',
      iommu: 'ok',
      modules: 'ok',
      driver: 'ok',
      group: 'ok',
      permission: 'ok',
      'in-use': 'ok',
      'interrupt-remapping': 'ok',
      'locked-memory': 'ok',
      reset: 'note',
      bars: 'ok',
      open: 'ok',
    });
    const device = new KernelDevice(EDU);
    expect(verdicts()).toMatchObject({ 'in-use': 'broken', open: 'not run' });
    device.close();
    const outcome = await vfioUserAs(NOBODY, 'doctor', `pci:${EDU}`);
    expect(outcome.status).toBe(1);
    expect(outcome.stdout).toMatch(
      /broken +permission +\/dev\/vfio\/\d+ may not be read and written by user 65534/,
    );
  });

  test('pci list has the functions', async () => {
    const { status, stdout } = await vfioUser('pci', 'list', '--json');
    expect(status).toBe(0);
    const listed = JSON.parse(stdout) as (PciFunction & { hindrances: string[] })[];
    expect(listed.map(({ address }) => address)).toEqual(
      pciFunctions(machine, new PciNames(machine)).map(({ address }) => address),
    );
    for (const address of FUNCTIONS) {
      expect(listed.find((one) => one.address === address)).toMatchObject({
        driver: 'vfio-pci',
        hindrances: [],
      });
    }
  });
});
