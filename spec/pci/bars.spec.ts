import { describe, expect, test } from '@jest/globals';
import { barOffset, barSizeFromMask, decodeBars, encodeBarAddress } from '../../lib/pci/index.js';
import { reader } from './config-bytes.js';

describe('decodeBars', () => {
  test('takes two registers for a 64-bit BAR', () => {
    const { bars, problems } = decodeBars(
      reader(256, { 0x10: '040000f0 ffff0000 0c000000 01000000 0c000080 00000000' }),
    );
    expect(bars).toEqual([
      { index: 0, kind: 'memory64', prefetchable: false, address: 0xffff_f000_0000n },
      { index: 2, kind: 'memory64', prefetchable: true, address: 0x1_0000_0000n },
      { index: 4, kind: 'memory64', prefetchable: true, address: 0x8000_0000n },
    ]);
    expect(problems).toEqual([]);
  });

  test('a 64-bit BAR in the last register is left out and named', () => {
    const { bars, problems } = decodeBars(reader(256, { 0x24: '04000080' }));
    expect(bars.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4]);
    expect(problems).toEqual([expect.stringMatching(/BAR 5 is 64 bits wide/)]);
  });

  test.each([
    ['020000f0', 1],
    ['060000f0', 3],
  ])('the reserved memory type in %s is named and read as 32 bits', (register, type) => {
    const { bars, problems } = decodeBars(reader(256, { 0x10: register }));
    expect(bars[0]).toMatchObject({ kind: 'memory32', address: 0xf000_0000n });
    expect(problems).toEqual([expect.stringContaining(`reserved memory type ${type}`)]);
  });

  test('flag bits are no part of an address', () => {
    const { bars } = decodeBars(reader(256, { 0x10: '03ff0000 f8ffffff' }));
    expect(bars[0]).toMatchObject({ kind: 'io', address: 0xff00n });
    expect(bars[1]).toMatchObject({ kind: 'memory32', prefetchable: true, address: 0xffff_fff0n });
  });
});

describe('barSizeFromMask', () => {
  test.each([
    ['memory of 4 KiB', 0xffff_f000, 0, 0x1000n],
    ['memory of 16 bytes', 0xffff_fff0, 0, 16n],
    ['memory of 2 GiB', 0x8000_0000, 0, 0x8000_0000n],
    ['prefetchable 64-bit memory of 1 MiB', 0xfff0_000c, 0xffff_ffff, 0x10_0000n],
    ['64-bit memory of 4 GiB', 0x0000_0004, 0xffff_ffff, 0x1_0000_0000n],
    ['64-bit memory of 1 TiB', 0x0000_0004, 0xffff_ff00, 0x100_0000_0000n],
    ['32 ports', 0xffff_ffe1, 0, 32n],
    ['256 ports, decoded in 16 bits', 0x0000_ff01, 0, 256n],
    ['32-bit memory, whatever follows it', 0xffff_0000, 0xffff_ffff, 0x1_0000n],
    ['no BAR', 0, 0, 0n],
  ])('%s', (_, low, high, size) => {
    expect(barSizeFromMask(low, high)).toBe(size);
  });
});

describe('encodeBarAddress', () => {
  test('makes one dword, or two for 64 bits', () => {
    expect(encodeBarAddress('memory32', 0xfe00_0000n)).toEqual([0xfe00_0000]);
    expect(encodeBarAddress('io', 0xc000n)).toEqual([0xc000]);
    expect(encodeBarAddress('memory64', 0x12_8000_0000n)).toEqual([0x8000_0000, 0x12]);
  });

  test('refuses what the registers cannot hold', () => {
    expect(() => encodeBarAddress('memory32', 1n << 32n)).toThrow(RangeError);
    expect(() => encodeBarAddress('memory64', 1n << 64n)).toThrow(RangeError);
    expect(() => encodeBarAddress('io', -1n)).toThrow(RangeError);
  });
});

describe('barOffset', () => {
  test('is a dword each from 0x10', () => {
    expect([0, 5].map(barOffset)).toEqual([0x10, 0x24]);
    expect(() => barOffset(6)).toThrow(RangeError);
    expect(() => barOffset(0.5)).toThrow(RangeError);
  });
});
