/** Where a virtio device has its structures: vendor-specific capabilities (Virtual I/O Device 1.2, section 4.1.4). */
import type { VendorSpecificFields } from './capabilities.js';

/** `cfg_type`: which structure it is. */
export const VirtioCapabilityType = {
  COMMON: 1,
  NOTIFY: 2,
  ISR: 3,
  DEVICE: 4,
  PCI_CONFIG_ACCESS: 5,
  SHARED_MEMORY: 8,
  VENDOR: 9,
} as const;

/** As lspci calls them. */
const TYPE_NAMES: Readonly<Record<number, string>> = {
  [VirtioCapabilityType.COMMON]: 'CommonCfg',
  [VirtioCapabilityType.NOTIFY]: 'Notify',
  [VirtioCapabilityType.ISR]: 'ISR',
  [VirtioCapabilityType.DEVICE]: 'DeviceCfg',
  [VirtioCapabilityType.PCI_CONFIG_ACCESS]: 'PciCfgAccess',
  [VirtioCapabilityType.SHARED_MEMORY]: 'SharedMemory',
  [VirtioCapabilityType.VENDOR]: 'Vendor',
};

/** A structure of a virtio device, as its capability says. */
export interface VirtioCapability {
  /** `cfg_type`; see `VirtioCapabilityType`. */
  readonly type: number;
  /** What lspci calls it: `CommonCfg`; `Unknown` where there is no name. */
  readonly typeName: string;
  /** The BAR that it is in; more than 5 are reserved. */
  readonly bar: number;
  /** Tells structures of one type apart. */
  readonly id: number;
  /** Where in the BAR it begins, bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** Of notifications: `notify_off_multiplier`, bytes from one queue's register to the next. */
  readonly notifyMultiplier: number | undefined;
}

/** What precedes `bytes` in the capability: id, next, length. */
const HEADER = 3;
const SIZE = 16;
const MULTIPLIER = 16;
const NOTIFY_SIZE = 20;
const HIGH_OFFSET = 16;
const HIGH_LENGTH = 20;
const SHARED_MEMORY_SIZE = 24;

/**
 * Decodes a vendor-specific capability of a virtio device; undefined where it is too short for one. Whose capability it is
 * config space does not say: ask where the vendor id is 0x1af4.
 */
export function decodeVirtioCapability({
  bytes,
  length,
}: Pick<VendorSpecificFields, 'bytes' | 'length'>): VirtioCapability | undefined {
  const size = Math.min(length, bytes.length + HEADER);
  const type = bytes[0];
  if (size < SIZE || type === undefined) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (at: number) => view.getUint32(at - HEADER, true);
  let offset = word(8);
  let areaLength = word(12);
  if (type === VirtioCapabilityType.NOTIFY && size < NOTIFY_SIZE) return undefined;
  if (type === VirtioCapabilityType.SHARED_MEMORY) {
    if (size < SHARED_MEMORY_SIZE) return undefined;
    offset += word(HIGH_OFFSET) * 2 ** 32;
    areaLength += word(HIGH_LENGTH) * 2 ** 32;
  }
  return {
    type,
    typeName: TYPE_NAMES[type] ?? 'Unknown',
    bar: bytes[4 - HEADER]!,
    id: bytes[5 - HEADER]!,
    offset,
    length: areaLength,
    notifyMultiplier: type === VirtioCapabilityType.NOTIFY ? word(MULTIPLIER) : undefined,
  };
}
