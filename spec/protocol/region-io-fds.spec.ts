import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  decodeGetRegionIoFds,
  decodeRegionIoFds,
  encodeGetRegionIoFds,
  encodeRegionIoFds,
  type SubRegion,
} from '../../lib/protocol/region-io-fds.js';
import {
  payloadOf,
  regionIoFdsReply,
  regionIoFdsRequest,
  subRegion,
  type RegionIoFdsFields,
} from '../support/wire.js';
import {
  addresses,
  bits,
  decode,
  expectEveryCutRefused,
  expectOnlyProtocolErrors,
  expectRefused,
  sizes,
} from '../support/wire-placed.js';

const request = (fields?: RegionIoFdsFields): Buffer => payloadOf(regionIoFdsRequest(fields));
const reply = (fields?: RegionIoFdsFields): Buffer => payloadOf(regionIoFdsReply(fields));

describe('DEVICE_GET_REGION_IO_FDS', () => {
  test('the request is argsz and index', () => {
    expect(encodeGetRegionIoFds(2)).toEqual(request({ index: 2 }));
    expect(encodeGetRegionIoFds(2, 512)).toEqual(request({ index: 2, argsz: 512 }));
    expect(decode(decodeGetRegionIoFds, request({ index: 2, argsz: 512 }))).toEqual({ index: 2, argsz: 512 });
  });

  test.each([
    [{ argsz: 15 }, /argsz is 15/],
    [{ argsz: 1048577 }, /argsz is 1048577, more than the 1048576 that are accepted/],
    [{ flags: 1 }, /flags is 1, it must be zero/],
    [{ count: 1 }, /count is 1, it must be zero/],
  ])('%j is refused', (twin, words) => {
    expectRefused(decodeGetRegionIoFds, request(twin), words);
  });

  test('a cut request is refused, random bytes are decoded or refused', () => {
    expectEveryCutRefused(decodeGetRegionIoFds, request());
    expectOnlyProtocolErrors(decodeGetRegionIoFds, request());
  });

  test('what does not fit is a RangeError', () => {
    expect(() => encodeGetRegionIoFds(-1)).toThrow(RangeError);
    expect(() => encodeGetRegionIoFds(0, 15)).toThrow(RangeError);
    expect(() => encodeGetRegionIoFds(0, 1048577)).toThrow(RangeError);
  });
});

