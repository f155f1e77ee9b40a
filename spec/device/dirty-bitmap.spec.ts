import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { DirtyBitmap } from '../../lib/device/dirty-bitmap.js';

const PAGE = 4096;

function pagesOf(set: DirtyBitmap): number[] {
  return [...set.ranges()].flatMap(({ page, pages }) => Array.from({ length: pages }, (_, i) => page + i));
}

describe('a set of pages', () => {
  test('ranges are in order, and neighbours are one, also over the edges of blocks', () => {
    const set = new DirtyBitmap();
    set.mark(32_770, 1);
    set.mark(32_760, 10);
    set.mark(5, 1);
    set.mark(6, 2);
    set.mark(2 ** 52 - 1, 1);
    expect([...set.ranges()]).toEqual([
      { page: 5, pages: 3 },
      { page: 32_760, pages: 11 },
      { page: 2 ** 52 - 1, pages: 1 },
    ]);
  });

  test('agrees with a set of numbers', () => {
    const mark = fc.record({
      page: fc.integer({ min: 0, max: 70_000 }),
      pages: fc.integer({ min: 1, max: 300 }),
    });
    fc.assert(
      fc.property(fc.array(mark, { maxLength: 20 }), (marks) => {
        const set = new DirtyBitmap();
        const plain = new Set<number>();
        for (const { page, pages } of marks) {
          set.mark(page, pages);
          for (let i = 0; i < pages; i++) plain.add(page + i);
        }
        expect(pagesOf(set)).toEqual([...plain].sort((a, b) => a - b));
      }),
      { numRuns: 50 },
    );
  });

  test('rounds out to larger pages', () => {
    const set = new DirtyBitmap(4 * PAGE);
    set.mark(5, 1);
    set.mark(11, 2);
    expect([...set.ranges()]).toEqual([{ page: 4, pages: 12 }]);
  });

  test('what is taken is gone, and what is not wanted, too', () => {
    const set = new DirtyBitmap();
    set.mark(10, 10);
    set.mark(40, 1);
    expect(
      set.take([
        { page: 0, pages: 12 },
        { page: 18, pages: 4 },
      ]),
    ).toEqual([
      { iova: 10n * 4096n, length: 2 * PAGE },
      { iova: 18n * 4096n, length: 2 * PAGE },
    ]);
    expect(set.isEmpty).toBe(true);
    expect(set.take(undefined)).toEqual([]);
  });
});
