/** Deadlines of many waits, where ending one may end or begin others. */
import { afterEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Deadlines, type Timed } from '../../lib/connection/deadlines.js';
import { until } from '../support/until.js';

let deadlines: Deadlines<Wait> | undefined;

interface Wait extends Timed {
  name: number;
}

afterEach(() => deadlines?.close());

const newWait = (name = 0): Wait => ({ name, deadline: 0, heapIndex: -1 });
const turn = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function waitFor(ms: number): Wait {
  const wait = newWait();
  deadlines!.add(wait, performance.now() + ms);
  return wait;
}

test('a wait that is over while another is ended is not ended too, and those behind it are', async () => {
  const ended: Wait[] = [];
  deadlines = new Deadlines((wait) => {
    ended.push(wait);
    if (wait === first) deadlines!.remove(second);
  });
  const first = waitFor(5);
  const [second, third] = [waitFor(7), waitFor(7)];
  const last = waitFor(30);
  await turn(100);
  expect(ended).toEqual([first, third, last]);
  expect(deadlines.earliest).toBe(Infinity);
});

test('one that begins again within that time ends at its new deadline', async () => {
  const ended: Wait[] = [];
  deadlines = new Deadlines((wait) => {
    ended.push(wait);
    if (ended.length > 1) return;
    deadlines!.remove(second);
    deadlines!.add(second, performance.now() + 60_000);
  });
  const first = waitFor(5);
  const second = waitFor(7);
  await turn(50);
  expect(ended).toEqual([first]);
  expect(deadlines.earliest).toBe(second.deadline);
});

test('what follows is done after them, in the same turn', async () => {
  const seen: string[] = [];
  deadlines = new Deadlines(
    () => seen.push('ended'),
    () => seen.push('afterwards'),
  );
  const [first, second] = [newWait(), newWait()];
  const at = performance.now() + 5;
  deadlines.add(first, at);
  deadlines.add(second, at);
  await turn(50);
  expect(seen).toEqual(['ended', 'ended', 'afterwards']);
});

test('whoever blocks the loop ends what is over, for which no timer is set', async () => {
  const ended: Wait[] = [];
  deadlines = new Deadlines((wait) => ended.push(wait));
  const wait = newWait();
  deadlines.add(wait, performance.now() + 5, false);
  await turn(30);
  expect(ended).toEqual([]);
  expect(deadlines.expire()).toBe(true);
  expect(ended).toEqual([wait]);
});

test('forty thousand that end at once are ended over several turns of the loop', async () => {
  let ended = 0;
  let turns = 0;
  deadlines = new Deadlines(
    () => {
      // What it costs to make an error and reject a promise with it, and more.
      const until = performance.now() + 0.002;
      while (performance.now() < until);
      ended++;
    },
    () => turns++,
  );
  const at = performance.now() + 20;
  for (let i = 0; i < 40_000; i++) deadlines.add(newWait(), at);
  await until(() => ended === 40_000);
  expect(turns).toBeGreaterThan(4);
});

describe('any order of adding and removing', () => {
  const anyStep = fc.oneof(
    { weight: 3, arbitrary: fc.record({ add: fc.integer({ min: -50, max: 50 }) }) },
    { weight: 1, arbitrary: fc.record({ remove: fc.nat(200) }) },
    { weight: 1, arbitrary: fc.record({ expire: fc.constant(true) }) },
  );

  test('ends what is over, earliest first, and nothing else', () => {
    fc.assert(
      fc.property(fc.array(anyStep, { maxLength: 200 }), (steps) => {
        const ended: Wait[] = [];
        const mine = new Deadlines<Wait>((wait) => ended.push(wait));
        const base = Math.floor(performance.now());
        // None of the deadlines comes near while the steps are taken.
        const deadlineOf = (wait: Wait) => base + wait.name * 100_000;
        const waiting: Wait[] = [];
        for (const step of steps) {
          if ('add' in step) {
            const wait = newWait(step.add);
            waiting.push(wait);
            mine.add(wait, deadlineOf(wait), false);
          } else if ('remove' in step) {
            const [wait] = waiting.splice(step.remove % Math.max(1, waiting.length), 1);
            if (wait !== undefined) mine.remove(wait);
          } else {
            ended.length = 0;
            mine.expire();
            const over = waiting.filter(({ name }) => name <= 0).map(({ name }) => name);
            expect(ended.map(({ name }) => name)).toEqual(over.sort((a, b) => a - b));
            for (const wait of ended) waiting.splice(waiting.indexOf(wait), 1);
          }
          const earliest = Math.min(Infinity, ...waiting.map(deadlineOf));
          expect(mine.earliest).toBe(earliest);
        }
        mine.close();
        expect(waiting.every(({ heapIndex }) => heapIndex === -1)).toBe(true);
      }),
    );
  });
});
