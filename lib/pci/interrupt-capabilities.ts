/** MSI and MSI-X (PCI Local Bus 3.0 sections 6.8.1 and 6.8.2, PCI Express Base 7.7.1 and 7.7.2). */
import { fits, type CapabilityPlace } from './capability-list.js';
import { hex } from './registers.js';

/** Where the registers of an MSI capability stand in config space; null for those that it does not have. */
export interface MsiOffsets {
  /** Message control. */
  readonly control: number;
  /** The lower 32 bits of the message address. */
  readonly address: number;
  /** The upper 32 bits of the message address; null where it has 32 bits. */
  readonly addressHigh: number | null;
  /** Message data. */
  readonly data: number;
  /** The mask bits; null where vectors are not maskable. */
  readonly mask: number | null;
  /** The pending bits; null where vectors are not maskable. */
  readonly pending: number | null;
}

/** Message signalled interrupts (PCI Local Bus 3.0 section 6.8.1). */
export interface MsiFields {
  /** Which capability it is. */
  readonly kind: 'msi';
  /** The device interrupts by MSI. */
  readonly enabled: boolean;
  /** Vectors that the device can use: 1, 2, 4 … 32. */
  readonly vectorsCapable: number;
  /** Vectors that software has allowed: 1, 2, 4 … 32. */
  readonly vectorsEnabled: number;
  /** Whether the message address has 64 bits. */
  readonly is64Bit: boolean;
  /** Whether each vector has a mask bit and a pending bit. */
  readonly maskable: boolean;
  /** Where messages are written. */
  readonly address: bigint;
  /** What is written there; the low bits become the vector. */
  readonly data: number;
  /** Bit n masks vector n; only where they are maskable. */
  readonly maskBits?: number;
  /** Bit n: vector n is pending; only where they are maskable. */
  readonly pendingBits?: number;
  /** Where the registers stand in config space. */
  readonly offsets: MsiOffsets;
}

/** A structure in a BAR's memory. */
export interface BarLocation {
  /** The BAR's index. */
  readonly bir: number;
  /** Bytes from the BAR's start, a multiple of 8. */
  readonly offset: number;
}

/** MSI-X (PCI Local Bus 3.0 section 6.8.2). */
export interface MsixFields {
  /** Which capability it is. */
  readonly kind: 'msix';
  /** The device interrupts by MSI-X. */
  readonly enabled: boolean;
  /** While set, all vectors are masked. */
  readonly functionMask: boolean;
  /** Entries of the table, 1 to 2048. */
  readonly tableSize: number;
  /** The table of vectors. */
  readonly table: BarLocation;
  /** The pending bit array. */
  readonly pba: BarLocation;
  /** Where the control register stands in config space. */
  readonly controlOffset: number;
}

/** Bits of MSI's message control register. */
export const MsiControl = {
  ENABLE: 0x0001,
  MULTIPLE_MESSAGE_CAPABLE: 0x000e,
  MULTIPLE_MESSAGE_ENABLE: 0x0070,
  ADDRESS_64: 0x0080,
  PER_VECTOR_MASKING: 0x0100,
} as const;

/** Bits of MSI-X's message control register. */
export const MsixControl = {
  TABLE_SIZE: 0x07ff,
  FUNCTION_MASK: 0x4000,
  ENABLE: 0x8000,
} as const;

const MSIX_LENGTH = 12;
const BIR_MASK = 0x7;
const MOST_VECTORS_LOG2 = 5;

export function decodeMsi(place: CapabilityPlace): MsiFields | null {
  const { config, offset, problems } = place;
  if (!fits(place, 4, 'MSI')) return null;
  const control = config.getUInt16(offset + 2);
  const is64Bit = (control & MsiControl.ADDRESS_64) !== 0;
  const maskable = (control & MsiControl.PER_VECTOR_MASKING) !== 0;
  const offsets = msiOffsets(offset, is64Bit, maskable);
  const end = offsets.pending === null ? offsets.data + 2 : offsets.pending + 4;
  if (!fits(place, end - offset, 'MSI')) return null;

  const vectorCount = (log2: number, register: string) => {
    if (log2 > MOST_VECTORS_LOG2) problems.push(`MSI at ${hex(offset)}: ${register} ${log2} is reserved`);
    return 1 << Math.min(log2, MOST_VECTORS_LOG2);
  };
  const high = offsets.addressHigh === null ? 0 : config.getUInt32(offsets.addressHigh);
  return {
    kind: 'msi',
    enabled: (control & MsiControl.ENABLE) !== 0,
    vectorsCapable: vectorCount(
      (control & MsiControl.MULTIPLE_MESSAGE_CAPABLE) >> 1,
      'multiple message capable',
    ),
    vectorsEnabled: vectorCount(
      (control & MsiControl.MULTIPLE_MESSAGE_ENABLE) >> 4,
      'multiple message enable',
    ),
    is64Bit,
    maskable,
    address: (BigInt(high) << 32n) | BigInt(config.getUInt32(offsets.address)),
    data: config.getUInt16(offsets.data),
    ...(offsets.mask !== null && { maskBits: config.getUInt32(offsets.mask) }),
    ...(offsets.pending !== null && { pendingBits: config.getUInt32(offsets.pending) }),
    offsets,
  };
}

/** The 64-bit address moves what follows it by a dword; mask and pending bits follow the data's dword. */
function msiOffsets(offset: number, is64Bit: boolean, maskable: boolean): MsiOffsets {
  const data = offset + (is64Bit ? 0x0c : 0x08);
  return {
    control: offset + 2,
    address: offset + 4,
    addressHigh: is64Bit ? offset + 8 : null,
    data,
    mask: maskable ? data + 4 : null,
    pending: maskable ? data + 8 : null,
  };
}

export function decodeMsix(place: CapabilityPlace): MsixFields | null {
  const { config, offset, problems } = place;
  if (!fits(place, MSIX_LENGTH, 'MSI-X')) return null;
  const control = config.getUInt16(offset + 2);
  const location = (register: number, what: string): BarLocation => {
    const value = config.getUInt32(register);
    const bir = value & BIR_MASK;
    if (bir > 5) problems.push(`MSI-X at ${hex(offset)}: the ${what} is in BAR ${bir}, which cannot be`);
    return { bir, offset: (value & ~BIR_MASK) >>> 0 };
  };
  return {
    kind: 'msix',
    enabled: (control & MsixControl.ENABLE) !== 0,
    functionMask: (control & MsixControl.FUNCTION_MASK) !== 0,
    tableSize: (control & MsixControl.TABLE_SIZE) + 1,
    table: location(offset + 4, 'table'),
    pba: location(offset + 8, 'pending bit array'),
    controlOffset: offset + 2,
  };
}
