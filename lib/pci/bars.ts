/** Base address registers (PCI Local Bus 3.0 section 6.2.5). */
import { bigInteger, integer, outOfRange, UINT32_MAX, UINT64_MAX } from '../fields.js';
import { zeroExtended, type ConfigReader } from './config-reader.js';
import { HEADER_TYPE_MASK, PCI_HEADER_SIZE, PciConfig, PciHeaderType } from './registers.js';

/** What a BAR decodes: memory with an address of 32 or 64 bits, or I/O. */
export type BarKind = 'memory32' | 'memory64' | 'io';

/** One base address register, or the pair of them that a 64-bit one takes. */
export interface Bar {
  /** The register's number, 0 to 5: also the vfio region's index. A 64-bit BAR has the number of its lower half. */
  readonly index: number;
  /** What the BAR decodes. */
  readonly kind: BarKind;
  /** Reads have no side effects. Always false for I/O. */
  readonly prefetchable: boolean;
  /** Where the device decodes it; 0n while nobody has assigned it. */
  readonly address: bigint;
}

const IO_SPACE = 0x1;
const MEMORY_TYPE_MASK = 0x6;
const MEMORY_TYPE_64 = 0x4;
const PREFETCHABLE = 0x8;
/** The bits below an address, which say what it is. */
const IO_FLAGS = 0x3;
const MEMORY_FLAGS = 0xf;

/** Offset in config space of BAR `index` (0 to 5). */
export function barOffset(index: number): number {
  return PciConfig.BAR0 + 4 * integer('index', index, 0, 5);
}

/**
 * Decodes the BARs of a header: six registers in type 0, two in type 1, and in type 2 the one of a CardBus bridge's own
 * registers.
 *
 * A register that is not implemented reads as zero, as does an unassigned 32-bit memory BAR: only sizes (of
 * regions, or by `barSizeFromMask`) tell them apart, so both are listed.
 */
export function decodeBars(config: ConfigReader): { bars: Bar[]; problems: string[] } {
  const problems: string[] = [];
  const registers = zeroExtended(config);
  if (config.size < PCI_HEADER_SIZE) {
    problems.push(`config space has ${config.size} bytes, too few for a header`);
  }
  const count = barCount(registers.getUInt8(PciConfig.HEADER_TYPE) & HEADER_TYPE_MASK);
  return { bars: decodeBarRegisters(registers, PciConfig.BAR0, count, 'BAR', problems), problems };
}

/** The BARs of `count` registers from `offset` on; what they are called begins each problem. */
export function decodeBarRegisters(
  registers: ConfigReader,
  offset: number,
  count: number,
  what: string,
  problems: string[],
): Bar[] {
  const bars: Bar[] = [];
  for (let index = 0; index < count; index++) {
    const low = registers.getUInt32(offset + 4 * index);
    const kind = barKind(low);
    if (kind === 'io') {
      bars.push({ index, kind, prefetchable: false, address: BigInt((low & ~IO_FLAGS) >>> 0) });
      continue;
    }

    const type = low & MEMORY_TYPE_MASK;
    if (type !== 0 && type !== MEMORY_TYPE_64)
      problems.push(`${what} ${index} has the reserved memory type ${type >> 1}`);
    const prefetchable = (low & PREFETCHABLE) !== 0;
    const address = BigInt((low & ~MEMORY_FLAGS) >>> 0);
    if (kind === 'memory32') {
      bars.push({ index, kind, prefetchable, address });
    } else if (index + 1 === count) {
      problems.push(`${what} ${index} is 64 bits wide, but no register follows it`);
    } else {
      const high = registers.getUInt32(offset + 4 * (index + 1));
      bars.push({ index, kind, prefetchable, address: (BigInt(high) << 32n) | address });
      index++;
    }
  }
  return bars;
}

/**
 * The size in bytes of a BAR from what its registers read after all ones were written to them (`high` counts for a
 * 64-bit one only); 0n where the BAR is not implemented. The size is the lowest address bit that can be set, so
 * that I/O BARs without the upper 16 bits come out right.
 */
export function barSizeFromMask(low: number, high = 0): bigint {
  const kind = barKind(low);
  let mask = BigInt((low & ~(kind === 'io' ? IO_FLAGS : MEMORY_FLAGS)) >>> 0);
  if (kind === 'memory64') mask |= BigInt(high >>> 0) << 32n;
  return mask & -mask;
}

/**
 * What to write to a BAR's registers to assign `address`: one dword, or two for a 64-bit BAR, the lower one first.
 *
 * @throws TypeError, RangeError for an address that the BAR cannot hold: one that is not a multiple of 16, of 4 for I/O,
 * among it.
 */
export function encodeBarAddress(kind: BarKind, address: bigint): number[] {
  bigInteger(`${kind} BAR: address`, address, 0n, kind === 'memory64' ? UINT64_MAX : BigInt(UINT32_MAX));
  const multiple = (kind === 'io' ? IO_FLAGS : MEMORY_FLAGS) + 1;
  if (address % BigInt(multiple) !== 0n) {
    throw outOfRange(`${kind} BAR: address must be a multiple of ${multiple}, got 0x${address.toString(16)}`);
  }
  const low = Number(BigInt.asUintN(32, address));
  return kind === 'memory64' ? [low, Number(address >> 32n)] : [low];
}

function barCount(headerType: number): number {
  if (headerType === PciHeaderType.DEVICE) return 6;
  if (headerType === PciHeaderType.BRIDGE) return 2;
  return headerType === PciHeaderType.CARDBUS ? 1 : 0;
}

function barKind(low: number): BarKind {
  if ((low & IO_SPACE) !== 0) return 'io';
  return (low & MEMORY_TYPE_MASK) === MEMORY_TYPE_64 ? 'memory64' : 'memory32';
}
