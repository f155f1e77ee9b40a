/** Where the data of a command is: PRPs, SGLs, and the pages for data of this process. */
import type { DmaBuffer } from '../index.js';

/**
 * Physical Region Pages: where the data of a command is (NVM Express Base 2.0, section 4.1.1).
 *
 * ```
 *   one page          PRP1
 *   two pages         PRP1, PRP2
 *   more              PRP1, PRP2 ──▶ list: page 2, page 3, … (a full page of the list ends with a pointer to the next)
 * ```
 * Only the first page may begin within. Every command slot has a list of its own, so that none is ever built while
 * another is in use.
 *
 * What begins a list is the list of a shorter transfer, unless that ends where the long one's has the pointer to the next
 * page of the list. A list that begins one entry further on has it elsewhere.
 */

const ENTRY_SIZE = 8;
const TWO_32 = 2 ** 32;

export class PrpLists {
  /** PRP1 and PRP2 as last built: low and high dword of each. */
  readonly entries: Uint32Array = new Uint32Array(4);
  readonly #words: Uint32Array;
  readonly #low: number;
  readonly #high: number;
  readonly #pageSize: number;
  readonly #strideWords: number;
  /** Where the next entry goes, and how many are to come. */
  #cursor = 0;
  #left = 0;

  /** Whether the list of a transfer of `maxBytes` may go on in another page. */
  static isChained(maxBytes: number, pageSize: number): boolean {
    return Math.ceil(maxBytes / pageSize) * ENTRY_SIZE > pageSize;
  }

  /** Whether a list that begins with a page and has `count` entries ends where longer ones have a pointer. */
  static endsAtPointer(count: number, pageSize: number): boolean {
    const entriesAPage = pageSize / ENTRY_SIZE - 1;
    return count > entriesAPage && count % entriesAPage === 1;
  }

  /** Bytes that the list of one slot takes, for transfers of at most `maxBytes`, an entry that is skipped included. */
  static stride(maxBytes: number, pageSize: number): number {
    // An unaligned transfer touches one page more; the first page is in PRP1.
    const count = Math.ceil(maxBytes / pageSize);
    // A power of two never runs across a page.
    if (!PrpLists.isChained(maxBytes, pageSize)) {
      return Math.max(ENTRY_SIZE, 2 ** Math.ceil(Math.log2(count * ENTRY_SIZE)));
    }
    const entriesAPage = pageSize / ENTRY_SIZE - 1;
    return Math.ceil(count / entriesAPage) * pageSize;
  }

  /** Lists in `words`, which the controller finds at `iova`, at the beginning of a page. */
  constructor(words: Uint32Array, iova: bigint, stride: number, pageSize: number) {
    this.#words = words;
    this.#low = Number(BigInt.asUintN(32, iova));
    this.#high = Number(iova >> 32n);
    this.#pageSize = pageSize;
    this.#strideWords = stride >>> 2;
  }

  /** Builds `entries` for contiguous memory at `high * 2^32 + low`. Where the list is chained it may begin `skip` entries late, 0 or 1. */
  contiguous(slot: number, low: number, high: number, length: number, skip = 0): void {
    const page = this.#pageSize;
    const { entries } = this;
    entries[0] = low;
    entries[1] = high;
    entries[2] = 0;
    entries[3] = 0;
    const first = page - (low & (page - 1));
    if (length <= first) return;
    // May be more than 32 bits: the quotient is carried.
    let next = low + first;
    if (length <= first + page) {
      entries[2] = next >>> 0;
      entries[3] = high + Math.floor(next / TWO_32);
      return;
    }
    this.#begin(slot, Math.ceil((length - first) / page), skip);
    for (let at = first; at < length; at += page, next += page) {
      this.#put(next >>> 0, high + Math.floor(next / TWO_32));
    }
  }

  /** Builds `entries` for whole pages, at least one, given by their numbers from `high * 2^32 + low` on. */
  scattered(slot: number, low: number, high: number, pages: readonly number[]): void {
    const { entries } = this;
    const page = this.#pageSize;
    const address = (i: number) => low + pages[i]! * page;
    entries[0] = address(0) >>> 0;
    entries[1] = high + Math.floor(address(0) / TWO_32);
    entries[2] = 0;
    entries[3] = 0;
    if (pages.length === 2) {
      entries[2] = address(1) >>> 0;
      entries[3] = high + Math.floor(address(1) / TWO_32);
    }
    if (pages.length <= 2) return;
    this.#begin(slot, pages.length - 1, 0);
    for (let i = 1; i < pages.length; i++) {
      this.#put(address(i) >>> 0, high + Math.floor(address(i) / TWO_32));
    }
  }

  /** Whether contiguous memory that begins at `low`, of its address, takes more than PRP1. */
  needsTwo(low: number, length: number): boolean {
    return length > this.#pageSize - (low & (this.#pageSize - 1));
  }

