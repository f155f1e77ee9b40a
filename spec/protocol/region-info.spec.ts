import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  decodeGetRegionInfo,
  decodeRegionInfo,
  encodeGetRegionInfo,
  encodeRegionInfo,
  type KnownRegionCapabilities,
  type RegionInfo,
} from '../../lib/protocol/region-info.js';
import {
  capability,
  payloadOf,
  regionInfoReply,
  regionInfoRequest,
  regionType,
  sparseMmap,
  sparseMmapFds,
  wire,
  type RegionInfoFields,
} from '../support/wire.js';
import {
  bits,
  decode,
  expectEveryCutRefused,
  expectOnlyProtocolErrors,
  expectRefused,
  sizes,
} from '../support/wire-placed.js';

const request = (fields?: RegionInfoFields): Buffer => payloadOf(regionInfoRequest(fields));
const reply = (fields?: RegionInfoFields): Buffer => payloadOf(regionInfoReply(fields));
const MAX_SAFE = Number.MAX_SAFE_INTEGER;

describe('DEVICE_GET_REGION_INFO', () => {
  test('the request is argsz and index', () => {
    expect(encodeGetRegionInfo(7)).toEqual(request({ index: 7 }));
    expect(encodeGetRegionInfo(2, 80)).toEqual(request({ index: 2, argsz: 80 }));
    expect(decode(decodeGetRegionInfo, request({ index: 2, argsz: 80 }))).toEqual({ argsz: 80, index: 2 });
  });

  test('a request may be as long as the reply that it wants', () => {
    const long = Buffer.concat([request({ index: 2, argsz: 80 }), Buffer.alloc(48)]);
    expect(decode(decodeGetRegionInfo, long)).toEqual({ argsz: 80, index: 2 });
  });

  test('a request that is cut, or wants less than the structure, is refused', () => {
    expectEveryCutRefused(decodeGetRegionInfo, request());
    expectRefused(decodeGetRegionInfo, request({ argsz: 31 }), /DEVICE_GET_REGION_INFO: argsz is 31/);
    expectOnlyProtocolErrors(decodeGetRegionInfo, request());
  });

  test('what does not fit is a RangeError', () => {
    expect(() => encodeGetRegionInfo(-1)).toThrow(RangeError);
    expect(() => encodeGetRegionInfo(0, 31)).toThrow(RangeError);
    expect(() => encodeGetRegionInfo(0, 2 ** 32)).toThrow(RangeError);
  });
});

