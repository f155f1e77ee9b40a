/** Feature bits and their names (Virtual I/O Device 1.2, sections 5 and 6). */
import { VirtioDeviceType } from './constants.js';

/** Reserved feature bits, which every device may offer (section 6). */
export const VirtioFeature = {
  INDIRECT_DESC: 28,
  EVENT_IDX: 29,
  VERSION_1: 32,
  ACCESS_PLATFORM: 33,
  RING_PACKED: 34,
  IN_ORDER: 35,
  ORDER_PLATFORM: 36,
  SR_IOV: 37,
  NOTIFICATION_DATA: 38,
  NOTIF_CONFIG_DATA: 39,
  RING_RESET: 40,
} as const;

/** Of block devices (section 5.2.3). */
export const BlkFeature = {
  SIZE_MAX: 1,
  SEG_MAX: 2,
  GEOMETRY: 4,
  RO: 5,
  BLK_SIZE: 6,
  FLUSH: 9,
  TOPOLOGY: 10,
  CONFIG_WCE: 11,
  MQ: 12,
  DISCARD: 13,
  WRITE_ZEROES: 14,
  LIFETIME: 15,
  SECURE_ERASE: 16,
  ZONED: 17,
} as const;

/** Of network devices (section 5.1.3). */
export const NetFeature = {
  CSUM: 0,
  GUEST_CSUM: 1,
  CTRL_GUEST_OFFLOADS: 2,
  MTU: 3,
  MAC: 5,
  GUEST_TSO4: 7,
  GUEST_TSO6: 8,
  GUEST_ECN: 9,
  GUEST_UFO: 10,
  HOST_TSO4: 11,
  HOST_TSO6: 12,
  HOST_ECN: 13,
  HOST_UFO: 14,
  MRG_RXBUF: 15,
  STATUS: 16,
  CTRL_VQ: 17,
  CTRL_RX: 18,
  CTRL_VLAN: 19,
  GUEST_ANNOUNCE: 21,
  MQ: 22,
  CTRL_MAC_ADDR: 23,
  HASH_REPORT: 57,
  RSS: 60,
  STANDBY: 62,
  SPEED_DUPLEX: 63,
} as const;

/** Of consoles (section 5.3.3). */
export const ConsoleFeature = { SIZE: 0, MULTIPORT: 1, EMERG_WRITE: 2 } as const;

/** Of SCSI hosts (section 5.6.3). */
export const ScsiFeature = { INOUT: 0, HOTPLUG: 1, CHANGE: 2, T10_PI: 3 } as const;

const BY_TYPE: Readonly<Record<number, Readonly<Record<string, number>>>> = {
  [VirtioDeviceType.NETWORK]: NetFeature,
  [VirtioDeviceType.BLOCK]: BlkFeature,
  [VirtioDeviceType.CONSOLE]: ConsoleFeature,
  [VirtioDeviceType.SCSI]: ScsiFeature,
};
const BITS = 64;

/** The features that are set, by name in the order of their bits; `FEATURE_41` where there is none. */
export function virtioFeatureNames(type: number, features: bigint): string[] {
  const names: string[] = [];
  for (let bit = 0; bit < BITS; bit++) if (hasFeature(features, bit)) names.push(featureName(type, bit));
  return names;
}

export function featureName(type: number, bit: number): string {
  for (const table of [BY_TYPE[type] ?? {}, VirtioFeature])
    for (const [name, at] of Object.entries(table)) if (at === bit) return name;
  return `FEATURE_${bit}`;
}

export function hasFeature(features: bigint, bit: number): boolean {
  return ((features >> BigInt(bit)) & 1n) === 1n;
}

export function featureMask(...bits: readonly number[]): bigint {
  return bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);
}
