/**
 * Dirty bitmaps, as DMA_UNMAP, DIRTY_PAGES and DMA_LOGGING_REPORT carry them: an array of little-endian 64-bit words,
 * one bit for each page, the first page in the lowest bit of the first word. Little-endian words make that bit `n % 8`
 * of byte `n / 8`. (The specification's formula takes the address modulo 64 where servers take the page.)
 */
import { bigInteger, outOfRange, wrongType } from '../fields.js';
import { isPowerOfTwo } from './bytes.js';

const PAGES_PER_WORD = 64n;
const BYTES_PER_WORD = 8n;

/** Pages of `pageSize` bytes that `length` bytes take. */
export function pageCount(length: bigint, pageSize: number): number {
  return Number(divideUp(length, BigInt(pageSize)));
}

/**
 * Bytes of the bitmap for `length` bytes of memory, a multiple of 8.
 *
 * @throws RangeError where the page size is not a power of two; TypeError, RangeError for a length that is no 64-bit
 * bigint.
 */
export function dirtyBitmapSize(length: bigint, pageSize: number): number {
  bigInteger('length', length);
  requirePageSize('pageSize', pageSize);
  return Number(divideUp(divideUp(length, BigInt(pageSize)), PAGES_PER_WORD) * BYTES_PER_WORD);
}

/** Whether the page with this number, counted from the bitmap's first address, is dirty. */
export function isPageDirty(bitmap: Uint8Array, page: number): boolean {
  return ((bitmap[Math.floor(page / 8)] ?? 0) & (1 << (page % 8))) !== 0;
}

/** The numbers of the dirty pages, in order. */
export function* dirtyPages(bitmap: Uint8Array): Generator<number, void, undefined> {
  for (const [i, byte] of bitmap.entries()) {
    if (byte === 0) continue;
    for (let bit = 0; bit < 8; bit++) if ((byte & (1 << bit)) !== 0) yield i * 8 + bit;
  }
}

/** Whether any page from `pages` on is marked: bits that stand for nothing must be zero. */
export function hasBitsBeyond(bitmap: Uint8Array, pages: number): boolean {
  const whole = Math.floor(pages / 8);
  if (whole >= bitmap.length) return false;
  if ((bitmap[whole] ?? 0) >> (pages % 8) !== 0) return true;
  return bitmap.subarray(whole + 1).some((byte) => byte !== 0);
}

/** Misuse by the caller: a TypeError or RangeError unless `value` is the size of a page. */
export function requirePageSize(name: string, value: number): number {
  if (typeof value !== 'number') throw wrongType(name, 'a number', value);
  if (isPageSize(value)) return value;
  throw outOfRange(`${name} must be a power of two, got ${value}`);
}

/** Whether a number is a power of two that is exact. */
export function isPageSize(value: number): boolean {
  return Number.isSafeInteger(value) && isPowerOfTwo(BigInt(value));
}

function divideUp(value: bigint, by: bigint): bigint {
  return (value + by - 1n) / by;
}
