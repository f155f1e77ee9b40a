import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  decodeDmaMap,
  decodeDmaUnmap,
  decodeDmaUnmapReply,
  encodeDmaMap,
  encodeDmaUnmap,
  encodeDmaUnmapReply,
  type DmaMap,
  type DmaUnmap,
} from '../../lib/protocol/dma-map.js';
import {
  dmaMapRequest,
  dmaUnmapReply,
  dmaUnmapRequest,
  payloadOf,
  type DmaMapFields,
  type DmaUnmapFields,
} from '../support/wire.js';
import {
  addressRanges,
  decode,
  expectEveryCutRefused,
  expectOnlyProtocolErrors,
  expectRefused,
  pageSizes,
  sizes,
  someData,
} from '../support/wire-placed.js';

const TOP = 2n ** 64n;

describe('DMA_MAP', () => {
  const request = (fields?: DmaMapFields): Buffer => payloadOf(dmaMapRequest(fields));
  const sound: DmaMap = { flags: 3, offset: 0x20_0000, address: 0x10000n, size: 0x20000n };

  test('is what the specification lays out', () => {
    expect(encodeDmaMap(sound)).toEqual(request(sound));
    expect(request(sound)).toHaveLength(32);
    expect(decode(decodeDmaMap, request(sound))).toEqual(sound);
  });

  test.each([
    ['nothing', 0],
    ['read only', 1],
    ['MMAP', 7],
    ['FILE_IO', 0xb],
  ])('flags: %s', (_name, flags) => {
    expect(encodeDmaMap({ ...sound, flags })).toEqual(request({ ...sound, flags }));
    expect(decode(decodeDmaMap, request({ ...sound, flags })).flags).toBe(flags);
  });

  test('memory may end where the address space does', () => {
    const top = { ...sound, address: TOP - 0x1000n, size: 0x1000n };
    expect(decode(decodeDmaMap, encodeDmaMap(top))).toEqual(top);
  });

  test('a round trip keeps every field', () => {
    const flags = fc.constantFrom(0, 1, 2, 3, 7, 0xb);
    fc.assert(
      fc.property(flags, sizes(), addressRanges(), (flags, offset, range) => {
        expect(decode(decodeDmaMap, encodeDmaMap({ flags, offset, ...range }))).toEqual({
          flags,
          offset,
          ...range,
        });
      }),
    );
  });

  test.each<[string, DmaMapFields, RegExp]>([
    ['an argsz of less than the structure', { argsz: 31 }, /DMA_MAP: argsz is 31/],
    ['unknown flags', { flags: 0x10 }, /flags 0x10 have unknown bits/],
    ['all flags', { flags: 0xffffffff }, /flags 0xffffffff have unknown bits/],
    ['MMAP and FILE_IO', { flags: 0xf }, /flags 0xf have both MMAP and FILE_IO/],
    ['an offset above 2^53', { offset: 2n ** 53n }, /offset is 0x20000000000000/],
    ['memory past the end', { address: TOP - 0x1000n, size: 0x1001n }, /run past the 64-bit address space/],
    ['all of it and more', { address: TOP - 1n, size: TOP - 1n }, /run past the 64-bit address space/],
  ])('%s is refused', (_name, twin, words) => {
    expectRefused(decodeDmaMap, request({ ...sound, ...twin }), words);
  });

  test('a request of another size is refused, random bytes are decoded or refused', () => {
    expectEveryCutRefused(decodeDmaMap, request(sound));
    expectRefused(decodeDmaMap, Buffer.concat([request(sound), Buffer.of(0)]), /the payload is 33 bytes/);
    expectOnlyProtocolErrors(decodeDmaMap, request(sound));
  });

  test('misuse', () => {
    expect(() => encodeDmaMap({ ...sound, flags: 0x10 })).toThrow(TypeError);
    expect(() => encodeDmaMap({ ...sound, flags: 0xf })).toThrow(TypeError);
    expect(() => encodeDmaMap({ ...sound, flags: -1 })).toThrow(RangeError);
    expect(() => encodeDmaMap({ ...sound, offset: -1 })).toThrow(RangeError);
    expect(() => encodeDmaMap({ ...sound, address: -1n })).toThrow(RangeError);
    expect(() => encodeDmaMap({ ...sound, size: -1n })).toThrow(RangeError);
    expect(() => encodeDmaMap({ ...sound, address: TOP - 1n, size: 2n })).toThrow(RangeError);
  });
});

