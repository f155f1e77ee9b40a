import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  decodeRegionWriteMulti,
  decodeRegionWriteMultiReply,
  encodeRegionWriteMulti,
  encodeRegionWriteMultiReply,
  type RegionWrite,
} from '../../lib/protocol/region-write-multi.js';
import {
  payloadOf,
  regionWriteMultiReply,
  regionWriteMultiRequest,
  type MultiWriteFields,
} from '../support/wire.js';
import {
  bits,
  decode,
  expectEveryCutRefused,
  expectOnlyProtocolErrors,
  expectRefused,
  sizes,
} from '../support/wire-placed.js';

const request = (writes: readonly MultiWriteFields[], count?: number | bigint): Buffer =>
  payloadOf(regionWriteMultiRequest(writes, count));
const reply = (count: number | bigint): Buffer => payloadOf(regionWriteMultiReply(count));

const writes: RegionWrite[] = [
  { offset: 0x1000, region: 0, data: Buffer.of(1, 0, 0, 0) },
  { offset: 0x1_0000_0000, region: 2, data: Buffer.of(1, 2, 3, 4, 5, 6, 7, 8) },
  { offset: 4, region: 7, data: Buffer.of(0xff) },
];

describe('REGION_WRITE_MULTI', () => {
  test('is what the specification lays out', () => {
    expect(encodeRegionWriteMulti(writes)).toEqual(request(writes));
    expect(request(writes)).toHaveLength(8 + 3 * 24);
    expect(decode(decodeRegionWriteMulti, request(writes))).toEqual(writes);
  });

  test('a round trip keeps every write', () => {
    const data = fc.uint8Array({ minLength: 1, maxLength: 8 }).map((bytes) => Buffer.from(bytes));
    const any = fc.array(fc.record({ offset: sizes(), region: bits(32), data }), {
      minLength: 1,
      maxLength: 20,
    });
    fc.assert(
      fc.property(any, (sent) => {
        expect(decode(decodeRegionWriteMulti, encodeRegionWriteMulti(sent))).toEqual(sent);
      }),
    );
  });

  test('the most writes that a message has', () => {
    const many = Array<RegionWrite>(200).fill({ offset: 0, region: 0, data: Buffer.of(1) });
    expect(decode(decodeRegionWriteMulti, encodeRegionWriteMulti(many))).toHaveLength(200);
    expectRefused(decodeRegionWriteMulti, request([...many, ...many]), /wr_cnt is 400, more than the 200/);
    expect(() => encodeRegionWriteMulti([...many, ...writes])).toThrow(RangeError);
  });

  test.each([0, 2, 4, 201, 0xffffffff, 2n ** 64n - 1n, 2n ** 61n + 3n])(
    'three writes and a wr_cnt of %s',
    (count) => {
      expectRefused(decodeRegionWriteMulti, request(writes, count), /REGION_WRITE_MULTI: /);
    },
  );

  test.each([0, 9, 0x80000000, 0xffffffff])('a write with a count of %i', (count) => {
    const twin = [{ offset: 0, region: 0, data: [1], count }];
    expectRefused(
      decodeRegionWriteMulti,
      request(twin),
      new RegExp(`count is ${count}, a single write has 1 to 8`),
    );
  });

  test('an offset above 2^53', () => {
    const twin = [{ offset: 2n ** 53n, region: 0, data: [1] }];
    expectRefused(decodeRegionWriteMulti, request(twin), /offset is 0x20000000000000/);
  });

  test('a cut request is refused at every length, random bytes are decoded or refused', () => {
    expectEveryCutRefused(decodeRegionWriteMulti, request(writes));
    expectOnlyProtocolErrors(decodeRegionWriteMulti, request(writes));
  });

  test('what a message cannot carry is a RangeError', () => {
    const one = { offset: 0, region: 0, data: Buffer.of(1) };
    expect(() => encodeRegionWriteMulti([])).toThrow(RangeError);
    expect(() => encodeRegionWriteMulti([{ ...one, data: Buffer.alloc(9) }])).toThrow(RangeError);
    expect(() => encodeRegionWriteMulti([{ ...one, data: Buffer.alloc(0) }])).toThrow(RangeError);
    expect(() => encodeRegionWriteMulti([{ ...one, offset: -1 }])).toThrow(RangeError);
    expect(() => encodeRegionWriteMulti([{ ...one, region: 2 ** 32 }])).toThrow(RangeError);
  });
});

describe("REGION_WRITE_MULTI's reply", () => {
  test('is how many were done', () => {
    expect(encodeRegionWriteMultiReply({ count: 3 })).toEqual(reply(3));
    expect(decode(decodeRegionWriteMultiReply, reply(3))).toEqual({ count: 3 });
    expect(() => encodeRegionWriteMultiReply({ count: 201 })).toThrow(RangeError);
  });

  test.each([201, 2n ** 32n, 2n ** 64n - 1n])('%s are more than there can be', (count) => {
    expectRefused(decodeRegionWriteMultiReply, reply(count), /REGION_WRITE_MULTI reply: wr_cnt is /);
  });

  test('a reply of another size is refused', () => {
    expectEveryCutRefused(decodeRegionWriteMultiReply, reply(1));
    expectRefused(
      decodeRegionWriteMultiReply,
      Buffer.alloc(9),
      /the payload is 9 bytes, wr_cnt is exactly 8/,
    );
    expectOnlyProtocolErrors(decodeRegionWriteMultiReply, reply(1));
  });
});
