/** Pages that were written, one bit each, in blocks that exist where a page was written. */
import { PAGE_SIZE, addressOf } from './dma-table.js';

/** Memory that may have been written. */
export interface DirtyRange {
  readonly iova: bigint;
  /** In bytes. */
  readonly length: number;
}

const BLOCK_PAGES = 32_768;

export class DirtySet {
  readonly #blocks = new Map<number, Uint8Array>();
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
      setBits(this.#block(number), at - number * BLOCK_PAGES, upTo - number * BLOCK_PAGES);
      at = upTo;
    }
  }

  /** The marked ranges in order; neighbours are one. */
  *ranges(): Generator<{ page: number; pages: number }, void, undefined> {
    let from = -1;
    let to = -1;
    for (const number of [...this.#blocks.keys()].sort((a, b) => a - b)) {
      const block = this.#blocks.get(number)!;
      for (let at = 0; at < BLOCK_PAGES; at++) {
        if (at % 8 === 0 && block[at >>> 3] === 0) {
          at += 7;
          continue;
        }
        if ((block[at >>> 3]! & (1 << (at & 7))) === 0) continue;
        const page = number * BLOCK_PAGES + at;
        if (page === to) {
          to++;
          continue;
        }
        if (from >= 0) yield { page: from, pages: to - from };
        from = page;
        to = page + 1;
      }
    }
    if (from >= 0) yield { page: from, pages: to - from };
  }

  /** Takes all that is marked, as far as it lies in one of `within`, which are in order and do not overlap. */
  take(within: readonly { page: number; pages: number }[] | undefined): DirtyRange[] {
    const taken: DirtyRange[] = [];
    for (const range of this.ranges()) {
      for (const { page, pages } of within ?? [range]) {
        const from = Math.max(page, range.page);
        const to = Math.min(page + pages, range.page + range.pages);
        if (from < to) taken.push({ iova: addressOf(from), length: (to - from) * PAGE_SIZE });
      }
    }
    this.#blocks.clear();
    return taken;
  }

  #block(number: number): Uint8Array {
    const known = this.#blocks.get(number);
    if (known !== undefined) return known;
    const block = new Uint8Array(BLOCK_PAGES / 8);
    this.#blocks.set(number, block);
    return block;
  }
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
