import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  checkRegionReadReply,
  checkRegionWriteReply,
  decodeRegionAccess,
  decodeRegionRead,
  decodeRegionWrite,
  REGION_ACCESS_SIZE,
  writeRegionAccess,
} from '../../lib/protocol/region-access.js';
import {
  payloadOf,
  regionReadReply,
  regionReadRequest,
  regionWriteReply,
  regionWriteRequest,
  type RegionAccessFields,
} from '../support/wire.js';
import {
  bits,
  decode,
  expectEveryCutRefused,
  expectOnlyProtocolErrors,
  expectRefused,
  sizes,
  someData,
  type Decoder,
} from '../support/wire-placed.js';

const MAX_SAFE = Number.MAX_SAFE_INTEGER;

describe('writeRegionAccess', () => {
  test.each([
    [0x10, 7, 4],
    [0, 0, 0],
    [0xffffffff, 0xffffffff, 0xffffffff],
    [0x1_0000_0000, 1, 2],
    [0x12_3456_789a, 2, 8],
    [MAX_SAFE, 3, 1],
  ])('offset %i of region %i, %i bytes', (offset, region, count) => {
    const into = Buffer.alloc(20, 0xaa);
    writeRegionAccess(into, 2, offset, region, count);
    expect(into.subarray(2, 18)).toEqual(payloadOf(regionReadRequest({ offset, region, count })));
    expect([into[1], into[18]]).toEqual([0xaa, 0xaa]);
    expect(REGION_ACCESS_SIZE).toBe(16);
  });
});

describe('requests, as a server reads them', () => {
  const read = payloadOf(regionReadRequest({ offset: 0x10, region: 7, count: 4 }));
  const write = payloadOf(regionWriteRequest({ offset: 0x14, region: 0, data: [1, 2, 3, 4] }));

  test('REGION_READ is 16 bytes', () => {
    expect(decode(decodeRegionRead, read)).toEqual({ offset: 0x10, region: 7, count: 4 });
    expectEveryCutRefused(decodeRegionRead, read);
    expectRefused(
      decodeRegionRead,
      Buffer.concat([read, Buffer.of(0)]),
      /REGION_READ: the payload is 17 bytes/,
    );
  });

  test('REGION_WRITE has exactly as much data as its count says', () => {
    expect(decode(decodeRegionWrite, write)).toEqual({ offset: 0x14, region: 0, count: 4 });
    expectEveryCutRefused(decodeRegionWrite, write);
    expectRefused(
      decodeRegionWrite,
      Buffer.concat([write, Buffer.of(0)]),
      /a write of 4 bytes is exactly 20/,
    );
    for (const count of [3, 5, 0x80000000, 0xffffffff]) {
      const twin = payloadOf(regionWriteRequest({ data: [1, 2, 3, 4], count }));
      expectRefused(decodeRegionWrite, twin, new RegExp(`REGION_WRITE: .* a write of ${count} bytes`));
    }
  });

  test('decodeRegionAccess looks at the 16 bytes alone', () => {
    expect(decode(decodeRegionAccess, write)).toEqual({ offset: 0x14, region: 0, count: 4 });
    expectEveryCutRefused(decodeRegionAccess, read);
  });

  test('an offset above 2^53 is refused', () => {
    for (const offset of [2n ** 53n, 2n ** 64n - 1n]) {
      expectRefused(decodeRegionRead, payloadOf(regionReadRequest({ offset })), /REGION_READ: offset is 0x/);
      expectRefused(
        decodeRegionWrite,
        payloadOf(regionWriteRequest({ offset })),
        /REGION_WRITE: offset is 0x/,
      );
    }
  });

  test('a round trip keeps every field', () => {
    fc.assert(
      fc.property(sizes(), bits(32), bits(32), (offset, region, count) => {
        const bytes = Buffer.alloc(16);
        writeRegionAccess(bytes, 0, offset, region, count);
        expect(decode(decodeRegionRead, bytes)).toEqual({ offset, region, count });
      }),
    );
  });

  test('random bytes are decoded or refused, nothing else', () => {
    expectOnlyProtocolErrors(decodeRegionAccess, read);
    expectOnlyProtocolErrors(decodeRegionRead, read);
    expectOnlyProtocolErrors(decodeRegionWrite, write);
  });
});

