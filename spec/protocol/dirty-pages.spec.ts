import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  decodeDirtyPages,
  decodeDirtyPagesReply,
  encodeDirtyPages,
  encodeDirtyPagesReply,
  type BitmapRange,
} from '../../lib/protocol/dirty-pages.js';
import { dirtyPagesReply, dirtyPagesRequest, payloadOf, type DirtyPagesFields } from '../support/wire.js';
import {
  addressRanges,
  decode,
  expectEveryCutRefused,
  expectOnlyProtocolErrors,
  expectRefused,
  pageSizes,
  someData,
} from '../support/wire-placed.js';

const request = (fields?: DirtyPagesFields): Buffer => payloadOf(dirtyPagesRequest(fields));
const reply = (fields?: DirtyPagesFields): Buffer => payloadOf(dirtyPagesReply(fields));

const range: BitmapRange = { iova: 0x10000n, size: 0x10000n, bitmap: { pgsize: 4096, size: 8 } };
const onWire = { iova: 0x10000n, size: 0x10000n, pgsize: 4096, bitmapSize: 8 };

describe('DIRTY_PAGES', () => {
  test.each([
    ['START', 1],
    ['STOP', 2],
  ])('%s is 8 bytes', (_name, flags) => {
    expect(encodeDirtyPages({ flags })).toEqual(request({ flags }));
    expect(decode(decodeDirtyPages, request({ flags }))).toEqual({ argsz: 8, flags });
  });

  test('GET_BITMAP is 40 bytes and has room for the bitmap in its argsz', () => {
    expect(encodeDirtyPages({ flags: 4, range })).toEqual(request({ range: onWire }));
    expect(request({ range: onWire })).toHaveLength(40);
    expect(decode(decodeDirtyPages, request({ range: onWire }))).toEqual({ argsz: 48, flags: 4, range });
  });

  test.each<[string, DirtyPagesFields, RegExp]>([
    ['no flag', { flags: 0 }, /flags 0x0 are not exactly one of START, STOP, GET_BITMAP/],
    ['two flags', { flags: 3 }, /flags 0x3 are not exactly one/],
    ['an unknown flag', { flags: 8 }, /flags 0x8 are not exactly one/],
    ['START and GET_BITMAP', { flags: 5, range: onWire }, /the payload is 40 bytes/],
    [
      'GET_BITMAP without range',
      { flags: 4 },
      /the payload is 8 bytes, the structure with flags 0x4 is exactly 40/,
    ],
    ['START with a range', { flags: 1, range: onWire }, /the structure with flags 0x1 is exactly 8/],
    ['an argsz of less than 8', { flags: 1, argsz: 7 }, /DIRTY_PAGES: argsz is 7/],
    [
      'a page size of 0',
      { range: { ...onWire, pgsize: 0 } },
      /bitmap pgsize is 0, it must be a power of two/,
    ],
    ['a page size above 2^53', { range: { ...onWire, pgsize: 2n ** 63n } }, /bitmap pgsize is 0x8/],
    [
      'a bitmap above 2^53',
      { range: { ...onWire, bitmapSize: 2n ** 64n - 1n }, argsz: 48 },
      /bitmap size is 0xf/,
    ],
  ])('%s is refused', (_name, twin, words) => {
    expectRefused(decodeDirtyPages, request(twin), words);
  });

  test('a cut request is refused at every length, random bytes are decoded or refused', () => {
    expectEveryCutRefused(decodeDirtyPages, request({ flags: 1 }));
    expectEveryCutRefused(decodeDirtyPages, request({ range: onWire }));
    expectOnlyProtocolErrors(decodeDirtyPages, request({ flags: 2 }), request({ range: onWire }));
  });

  test('misuse', () => {
    expect(() => encodeDirtyPages({ flags: 0 })).toThrow(TypeError);
    expect(() => encodeDirtyPages({ flags: 4 })).toThrow(TypeError);
    expect(() => encodeDirtyPages({ flags: 1, range })).toThrow(TypeError);
    const twin = (bitmap: object): BitmapRange => ({ ...range, bitmap: { ...range.bitmap, ...bitmap } });
    expect(() => encodeDirtyPages({ flags: 4, range: twin({ pgsize: 5 }) })).toThrow(RangeError);
    expect(() => encodeDirtyPages({ flags: 4, range: twin({ size: 2 ** 32 }) })).toThrow(RangeError);
    expect(() => encodeDirtyPages({ flags: 4, range: { ...range, iova: -1n } })).toThrow(RangeError);
  });
});

describe("GET_BITMAP's reply", () => {
  const bitmap = Buffer.of(1, 2, 3, 4, 5, 6, 7, 8);
  const whole = reply({ range: onWire, bitmap });

  test('is the range and the bitmap', () => {
    expect(encodeDirtyPagesReply(range, bitmap, 48)).toEqual(whole);
    expect(decode(decodeDirtyPagesReply, whole)).toEqual({ argsz: 48, truncated: false, range, bitmap });
  });

  test('is cut to 8 bytes where it does not fit', () => {
    const cut = reply({ flags: 4, argsz: 48 });
    expect(encodeDirtyPagesReply(range, bitmap, 47)).toEqual(cut);
    expect(decode(decodeDirtyPagesReply, cut)).toEqual({ argsz: 48, truncated: true });
  });

  test('is cut to the request’s argsz by old servers, and then is not looked at', () => {
    for (let length = 8; length < 48; length++) {
      const cut = Buffer.concat([reply({ flags: 4, argsz: 48 }), Buffer.alloc(length - 8, 0xff)]);
      expect(decode(decodeDirtyPagesReply, cut)).toEqual({ argsz: 48, truncated: true });
    }
  });

  test('a round trip keeps every field', () => {
    fc.assert(
      fc.property(addressRanges(), pageSizes(), someData(), ({ address, size }, pgsize, data) => {
        const sent: BitmapRange = { iova: address, size, bitmap: { pgsize, size: data.length } };
        const bytes = encodeDirtyPagesReply(sent, data, 0xffffffff);
        expect(decode(decodeDirtyPagesReply, bytes)).toMatchObject({ range: sent, bitmap: data });
        expect(decode(decodeDirtyPages, encodeDirtyPages({ flags: 4, range: sent })).range).toEqual(sent);
      }),
    );
  });

  test.each<[string, DirtyPagesFields, RegExp]>([
    ['another flag', { flags: 1 }, /DIRTY_PAGES reply: flags are 0x1, GET_BITMAP was asked for/],
    ['an argsz of less than 8', { argsz: 7 }, /argsz is 7/],
    ['a bitmap larger than it says', { range: { ...onWire, bitmapSize: 7 } }, /a bitmap of 7 bytes/],
    [
      'a bitmap smaller than it says',
      { range: { ...onWire, bitmapSize: 9 }, argsz: 48 },
      /a bitmap of 9 bytes/,
    ],
    [
      'the largest bitmap',
      { range: { ...onWire, bitmapSize: 2n ** 64n - 1n }, argsz: 48 },
      /bitmap size is 0xf/,
    ],
  ])('%s is refused', (_name, twin, words) => {
    expectRefused(decodeDirtyPagesReply, reply({ range: onWire, bitmap, ...twin }), words);
  });

  test('without the range it is refused, random bytes are decoded or refused', () => {
    expectRefused(decodeDirtyPagesReply, reply({ flags: 4, argsz: 8 }), /the bitmap range takes 40/);
    expectEveryCutRefused(decodeDirtyPagesReply, whole.subarray(0, 8));
    expectOnlyProtocolErrors(decodeDirtyPagesReply, whole);
  });
});
