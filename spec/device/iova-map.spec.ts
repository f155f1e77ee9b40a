import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { IovaMap, END_PAGE, addressOf, pageOf, readPage, readPageOffset } from '../../lib/device/iova-map.js';

const address = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn });

describe('pages', () => {
  test('every 64-bit address has an exact page and offset', () => {
    fc.assert(
      fc.property(address, (value) => {
        const bytes = Buffer.alloc(11);
        bytes.writeBigUInt64LE(value, 3);
        expect(readPage(bytes, 3)).toBe(Number(value / 4096n));
        expect(Number.isSafeInteger(readPage(bytes, 3))).toBe(true);
        expect(readPageOffset(bytes, 3)).toBe(Number(value % 4096n));
        expect(pageOf(value)).toBe(readPage(bytes, 3));
        expect(addressOf(pageOf(value))).toBe((value / 4096n) * 4096n);
      }),
    );
  });
});

describe('the table', () => {
  const range = (page: number, pages: number) => ({ page, pages });

  test('finds what has a page, and nothing beside it', () => {
    const table = new IovaMap<{ page: number; pages: number }>();
    const ranges = [range(10, 5), range(15, 1), range(100, 1), range(END_PAGE - 2, 2)];
    for (const entry of [2, 0, 3, 1].map((i) => ranges[i]!)) table.insert(entry);
    for (const entry of ranges) {
      expect(table.find(entry.page)).toBe(entry);
      expect(table.find(entry.page + entry.pages - 1)).toBe(entry);
    }
    for (const page of [0, 9, 16, 99, 101, END_PAGE - 3, END_PAGE]) expect(table.find(page)).toBeUndefined();
    expect([...table]).toEqual(ranges);
  });

  test('forgets what was deleted, also what it found last', () => {
    const table = new IovaMap<{ page: number; pages: number }>();
    const entry = range(10, 5);
    table.insert(entry);
    expect(table.find(12)).toBe(entry);
    table.delete(entry);
    expect(table.find(12)).toBeUndefined();
    expect(table.size).toBe(0);
    table.delete(entry);
    expect(table.size).toBe(0);
  });

  test('agrees with a table that looks at everything', () => {
    const some = fc.tuple(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 1, max: 8 }));
    fc.assert(
      fc.property(fc.array(some, { maxLength: 20 }), some, (wanted, [from, pages]) => {
        const table = new IovaMap<{ page: number; pages: number }>();
        const plain: { page: number; pages: number }[] = [];
        const touches = (page: number, count: number) =>
          plain.filter((entry) => page < entry.page + entry.pages && entry.page < page + count);
        for (const [page, count] of wanted) {
          expect(table.overlap(page, count) === undefined).toBe(touches(page, count).length === 0);
          if (touches(page, count).length > 0) continue;
          plain.push(range(page, count));
          table.insert(plain.at(-1)!);
        }
        for (let page = 0; page < 70; page++) expect(table.find(page)).toBe(touches(page, 1)[0]);
        const alignment = 4;
        let gap = Math.ceil(from / alignment) * alignment;
        while (touches(gap, pages).length > 0) gap += alignment;
        expect(table.findGap(pages, alignment, from, 64)).toBe(gap + pages <= 64 ? gap : undefined);
      }),
    );
  });
});
