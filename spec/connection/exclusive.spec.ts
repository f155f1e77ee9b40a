/** Sections that must not interleave: whoever waits for a turn leaves nothing behind. */
import { expect, test } from '@jest/globals';
import { Exclusive } from '../../lib/connection/exclusive.js';

function timers(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
}

test('a deadline that was met does not keep the process alive', async () => {
  const before = timers();
  const exclusive = new Exclusive();
  const order: number[] = [];
  await Promise.all(
    [1, 2, 3].map((n) =>
      exclusive.run('a section', { timeoutMs: 60_000 }, async () => {
        await new Promise(setImmediate);
        order.push(n);
      }),
    ),
  );
  expect(order).toEqual([1, 2, 3]);
  // Others may have ended meanwhile: a timer of whoever runs the specs.
  expect(timers()).toBeLessThanOrEqual(before);
});

test('one that gives up while others wait leaves them their deadlines', async () => {
  const exclusive = new Exclusive();
  let end!: () => void;
  const first = exclusive.run('the first', {}, () => new Promise<void>((resolve) => (end = resolve)));
  const signal = new AbortController();
  const second = exclusive.run('the second', { timeoutMs: 60_000, signal: signal.signal }, async () => 2);
  const third = exclusive.run('the third', { timeoutMs: 5 }, async () => 3);
  signal.abort(new Error('given up'));
  await expect(second).rejects.toThrow('given up');
  await expect(third).rejects.toThrow('the third (waiting for its turn)');
  end();
  await first;
  expect(await exclusive.run('the fourth', { timeoutMs: 60_000 }, async () => 4)).toBe(4);
});

test('one without a deadline waits as long as those before it take, and hears nothing of how they end', async () => {
  const before = timers();
  const exclusive = new Exclusive();
  let fail!: (error: Error) => void;
  const endless = exclusive.run(
    'the endless one',
    { timeoutMs: Infinity },
    () => new Promise<void>((_, reject) => (fail = reject)),
  );
  const order: string[] = [];
  const patient = exclusive.run('the patient one', undefined, async () => void order.push('patient'));
  const hurried = exclusive.run('the hurried one', { timeoutMs: 5 }, async () => void order.push('hurried'));
  await expect(hurried).rejects.toMatchObject({ code: 'ETIMEDOUT' });
  expect(order).toEqual([]);
  expect(timers()).toBeLessThanOrEqual(before);
  fail(new Error('the connection has ended'));
  await expect(endless).rejects.toThrow('the connection has ended');
  await patient;
  expect(order).toEqual(['patient']);
});
