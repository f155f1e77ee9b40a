/** Single Root I/O Virtualization (PCI Express Base 6.0 section 9.3.3). */
import type { Bar } from './bars.js';
import { decodeBarRegisters } from './bars.js';
import { fits, type CapabilityPlace } from './capability-list.js';
import type { BarLocation } from './interrupt-capabilities.js';
import { bit, bits } from './register-bits.js';

/** SR-IOV Capabilities (9.3.3.2). */
export interface SrIovCapabilities {
  /** VF migration is supported. */
  readonly migration: boolean;
  /** ARI Capable Hierarchy is kept across power states. */
  readonly ariHierarchyPreserved: boolean;
  /** VFs can use 10-bit tags. */
  readonly tag10Requester: boolean;
  /** The message number of the VF migration interrupt. */
  readonly migrationInterruptMessageNumber: number;
}

/** SR-IOV Control (9.3.3.3). */
export interface SrIovControl {
  /** VFs are enabled. */
  readonly vfEnable: boolean;
  /** VF migration is enabled. */
  readonly migrationEnable: boolean;
  /** VF migration interrupts are enabled. */
  readonly migrationInterruptEnable: boolean;
  /** VFs answer to memory accesses. */
  readonly memorySpaceEnable: boolean;
  /** VFs may have function numbers of 8 bits. */
  readonly ariCapableHierarchy: boolean;
  /** VFs use 10-bit tags. */
  readonly tag10RequesterEnable: boolean;
}

/** Single Root I/O Virtualization (PCI Express Base 6.0 section 9.3.3). */
export interface SrIovFields {
  /** Which capability it is. */
  readonly kind: 'sr-iov';
  /** The capabilities register. */
  readonly capabilities: SrIovCapabilities;
  /** The control register. */
  readonly control: SrIovControl;
  /** A VF migration request is pending. */
  readonly migrationStatus: boolean;
  /** Virtual functions (VFs) at first. */
  readonly initialVfs: number;
  /** The most that there can be. */
  readonly totalVfs: number;
  /** Those that there are. */
  readonly numVfs: number;
  /** The function that this one depends on; its own number where there is none. */
  readonly functionDependencyLink: number;
  /** Added to the function's routing id: the first VF. */
  readonly firstVfOffset: number;
  /** From one VF's routing id to the next. */
  readonly vfStride: number;
  /** The device id of the VFs. */
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

function decodeCapabilities(register: number): SrIovCapabilities {
  return {
    migration: bit(register, 0),
    ariHierarchyPreserved: bit(register, 1),
    tag10Requester: bit(register, 2),
    migrationInterruptMessageNumber: register >>> 21,
  };
}

function decodeControl(register: number): SrIovControl {
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
