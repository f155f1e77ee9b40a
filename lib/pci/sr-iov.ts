/** Single Root I/O Virtualization (PCI Express Base 6.0 section 9.3.3). */
import type { Bar } from './bars.js';
import { decodeBarRegisters } from './bars.js';
import { fits, type CapabilityPlace } from './capability-list.js';
import type { BarLocation } from './interrupt-capabilities.js';
import { bit, bits, type RegisterFields } from './register-bits.js';

export interface SrIovFields {
  readonly kind: 'sr-iov';
  readonly capabilities: RegisterFields<typeof decodeCapabilities>;
  readonly control: RegisterFields<typeof decodeControl>;
  readonly migrationStatus: boolean;
  /** Virtual functions (VFs) at first. */
  readonly initialVfs: number;
  /** The most that there can be. */
  readonly totalVfs: number;
  /** Those that there are. */
  readonly numVfs: number;
  readonly functionDependencyLink: number;
  /** Added to the function's routing id: the first VF. */
  readonly firstVfOffset: number;
  /** From one VF's routing id to the next. */
  readonly vfStride: number;
  readonly vfDeviceId: number;
  /** Bit n: pages of 2^(n + 12) bytes. */
  readonly supportedPageSizes: number;
  /** Bit n: pages of 2^(n + 12) bytes. */
  readonly systemPageSize: number;
  /** Where the first VF's BARs are, those of the others behind; one that is not implemented has address 0n. */
  readonly vfBars: readonly Bar[];
  /** The VF migration state array. */
  readonly migrationStateArray: BarLocation;
}

function decodeCapabilities(register: number) {
  return {
    migration: bit(register, 0),
    ariHierarchyPreserved: bit(register, 1),
    tag10Requester: bit(register, 2),
    migrationInterruptMessageNumber: register >>> 21,
  };
}

function decodeControl(register: number) {
  return {
    vfEnable: bit(register, 0),
    migrationEnable: bit(register, 1),
    migrationInterruptEnable: bit(register, 2),
    memorySpaceEnable: bit(register, 3),
    ariCapableHierarchy: bit(register, 4),
    tag10RequesterEnable: bit(register, 5),
  };
}

const LENGTH = 0x40;
const VF_BARS = 6;

export function decodeSrIov(place: CapabilityPlace): SrIovFields | null {
  const { config, offset, problems } = place;
  if (!fits(place, LENGTH, 'Single Root I/O Virtualization')) return null;
  const capabilities = config.getUInt32(offset + 0x04);
  const array = config.getUInt32(offset + 0x3c);
  return {
    kind: 'sr-iov',
    capabilities: decodeCapabilities(capabilities),
    control: decodeControl(config.getUInt16(offset + 0x08)),
    migrationStatus: (config.getUInt16(offset + 0x0a) & 1) !== 0,
    initialVfs: config.getUInt16(offset + 0x0c),
    totalVfs: config.getUInt16(offset + 0x0e),
    numVfs: config.getUInt16(offset + 0x10),
    functionDependencyLink: config.getUInt8(offset + 0x12),
    firstVfOffset: config.getUInt16(offset + 0x14),
    vfStride: config.getUInt16(offset + 0x16),
    vfDeviceId: config.getUInt16(offset + 0x1a),
    supportedPageSizes: config.getUInt32(offset + 0x1c),
    systemPageSize: config.getUInt32(offset + 0x20),
    vfBars: decodeBarRegisters(config, offset + 0x24, VF_BARS, 'VF BAR', problems),
    migrationStateArray: { bir: bits(array, 0, 3), offset: (array & ~7) >>> 0 },
  };
}
