import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ArenaSpace } from '../../lib/device/arena-space.js';

describe('the space of an arena', () => {
  test('the first allocation that is large enough is taken', () => {
    const space = new ArenaSpace(1000);
    expect([space.allocate(100, 1), space.allocate(200, 1), space.allocate(100, 1)]).toEqual([0, 100, 300]);
    space.free(0, 100);
    space.free(100, 200);
    expect(space.allocate(250, 1)).toBe(0);
    expect(space.allocate(50, 1)).toBe(250);
    expect(space.allocate(601, 1)).toBeUndefined();
    expect(space.allocate(600, 1)).toBe(400);
  });

  test('what lies before an aligned allocation can still be taken', () => {
    const space = new ArenaSpace(8192);
    expect(space.allocate(1, 1)).toBe(0);
    expect(space.allocate(4096, 4096)).toBe(4096);
    expect(space.allocate(4095, 1)).toBe(1);
    expect(space.allocate(1, 1)).toBeUndefined();
  });

  test.each([
    ['in order', [0, 1, 2]],
    ['backwards', [2, 1, 0]],
    ['the middle last', [0, 2, 1]],
    ['the middle first', [1, 0, 2]],
  ])('neighbours are joined: %s', (_, order) => {
    const space = new ArenaSpace(300);
    for (let i = 0; i < 3; i++) space.allocate(100, 1);
    expect(space.isEmpty).toBe(false);
    for (const i of order) space.free(100 * i, 100);
    expect(space.isEmpty).toBe(true);
    expect(space.allocate(300, 1)).toBe(0);
  });

  test('whatever is taken and released: aligned, inside, never twice, and all of it there in the end', () => {
    const step = fc.record({
      release: fc.boolean(),
      which: fc.nat(),
      size: fc.integer({ min: 1, max: 3000 }),
      bits: fc.integer({ min: 0, max: 12 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const space = new ArenaSpace(16384);
        const taken: { offset: number; size: number }[] = [];
        for (const { release, which, size, bits } of steps) {
          if (release && taken.length > 0) {
            const [one] = taken.splice(which % taken.length, 1);
            space.free(one!.offset, one!.size);
            continue;
          }
          const offset = space.allocate(size, 2 ** bits);
          if (offset === undefined) continue;
          expect(offset % 2 ** bits).toBe(0);
          expect(offset >= 0 && offset + size <= 16384).toBe(true);
          for (const other of taken) {
            expect(offset + size <= other.offset || other.offset + other.size <= offset).toBe(true);
          }
          taken.push({ offset, size });
        }
        for (const { offset, size } of taken) space.free(offset, size);
        expect(space.isEmpty).toBe(true);
      }),
    );
  });
});