describe("DEVICE_GET_REGION_INFO's reply", () => {
  test('without capabilities: the BAR1 of libvfio-user’s tests', () => {
    const fields = { flags: 3, index: 1, size: 4096, offset: 0 };
    expect(encodeRegionInfo(fields)).toEqual(reply(fields));
    expect(decode(decodeRegionInfo, reply(fields))).toEqual({
      ...fields,
      argsz: 32,
      truncated: false,
      capabilities: { unknown: [] },
    });
  });

  test('with two sparse areas: the BAR2 of libvfio-user’s tests', () => {
    const areas = [[0x2000, 0x1000], [0x4000, 0x2000]] as const; // prettier-ignore
    const fields = { flags: 0xf, index: 2, size: 0x8000, offset: 0x8000 };
    const bytes = reply({ ...fields, capabilities: sparseMmap(areas) });
    const sparse = { areas: areas.map(([offset, size]) => ({ offset, size })) };
    expect(bytes).toHaveLength(80);
    expect(encodeRegionInfo({ ...fields, capabilities: { sparseMmap: sparse } })).toEqual(bytes);
    expect(decode(decodeRegionInfo, bytes)).toEqual({
      ...fields,
      argsz: 80,
      truncated: false,
      capabilities: { sparseMmap: sparse, unknown: [] },
    });
  });

  test('a device-specific region with areas and a type', () => {
    const capabilities = Buffer.concat([sparseMmap([[0, 0x1000]], 64), regionType(3, 1)]);
    const known: KnownRegionCapabilities = {
      sparseMmap: { areas: [{ offset: 0, size: 0x1000 }] },
      type: { type: 3, subtype: 1 },
    };
    const bytes = reply({ index: 9, flags: 0xf, size: 0x2000, capabilities });
    expect(encodeRegionInfo({ index: 9, flags: 7, size: 0x2000, offset: 0, capabilities: known })).toEqual(
      bytes,
    );
    expect(decode(decodeRegionInfo, bytes).capabilities).toEqual({ ...known, unknown: [] });
  });

  test.each([0x8001, 16])('areas with fds of their own, under id %i', (id) => {
    const areas = [[0x1000, 0x40000, 0x1000, 1], [0, 0, 0x1000, 0]] as const; // prettier-ignore
    const bytes = reply({ size: 0x2000, flags: 0xf, capabilities: sparseMmapFds(areas, 0, id) });
    const decoded = {
      areas: areas.map(([offset, fdOffset, size, fdIndex]) => ({ offset, fdOffset, size, fdIndex })),
    };
    expect(decode(decodeRegionInfo, bytes).capabilities).toEqual({ sparseMmapFds: decoded, unknown: [] });
    const encoded = encodeRegionInfo({
      ...{ index: 0, flags: 0xf, size: 0x2000, offset: 0 },
      capabilities: { sparseMmapFds: decoded },
    });
    if (id === 0x8001) expect(encoded).toEqual(bytes);
  });

  test('capabilities that nobody knows are listed and passed over, wherever they stand', () => {
    const capabilities = Buffer.concat([
      capability(3, 40, wire()),
      sparseMmap([[0, 0x1000]], 72),
      capability(0xffff, 0, wire().zeros(8), 9),
    ]);
    expect(decode(decodeRegionInfo, reply({ size: 0x1000, capabilities })).capabilities).toEqual({
      sparseMmap: { areas: [{ offset: 0, size: 0x1000 }] },
      unknown: [
        { id: 3, version: 1 },
        { id: 0xffff, version: 9 },
      ],
    });
  });

  test('the chain may go backwards, and may begin anywhere behind the structure', () => {
    const capabilities = Buffer.concat([regionType(1, 2), sparseMmap([[0, 16]], 32)]);
    const bytes = reply({ size: 16, capabilities, capOffset: 48 });
    expect(Object.keys(decode(decodeRegionInfo, bytes).capabilities).sort()).toEqual([
      'sparseMmap',
      'type',
      'unknown',
    ]);
  });

  test('without the CAPS flag, or with an offset of 0, there are none', () => {
    const capabilities = sparseMmap([[0, 16]]);
    for (const fields of [{ flags: 7 }, { flags: 0xf, capOffset: 0 }]) {
      const decoded = decode(decodeRegionInfo, reply({ size: 16, capabilities, ...fields }));
      expect(decoded).toMatchObject({ truncated: false, capabilities: { unknown: [] } });
      expect(decoded.capabilities.sparseMmap).toBeUndefined();
    }
  });

  test('areas may fill the region, and be empty', () => {
    const capabilities = sparseMmap([[0, MAX_SAFE], [MAX_SAFE, 0], [0, 0]]); // prettier-ignore
    expect(
      decode(decodeRegionInfo, reply({ size: MAX_SAFE, capabilities })).capabilities.sparseMmap?.areas,
    ).toEqual([
      { offset: 0, size: MAX_SAFE },
      { offset: MAX_SAFE, size: 0 },
      { offset: 0, size: 0 },
    ]);
  });

  test('that its index is the one that was asked for is checked', () => {
    const asked = (b: Buffer, s: number, e: number): RegionInfo => decodeRegionInfo(b, s, e, 3);
    expect(decode(asked, reply({ index: 3 })).index).toBe(3);
    expectRefused(asked, reply({ index: 4 }), /index is 4, 3 was asked for/);
  });

  test('a round trip keeps every field', () => {
    fc.assert(
      fc.property(infos(), (info) => {
        const bytes = encodeRegionInfo(info);
        const { argsz, truncated, capabilities, ...rest } = decode(decodeRegionInfo, bytes);
        expect({ argsz, truncated }).toEqual({ argsz: bytes.length, truncated: false });
        expect(capabilities).toEqual({ ...info.capabilities, unknown: [] });
        const flags = (info.flags & ~8) | (bytes.length > 32 ? 8 : 0);
        expect(rest).toEqual({ index: info.index, flags: flags >>> 0, size: info.size, offset: info.offset });
      }),
    );
  });
});

