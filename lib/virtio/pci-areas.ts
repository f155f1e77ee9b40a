/**
 * Where a device has its structures (Virtual I/O Device 1.2, section 4.1.4): vendor-specific capabilities say which BAR,
 * offset and length. Of several of a type the first that can be used counts, as the specification has it.
 */
import { UnsupportedError, type Device, type Region } from '../index.js';
import { decodeVirtioCapability, VirtioCapabilityType, type VirtioCapability } from '../pci/index.js';
import { CommonConfig } from './constants.js';

const MOST_BARS = 6;
const ISR_BYTES = 1;

/** A structure of the device: `length` bytes of `region` from `offset` on, all of which are there. */
export interface VirtioArea {
  readonly region: Region;
  readonly offset: number;
  readonly length: number;
}

export interface VirtioAreas {
  readonly common: VirtioArea;
  readonly notify: VirtioArea;
  readonly notifyMultiplier: number;
  readonly isr: VirtioArea | undefined;
  /** Of device types that have one. */
  readonly device: VirtioArea | undefined;
  /** VIRTIO_PCI_CAP_PCI_CFG is there: config space reaches the BARs. */
  readonly hasConfigAccess: boolean;
}

/** @throws UnsupportedError where a structure is missing, or is not within its BAR. */
export function findAreas(device: Device): VirtioAreas {
  const problems: string[] = [];
  const capabilities: VirtioCapability[] = [];
  for (const capability of device.config.capabilities) {
    if (capability.kind !== 'vendor-specific') continue;
    const decoded = decodeVirtioCapability(capability);
    if (decoded === undefined) problems.push(`capability at 0x${capability.offset.toString(16)}: too short`);
    else capabilities.push(decoded);
  }
  const first = (type: number, least: number): [VirtioArea, VirtioCapability] | undefined => {
    for (const capability of capabilities) {
      if (capability.type !== type) continue;
      const area = areaOf(device, capability, least);
      if (typeof area !== 'string') return [area, capability];
      problems.push(`${capability.typeName}: ${area}`);
    }
    return undefined;
  };
  const required = (type: number, least: number, name: string): [VirtioArea, VirtioCapability] => {
    const found = first(type, least);
    if (found !== undefined) return found;
    const why = problems.length === 0 ? '' : ` (${problems.join('; ')})`;
    throw new UnsupportedError(`the device has no ${name} structure that can be used${why}`);
  };
  const [common] = required(VirtioCapabilityType.COMMON, CommonConfig.SIZE, 'common configuration');
  const [notify, { notifyMultiplier = 0 }] = required(VirtioCapabilityType.NOTIFY, 2, 'notification');
  return {
    common,
    notify,
    notifyMultiplier,
    isr: first(VirtioCapabilityType.ISR, ISR_BYTES)?.[0],
    device: first(VirtioCapabilityType.DEVICE, 1)?.[0],
    hasConfigAccess: capabilities.some(({ type }) => type === VirtioCapabilityType.PCI_CONFIG_ACCESS),
  };
}

/** The structure, or what is wrong with where it is said to be. */
function areaOf(device: Device, capability: VirtioCapability, least: number): VirtioArea | string {
  const { bar, offset, length } = capability;
  if (bar >= MOST_BARS) return `BAR ${bar} is reserved`;
  const region = device.regions.find(({ index }) => index === bar);
  if (region === undefined || region.size === 0) return `the device has no BAR ${bar}`;
  if (offset + length > region.size)
    return `[${offset}, ${offset + length}) is not within BAR ${bar}, which has ${region.size} bytes`;
  if (length < least) return `it has ${length} bytes, and needs ${least}`;
  // Of 4 bytes, as the widest register is; of notifications 2.
  if (capability.type === VirtioCapabilityType.COMMON && offset % 4 !== 0)
    return `offset ${offset} is not a multiple of 4`;
  return { region, offset, length };
}
