import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  dirtyBitmapSize,
  dirtyPages,
  hasBitsBeyond,
  isPageDirty,
  pageCount,
} from '../../lib/protocol/dirty-bitmap.js';

describe('dirtyBitmapSize', () => {
  test.each<[bigint, number, number]>([
    [0n, 4096, 0],
    [1n, 4096, 8],
    [4096n, 4096, 8],
    [64n * 4096n, 4096, 8],
    [64n * 4096n + 1n, 4096, 16],
    [0x20n << 12n, 4096, 8],
    [1n << 40n, 4096, 1 << 25],
    [65n, 1, 16],
  ])('%i bytes in pages of %i take %i', (length, pageSize, size) => {
    expect(dirtyBitmapSize(length, pageSize)).toBe(size);
    expect(size % 8).toBe(0);
    expect(size * 8).toBeGreaterThanOrEqual(pageCount(length, pageSize));
  });

  test.each([0, -4096, 3, 4095, 4096.5, NaN, Infinity])('a page size of %i is a RangeError', (pageSize) => {
    expect(() => dirtyBitmapSize(4096n, pageSize)).toThrow(RangeError);
  });
});

describe('bit order', () => {
  // The words that libvfio-user's tests of dirty pages compare with.
  test.each<[bigint, number[]]>([
    [0b0n, []],
    [0b1n, [0]],
    [0b10000000n, [7]],
    [0b1111111n, [0, 1, 2, 3, 4, 5, 6]],
    [0b111111111n, [0, 1, 2, 3, 4, 5, 6, 7, 8]],
    [0b110000000n, [7, 8]],
    [0b1000000000000000n, [15]],
    [0b010000000000000000001100n, [2, 3, 22]],
    [0b1111000001n, [0, 6, 7, 8, 9]],
    [1n << 63n, [63]],
  ])('%i', (word, pages) => {
    const bitmap = Buffer.alloc(16);
    bitmap.writeBigUInt64LE(word);
    expect([...dirtyPages(bitmap)]).toEqual(pages);
    expect(pages.every((page) => isPageDirty(bitmap, page))).toBe(true);
  });

  test('the second word goes on where the first ends, and beyond the bitmap nothing is dirty', () => {
    const bitmap = Buffer.alloc(16);
    bitmap.writeBigUInt64LE(5n, 8);
    expect([...dirtyPages(bitmap)]).toEqual([64, 66]);
    expect([63, 64, 65, 66, 128, 1e9].map((page) => isPageDirty(bitmap, page))).toEqual([
      ...[false, true, false, true, false, false],
    ]);
  });

  test('bits beyond the pages are found', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 16 }), fc.nat({ max: 140 }), (bitmap, pages) => {
        expect(hasBitsBeyond(bitmap, pages)).toBe([...dirtyPages(bitmap)].some((page) => page >= pages));
      }),
    );
  });
});
