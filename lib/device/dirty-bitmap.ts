/** Pages that were written, one bit each, in blocks that exist where a page was written. */
import { PAGE_SIZE, addressOf, type PageRange } from './iova-map.js';

/** Memory that may have been written. */
export interface DirtyRange {
  /** Where it begins: an address of the device. */
  readonly iova: bigint;
  /** In bytes. */
  readonly length: number;
}

/** Bits from `from` on, to `to`, which is not among them. */
export interface Run {
  readonly from: number;
  readonly to: number;
}

const BLOCK_PAGES = 32_768;
/** All blocks of which every page was written: of a large mapping that may be most. Never changed. */
const WHOLE_BLOCK: Uint8Array = new Uint8Array(BLOCK_PAGES / 8).fill(0xff);

type Blocks = ReadonlyMap<number, Uint8Array>;

export class DirtyBitmap {
  #blocks = new Map<number, Uint8Array>();
  /** In pages of the table: what is marked is rounded out to it. */
  readonly #granule: number;

  /** `pageSize` in bytes, a power of two. */
  constructor(pageSize = PAGE_SIZE) {
    this.#granule = Math.max(1, pageSize / PAGE_SIZE);
  }

  get isEmpty(): boolean {
    return this.#blocks.size === 0;
  }

  /** Marks `pages` pages from `page` on. */
  mark(page: number, pages: number): void {
    const end = Math.ceil((page + pages) / this.#granule) * this.#granule;
    for (let at = Math.floor(page / this.#granule) * this.#granule; at < end;) {
      const number = Math.floor(at / BLOCK_PAGES);
      const upTo = Math.min(end, (number + 1) * BLOCK_PAGES);
      if (upTo - at === BLOCK_PAGES) this.#blocks.set(number, WHOLE_BLOCK);
      else this.#markPart(number, at - number * BLOCK_PAGES, upTo - number * BLOCK_PAGES);
      at = upTo;
    }
  }

  /** The marked ranges in order; neighbours are one. */
  ranges(): Generator<PageRange, void, undefined> {
    return rangesOf(this.#blocks);
  }

  /** Takes all that is marked, as far as it lies in one of `within`, which are in order and do not overlap. */
  take(within: readonly PageRange[] | undefined): DirtyRange[] {
    return [...this.takeEach(within)];
  }

  /** The same one by one: all of it is taken at once, and what is marked from then on is not among it. */
  takeEach(within: readonly PageRange[] | undefined): Iterable<DirtyRange> {
    const blocks = this.#blocks;
    this.#blocks = new Map();
    return clipped(rangesOf(blocks), within);
  }

  #markPart(number: number, from: number, to: number): void {
    let block = this.#blocks.get(number);
    if (block === WHOLE_BLOCK) return;
    if (block === undefined) this.#blocks.set(number, (block = new Uint8Array(BLOCK_PAGES / 8)));
    setBits(block, from, to);
  }
}

/** The runs of ones in `bits`, the lowest bit of each byte first. */
export function* runsOf(bits: Uint8Array): Generator<Run, void, undefined> {
  let from = -1;
  for (let at = 0; at < bits.length; at++) {
    const byte = bits[at]!;
    if (byte === 0xff && from < 0) from = at * 8;
    if (byte === 0xff || (byte === 0 && from < 0)) continue;
    for (let bit = 0; bit < 8; bit++) {
      const isSet = (byte & (1 << bit)) !== 0;
      if (isSet === from >= 0) continue;
      if (!isSet) yield { from, to: at * 8 + bit };
      from = isSet ? at * 8 + bit : -1;
    }
  }
  if (from >= 0) yield { from, to: bits.length * 8 };
}

function* rangesOf(blocks: Blocks): Generator<PageRange, void, undefined> {
  let page = -1;
  let end = -1;
  for (const [number, block] of [...blocks].sort(([a], [b]) => a - b)) {
    for (const run of blockRuns(block)) {
      const from = number * BLOCK_PAGES + run.from;
      if (from !== end) {
        if (page >= 0) yield { page, pages: end - page };
        page = from;
      }
      end = number * BLOCK_PAGES + run.to;
    }
  }
  if (page >= 0) yield { page, pages: end - page };
}

function blockRuns(block: Uint8Array): Iterable<Run> {
  return block === WHOLE_BLOCK ? [{ from: 0, to: BLOCK_PAGES }] : runsOf(block);
}

/** Both are in order, so each is walked once. */
function* clipped(
  ranges: Iterable<PageRange>,
  within: readonly PageRange[] | undefined,
): Generator<DirtyRange, void, undefined> {
  let next = 0;
  for (const range of ranges) {
    const end = range.page + range.pages;
    if (within === undefined) yield rangeAt(range.page, end);
    while (within !== undefined && next < within.length) {
      const { page, pages } = within[next]!;
      const from = Math.max(page, range.page);
      const to = Math.min(page + pages, end);
      if (from < to) yield rangeAt(from, to);
      if (page + pages > end) break;
      next++;
    }
  }
}

function rangeAt(from: number, to: number): DirtyRange {
  return { iova: addressOf(from), length: (to - from) * PAGE_SIZE };
}

function setBits(block: Uint8Array, from: number, to: number): void {
  for (let bit = from; bit < to;) {
    if (bit % 8 === 0 && to - bit >= 8) {
      const whole = (to - bit) >>> 3;
      block.fill(0xff, bit >>> 3, (bit >>> 3) + whole);
      bit += whole * 8;
    } else {
      block[bit >>> 3]! |= 1 << (bit & 7);
      bit++;
    }
  }
}