describe('a reply that did not fit', () => {
  const info = { index: 2, flags: 7, size: 0x8000, offset: 0x8000 };
  const capabilities = { sparseMmap: { areas: [{ offset: 0, size: 0x1000 }] } };

  test('libvfio-user: the larger argsz, and no CAPS flag', () => {
    expect(encodeRegionInfo({ ...info, capabilities }, 63)).toEqual(reply({ ...info, argsz: 64 }));
    expect(decode(decodeRegionInfo, reply({ ...info, argsz: 64 }))).toEqual({
      ...info,
      argsz: 64,
      truncated: true,
      capabilities: { unknown: [] },
    });
  });

  test('rust-vmm: the CAPS flag and an offset besides, with nothing there', () => {
    const bytes = reply({ ...info, flags: 0xf, argsz: 64, capOffset: 32 });
    expect(decode(decodeRegionInfo, bytes)).toEqual({
      ...info,
      flags: 0xf,
      argsz: 64,
      truncated: true,
      capabilities: { unknown: [] },
    });
  });

  test('a part of the capabilities is not looked at', () => {
    const whole = reply({ ...info, flags: 0xf, capabilities: sparseMmap([[0, 0x1000]]) });
    for (let length = 32; length < whole.length; length++) {
      expect(decode(decodeRegionInfo, whole.subarray(0, length))).toMatchObject({
        truncated: true,
        argsz: 64,
      });
    }
    expect(decode(decodeRegionInfo, whole).truncated).toBe(false);
  });

  test('with room to the byte it does fit', () => {
    expect(encodeRegionInfo({ ...info, capabilities }, 64)).toHaveLength(64);
  });
});

