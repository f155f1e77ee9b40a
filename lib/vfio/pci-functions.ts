/** The PCI functions of a machine, by what sysfs says of them: nothing is opened or bound. */
import { VfioUserError } from '../errors.js';
import { knownDeviceName, pciClassName } from '../pci/index.js';
import type { Machine } from './machine.js';
import type { PciNames } from './pci-names.js';

export const DEVICES = '/sys/bus/pci/devices';
export const DRIVERS = '/sys/bus/pci/drivers';
export const GROUPS = '/sys/kernel/iommu_groups';
export const VFIO_PCI = 'vfio-pci';
/** Drivers that do nothing to a function, so that their members of a group hinder nobody; bridges' do not either. */
const HARMLESS = ['pci-stub', 'pcieport'];
const BRIDGE_CLASS = 0x06;
const ADDRESS = /^[\da-f]{4,8}:[\da-f]{2}:[01][\da-f]\.[0-7]$/;

/** One of an IOMMU group: the IOMMU cannot tell its members apart, so they belong to one owner. */
export interface GroupMember {
  address: string;
  /** null where it has none. */
  driver: string | null;
}

/** A function, before anybody opens it. */
export interface PciFunction {
  /** In full. */
  address: string;
  vendorId: number;
  deviceId: number;
  subsystemVendorId: number;
  subsystemId: number;
  revisionId: number;
  /** 24 bits: base class, sub-class, programming interface. */
  classCode: number;
  className: string;
  vendorName: string | null;
  deviceName: string | null;
  /** null where it has none. */
  driver: string | null;
  /** Its IOMMU group; null where there is no IOMMU for it. */
  iommuGroup: string | null;
  /** All of the group, this function among them. */
  groupMembers: GroupMember[];
  isBridge: boolean;
}

/** In the order of their addresses. */
export function pciFunctions(machine: Machine, names: PciNames): PciFunction[] {
  return machine
    .list(DEVICES)
    .filter((name) => ADDRESS.test(name))
    .map((address) => describe(machine, names, address));
}

/** @throws VfioUserError ENODEV where there is no such function. */
export function pciFunction(machine: Machine, names: PciNames, address: string): PciFunction {
  requireFunction(machine, address);
  return describe(machine, names, address);
}

/** @throws VfioUserError ENODEV where there is no such function. */
export function requireFunction(machine: Machine, address: string): void {
  if (machine.has(DEVICES, address)) return;
  throw new VfioUserError(
    'ENODEV',
    `there is no PCI device ${address}: \`vfio-user pci list\` has those that there are`,
  );
}

export function driverOf(machine: Machine, address: string): string | null {
  return machine.link(DEVICES, address, 'driver') ?? null;
}

/** vfio-pci, and the kernel's variants of it for single devices (mlx5_vfio_pci). */
export function isVfioDriver(driver: string | null): boolean {
  return driver !== null && /(?:^|[-_])vfio[-_]pci$/.test(driver);
}

/** Members whose drivers keep the group from vfio. */
export function hinderingMembers({ groupMembers }: Pick<PciFunction, 'groupMembers'>): GroupMember[] {
  return groupMembers.filter(
    ({ driver }) => driver !== null && !isVfioDriver(driver) && !HARMLESS.includes(driver),
  );
}

function describe(machine: Machine, names: PciNames, address: string): PciFunction {
  const number = (name: string): number => machine.number(DEVICES, address, name) ?? 0;
  const [vendorId, deviceId, classCode] = [number('vendor'), number('device'), number('class')];
  const iommuGroup = machine.link(DEVICES, address, 'iommu_group') ?? null;
  const base = (classCode >>> 16) & 0xff;
  return {
    address,
    vendorId,
    deviceId,
    subsystemVendorId: number('subsystem_vendor'),
    subsystemId: number('subsystem_device'),
    revisionId: number('revision'),
    classCode,
    className: pciClassName(base, (classCode >>> 8) & 0xff, classCode & 0xff),
    vendorName: names.vendor(vendorId) ?? null,
    deviceName: names.device(vendorId, deviceId) ?? knownDeviceName(vendorId, deviceId) ?? null,
    driver: driverOf(machine, address),
    iommuGroup,
    groupMembers: iommuGroup === null ? [] : membersOf(machine, iommuGroup),
    isBridge: base === BRIDGE_CLASS,
  };
}

function membersOf(machine: Machine, group: string): GroupMember[] {
  return machine
    .list(GROUPS, group, 'devices')
    .map((address) => ({ address, driver: driverOf(machine, address) }));
}
