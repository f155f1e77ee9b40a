/** Where to put BARs: what firmware does on a real machine, for a device that has nobody else to do it. */
import { bigInteger, integer } from '../fields.js';
import type { BarKind } from './bars.js';

/** A BAR that needs a place, or that has one which others must keep clear of. */
export interface BarRequest {
  /** The register's number, 0 to 5. */
  readonly index: number;
  /** What the BAR decodes. */
  readonly kind: BarKind;
  /** Bytes. A BAR of size 0 does not exist and gets nothing. */
  readonly size: number | bigint;
  /** Where it is; 0n or nothing asks for a place. */
  readonly address?: bigint | undefined;
}

/** An address for a BAR. */
export interface BarAssignment {
  /** The register's number, 0 to 5. */
  readonly index: number;
  /** What the BAR decodes. */
  readonly kind: BarKind;
  /** Where it is to be, a multiple of its size. */
  readonly address: bigint;
}

/** Addresses that may be handed out: `[start, end)`. */
export interface AddressWindow {
  /** The first address. */
  readonly start: bigint;
  /** One past the last address. */
  readonly end: bigint;
}

/**
 * The windows used where nothing else is said: those of a PC. Address 0 means «not assigned», and the end of the
 * 32-bit space belongs to interrupt controllers and firmware.
 */
export const BAR_WINDOWS: Readonly<Record<BarKind, AddressWindow>> = {
  io: { start: 0x1000n, end: 0x1_0000n },
  memory32: { start: 0x8000_0000n, end: 0xfec0_0000n },
  memory64: { start: 0x100_0000_0000n, end: 0x1_0000_0000_0000n },
};

/** The least distance between BARs: QEMU maps memory by pages, and smaller ones would share one. */
const MEMORY_GRANULE = 0x1000n;

interface Placed extends AddressWindow {
  readonly io: boolean;
}

/**
 * Plans an address for each BAR that has a size and no address: naturally aligned and clear of all others. BARs that
 * have an address keep it and do not appear in the answer. What does not fit is named in `problems`.
 *
 * @throws TypeError, RangeError for a size that is no integer or negative, or an address that is not 64 bits.
 */
export function assignBars(
  requests: readonly BarRequest[],
  windows: Readonly<Record<BarKind, AddressWindow>> = BAR_WINDOWS,
): { assignments: BarAssignment[]; problems: string[] } {
  const bars = requests
    .map(({ index, kind, size, address = 0n }) => ({
      index,
      kind,
      size: sizeOf(`BAR ${index}: size`, size),
      address: bigInteger(`BAR ${index}: address`, address),
    }))
    .filter(({ size }) => size !== 0n);

  const taken: Placed[] = bars
    .filter(({ address }) => address !== 0n)
    .map(({ kind, size, address }) => ({ io: kind === 'io', start: address, end: address + size }));
  const assignments: BarAssignment[] = [];
  const problems: string[] = [];
  // The largest first: then natural alignment leaves no gaps.
  const homeless = bars
    .filter(({ address }) => address === 0n)
    .sort((a, b) => (a.size === b.size ? a.index - b.index : a.size < b.size ? 1 : -1));
  for (const { index, kind, size } of homeless) {
    const place = findPlace(kind, naturalSize(kind, size), windows[kind], taken);
    if (place === undefined) {
      problems.push(`BAR ${index} (${kind}) of 0x${size.toString(16)} bytes does not fit its address window`);
      continue;
    }
    taken.push(place);
    assignments.push({ index, kind, address: place.start });
  }
  return { assignments: assignments.sort((a, b) => a.index - b.index), problems };
}

/** The first aligned place in the window that nothing has taken. `length` is a power of two. */
function findPlace(
  kind: BarKind,
  length: bigint,
  window: AddressWindow,
  taken: readonly Placed[],
): Placed | undefined {
  const io = kind === 'io';
  let start = alignUp(window.start, length);
  while (start + length <= window.end) {
    const end = start + length;
    const obstacle = taken.find((other) => other.io === io && other.start < end && start < other.end);
    if (obstacle === undefined) return { io, start, end };
    // Beyond `start`, since the obstacle ends beyond it: the search ends.
    start = alignUp(obstacle.end, length);
  }
  return undefined;
}

/** The power of two that a BAR of `size` bytes takes and is aligned to. */
function naturalSize(kind: BarKind, size: bigint): bigint {
  const least = kind === 'io' ? 4n : MEMORY_GRANULE;
  return size <= least ? least : 1n << BigInt((size - 1n).toString(2).length);
}

function sizeOf(name: string, size: number | bigint): bigint {
  // What fits no window is a problem of the device's, not a mistake of the caller's.
  if (typeof size === 'bigint') return bigInteger(name, size, 0n, size);
  return BigInt(integer(name, size, 0, Number.MAX_SAFE_INTEGER));
}

function alignUp(address: bigint, alignment: bigint): bigint {
  return (address + alignment - 1n) & -alignment;
}
