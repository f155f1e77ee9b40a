/**
 * Ranges of DMA addresses, none of which overlap, in order.
 *
 * All of them begin and end on pages of 4 KiB, so the table counts in pages: a page's number has 52 bits and is exact in
 * a double over the whole 64-bit space. Nothing here, nor in what looks an address up, needs a bigint.
 */
import { readUInt16, readUInt32 } from '../protocol/bytes.js';

export const PAGE_SIZE = 4096;
const PAGE_BITS = 12;
/** Pages in 2^32 bytes. */
const PAGES_PER_WORD = 2 ** (32 - PAGE_BITS);
/** One past the last page of the 64-bit space. */
export const END_PAGE = 2 ** (64 - PAGE_BITS);

export interface PageRange {
  /** The number of the first page. */
  readonly page: number;
  /** How many there are. */
  readonly pages: number;
}

/** The page of the 64-bit little-endian address at `bytes[at]`. */
export function readPage(bytes: Buffer, at: number): number {
  return readUInt32(bytes, at + 4) * PAGES_PER_WORD + (readUInt32(bytes, at) >>> PAGE_BITS);
}

/** Where in its page the address at `bytes[at]` lies. */
export function readPageOffset(bytes: Buffer, at: number): number {
  return readUInt16(bytes, at) & (PAGE_SIZE - 1);
}

export function pageOf(address: bigint): number {
  return Number(address >> BigInt(PAGE_BITS));
}

export function addressOf(page: number): bigint {
  return BigInt(page) << BigInt(PAGE_BITS);
}

export class IovaMap<T extends PageRange> implements Iterable<T> {
  readonly #entries: T[] = [];
  /** The last one found: devices stay in one range for a while. */
  #last: T | undefined;

  get size(): number {
    return this.#entries.length;
  }

  /** The entry that has the page. */
  find(page: number): T | undefined {
    const last = this.#last;
    if (last !== undefined && page >= last.page && page < last.page + last.pages) return last;
    const entry = this.#entries[this.#after(page) - 1];
    if (entry === undefined || page >= entry.page + entry.pages) return undefined;
    return (this.#last = entry);
  }

  /** The first entry that has a page of the range. */
  overlap(page: number, pages: number): T | undefined {
    const before = this.#entries[this.#after(page) - 1];
    if (before !== undefined && page < before.page + before.pages) return before;
    const next = this.#entries[this.#after(page)];
    return next !== undefined && next.page < page + pages ? next : undefined;
  }

  /** Adds an entry, which overlaps none. */
  insert(entry: T): void {
    this.#entries.splice(this.#after(entry.page), 0, entry);
  }

  delete(entry: T): void {
    const index = this.#after(entry.page) - 1;
    if (this.#entries[index] === entry) this.#entries.splice(index, 1);
    if (this.#last === entry) this.#last = undefined;
  }

  /** The first page from `from` on, a multiple of `alignment`, with `pages` free ones that end by `to`. */
  findGap(pages: number, alignment: number, from: number, to: number): number | undefined {
    let page = alignUp(from, alignment);
    for (
      let blocker = this.overlap(page, pages);
      blocker !== undefined;
      blocker = this.overlap(page, pages)
    ) {
      page = alignUp(blocker.page + blocker.pages, alignment);
    }
    return page + pages <= to ? page : undefined;
  }

  [Symbol.iterator](): Iterator<T> {
    // A copy: entries are deleted while they are walked through.
    return this.#entries.slice()[Symbol.iterator]();
  }

  /** The index of the first entry that begins after the page. */
  #after(page: number): number {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#entries[middle]!.page <= page) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
