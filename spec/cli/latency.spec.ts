/** Which of the accesses that `vfio-user bench` makes are timed. */
import { expect, test } from '@jest/globals';
import { LatencySampler } from '../../lib/cli/latency.js';

test.each([
  // How many there are a second, and how often `repeat` is called for how many.
  [0, [1]],
  [0, [200, 200, 200, 31]],
  [1_000, [1, 2, 3]],
  [40_000, [7]],
  [40_000, [100_000]],
  [40_000, [999, 1, 0, 50_000]],
  [1e9, [1_000]],
])('%d a second, %j of them: all are made, and some are timed', (perSecond, counts) => {
  const latency = new LatencySampler(1);
  latency.restart(perSecond);
  let made = 0;
  for (const count of counts) latency.repeat(count, () => made++);
  expect(made).toBe(counts.reduce((sum, count) => sum + count, 0));
  const { sampled, p50, max } = latency.report();
  expect(sampled.count).toBeGreaterThanOrEqual(Math.min(made, 32));
  expect(sampled.every).toBe(Math.round(made / sampled.count));
  // Never more than are wanted, but for the first run.
  if (perSecond > 0) expect(sampled.count).toBeLessThanOrEqual((made * 2_000) / perSecond + 32);
  expect(p50).toBeLessThanOrEqual(max);
});

test('an access takes as long as it takes', () => {
  const latency = new LatencySampler(1);
  latency.restart(1_000);
  latency.repeat(3, () => {
    const end = performance.now() + 2;
    while (performance.now() < end);
  });
  expect(latency.report().p50).toBeGreaterThanOrEqual(2_000);
});
