import { describe, expect, test } from '@jest/globals';
import { StaleBytes } from '../../lib/device/stale-bytes.js';

describe('stale bytes', () => {
  test('are those that were changed and not read since', () => {
    const stale = new StaleBytes(16);
    expect(stale.isEmpty).toBe(true);
    stale.mark(4, 6);
    expect([stale.includes(0, 4), stale.includes(3, 5), stale.includes(6, 16)]).toEqual([false, true, false]);
    stale.clear(4, 5, stale.count);
    expect([stale.includes(4, 5), stale.includes(5, 6)]).toEqual([false, true]);
    stale.clear(0, 16, stale.count);
    expect(stale.isEmpty).toBe(true);
  });

  test('a read that was sent before a change does not count', () => {
    const stale = new StaleBytes(16);
    stale.mark(0, 4);
    const { count } = stale;
    stale.mark(2, 3);
    stale.clear(0, 4, count);
    expect(stale.includes(0, 2) || stale.includes(3, 4)).toBe(false);
    expect(stale.includes(2, 3)).toBe(true);
  });

  test('are listed by block; all of them where nothing is said', () => {
    const stale = new StaleBytes(16);
    stale.mark(7, 9);
    stale.mark(1, 2);
    expect(stale.blocks(4)).toEqual([0, 4, 8]);
    stale.mark();
    expect(stale.blocks(8)).toEqual([0, 8]);
  });
});
