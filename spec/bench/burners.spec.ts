import { describe, expect, test } from '@jest/globals';
import { availableParallelism, getPriority } from 'node:os';
import { Burners } from '../../bench/burners.js';

describe('threads that keep processors busy', () => {
  test('use processor time while something else is done, at our own nice value', async () => {
    await using burners = await Burners.start();
    expect(burners.nice).toBe(getPriority());
    const wait = () => new Promise<string>((resolve) => setTimeout(() => resolve('done'), 1_000));
    const { result, burned } = await burners.during(wait);
    expect(result).toBe('done');
    expect(burned).toBeGreaterThan(0);
    // This thread waits meanwhile; what was burned was burned by them.
    expect(burned).toBeLessThanOrEqual(availableParallelism() + 0.5);
  });

  test('a thread that stands still is noticed', async () => {
    const burners = await Burners.start();
    await burners[Symbol.asyncDispose]();
    await expect(burners.during(() => Promise.resolve())).rejects.toThrow('stood still');
  });
});
