import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { assignBars, BAR_WINDOWS, type BarKind, type BarRequest } from '../../lib/pci/index.js';

describe('assignBars', () => {
  test('gives each kind a place in its window', () => {
    const { assignments, problems } = assignBars([
      { index: 0, kind: 'memory64', size: 0x4000 },
      { index: 2, kind: 'memory32', size: 0x1000 },
      { index: 3, kind: 'memory32', size: 0x10_0000 },
      { index: 4, kind: 'io', size: 0x100 },
      { index: 5, kind: 'memory32', size: 0 },
    ]);
    expect(problems).toEqual([]);
    expect(assignments).toEqual([
      { index: 0, kind: 'memory64', address: BAR_WINDOWS.memory64.start },
      { index: 2, kind: 'memory32', address: BAR_WINDOWS.memory32.start + 0x10_0000n },
      { index: 3, kind: 'memory32', address: BAR_WINDOWS.memory32.start },
      { index: 4, kind: 'io', address: BAR_WINDOWS.io.start },
    ]);
  });

  test('keeps clear of BARs that have an address', () => {
    const { start } = BAR_WINDOWS.memory32;
    const { assignments } = assignBars([
      { index: 0, kind: 'memory32', size: 0x1000, address: start + 0x1000n },
      { index: 1, kind: 'memory32', size: 0x2000 },
      { index: 2, kind: 'memory32', size: 0x1000 },
    ]);
    expect(assignments).toEqual([
      { index: 1, kind: 'memory32', address: start + 0x2000n },
      { index: 2, kind: 'memory32', address: start },
    ]);
  });

  test('ports and memory do not obstruct each other', () => {
    const windows = { ...BAR_WINDOWS, memory32: BAR_WINDOWS.io };
    const { assignments } = assignBars(
      [
        { index: 0, kind: 'memory32', size: 0x1000 },
        { index: 1, kind: 'io', size: 0x1000 },
      ],
      windows,
    );
    expect(assignments.map(({ address }) => address)).toEqual([0x1000n, 0x1000n]);
  });

  test('aligns a size that is no power of two to the next one', () => {
    const { assignments } = assignBars([
      { index: 0, kind: 'memory32', size: 0x5000 },
      { index: 1, kind: 'memory32', size: 0x3000 },
    ]);
    expect(assignments.map(({ address }) => address - BAR_WINDOWS.memory32.start)).toEqual([0n, 0x8000n]);
  });

  test('names what does not fit and places the others', () => {
    const { assignments, problems } = assignBars([
      { index: 0, kind: 'memory32', size: 1n << 32n },
      { index: 1, kind: 'io', size: 0x2_0000 },
      { index: 2, kind: 'memory64', size: (1n << 64n) - 1n },
      { index: 4, kind: 'memory32', size: 0x1000 },
    ]);
    expect(problems).toHaveLength(3);
    expect(assignments.map(({ index }) => index)).toEqual([4]);
  });

  test('a negative size is misuse', () => {
    expect(() => assignBars([{ index: 0, kind: 'io', size: -1 }])).toThrow(RangeError);
  });

  test('for any sizes: aligned, inside the window, no overlap, each BAR placed or named', () => {
    const kinds: BarKind[] = ['memory32', 'memory64', 'io'];
    const request = fc.record({
      kind: fc.constantFrom(...kinds),
      size: fc.oneof(fc.bigInt(0n, 0x2_0000n), fc.bigInt(0n, 1n << 64n)),
      address: fc.oneof(fc.constant(0n), fc.bigInt(0n, 0xffff_f000n), fc.bigInt(0n, (1n << 64n) - 1n)),
    });
    fc.assert(
      fc.property(fc.array(request, { maxLength: 6 }), (list) => {
        const requests: BarRequest[] = list.map((each, index) => ({ index, ...each }));
        const { assignments, problems } = assignBars(requests);
        const wanted = list.filter(({ size, address }) => size !== 0n && address === 0n);
        expect(assignments.length + problems.length).toBe(wanted.length);

        const at = new Map(assignments.map(({ index, address }) => [index, address]));
        const places = list.flatMap(({ kind, size, address }, index) => {
          const start = address === 0n ? at.get(index) : address;
          return start === undefined || size === 0n
            ? []
            : [{ kind, start, end: start + size, own: at.has(index) }];
        });
        for (const place of places.filter(({ own }) => own)) {
          const window = BAR_WINDOWS[place.kind];
          expect(place.start >= window.start && place.end <= window.end).toBe(true);
          expect(place.start & (lowestPower(place.end - place.start) - 1n)).toBe(0n);
          const overlapping = places.filter(
            (other) =>
              (other.kind === 'io') === (place.kind === 'io') &&
              other.start < place.end &&
              place.start < other.end,
          );
          expect(overlapping).toEqual([place]);
        }
      }),
    );
  });
});

/** The least power of two that is not below `size`. */
function lowestPower(size: bigint): bigint {
  let power = 1n;
  while (power < size) power *= 2n;
  return power;
}
