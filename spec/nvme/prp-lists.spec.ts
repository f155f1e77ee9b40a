import { describe, expect, test } from '@jest/globals';
import { PrpLists } from '../../lib/nvme/data-pointers.js';

const PAGE = 4096;

/** A list area in memory, and a controller's walk through it (NVM Express Base 2.0, section 4.1.1). */
class Area {
  readonly lists: PrpLists;
  readonly #bytes: Buffer;
  readonly #iova: bigint;

  constructor(maxBytes: number, slots: number, iova: bigint, pageSize = PAGE) {
    const stride = PrpLists.stride(maxBytes, pageSize);
    const words = new Uint32Array((slots * stride) / 4);
    this.#bytes = Buffer.from(words.buffer);
    this.#iova = iova;
    this.lists = new PrpLists(words, iova, stride, pageSize);
  }

  /** The addresses of the pages that `length` bytes are in. */
  walk(length: number, pageSize = PAGE): bigint[] {
    const [a, b, c, d] = this.lists.entries;
    const prp1 = (BigInt(b!) << 32n) | BigInt(a!);
    const prp2 = (BigInt(d!) << 32n) | BigInt(c!);
    const pages = [prp1];
    const left = length - (pageSize - Number(prp1 % BigInt(pageSize)));
    if (left <= 0) {
      expect(prp2).toBe(0n);
      return pages;
    }
    const count = Math.ceil(left / pageSize);
    if (count === 1) return [...pages, prp2];
    let at = prp2;
    for (let i = 0; i < count;) {
      const isLastOfPage = (at + 8n) % BigInt(pageSize) === 0n;
      const entry = this.#bytes.readBigUInt64LE(Number(at - this.#iova));
      if (isLastOfPage && count - i > 1) at = entry;
      else {
        pages.push(entry);
        at += 8n;
        i++;
      }
    }
    return pages;
  }
}

/** What the pages of contiguous memory are. */
function expected(start: bigint, length: number, pageSize = PAGE): bigint[] {
  const pages = [start];
  const size = BigInt(pageSize);
  for (let at = (start / size + 1n) * size; at < start + BigInt(length); at += size) pages.push(at);
  return pages;
}

describe('contiguous memory', () => {
  test.each([
    [0x1000n, 512],
    [0x1000n, 4096],
    [0x1200n, 3584],
    [0x1200n, 3588],
    [0x1ffcn, 4],
    [0x1ffcn, 8],
    [0x1000n, 8192],
    [0x1004n, 8188],
    [0x1004n, 8192],
    [0x1000n, 131_072],
    [0x1ffcn, 131_072],
    [0xffff_f000n, 131_072],
    [0xffff_fffcn, 131_072],
    [0x7_ffff_e000n, 12_288],
    [0xffff_ffff_0000_0000n, 131_072],
  ])('%i: %i bytes', (start, length) => {
    const area = new Area(131_072, 3, 0x40_0000n);
    const low = Number(BigInt.asUintN(32, start));
    for (let slot = 0; slot < 3; slot++) {
      area.lists.contiguous(slot, low, Number(start >> 32n), length);
      expect(area.walk(length)).toEqual(expected(start, length));
    }
  });

  test.each([511, 512, 513, 514, 1022, 1023, 1024, 1025, 1026, 2100])(
    '%i pages, lists of several pages',
    (pages) => {
      const length = pages * PAGE;
      for (const offset of [0n, 4n]) {
        const area = new Area(length, 2, 0xffff_f000n);
        area.lists.contiguous(1, 0x8000 + Number(offset), 5, length);
        expect(area.walk(length)).toEqual(expected((5n << 32n) + 0x8000n + offset, length));
      }
    },
  );

  test.each([511, 512, 513, 1022, 1023, 1024, 1534])(
    'a longer list is that of its first %i entries, where it begins with a page or an entry later',
    (entries) => {
      const start = 0x5_0000_8000n;
      const area = new Area(1700 * PAGE, 4, 0xffff_f000n);
      const isLater = PrpLists.endsAtPointer(entries, PAGE);
      area.lists.contiguous(2, 0x8000, 5, 1700 * PAGE, isLater ? 1 : 0);
      const length = (1 + entries) * PAGE;
      expect(area.walk(length)).toEqual(expected(start, length));
    },
  );

  test('larger pages', () => {
    const area = new Area(1 << 20, 2, 0x10_0000n, 65_536);
    area.lists.contiguous(1, 0x2_0000 + 512, 0, 1 << 20);
    expect(area.walk(1 << 20, 65_536)).toEqual(expected(0x2_0200n, 1 << 20, 65_536));
  });

  test('slots do not share memory', () => {
    const area = new Area(131_072, 2, 0n);
    area.lists.contiguous(0, 0x10_0000, 0, 131_072);
    const before = area.walk(131_072);
    const entries = Uint32Array.from(area.lists.entries);
    area.lists.contiguous(1, 0x90_0000, 0, 131_072);
    area.lists.entries.set(entries);
    expect(area.walk(131_072)).toEqual(before);
  });
});

describe('scattered pages', () => {
  test.each([[[5]], [[9, 2]], [[3, 1, 2]], [[7, 6, 5, 4, 3, 2, 1, 0, 31]]])('%j', (pages) => {
    const area = new Area(131_072, 2, 0x1000n);
    area.lists.scattered(1, 0xffff_e000, 1, pages);
    const base = 0x1_ffff_e000n;
    expect(area.walk(pages.length * PAGE)).toEqual(pages.map((page) => base + BigInt(page * PAGE)));
  });
});
