/**
 * Which of the client's memory the device has written through mappings, as servers tell it: DMA_LOGGING
 * ("VFIO_USER_DEVICE_FEATURE"), DIRTY_PAGES as it was until 2022, or no more than a bitmap with DMA_UNMAP. What was
 * written by message is not in it: the client has seen that itself.
 */
import {
  DEVICE_FEATURE_GET,
  DEVICE_FEATURE_PROBE,
  DEVICE_FEATURE_SET,
  DIRTY_PAGES_FLAG_START,
  Feature,
} from '../protocol/constants.js';
import { DEVICE_FEATURE_SIZE } from '../protocol/device-feature.js';
import { decodeDirtyPages, DIRTY_PAGES_REPLY_SIZE, encodeDirtyPagesReply } from '../protocol/dirty-pages.js';
import { dirtyBitmapSize } from '../protocol/dirty-bitmap.js';
import type { DmaUnmap } from '../protocol/dma-map.js';
import { decodeDmaLogging, decodeDmaLoggingReport, type DmaLoggingRange } from '../protocol/dma-logging.js';
import { DeviceError, EINVAL, ENOTSUP } from './device-error.js';
import type { FeatureRequest } from './device-model.js';
import type { DmaRegions, DmaRegion } from './dma-regions.js';

/** How dirty pages are reported to the client: by the feature, by the old command, by DMA_UNMAP alone, or not at all. */
export type DirtyTelling = 'none' | 'logging' | 'legacy' | 'unmap';

/** The most pages of one bitmap. */
const MAX_BITMAP_BYTES = 1 << 20;
const PAGE = 4096;

export class DirtyTracking {
  readonly #telling: DirtyTelling;
  readonly #table: DmaRegions;
  /** Of each window the pages that were written, by number. */
  readonly #pages = new WeakMap<DmaRegion, Set<number>>();
  /** Bytes; 0 while nothing is tracked. */
  #pageSize = 0;
  /** In order, and apart from each other; none for everything. */
  #ranges: readonly DmaLoggingRange[] = [];

  constructor(telling: DirtyTelling, table: DmaRegions) {
    this.#telling = telling;
    this.#table = table;
    if (telling === 'unmap') this.#pageSize = PAGE;
  }

  /** Whether the feature is answered here. */
  answers(feature: number): boolean {
    return this.#telling === 'logging' && METHODS.has(feature);
  }