  /** Makes `entries` an SGL Data Block descriptor instead (see `USES_SGL`). */
  block(low: number, high: number, length: number): void {
    const { entries } = this;
    entries[0] = low;
    entries[1] = high;
    entries[2] = length;
    entries[3] = 0;
  }

  /** Makes `entries` these two pointers. */
  verbatim(low: number, high: number, second: bigint): void {
    const { entries } = this;
    entries[0] = low;
    entries[1] = high;
    entries[2] = second === 0n ? 0 : Number(BigInt.asUintN(32, second));
    entries[3] = second === 0n ? 0 : Number(second >> 32n);
  }

  #begin(slot: number, count: number, skip: number): void {
    this.#cursor = slot * this.#strideWords + (skip * ENTRY_SIZE) / 4;
    this.#left = count;
    const at = this.#low + this.#cursor * 4;
    this.entries[2] = at >>> 0;
    this.entries[3] = this.#high + Math.floor(at / TWO_32);
  }

  #put(low: number, high: number): void {
    const words = this.#words;
    const isLastOfPage = (this.#cursor * 4 + ENTRY_SIZE) % this.#pageSize === 0;
    if (isLastOfPage && this.#left > 1) {
      const next = this.#low + this.#cursor * 4 + ENTRY_SIZE;
      words[this.#cursor] = next >>> 0;
      words[this.#cursor + 1] = this.#high + Math.floor(next / TWO_32);
      this.#cursor += 2;
    }
    words[this.#cursor] = low;
    words[this.#cursor + 1] = high;
    this.#cursor += 2;
    this.#left--;
  }
}

/**
 * Scatter-gather lists (NVM Express Base 2.0, section 4.1.2), as far as commands here need them: one Data Block descriptor
 * in the command itself names all of its data, wherever that begins and however long it is. Its memory is contiguous. What
 * lies on one page has PRP1, which is as little.
 *
 * ```
 *   dwords 6, 7: address     dword 8: length     dword 9: type and subtype, both 0
 * ```
 */

/** PSDT 01b in dword 0 of a command: its data pointer is an SGL descriptor. Never in admin commands. */
export const USES_SGL = 1 << 14;

/** Whether a controller takes them, of any alignment or of dwords: SGLS as Identify Controller has it. */
export function takesSgls(sgls: number): boolean {
  const support = sgls & 3;
  return support === 1 || support === 2;
}

/**
 * Pages between the device and memory that it cannot reach. PRP lists let any pages serve, so there is one stack of
 * free ones, and no fragmentation.
 *
 * Pages stay with their command until the controller has completed it or was reset: nothing else makes sure that it does
 * not write to them any more.
 */
export class BouncePool {
  readonly #bytes: Buffer;
  readonly #pageSize: number;
  readonly #free: number[];
  /** The address of page 0. */
  readonly low: number;
  readonly high: number;

  constructor(buffer: DmaBuffer, pageSize: number) {
    this.#bytes = buffer.bytes;
    this.#pageSize = pageSize;
    this.low = Number(BigInt.asUintN(32, buffer.iova));
    this.high = Number(buffer.iova >> 32n);
    const count = Math.floor(buffer.size / pageSize);
    // The last is taken first: pages are given out in ascending order at first.
    this.#free = Array.from({ length: count }, (_, i) => count - 1 - i);
  }

  /** How many pages `bytes` take. */
  pagesFor(bytes: number): number {
    return Math.ceil(bytes / this.#pageSize);
  }

  /** `count` pages by number, or undefined where there are not as many. */
  take(count: number): number[] | undefined {
    if (this.#free.length < count) return undefined;
    const pages: number[] = [];
    for (let i = 0; i < count; i++) pages.push(this.#free.pop()!);
    return pages;
  }

  give(pages: readonly number[]): void {
    for (let i = pages.length - 1; i >= 0; i--) this.#free.push(pages[i]!);
  }

  clear(pages: readonly number[]): void {
    for (const page of pages) this.#bytes.fill(0, page * this.#pageSize, (page + 1) * this.#pageSize);
  }

  copyIn(pages: readonly number[], source: Uint8Array): void {
    const page = this.#pageSize;
    for (let i = 0; i < pages.length; i++) {
      const part = pages.length === 1 ? source : source.subarray(i * page, (i + 1) * page);
      this.#bytes.set(part, pages[i]! * page);
    }
  }

  copyOut(pages: readonly number[], target: Uint8Array): void {
    const page = this.#pageSize;
    for (let i = 0; i < pages.length; i++) {
      const at = i * page;
      const length = Math.min(page, target.length - at);
      const from = pages[i]! * page;
      target.set(this.#bytes.subarray(from, from + length), at);
    }
  }
}