describe('DMA_UNMAP', () => {
  const request = (fields?: DmaUnmapFields): Buffer => payloadOf(dmaUnmapRequest(fields));
  const plain: DmaUnmap = { flags: 0, address: 0x10000n, size: 0x20000n };
  const withBitmap: DmaUnmap = { ...plain, flags: 1, bitmap: { pgsize: 4096, size: 8 } };
  const all: DmaUnmap = { flags: 2, address: 0n, size: 0n };

  test.each([
    ['plain', plain, 24, 24],
    ['for its bitmap', withBitmap, 40, 48],
    ['all', all, 24, 24],
  ])('%s', (_name, unmap, length, argsz) => {
    expect(encodeDmaUnmap(unmap)).toEqual(request(unmap));
    expect(request(unmap)).toHaveLength(length);
    expect(decode(decodeDmaUnmap, request(unmap))).toEqual({ ...unmap, argsz });
  });

  test('a round trip keeps every field', () => {
    const bitmaps = fc.record({ pgsize: pageSizes(), size: fc.nat() });
    fc.assert(
      fc.property(addressRanges(), fc.option(bitmaps), (range, bitmap) => {
        const sent: DmaUnmap = bitmap ? { flags: 1, ...range, bitmap } : { flags: 0, ...range };
        const argsz = bitmap ? 40 + bitmap.size : 24;
        expect(decode(decodeDmaUnmap, encodeDmaUnmap(sent))).toEqual({ ...sent, argsz });
      }),
    );
  });

  const bitmap = { pgsize: 4096, size: 8 };
  test.each<[string, DmaUnmapFields, RegExp]>([
    ['an argsz of less than the structure', { argsz: 23 }, /DMA_UNMAP: argsz is 23/],
    [
      'an argsz of less than the bitmap',
      { bitmap, argsz: 47 },
      /argsz is 47, the structure that it measures takes 48/,
    ],
    [
      'a bitmap that no argsz can hold',
      { bitmap: { pgsize: 1, size: 2n ** 32n }, argsz: 0xffffffff },
      /argsz is/,
    ],
    ['unknown flags', { flags: 4 }, /flags 0x4 have unknown bits/],
    ['both flags', { flags: 3, bitmap, address: 0, size: 0 }, /flags 0x3 have both GET_DIRTY_BITMAP and ALL/],
    ['ALL with an address', { flags: 2, address: 1, size: 0 }, /with ALL, address and size must be zero/],
    ['ALL with a size', { flags: 2, address: 0, size: 1 }, /with ALL, address and size must be zero/],
    [
      'a bitmap without its flag',
      { flags: 0, bitmap },
      /payload is 40 bytes, the DMA unmap structure with flags 0x0/,
    ],
    [
      'the flag without a bitmap',
      { flags: 1 },
      /payload is 24 bytes, the DMA unmap structure with flags 0x1/,
    ],
    ['a page size of 0', { bitmap: { pgsize: 0, size: 8 } }, /bitmap pgsize is 0, it must be a power of two/],
    ['a page size of 4095', { bitmap: { pgsize: 4095, size: 8 } }, /bitmap pgsize is 4095/],
    ['a page size above 2^53', { bitmap: { pgsize: 2n ** 63n, size: 8 } }, /bitmap pgsize is 0x8/],
    [
      'a bitmap above 2^53',
      { bitmap: { pgsize: 4096, size: 2n ** 64n - 1n }, argsz: 48 },
      /bitmap size is 0xf/,
    ],
    ['memory past the end', { address: TOP - 1n, size: 2n }, /run past the 64-bit address space/],
  ])('%s is refused', (_name, twin, words) => {
    expectRefused(decodeDmaUnmap, request({ ...plain, flags: twin.bitmap ? 1 : 0, ...twin }), words);
  });

  test('a request of another size is refused, random bytes are decoded or refused', () => {
    expectEveryCutRefused(decodeDmaUnmap, request(plain));
    expectEveryCutRefused(decodeDmaUnmap, request(withBitmap));
    expectOnlyProtocolErrors(decodeDmaUnmap, request(plain), request(withBitmap), request(all));
  });

  test('misuse', () => {
    expect(() => encodeDmaUnmap({ ...plain, flags: 1 })).toThrow(TypeError);
    expect(() => encodeDmaUnmap({ ...withBitmap, flags: 0 })).toThrow(TypeError);
    expect(() => encodeDmaUnmap({ ...plain, flags: 2 })).toThrow(TypeError);
    expect(() => encodeDmaUnmap({ ...plain, flags: 8 })).toThrow(TypeError);
    expect(() => encodeDmaUnmap({ ...withBitmap, bitmap: { pgsize: 3, size: 8 } })).toThrow(RangeError);
    expect(() => encodeDmaUnmap({ ...withBitmap, bitmap: { pgsize: 4096, size: 2 ** 32 } })).toThrow(
      RangeError,
    );
    expect(() => encodeDmaUnmap({ ...plain, address: -1n })).toThrow(RangeError);
    expect(() => encodeDmaUnmap({ ...plain, size: TOP })).toThrow(RangeError);
  });
});