describe("DEVICE_GET_REGION_IO_FDS's reply", () => {
  const eventfd: SubRegion = {
    type: 0,
    offset: 40,
    size: 8,
    fdIndex: 0,
    flags: 1,
    datamatch: 0xdeadbeefcafef00dn,
  };
  const regionfd: SubRegion = { type: 1, offset: 0x1000, size: 0, fdIndex: 1, flags: 2, userData: 7n };
  const shadow: SubRegion = {
    ...{ type: 2, offset: 0, size: 4, fdIndex: 2, flags: 0 },
    ...{ shadowFdIndex: 3, shadowOffset: 0x1_0000_0008, datamatch: 9n },
  };

  test('libvfio-user: entries of 48 bytes, the match in the last eight', () => {
    const bytes = reply({
      index: 2,
      subRegions: [
        subRegion(eventfd, 0, 0, eventfd.datamatch),
        subRegion(regionfd, 0, regionfd.userData, 0),
        subRegion(shadow, shadow.shadowFdIndex, shadow.shadowOffset, shadow.datamatch),
      ],
    });
    expect(bytes).toHaveLength(16 + 3 * 48);
    expect(encodeRegionIoFds(2, [eventfd, regionfd, shadow])).toEqual(bytes);
    expect(decode(decodeRegionIoFds, bytes)).toEqual({
      ...{ index: 2, count: 3, argsz: 160, truncated: false },
      subRegions: [eventfd, regionfd, shadow],
    });
  });

  test('the specification’s text: entries of 40 bytes', () => {
    const subRegions = [subRegion(eventfd, 0, eventfd.datamatch), subRegion(regionfd, 0, regionfd.userData)];
    expect(decode(decodeRegionIoFds, reply({ subRegions })).subRegions).toEqual([eventfd, regionfd]);
  });

  test('entries longer than any that is known', () => {
    const subRegions = [
      subRegion(shadow, 3, shadow.shadowOffset, 9, 0xff),
      subRegion(eventfd, 0, 0, 5, 0xff),
    ];
    expect(decode(decodeRegionIoFds, reply({ subRegions })).subRegions).toEqual([
      shadow,
      { ...eventfd, datamatch: 5n },
    ]);
  });

  test('none', () => {
    expect(encodeRegionIoFds(1, [])).toEqual(reply({ index: 1 }));
    expect(decode(decodeRegionIoFds, reply({ index: 1 }))).toEqual({
      ...{ index: 1, count: 0, argsz: 16, truncated: false, subRegions: [] },
    });
  });

  test('what does not fit the request is left out, with the argsz that it needs', () => {
    const cut = reply({ index: 2, argsz: 16 + 2 * 48, count: 2 });
    expect(encodeRegionIoFds(2, [eventfd, shadow], 111)).toEqual(cut);
    expect(encodeRegionIoFds(2, [eventfd, shadow], 112)).toHaveLength(112);
    expect(decode(decodeRegionIoFds, cut)).toEqual({
      ...{ index: 2, count: 2, argsz: 112, truncated: true, subRegions: [] },
    });
  });

  test('that its index is the one that was asked for is checked', () => {
    expectRefused(
      (b, s, e) => decodeRegionIoFds(b, s, e, 1),
      reply({ index: 2 }),
      /index is 2, 1 was asked for/,
    );
  });

  test('a round trip keeps every field', () => {
    const base = { offset: sizes(), size: sizes(), fdIndex: bits(32), flags: bits(32) };
    const any: fc.Arbitrary<SubRegion> = fc.oneof(
      fc.record({ type: fc.constant(0 as const), ...base, datamatch: addresses() }),
      fc.record({ type: fc.constant(1 as const), ...base, userData: addresses() }),
      fc.record({
        ...{ type: fc.constant(2 as const), ...base, datamatch: addresses() },
        ...{ shadowFdIndex: bits(32), shadowOffset: sizes() },
      }),
    );
    fc.assert(
      fc.property(bits(32), fc.array(any, { maxLength: 8 }), (index, subRegions) => {
        expect(decode(decodeRegionIoFds, encodeRegionIoFds(index, subRegions))).toMatchObject({
          index,
          subRegions,
        });
      }),
    );
  });

  const entry = subRegion(eventfd, 0, 0, 1);

  test.each<[string, RegionIoFdsFields, RegExp]>([
    ['an argsz of less than the structure', { argsz: 15 }, /argsz is 15/],
    [
      'an argsz to make us ask for gigabytes',
      { argsz: 0xffffffff, count: 1 },
      /argsz is 4294967295, more than/,
    ],
    ['flags', { flags: 2 }, /flags is 2, it must be zero/],
    ['a count without room', { count: 1 }, /argsz 16 and count 1 give no whole entry of at least 40 bytes/],
    ['the largest count', { count: 0xffffffff, subRegions: [entry] }, /argsz 64 and count 4294967295/],
    ['entries of half a size', { count: 2, subRegions: [entry] }, /argsz 64 and count 2/],
    [
      'entries that are not whole',
      { count: 2, subRegions: [entry, entry, Buffer.of(0)] },
      /argsz 113 and count 2/,
    ],
    ['entries of 39 bytes', { subRegions: [entry.subarray(0, 39)] }, /argsz 55 and count 1/],
    [
      'an unknown type',
      { subRegions: [subRegion({ ...eventfd, type: 3 }, 0, 0, 0)] },
      /sub-region type is 3/,
    ],
    ['a shadow in 40 bytes', { subRegions: [subRegion(shadow, 3, 0)] }, /a shadow ioeventfd takes 48 bytes/],
    [
      'an offset above 2^53',
      { subRegions: [subRegion({ ...eventfd, offset: 2n ** 53n }, 0, 0)] },
      /offset is 0x2/,
    ],
    ['a size above 2^53', { subRegions: [subRegion({ ...eventfd, size: 2n ** 63n }, 0, 0)] }, /size is 0x8/],
    [
      'a shadow offset above 2^53',
      { subRegions: [subRegion(shadow, 0, 2n ** 63n, 0)] },
      /shadow_offset is 0x8/,
    ],
  ])('%s', (_name, fields, words) => {
    expectRefused(decodeRegionIoFds, reply(fields), words);
  });

  test('a cut structure is refused at every length, a cut array is one to ask for again', () => {
    const whole = reply({ subRegions: [entry] });
    expectEveryCutRefused(decodeRegionIoFds, whole.subarray(0, 16));
    for (let length = 16; length < whole.length; length++) {
      expect(decode(decodeRegionIoFds, whole.subarray(0, length)).truncated).toBe(true);
    }
  });

  test('random bytes are decoded or refused, nothing else', () => {
    const short = subRegion(regionfd, 0, 7);
    expectOnlyProtocolErrors(
      decodeRegionIoFds,
      reply({ subRegions: [entry, entry] }),
      reply({ subRegions: [short] }),
    );
  });

  test('what does not fit is a RangeError', () => {
    expect(() => encodeRegionIoFds(0, [{ ...eventfd, offset: -1 }])).toThrow(RangeError);
    expect(() => encodeRegionIoFds(0, [{ ...shadow, shadowOffset: 2 ** 53 }])).toThrow(RangeError);
    expect(() => encodeRegionIoFds(0, [{ ...regionfd, fdIndex: 2 ** 32 }])).toThrow(RangeError);
    expect(() => encodeRegionIoFds(0, Array<SubRegion>(21846).fill(eventfd))).toThrow(RangeError);
  });
});
