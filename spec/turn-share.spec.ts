import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import { TurnPace, TurnShare } from '../lib/turn-share.js';

function share(): { share: TurnShare; again: () => number } {
  let again = 0;
  return { share: new TurnShare(() => again++), again: () => again };
}

describe('a share', () => {
  test('is used up by work in one turn, and whole again in the next', async () => {
    const { share: it, again } = share();
    it.spend(0.3, 1);
    it.spend(0.3, 2);
    expect(it.isUsedUp).toBe(false);
    it.spend(0.3, 2);
    expect(it.isUsedUp).toBe(true);
    it.spend(10, 2);
    await turn();
    expect([it.isUsedUp, again()]).toEqual([false, 1]);
    it.spend(0.3, 2);
    expect(it.isUsedUp).toBe(false);
    await turn();
    expect(again()).toBe(1);
  });

  test('can be given up', async () => {
    const { share: it, again } = share();
    it.useUp();
    expect(it.isUsedUp).toBe(true);
    it.stop();
    it.useUp();
    await turn();
    expect([it.isUsedUp, again()]).toEqual([false, 0]);
  });
});

test('a pace rests when its share is used up', async () => {
  const pace = new TurnPace();
  pace.begin();
  const deadline = performance.now() + 1;
  while (performance.now() < deadline);
  let turned = false;
  setImmediate(() => (turned = true));
  await pace.rest();
  expect(turned).toBe(true);
});
