/** What the benchmark makes of its trials. */
import { describe, expect, test } from '@jest/globals';
import { compare, latencyOf, standAlone } from '../../bench/compare.js';
import { atLeast, atMostAtP90, atMostInTime, goalInWords, judge, verdictInWords } from '../../bench/goal.js';
import { least, median, most } from '../../bench/stats.js';
import type { Trial } from '../../bench/trial.js';

function trial(opsPerSecond: number, rest: Partial<Trial> = {}): Trial {
  return { opsPerSecond, process: { seconds: 2, userSeconds: 1, systemSeconds: 0.5 }, ...rest };
}

const timed = (userSeconds: number, systemSeconds: number) => ({ seconds: 1, userSeconds, systemSeconds });

describe('series of numbers', () => {
  test.each([
    [[3], 3, 3, 3],
    [[3, 1, 2], 2, 1, 3],
    [[4, 1, 3, 2], 2.5, 1, 4],
    [[10, 9, 100], 10, 9, 100],
  ])('%j', (values, middle, lowest, highest) => {
    expect([median(values), least(values), most(values)]).toEqual([middle, lowest, highest]);
  });

  test('no numbers have no median, and a series stays as it was', () => {
    expect(median([])).toBeNaN();
    const values = [2, 1];
    median(values);
    expect(values).toEqual([2, 1]);
  });
});

describe('goals', () => {
  test.each([
    [atLeast(0.9), 0.9, true, 0],
    [atLeast(1), 1.2, true, 0],
    [atLeast(1), 0.75, false, 0.25],
    [atMostInTime(1.1), 1.1, true, 0],
    [atMostInTime(0.5), 0.6, false, 0.2],
    [{ measure: 'nsPerAccess', most: 5 } as const, 4, true, 0],
    [{ measure: 'nsPerAccess', most: 5 } as const, 10, false, 1],
  ])('%j: %d', (goal, value, reached, missedBy) => {
    const verdict = judge(goal, value);
    expect(verdict.reached).toBe(reached);
    expect(verdict.missedBy).toBeCloseTo(missedBy);
  });

  test('in words', () => {
    expect(goalInWords(atLeast(0.9))).toBe('≥ 0.90');
    expect(goalInWords(atMostInTime(1.1))).toBe('≤ 1.10 in time');
    expect(goalInWords(atMostAtP90(1.25))).toBe('≤ 1.25 at p90');
    const slow = atMostInTime(1);
    expect(verdictInWords(slow, judge(slow, 1.25))).toBe('missed by 25 % (1.25 in time)');
    const fast = atLeast(1);
    expect(verdictInWords(fast, judge(fast, 1.1))).toBe('reached');
    // Never `missed by 0 %`.
    expect(verdictInWords(fast, judge(fast, 0.9961))).toBe('missed by 0.4 %');
  });
});

describe('a comparison', () => {
  test('at the 90th percentile is of the latencies, pair by pair', () => {
    const at = (p90: number) => trial(1, { latencyUs: { curve: [[90, p90]] } });
    const goal = atMostAtP90(1.25);
    const parts = { rival: 'r', goal, ours: [at(2), at(3), at(9)], theirs: [at(1), at(3), at(6)] };
    expect(compare(parts).verdict).toEqual({ value: 1.5, reached: false, missedBy: expect.closeTo(0.2) });
    expect(() => compare({ ...parts, ours: [trial(1), at(3), at(9)] })).toThrow(/90th percentile/);
  });

  test('is the median of paired ratios, not the ratio of medians', () => {
    const ours = [100, 300, 1000].map((ops) => trial(ops));
    const theirs = [50, 400, 500].map((ops) => trial(ops));
    const { ratios, medianRatio, leastRatio, mostRatio } = compare({ rival: 'r', ours, theirs });
    expect(ratios).toEqual([2, 0.75, 2]);
    expect({ medianRatio, leastRatio, mostRatio }).toEqual({
      medianRatio: 2,
      leastRatio: 0.75,
      mostRatio: 2,
    });
  });

  test('a goal in time is judged in time', () => {
    const [ours, theirs] = [[trial(200)], [trial(100)]];
    const slow = compare({ rival: 'r', goal: atMostInTime(0.4), ours, theirs });
    expect(slow.verdict).toMatchObject({ value: 0.5, reached: false });
    expect(compare({ rival: 'r', goal: atMostInTime(0.5), ours, theirs }).verdict?.reached).toBe(true);
  });

  test('trials come in pairs', () => {
    expect(() => compare({ rival: 'r', ours: [trial(1)], theirs: [] })).toThrow(RangeError);
    expect(() => compare({ rival: 'r', ours: [], theirs: [] })).toThrow(RangeError);
  });

  test('processor time has the same scope on both sides', () => {
    const both = compare({
      rival: 'r',
      ours: [trial(1, timed(0.2, 0.3))],
      theirs: [trial(1, timed(0.1, 0))],
    });
    expect(both.processor).toEqual({
      scope: 'timed',
      ours: { user: 0.2, system: 0.3 },
      theirs: { user: 0.1, system: 0 },
    });
    const one = compare({ rival: 'r', ours: [trial(1, timed(0.2, 0.3))], theirs: [trial(1)] });
    expect(one.processor).toMatchObject({ scope: 'process', ours: { user: 0.5, system: 0.25 } });
  });

  test('says how busy processors were kept beside each', () => {
    const [ours, theirs] = [[trial(1, { burned: 1.5 })], [trial(1, { burned: 1.25 })]];
    expect(compare({ rival: 'r', ours, theirs, nice: 3 }).load).toEqual({ nice: 3, ours: 1.5, theirs: 1.25 });
    expect(compare({ rival: 'r', ours, theirs }).load).toBeUndefined();
  });
});

describe('a workload alone', () => {
  test('has the medians of what its trials say', () => {
    const trials = [4, 6, 5].map((nsPerAccess) => trial(1e9 / nsPerAccess, { nsPerAccess }));
    const alone = standAlone(trials, { measure: 'nsPerAccess', most: 4 });
    expect(alone.others).toEqual({ nsPerAccess: 5 });
    expect(alone.opsPerSecond).toEqual({ median: 2e8, least: 1e9 / 6, most: 2.5e8 });
    expect(alone.verdict).toEqual({ value: 5, reached: false, missedBy: 0.25 });
    expect(() => standAlone([], undefined)).toThrow(RangeError);
  });
});

describe('latencies of several trials', () => {
  const latency = (p50: number, curve: [number, number][]) =>
    trial(1, { latencyUs: { p50, curve, sampled: { count: 10, every: 2 } } });

  test('are medians; the curve has the points that all have', () => {
    const trials = [
      latency(1, [
        [50, 1],
        [99, 9],
      ]),
      latency(3, [[50, 3]]),
      latency(2, [
        [50, 2],
        [99, 7],
      ]),
    ];
    expect(latencyOf(trials)).toEqual({ p50: 2, curve: [[50, 2]], sampled: { count: 30, every: 2 } });
  });

  test('are none where no trial says any', () => {
    expect(latencyOf([trial(1)])).toBeUndefined();
  });
});
