import { describe, expect, test } from '@jest/globals';
import type { NvmeQueue } from '../../lib/nvme/index.js';
import { passesEventIndex } from '../../lib/commands/shared-memory-order.js';
import { opened, pattern, type Setup } from './fixture.js';

async function exercise(queue: NvmeQueue): Promise<void> {
  // More than the ring has entries, so that heads and tails go round.
  for (let round = 0; round < 20; round++) {
    const data = Array.from({ length: 7 }, (_, i) => pattern(1024, round * 7 + i + 1));
    await Promise.all(data.map((bytes, i) => queue.write(i * 2, bytes)));
    for (const [i, bytes] of data.entries()) expect((await queue.read(i * 2, 2)).equals(bytes)).toBe(true);
  }
}

const KINDS: [name: string, kind: string, setup: Setup][] = [
  ['through the mapping', 'mapped', {}],
  ['by message, where the region has none', 'message', { emulated: { mapDoorbells: false } }],
  ['by message, where the caller wants none', 'message', { connect: { mmap: 'never' } }],
  ['through shadow doorbells, and a mapping', 'shadow', { emulated: { shadowDoorbells: true } }],
  [
    'through shadow doorbells, and messages',
    'shadow',
    { emulated: { shadowDoorbells: true, mapDoorbells: false } },
  ],
  [
    'through the mapping, where shadow doorbells are not wanted',
    'mapped',
    { emulated: { shadowDoorbells: true }, nvme: { shadowDoorbells: false } },
  ],
  ['32 bytes apart', 'mapped', { emulated: { doorbellStride: 3 } }],
  ['32 bytes apart, by message', 'message', { emulated: { doorbellStride: 3, mapDoorbells: false } }],
];

describe('doorbells', () => {
  test.each(KINDS)('%s', async (_, kind, setup) => {
    const { controller } = await opened(setup);
    const queue = await controller.createQueue({ entries: 6 });
    expect(queue.doorbell).toBe(kind);
    await exercise(queue);
    await controller.reset();
    await exercise(queue);
  });

  test.each(KINDS)('%s, with interrupts', async (_, _kind, setup) => {
    const { controller } = await opened(setup);
    await exercise(await controller.createQueue({ entries: 6, completion: 'interrupt' }));
  });

  test.each(KINDS)('%s, of a queue in the place of one that was closed', async (_, _kind, setup) => {
    const { controller } = await opened(setup);
    const first = await controller.createQueue({ entries: 32 });
    for (let i = 0; i < 5; i++) await first.read(i, 1);
    await first.close();
    const second = await controller.createQueue({ entries: 32 });
    expect(second.id).toBe(first.id);
    await second.read(0, 1, { timeoutMs: 20_000 });
    expect(controller.state).toBe('live');
  });

  test('with shadow doorbells most commands need no message', async () => {
    const { controller, device } = await opened({
      emulated: { shadowDoorbells: true, mapDoorbells: false },
    });
    const queue = await controller.createQueue({ buffers: {} });
    await queue.flush();
    const before = device.counters.sent;
    let done = 0;
    for (let i = 0; i < 64; i++) {
      queue.submitRead(i, 1, i, i);
      // One doorbell each: the controller has not looked since the first.
      queue.ring();
    }
    while (done < 64) {
      done += queue.poll();
      await new Promise(setImmediate);
    }
    expect(device.counters.sent - before).toBeLessThan(8);
  });
});

describe('the event index', () => {
  test.each([
    // eventIndex, value, old, rings
    [0, 1, 0, true],
    [5, 6, 5, true],
    [5, 8, 3, true],
    [5, 5, 3, false],
    [5, 8, 6, false],
    [7, 8, 8, false],
    [0xffff, 0, 0xffff, true],
    [0xfffe, 2, 0xfffd, true],
    [3, 2, 0xfffd, false],
  ])('%i: from value %i, was %i', (eventIndex, value, old, rings) => {
    expect(passesEventIndex(eventIndex, value, old)).toBe(rings);
  });
});