describe("DMA_UNMAP's reply", () => {
  const reply = (fields?: DmaUnmapFields): Buffer => payloadOf(dmaUnmapReply(fields));
  const plain = { flags: 0, address: 0x10000n, size: 0x20000n };
  const dirty = Buffer.of(1, 2, 3, 4, 5, 6, 7, 8);
  const withBitmap = { ...plain, flags: 1, bitmap: { pgsize: 4096, size: 8, data: dirty } };

  test('nothing, as from old servers', () => {
    expect(decode(decodeDmaUnmapReply, Buffer.alloc(0))).toBeUndefined();
  });

  test('the request again', () => {
    expect(encodeDmaUnmapReply(plain)).toEqual(reply(plain));
    expect(decode(decodeDmaUnmapReply, reply(plain))).toEqual(plain);
    expect(decode(decodeDmaUnmapReply, reply({ ...plain, argsz: 0 }))).toEqual(plain);
  });

  test('the request again and the bitmap', () => {
    expect(encodeDmaUnmapReply({ ...plain, flags: 1, bitmap: { pgsize: 4096, data: dirty } })).toEqual(
      reply(withBitmap),
    );
    expect(decode(decodeDmaUnmapReply, reply(withBitmap))).toEqual({
      ...plain,
      flags: 1,
      bitmap: { pgsize: 4096, data: dirty },
    });
  });

  test('the flag without a bitmap, as from rust-vmm', () => {
    expect(decode(decodeDmaUnmapReply, reply({ ...plain, flags: 1 }))).toEqual({ ...plain, flags: 1 });
  });

  test('a round trip keeps every field', () => {
    const bitmaps = fc.record({ pgsize: pageSizes(), data: someData() });
    fc.assert(
      fc.property(addressRanges(), fc.option(bitmaps), (range, bitmap) => {
        const sent = bitmap ? { flags: 1, ...range, bitmap } : { flags: 0, ...range };
        expect(decode(decodeDmaUnmapReply, encodeDmaUnmapReply(sent))).toEqual(sent);
      }),
    );
  });

  test.each<[string, DmaUnmapFields, RegExp]>([
    [
      'a bitmap that nobody asked for',
      { flags: 0 },
      /48 bytes, the DMA unmap structure without GET_DIRTY_BITMAP/,
    ],
    [
      'a bitmap smaller than it says',
      { bitmap: { pgsize: 4096, size: 9, data: dirty } },
      /a bitmap of 9 bytes/,
    ],
    [
      'a bitmap larger than it says',
      { bitmap: { pgsize: 4096, size: 7, data: dirty } },
      /a bitmap of 7 bytes/,
    ],
    [
      'the largest size',
      { bitmap: { pgsize: 1, size: 2n ** 64n - 1n, data: dirty }, argsz: 0 },
      /bitmap size is 0xf/,
    ],
    ['a page size of 0', { bitmap: { pgsize: 0, size: 8, data: dirty } }, /bitmap pgsize is 0/],
  ])('%s is refused', (_name, twin, words) => {
    expectRefused(decodeDmaUnmapReply, reply({ ...withBitmap, ...twin }), words);
  });

  test('a cut reply is refused, but where nothing or the structure alone is left', () => {
    expectEveryCutRefused(decodeDmaUnmapReply, reply(withBitmap), [0, 24]);
    expectOnlyProtocolErrors(decodeDmaUnmapReply, reply(plain), reply(withBitmap));
  });
});