describe('the reply to REGION_READ', () => {
  const sound = { offset: 0x1_0000_0010, region: 7, data: [9, 8, 7, 6] };
  const asked: Decoder<void> = (b, s, e) => checkRegionReadReply(b, s, e, sound.offset, 7, 4);
  const reply = (fields: RegionAccessFields = sound): Buffer => payloadOf(regionReadReply(fields));

  test('is what was asked for, and its data', () => {
    decode(asked, reply());
    const at = (b: Buffer, s: number): Buffer => Buffer.from(b.subarray(s + REGION_ACCESS_SIZE, s + 20));
    expect(decode(at, reply())).toEqual(Buffer.from(sound.data));
  });

  test.each<[string, RegionAccessFields, RegExp]>([
    ['another offset', { offset: 0x1_0000_0011 }, /offset is 0x100000011, 0x100000010 was asked for/],
    ['another upper half', { offset: 0x10 }, /offset is 0x10, 0x100000010 was asked for/],
    ['an offset above 2^53', { offset: 2n ** 63n }, /offset is 0x8000000000000000/],
    ['another region', { region: 6 }, /region is 6, 7 was asked for/],
    ['a smaller count', { count: 3 }, /count is 3, 4 was asked for/],
    ['a count of 0', { count: 0, data: [] }, /count is 0, 4 was asked for/],
    ['the largest count', { count: 0xffffffff }, /count is 4294967295, 4 was asked for/],
    ['a byte too few', { count: 4, data: [1, 2, 3] }, /3 bytes of data, 4 are due for a count of 4/],
    ['a byte too many', { count: 4, data: [1, 2, 3, 4, 5] }, /5 bytes of data, 4 are due/],
    ['no data', { count: 4, data: [] }, /0 bytes of data, 4 are due/],
  ])('%s is refused', (_name, twin, words) => {
    expectRefused(asked, reply({ ...sound, ...twin }), words);
  });

  test('a cut reply is refused at every length', () => {
    expectEveryCutRefused(asked, reply());
    expectRefused(asked, Buffer.alloc(0), /REGION_READ reply: the payload is 0 bytes, at least 16 are due/);
  });

  test('every read is recognised, and no other one', () => {
    fc.assert(
      fc.property(sizes(), bits(32), someData(), fc.nat(), (offset, region, data, flip) => {
        const check: Decoder<void> = (b, s, e) => checkRegionReadReply(b, s, e, offset, region, data.length);
        const bytes = reply({ offset, region, data });
        decode(check, bytes);
        const at = flip % 16;
        bytes.writeUInt8((bytes[at] ?? 0) ^ 0x10, at);
        expectRefused(check, bytes, /was asked for/);
      }),
    );
  });

  test('random bytes are accepted or refused, nothing else', () => {
    expectOnlyProtocolErrors(asked, reply());
  });
});

describe('the reply to REGION_WRITE', () => {
  const sound = { offset: 0x14, region: 0, count: 4 };
  const asked: Decoder<void> = (b, s, e) => checkRegionWriteReply(b, s, e, 0x14, 0, 4);
  const reply = (fields: RegionAccessFields = sound): Buffer => payloadOf(regionWriteReply(fields));

  test('is the 16 bytes of what was asked for', () => {
    decode(asked, reply());
  });

  test.each<[string, RegionAccessFields, RegExp]>([
    ['another offset', { offset: 0x15 }, /REGION_WRITE reply: offset is 0x15, 0x14 was asked for/],
    ['another region', { region: 1 }, /region is 1, 0 was asked for/],
    ['a smaller count', { count: 3 }, /count is 3, 4 was asked for/],
    ['the data again', { data: [1, 2, 3, 4] }, /4 bytes of data, 0 are due for a count of 4/],
  ])('%s is refused', (_name, twin, words) => {
    expectRefused(asked, reply({ ...sound, ...twin }), words);
  });

  test('a cut reply is refused at every length, random bytes are accepted or refused', () => {
    expectEveryCutRefused(asked, reply());
    expectOnlyProtocolErrors(asked, reply());
  });
});
