/** What sysfs says of a PCI function before anybody opens it. */
import { existsSync, readdirSync, readlinkSync, statSync } from 'node:fs';
import path from 'node:path';
import { VfioUserError } from '../errors.js';

const DEVICES = '/sys/bus/pci/devices';

/** Functions that the IOMMU cannot tell apart belong to one owner. */
export interface GroupMember {
  readonly address: string;
  /** Undefined where it has none. */
  readonly driver: string | undefined;
}

function linkOf(address: string, name: string): string | undefined {
  try {
    return path.basename(readlinkSync(path.join(DEVICES, address, name)));
  } catch {
    return undefined;
  }
}

/** The number of the function's IOMMU group. @throws VfioUserError where there is no such function, or no IOMMU for it. */
export function groupOf(address: string): string {
  if (!existsSync(path.join(DEVICES, address))) {
    throw new VfioUserError(
      'ENODEV',
      `there is no PCI device ${address}: \`lspci -D\` lists those that there are`,
    );
  }
  const group = linkOf(address, 'iommu_group');
  if (group !== undefined) return group;
  throw new VfioUserError(
    'ENODEV',
    `${address} has no IOMMU group: enable the IOMMU in the firmware (VT-d, AMD-Vi) and on the kernel's command line ` +
      '(intel_iommu=on). Without one, vfio-pci can be made to take the device (noiommu), and the device can do no DMA',
  );
}

/** The driver that has the function. */
export function driverOf(address: string): string | undefined {
  return linkOf(address, 'driver');
}

/** All functions of an IOMMU group. */
export function membersOf(group: string): GroupMember[] {
  const names = readdirSync(`/sys/kernel/iommu_groups/${group}/devices`).sort();
  return names.map((address) => ({ address, driver: driverOf(address) }));
}

/** `root:kvm, mode 660`, as far as it can be told. */
export function ownerOf(file: string): string {
  try {
    const { uid, gid, mode } = statSync(file);
    return `user ${uid}, group ${gid}, mode ${(mode & 0o777).toString(8)}`;
  } catch {
    return 'nobody';
  }
}
