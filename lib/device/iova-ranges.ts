/** Which DMA addresses a device can be given: all of them, or those of the ranges that an IOMMU has said. */
import { rangesText, type AddressRange } from '../emulator/address-range.js';
import { END_PAGE, PAGE_SIZE, addressOf, pageOf } from './iova-map.js';

/** Pages `[from, to)`. */
type Pages = readonly [from: number, to: number];

const EVERYWHERE: readonly Pages[] = [[0, END_PAGE]];

export class IovaRanges {
  readonly #pages: readonly Pages[];
  /** As they were told; undefined where nobody has. */
  readonly #told: readonly AddressRange[] | undefined;

  constructor(ranges?: readonly AddressRange[]) {
    this.#told = ranges;
    // Of a page that is not all within a range nothing can be used.
    this.#pages =
      ranges
        ?.map(({ first, last }): Pages => [pageOf(first + BigInt(PAGE_SIZE - 1)), pageOf(last + 1n)])
        .filter(([from, to]) => from < to)
        .sort(([a], [b]) => a - b) ?? EVERYWHERE;
  }

  /** Whether they are known: otherwise what is chosen must be what any IOMMU can do. */
  get areKnown(): boolean {
    return this.#told !== undefined;
  }

  /** Whether all of these pages can be given. */
  has(page: number, pages: number): boolean {
    return this.#pages.some(([from, to]) => page >= from && page + pages <= to);
  }

  /** What of the pages `[from, to)` can be given, in order. */
  *within(from: number, to: number): Generator<Pages, void, undefined> {
    for (const [first, end] of this.#pages) {
      const begin = Math.max(first, from);
      const limit = Math.min(end, to);
      if (begin < limit) yield [begin, limit];
    }
  }

  /** `0x0 to 0xfedfffff, and 0xfef00000 to 0x7fffffffff`. */
  toString(): string {
    return rangesText(this.#told ?? [{ first: 0n, last: addressOf(END_PAGE) - 1n }]);
  }
}
