/** The intervals of a bench's run, however long it is. */
import { describe, expect, test } from '@jest/globals';
import { Intervals } from '../../lib/cli/bench-report/intervals.js';

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

describe('intervals', () => {
  test('are what was added', () => {
    const intervals = new Intervals(50);
    intervals.add(100, 50);
    intervals.add(300, 60);
    intervals.add(1, 3);
    expect(intervals.rates).toEqual([2000, 5000]);
  });

  test('of a run that was over at once there is one', () => {
    const intervals = new Intervals(50);
    expect(intervals.rates).toEqual([]);
    intervals.add(4, 2);
    expect(intervals.rates).toEqual([2000]);
  });

  test.each([1_000, 20_000, 1_728_000])('of %i parts become longer, and stay few', (parts) => {
    const intervals = new Intervals(50);
    for (let i = 0; i < parts; i++) intervals.add(10 + (i & 1), 50);
    const { rates } = intervals;
    expect(rates.length).toBeGreaterThanOrEqual(100);
    expect(rates.length).toBeLessThanOrEqual(200);
    expect(sum(rates) / rates.length).toBeCloseTo(210, 6);
  });
});