  /** DMA_LOGGING_START, _STOP and _REPORT: the reply's data. `argsz` is how much its payload may take. */
  feature({ feature, operations, data }: FeatureRequest, argsz: number): Uint8Array {
    const method = METHODS.get(feature) ?? 0;
    if ((operations & DEVICE_FEATURE_PROBE) !== 0) {
      if ((operations & ~DEVICE_FEATURE_PROBE & ~method) !== 0)
        throw new DeviceError(EINVAL, 'no such method');
      return data;
    }
    if (operations !== method) throw new DeviceError(EINVAL, 'no such method');
    if (feature === Feature.DMA_LOGGING_STOP) this.#stop();
    else if (feature === Feature.DMA_LOGGING_START) {
      const { pageSize, ranges } = decodeDmaLogging(data);
      this.#start(pageSize, ranges);
      const reply = Buffer.from(data);
      reply.writeBigUInt64LE(BigInt(this.#pageSize), 0);
      return reply;
    } else {
      const { iova, length, pageSize } = decodeDmaLoggingReport(data);
      // Checked before pages are taken: what cannot be reported stays dirty.
      const needed = DEVICE_FEATURE_SIZE + data.byteLength + dirtyBitmapSize(length, pageSize);
      if (needed > argsz) throw new DeviceError(EINVAL, `the reply takes ${needed} bytes`);
      return Buffer.concat([data, this.#report(iova, length, pageSize)]);
    }
    return data;
  }

  /** DIRTY_PAGES: the reply's payload. */
  command(bytes: Buffer, start: number, end: number): Uint8Array | null {
    if (this.#telling !== 'legacy') throw new DeviceError(ENOTSUP, 'DIRTY_PAGES');
    const { argsz, flags, range } = decodeDirtyPages(bytes, start, end);
    if (flags === DIRTY_PAGES_FLAG_START) this.#start(PAGE, []);
    else if (range === undefined) this.#stop();
    else {
      const { iova, size, bitmap } = range;
      if (bitmap.pgsize !== this.#pageSize || bitmap.size !== dirtyBitmapSize(size, PAGE)) {
        throw new DeviceError(EINVAL, `bitmaps are of pages of ${PAGE} bytes, while they are tracked`);
      }
      // What cannot be reported stays dirty.
      const fits = DIRTY_PAGES_REPLY_SIZE + bitmap.size <= argsz;
      const data = fits ? this.#report(iova, size, PAGE) : Buffer.alloc(bitmap.size);
      return encodeDirtyPagesReply(range, data, argsz);
    }
    return null;
  }

  /**
   * What DMA_UNMAP is to bring: call the result once the window is not used any more. Undefined where no bitmap is wanted.
   *
   * @throws DeviceError where there is none.
   */
  atUnmap({ address, size, bitmap }: DmaUnmap): (() => { pgsize: number; data: Buffer }) | undefined {
    if (bitmap === undefined) return undefined;
    if (this.#telling === 'none') throw new DeviceError(ENOTSUP, 'no dirty pages are tracked');
    if (this.#pageSize === 0) throw new DeviceError(EINVAL, 'no dirty pages are tracked now');
    const { pgsize } = bitmap;
    checkBitmap(size, pgsize);
    if (bitmap.size !== dirtyBitmapSize(size, pgsize))
      throw new DeviceError(EINVAL, 'the bitmap has another size');
    const window = this.#table.exact(address, size);
    return () => {
      const data = Buffer.alloc(bitmap.size);
      if (window !== undefined) this.#take(window, address, size, pgsize, data);
      return { pgsize, data };
    };
  }

  /** The device has written there. */
  mark(window: DmaRegion, offset: number, length: number): void {
    if (this.#pageSize === 0 || length === 0) return;
    let pages = this.#pages.get(window);
    if (pages === undefined) this.#pages.set(window, (pages = new Set()));
    const last = Math.floor((offset + length - 1) / this.#pageSize);
    for (let page = Math.floor(offset / this.#pageSize); page <= last; page++) {
      if (this.#isWatched(window.address + BigInt(page * this.#pageSize))) pages.add(page);
    }
  }

  /** There may be 65,536 ranges, and as many pages in a write: each is found by halving. */
  #isWatched(address: bigint): boolean {
    if (this.#ranges.length === 0) return true;
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { iova, length } = this.#ranges[middle]!;
      if (iova + length > address) high = middle;
      else low = middle + 1;
    }
    const first = this.#ranges[low];
    return first !== undefined && first.iova < address + BigInt(this.#pageSize);
  }

  #start(pageSize: number, ranges: readonly DmaLoggingRange[]): void {
    if (this.#pageSize !== 0) throw new DeviceError(EINVAL, 'dirty pages are being tracked');
    // Finer than a page, and coarser than a huge one, is not kept.
    this.#pageSize = Math.min(Math.max(pageSize, PAGE), 2 << 20);
    this.#ranges = merged(ranges);
  }

  #stop(): void {
    this.#pageSize = 0;
    for (const window of this.#table) this.#pages.delete(window);
  }

  #report(iova: bigint, length: bigint, pageSize: number): Buffer {
    if (this.#pageSize === 0) throw new DeviceError(EINVAL, 'dirty pages are not being tracked');
    checkBitmap(length, pageSize);
    const bitmap = Buffer.alloc(dirtyBitmapSize(length, pageSize));
    for (const window of this.#table.overlapping(iova, length))
      this.#take(window, iova, length, pageSize, bitmap);
    return bitmap;
  }

  /** Moves the window's pages in `[iova, iova + length)` to the bitmap. */
  #take(window: DmaRegion, iova: bigint, length: bigint, pageSize: number, bitmap: Buffer): void {
    const pages = this.#pages.get(window);
    if (pages === undefined) return;
    for (const page of this.#candidates(pages, window.address, iova, length)) {
      const begin = window.address + BigInt(page * this.#pageSize);
      const from = begin > iova ? begin : iova;
      const ends = [begin + BigInt(this.#pageSize), window.address + window.size, iova + length];
      const to = ends.reduce((least, end) => (end < least ? end : least));
      if (from >= to) continue;
      pages.delete(page);
      const last = Number((to - 1n - iova) / BigInt(pageSize));
      for (let bit = Number((from - iova) / BigInt(pageSize)); bit <= last; bit++)
        bitmap[bit >>> 3]! |= 1 << (bit & 7);
    }
  }

  /** Those of the pages that may lie in a range: all of them, or all that lie there, whichever are fewer. */
  #candidates(pages: Set<number>, address: bigint, iova: bigint, length: bigint): Iterable<number> {
    const size = BigInt(this.#pageSize);
    const first = iova > address ? (iova - address) / size : 0n;
    const end = (iova + length - address + size - 1n) / size;
    if (end - first >= BigInt(pages.size)) return pages;
    return Array.from({ length: Number(end - first) }, (_, i) => Number(first) + i).filter((n) =>
      pages.has(n),
    );
  }
}

/** In order; those that overlap or touch are one. */
function merged(ranges: readonly DmaLoggingRange[]): DmaLoggingRange[] {
  const sorted = [...ranges].sort((a, b) => (a.iova < b.iova ? -1 : a.iova > b.iova ? 1 : 0));
  const apart: DmaLoggingRange[] = [];
  for (const { iova, length } of sorted) {
    const last = apart.at(-1);
    const end = iova + length;
    if (last !== undefined && iova <= last.iova + last.length) {
      if (end > last.iova + last.length) last.length = end - last.iova;
    } else apart.push({ iova, length });
  }
  return apart;
}

const METHODS = new Map<number, number>([
  [Feature.DMA_LOGGING_START, DEVICE_FEATURE_SET],
  [Feature.DMA_LOGGING_STOP, DEVICE_FEATURE_SET],
  [Feature.DMA_LOGGING_REPORT, DEVICE_FEATURE_GET],
]);

function checkBitmap(length: bigint, pageSize: number): void {
  if (length === 0n || dirtyBitmapSize(length, pageSize) > MAX_BITMAP_BYTES) {
    throw new DeviceError(EINVAL, `no bitmap of ${length} bytes in pages of ${pageSize}`);
  }
}