describe("DEVICE_GET_REGION_INFO's reply: what is refused", () => {
  const sound = { flags: 0xf, index: 2, size: 0x8000, offset: 0x8000 };

  test('a cut structure', () => {
    expectEveryCutRefused(decodeRegionInfo, reply());
  });

  test.each<[string, RegionInfoFields, RegExp]>([
    [
      'an argsz of less than the structure',
      { argsz: 31 },
      /argsz is 31, the structure that it measures takes 32/,
    ],
    ['an argsz of 0', { argsz: 0 }, /argsz is 0/],
    ['an argsz to make us ask for megabytes', { argsz: 65537 }, /argsz is 65537, more than the 65536/],
    ['the largest argsz', { argsz: 0xffffffff }, /argsz is 4294967295/],
    ['a size above 2^53', { size: 2n ** 53n }, /size is 0x20000000000000, more than 2\^53-1/],
    ['the largest size', { size: 2n ** 64n - 1n }, /size is 0xffffffffffffffff/],
    ['an offset above 2^53', { offset: 2n ** 63n }, /offset is 0x8000000000000000/],
    ['offset and size above 2^53', { offset: MAX_SAFE, size: 1 }, /run past 2\^53-1/],
  ])('%s', (_name, twin, words) => {
    expectRefused(decodeRegionInfo, reply({ ...sound, ...twin }), words);
  });

  const areas = sparseMmap([[0, 0x1000]]);

  test.each([1, 8, 28, 31, 57, 60, 61, 64, 0x7fffffff, 0xfffffff8, 0xffffffff])(
    'a first capability at %i',
    (capOffset) => {
      const bytes = reply({ ...sound, capabilities: areas, capOffset });
      expectRefused(decodeRegionInfo, bytes, new RegExp(`capability offset ${capOffset}`));
    },
  );

  test.each([1, 31, 33, 34, 57, 64, 0xffffffff])('a next capability at %i', (next) => {
    const bytes = reply({ ...sound, capabilities: sparseMmap([[0, 0x1000]], next) });
    expectRefused(decodeRegionInfo, bytes, new RegExp(`capability offset ${next}`));
  });

  test('a capability behind argsz, though there are bytes', () => {
    const bytes = reply({ ...sound, argsz: 32, capabilities: areas });
    expectRefused(
      decodeRegionInfo,
      bytes,
      /capability offset 32, a header must lie between 32 and the end at 32/,
    );
  });

  test('a capability that follows itself', () => {
    const bytes = reply({ ...sound, capabilities: capability(77, 32, wire().zeros(8)) });
    expectRefused(decodeRegionInfo, bytes, /the capability chain comes back to offset 32/);
  });

  test('a chain that goes round', () => {
    const ring = Buffer.concat([
      capability(77, 40, wire()),
      capability(78, 48, wire()),
      capability(79, 40, wire()),
    ]);
    expectRefused(decodeRegionInfo, reply({ ...sound, capabilities: ring }), /comes back to offset 40/);
  });

  test('a chain of more than 64', () => {
    const chain = (length: number): Buffer =>
      Buffer.concat(
        Array.from({ length }, (_, i) => capability(100 + i, i === length - 1 ? 0 : 40 + 8 * i, wire())),
      );
    expect(
      decode(decodeRegionInfo, reply({ ...sound, capabilities: chain(64) })).capabilities.unknown,
    ).toHaveLength(64);
    expectRefused(decodeRegionInfo, reply({ ...sound, capabilities: chain(65) }), /more than 64 entries/);
  });

  test.each([
    ['SPARSE_MMAP', (next: number) => sparseMmap([[0, 16]], next)],
    ['TYPE', (next: number) => Buffer.concat([regionType(1, 1, next), Buffer.alloc(16)])],
    ['SPARSE_MMAP_FDS', (next: number) => sparseMmapFds([], next).subarray(0, 16)],
  ])('%s twice', (name, build) => {
    const first = build(32 + build(0).length);
    const bytes = reply({ ...sound, capabilities: Buffer.concat([first, build(0)]) });
    expectRefused(decodeRegionInfo, bytes, new RegExp(`capability ${name} is there twice`));
  });

  test.each([1, 2, 16, 0x8001])('another version of capability %i', (id) => {
    for (const version of [0, 2, 0xffff]) {
      const capabilities = capability(id, 0, wire().zeros(32), version);
      expectRefused(
        decodeRegionInfo,
        reply({ ...sound, capabilities }),
        /has version \d+, only 1 is defined/,
      );
    }
  });

  test('capabilities that are cut, when argsz is cut with them', () => {
    for (const whole of [areas, regionType(1, 1), sparseMmapFds([[0, 0, 0x1000, 0]])]) {
      for (let length = 1; length < whole.length; length++) {
        const bytes = reply({ ...sound, capabilities: whole.subarray(0, length) });
        expectRefused(decodeRegionInfo, bytes, /capability/);
      }
    }
  });

  test.each([2, 3, 0x0fffffff, 0x10000000, 0x20000000, 0xffffffff])(
    'room for one area, nr_areas %i',
    (nrAreas) => {
      const plain = reply({ ...sound, capabilities: sparseMmap([[0, 0x1000]], 0, nrAreas) });
      expectRefused(decodeRegionInfo, plain, new RegExp(`nr_areas ${nrAreas}, the payload has room for 1`));
      const withFds = reply({
        ...sound,
        capabilities: sparseMmapFds([[0, 0, 0x1000, 0]], 0, 0x8001, nrAreas),
      });
      expectRefused(decodeRegionInfo, withFds, new RegExp(`nr_areas ${nrAreas}, the payload has room for 1`));
    },
  );

  test.each<[string, number | bigint, number | bigint, RegExp]>([
    ['behind the end', 0x8000, 1, /the mappable area of 1 bytes at 32768 is outside the region's 32768/],
    ['across the end', 0x7000, 0x1001, /is outside the region's/],
    ['larger than the region', 0, 0x8001, /is outside the region's/],
    ['with an offset above 2^53', 2n ** 53n, 0x1000, /area offset is 0x20000000000000/],
    ['with a size above 2^53', 0, 2n ** 64n - 1n, /area size is 0xffffffffffffffff/],
    ['that wraps round 2^64', 2n ** 64n - 0x1000n, 0x2000, /area offset is 0xfffffffffffff000/],
    ['that sums up beyond 2^53', MAX_SAFE, MAX_SAFE, /is outside the region's/],
  ])('an area %s', (_name, offset, size, words) => {
    expectRefused(decodeRegionInfo, reply({ ...sound, capabilities: sparseMmap([[offset, size]]) }), words);
    const withFds = sparseMmapFds([[offset, 0, size, 0]]);
    expectRefused(decodeRegionInfo, reply({ ...sound, capabilities: withFds }), words);
  });

  test.each<[string, number | bigint, number, RegExp]>([
    ['an fd index of 1024', 0, 1024, /fd_index is 1024, more than 1023/],
    ['the largest fd index', 0, 0xffffffff, /fd_index is 4294967295/],
    ['an fd offset above 2^53', 2n ** 53n, 0, /area fd_offset is 0x20000000000000/],
    ['fd offset and size above 2^53', MAX_SAFE, 0, /run past 2\^53-1/],
  ])('an area with %s', (_name, fdOffset, fdIndex, words) => {
    const capabilities = sparseMmapFds([[0, fdOffset, 0x1000, fdIndex]]);
    expectRefused(decodeRegionInfo, reply({ ...sound, capabilities }), words);
  });

  test('random bytes are decoded or refused, nothing else', () => {
    expectOnlyProtocolErrors(
      decodeRegionInfo,
      reply(sound),
      reply({ ...sound, capabilities: Buffer.concat([sparseMmap([[0, 16]], 64), regionType(1, 2)]) }),
      reply({ ...sound, capabilities: sparseMmapFds([[0, 0, 0x1000, 0]]) }),
    );
  });

  test('what does not fit is a RangeError', () => {
    const encode = (area: object): void => {
      const areas = [{ offset: 0, size: 1, fdIndex: 0, fdOffset: 0, ...area }];
      encodeRegionInfo({ ...sound, capabilities: { sparseMmapFds: { areas } } });
    };
    expect(() => encode({ offset: -1 })).toThrow(RangeError);
    expect(() => encode({ size: 2 ** 53 })).toThrow(RangeError);
    expect(() => encode({ fdIndex: 1024 })).toThrow(RangeError);
    expect(() => encode({ fdOffset: 0.5 })).toThrow(RangeError);
    expect(() => encodeRegionInfo({ ...sound, size: -1 })).toThrow(RangeError);
    expect(() => encodeRegionInfo({ ...sound, offset: NaN })).toThrow(RangeError);
  });
});

/** Regions whose areas lie inside. */
function infos(): fc.Arbitrary<Parameters<typeof encodeRegionInfo>[0]> {
  return fc.tuple(sizes(), sizes()).chain(([a, b]) => {
    const [size, offset] = a + b > MAX_SAFE ? [Math.floor(a / 2), Math.floor(b / 2)] : [a, b];
    const area = fc.tuple(fc.nat(), fc.nat()).map(([x, y]) => {
      const areaOffset = x % (size + 1);
      return { offset: areaOffset, size: y % (size - areaOffset + 1) };
    });
    const fdArea = fc.tuple(area, fc.nat({ max: 1023 }), fc.nat()).map(([at, fdIndex, fdOffset]) => {
      return { ...at, fdIndex, fdOffset };
    });
    const list = <T>(of: fc.Arbitrary<T>): fc.Arbitrary<{ areas: T[] }> =>
      fc.record({ areas: fc.array(of, { maxLength: 5 }) });
    const capabilities = fc.record(
      {
        sparseMmap: list(area),
        type: fc.record({ type: bits(32), subtype: bits(32) }),
        sparseMmapFds: list(fdArea),
      },
      { requiredKeys: [] },
    );
    return fc.record({
      ...{ index: bits(32), flags: bits(32), size: fc.constant(size), offset: fc.constant(offset) },
      capabilities: capabilities,
    });
  });
}
