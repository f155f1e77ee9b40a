/** Drivers of PCI functions, on a machine of files that does what the kernel does; spec/silicon has the kernel. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { mkdirSync, symlinkSync } from 'node:fs';
import { bindToVfio, hindrances, unbindFromVfio } from '../../lib/vfio/pci-binding.js';
import { pciFunction, pciFunctions, type PciFunction } from '../../lib/vfio/pci-functions.js';
import { PciNames } from '../../lib/vfio/pci-names.js';
import { usesOf } from '../../lib/vfio/pci-use.js';
import { MadeMachine } from '../support/machine.js';

const NVME = '0000:01:00.0';
const NIC = '0000:02:00.0';
let machine: MadeMachine;

beforeEach(() => {
  machine = new MadeMachine();
  machine.driver('vfio-pci');
  machine.add({ address: NVME, driver: 'nvme', group: '7' });
  machine.add({
    address: NIC,
    driver: 'e1000e',
    group: '8',
    vendor: 0x8086,
    device: 0x10d3,
    classCode: 0x020000,
  });
});

afterEach(() => machine.remove());

const at = (address: string): PciFunction => pciFunction(machine, new PciNames(machine), address);
const uses = (address: string): string[] => usesOf(machine, address).map(({ what }) => what);
const driver = (address: string): string | null => at(address).driver;

describe('functions', () => {
  test('are described by sysfs', () => {
    expect(at(NIC)).toEqual({
      address: NIC,
      vendorId: 0x8086,
      deviceId: 0x10d3,
      subsystemVendorId: 0x1af4,
      subsystemId: 0x1100,
      revisionId: 2,
      classCode: 0x020000,
      className: 'Ethernet controller',
      vendorName: null,
      deviceName: 'Intel 82574L (e1000e)',
      driver: 'e1000e',
      iommuGroup: '8',
      groupMembers: [{ address: NIC, driver: 'e1000e' }],
      isBridge: false,
    });
  });

  test('have the names that pciutils knows', () => {
    machine.put(
      'usr/share/misc/pci.ids',
      '# comment\n1b36  Red Hat, Inc.\n\t0001  PCI-PCI bridge\n\t0010  QEMU NVM Express Controller\n\t\t1af4 1100  not this\n' +
        'odd line\n8086  Intel Corporation\n\t10d3  82574L\nC 02  Network controller\n\t00  Ethernet controller\n',
    );
    expect([at(NVME).vendorName, at(NVME).deviceName]).toEqual([
      'Red Hat, Inc.',
      'QEMU NVM Express Controller',
    ]);
    expect([at(NIC).vendorName, at(NIC).deviceName]).toEqual(['Intel Corporation', '82574L']);
  });

  test('with files that make no sense are there all the same', () => {
    machine.add({ address: '0000:03:00.0' });
    for (const name of ['vendor', 'device', 'class'])
      machine.put(`sys/bus/pci/devices/0000:03:00.0/${name}`, 'x\n');
    mkdirSync(machine.path('sys/bus/pci/devices/nonsense'));
    expect(pciFunctions(machine, new PciNames(machine)).map((one) => [one.address, one.vendorId])).toEqual([
      [NVME, 0x1b36],
      [NIC, 0x8086],
      ['0000:03:00.0', 0],
    ]);
  });

  test('that are not there are said so', () => {
    expect(() => at('0000:09:00.0')).toThrow(/^there is no PCI device 0000:09:00\.0: `vfio-user pci list`/);
  });
});

describe('what a function is used for', () => {
  beforeEach(() => machine.disk(NVME, 'nvme0n1', '259:0', { nvme0n1p1: '259:1', nvme0n1p2: '259:2' }));

  test('nothing, where nothing is mounted', () => {
    machine.put('proc/self/mountinfo', '22 1 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n\n22\n');
    machine.put('proc/swaps', 'Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n');
    expect(uses(NVME)).toEqual([]);
  });

  test('a mounted partition, by its number or by what was mounted', () => {
    machine.put(
      'proc/self/mountinfo',
      '22 1 259:1 / /mnt/with\\040space rw shared:1 - ext4 /dev/root rw\n23 1 0:44 /sub /data rw - btrfs /dev/nvme0n1p2 rw\n',
    );
    expect(uses(NVME)).toEqual(['nvme0n1p1 is mounted at /mnt/with space', 'nvme0n1p2 is mounted at /data']);
    expect(uses(NIC)).toEqual([]);
  });

  test('one that only init has mounted', () => {
    machine.put('proc/1/mountinfo', '22 1 259:1 / / rw - ext4 /dev/root rw\n');
    expect(uses(NVME)).toEqual(['nvme0n1p1 is mounted at /']);
  });

  test('swap, device mapper and md', () => {
    machine.put('proc/swaps', 'Filename Type Size Used Priority\n/dev/nvme0n1p2 partition 1 0 -2\n');
    machine.put('sys/class/block/nvme0n1p1/holders/dm-0/x', '');
    machine.put('sys/class/block/dm-0/dm/name', 'vg-root\n');
    machine.put('sys/class/block/nvme0n1/holders/md127/x', '');
    expect(uses(NVME)).toEqual([
      'nvme0n1p2 is swap',
      'nvme0n1 is part of md127',
      'nvme0n1p1 is part of dm-0 (vg-root)',
    ]);
  });

  test('a namespace that is below its subsystem', () => {
    machine.put('sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n2/dev', '259:9\n');
    machine.linkTo('sys/class/block/nvme0n2', 'sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n2');
    machine.linkTo(
      'sys/class/nvme-subsystem/nvme-subsys0',
      'sys/devices/virtual/nvme-subsystem/nvme-subsys0',
    );
    machine.linkTo(
      'sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0',
      `sys/devices/pci0000:00/${NVME}/nvme/nvme0`,
    );
    machine.put('proc/self/mountinfo', '22 1 259:9 / /srv rw - xfs /dev/nvme0n2 rw\n');
    expect(uses(NVME)).toEqual(['nvme0n2 is mounted at /srv']);
  });

  test('a network interface that is up', () => {
    machine.network(NIC, 'eth0', 0x1003);
    machine.network(NIC, 'eth1', 0x1002);
    expect(uses(NIC)).toEqual(['network interface eth0 is up']);
  });

  test('virtual functions', () => {
    machine.put(`sys/bus/pci/devices/${NIC}/sriov_numvfs`, '2\n');
    expect(uses(NIC)).toEqual(['2 virtual functions would go with its driver']);
  });
});

describe('what hinders vfio-pci', () => {
  test('nothing', () => expect(hindrances(machine, at(NVME))).toEqual([]));

  test('a machine without an IOMMU, or without the module', () => {
    const bare = new MadeMachine();
    bare.add({ address: NVME, driver: 'nvme' });
    const names = new PciNames(bare);
    bare.put('proc/cpuinfo', 'vendor_id\t: GenuineIntel\n');
    expect(hindrances(bare, pciFunction(bare, names, NVME))).toEqual([
      'it has no IOMMU group: enable VT-d in the firmware, and start the kernel with intel_iommu=on',
      'vfio-pci is not loaded: `modprobe vfio-pci`',
    ]);
    bare.put('proc/cpuinfo', 'vendor_id\t: AuthenticAMD\n');
    expect(hindrances(bare, pciFunction(bare, names, NVME))[0]).toMatch(/AMD-Vi/);
    bare.remove();
  });

  test('that it is a bridge', () => {
    machine.add({ address: '0000:00:1c.0', driver: 'pcieport', group: '9', classCode: 0x060400 });
    expect(hindrances(machine, at('0000:00:1c.0'))).toEqual(['it is a bridge, and vfio-pci takes none']);
  });
});

describe('bind and unbind', () => {
  test('the old driver has it again', () => {
    expect(bindToVfio(machine, at(NVME), false)).toEqual({ from: 'nvme', to: 'vfio-pci' });
    expect(driver(NVME)).toBe('vfio-pci');
    expect(machine.told).toEqual([
      `vfio-pci > /sys/bus/pci/devices/${NVME}/driver_override`,
      `${NVME} > /sys/bus/pci/drivers/nvme/unbind`,
      `${NVME} > /sys/bus/pci/drivers_probe`,
    ]);
    expect(bindToVfio(machine, at(NVME), false)).toEqual({ from: 'vfio-pci', to: 'vfio-pci' });
    // Another one would take it by itself now.
    machine.driver('nvme2');
    machine.natural.set(NVME, 'nvme2');
    machine.refusing.add('nvme2');
    expect(unbindFromVfio(machine, NVME, false)).toEqual({ from: 'vfio-pci', to: 'nvme' });
    expect(driver(NVME)).toBe('nvme');
    expect(machine.text('sys/bus/pci/devices', NVME, 'driver_override')).toBe('(null)');
    expect(machine.list('run/vfio-user/pci')).toEqual([]);
  });

  test('one that had no driver has none again, and keeps its override', () => {
    machine.add({ address: '0000:03:00.0', group: '9' });
    machine.put('sys/bus/pci/devices/0000:03:00.0/driver_override', 'mine\n');
    bindToVfio(machine, at('0000:03:00.0'), false);
    expect(unbindFromVfio(machine, '0000:03:00.0', false)).toEqual({ from: 'vfio-pci', to: null });
    expect(machine.text('sys/bus/pci/devices/0000:03:00.0/driver_override')).toBe('mine');
  });

  test('an override that was vfio-pci’s already does not keep the old driver from it', () => {
    machine.put(`sys/bus/pci/devices/${NVME}/driver_override`, 'vfio-pci\n');
    bindToVfio(machine, at(NVME), false);
    expect(unbindFromVfio(machine, NVME, false)).toEqual({ from: 'vfio-pci', to: 'nvme' });
    expect(machine.text('sys/bus/pci/devices', NVME, 'driver_override')).toBe('(null)');
  });

  test('a driver that could not be had back is remembered over the next binding', () => {
    bindToVfio(machine, at(NVME), false);
    machine.refusing.add('nvme');
    expect(() => unbindFromVfio(machine, NVME, false)).toThrow(/nvme, which had it, did not take it/);
    machine.refusing.clear();
    expect(bindToVfio(machine, at(NVME), false)).toEqual({ from: null, to: 'vfio-pci' });
    expect(unbindFromVfio(machine, NVME, false)).toEqual({ from: 'vfio-pci', to: 'nvme' });
  });

  test('one that somebody else bound is the kernel’s to find a driver for', () => {
    machine.add({ address: '0000:03:00.0', group: '9', driver: 'vfio-pci' });
    machine.driver('nvme');
    machine.natural.set('0000:03:00.0', 'nvme');
    machine.put('sys/bus/pci/devices/0000:03:00.0/driver_override', 'vfio-pci\n');
    expect(unbindFromVfio(machine, '0000:03:00.0', false)).toEqual({ from: 'vfio-pci', to: 'nvme' });
  });

  test('is refused while something needs it, unless forced', () => {
    machine.network(NIC, 'eth0', 0x1003);
    expect(() => bindToVfio(machine, at(NIC), false)).toThrow(
      /^0000:02:00\.0 is in use: network interface eth0 is up\. --force/,
    );
    expect([machine.told, driver(NIC)]).toEqual([[], 'e1000e']);
    expect(bindToVfio(machine, at(NIC), true)).toEqual({ from: 'e1000e', to: 'vfio-pci' });
  });

  test('where vfio-pci does not take it, its driver has it as before', () => {
    machine.refusing.add('vfio-pci');
    expect(() => bindToVfio(machine, at(NVME), false)).toThrow(
      /^vfio-pci did not take 0000:01:00\.0, which has no driver/,
    );
    expect([driver(NVME), machine.text('sys/bus/pci/devices', NVME, 'driver_override')]).toEqual([
      'nvme',
      '(null)',
    ]);
    expect(machine.list('run/vfio-user/pci')).toEqual([]);
  });

  test('without an IOMMU nothing is touched', () => {
    machine.add({ address: '0000:03:00.0', driver: 'nvme' });
    expect(() => bindToVfio(machine, at('0000:03:00.0'), true)).toThrow(
      /cannot be bound to vfio-pci: it has no IOMMU group/,
    );
    expect(machine.told).toEqual([]);
  });

  test('a driver that does not take it back is told of, and may be tried again', () => {
    bindToVfio(machine, at(NVME), false);
    machine.refusing.add('nvme');
    expect(() => unbindFromVfio(machine, NVME, false)).toThrow(
      /^0000:01:00\.0 has no driver now: nvme, which had it, did not take it; `modprobe nvme`/,
    );
    machine.refusing.clear();
    expect(unbindFromVfio(machine, NVME, false)).toEqual({ from: null, to: 'nvme' });
  });

  test('unbind is refused for what vfio-pci does not have', () => {
    expect(() => unbindFromVfio(machine, NVME, false)).toThrow(/is bound to nvme, and is not vfio-pci's/);
  });

  test('and while a process has the group open', () => {
    bindToVfio(machine, at(NVME), false);
    mkdirSync(machine.path('proc/4711/fd'), { recursive: true });
    symlinkSync('/dev/vfio/7', machine.path('proc/4711/fd/9'));
    expect(() => unbindFromVfio(machine, NVME, false)).toThrow(/is open in process 4711; with --force/);
    expect(driver(NVME)).toBe('vfio-pci');
  });

  test.each(['nonsense', '{"driver":"../../x","override":null}', '{"driver":5,"override":null}', '{}', '..'])(
    'what is remembered is not believed: %s',
    (record) => {
      bindToVfio(machine, at(NVME), false);
      machine.put(`run/vfio-user/pci/${NVME}.json`, record);
      expect(unbindFromVfio(machine, NVME, false)).toEqual({ from: 'vfio-pci', to: 'nvme' });
      expect(machine.told.every((one) => !one.includes('..'))).toBe(true);
    },
  );
});
