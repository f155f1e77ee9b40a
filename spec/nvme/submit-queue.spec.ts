import { describe, expect, test } from '@jest/globals';
import { MemoryStore } from '../../lib/emulator/index.js';
import { decodeStatus, type NvmeQueue, type NvmeQueueOptions } from '../../lib/nvme/index.js';
import { opened, pattern, type Setup } from './fixture.js';

async function withQueue(options: NvmeQueueOptions = { buffers: {} }, setup?: Setup) {
  const pair = await opened(setup);
  return { ...pair, queue: await pair.controller.createQueue(options) };
}

/** A turn of the loop: the controller is in this process. */
const turn = () => new Promise<void>(setImmediate);

/** Polls until `count` commands are reported; their tags and status. */
async function collect(queue: NvmeQueue, count: number): Promise<[tag: number, status: number][]> {
  const all: [number, number][] = [];
  while (all.length < count) {
    const n = queue.poll();
    for (let i = 0; i < n; i++) all.push([queue.completedTags[i]!, queue.completedStatus[i]!]);
    if (n === 0) await turn();
  }
  return all;
}

describe('the submit/poll face', () => {
  test('reads what was written', async () => {
    const { queue } = await withQueue();
    pattern(4096).copy(queue.buffer(0));
    expect(queue.submitWrite(16, 8, 0, 1234)).toBe(true);
    queue.ring();
    expect(await collect(queue, 1)).toEqual([[1234, 0]]);
    queue.submitRead(16, 8, 1, 0xffff_ffff);
    queue.ring();
    expect(await collect(queue, 1)).toEqual([[0xffff_ffff, 0]]);
    expect(queue.buffer(1).equals(pattern(4096))).toBe(true);
    expect(queue.inFlight).toBe(0);
  });

  test('nothing is seen before the doorbell, everything after it', async () => {
    const { queue } = await withQueue();
    for (let i = 0; i < 10; i++) queue.submitRead(i, 1, i, i);
    for (let i = 0; i < 20; i++) await turn();
    expect(queue.poll()).toBe(0);
    expect(queue.inFlight).toBe(10);
    queue.ring();
    const tags = (await collect(queue, 10)).map(([tag]) => tag);
    expect(tags.sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test('takes as many as the queue is deep, then no more until some are reported', async () => {
    const { queue } = await withQueue({ entries: 5, buffers: {} });
    expect(queue.depth).toBe(4);
    for (let i = 0; i < 4; i++) expect(queue.submitRead(0, 1, i, i)).toBe(true);
    expect(queue.submitRead(0, 1, 0, 9)).toBe(false);
    queue.ring();
    await collect(queue, 1);
    expect(queue.submitRead(0, 1, 0, 9)).toBe(true);
    queue.ring();
  });

  test('many rounds through the rings, several at once', async () => {
    const { queue } = await withQueue({ entries: 16, buffers: { bytes: 512 } });
    const written = new Map<number, number>();
    for (let round = 0; round < 300; round++) {
      const count = 1 + (round % 15);
      for (let i = 0; i < count; i++) {
        const lba = (round * 31 + i * 7) % 1000;
        queue.buffer(i).fill(round & 0xff);
        written.set(lba, round & 0xff);
        expect(queue.submitWrite(lba, 1, i, lba)).toBe(true);
      }
      queue.ring();
      for (const [, status] of await collect(queue, count)) expect(status).toBe(0);
    }
    for (const [lba, value] of written)
      expect((await queue.read(lba, 1)).equals(Buffer.alloc(512, value))).toBe(true);
  });

  test('no more completions at a time than are asked for', async () => {
    const { queue } = await withQueue();
    for (let i = 0; i < 6; i++) queue.submitRead(0, 1, i, i);
    queue.ring();
    for (let i = 0; i < 50; i++) await turn();
    expect([queue.poll(4), queue.poll(4), queue.poll(4)]).toEqual([4, 2, 0]);
  });

  test.each([
    [1, 0],
    [2, 0],
    [3, 0],
    [32, 0],
    [1, 1024],
    [2, 4],
    [3, 4092],
    [32, 2048],
  ])('buffers of %i pages that begin %i bytes behind the beginning of one', async (pages, pageOffset) => {
    const buffers = { count: 3, bytes: pages * 4096, pageOffset };
    const { queue } = await withQueue({ buffers }, { nvme: { sgls: false } });
    expect([queue.bufferCount, queue.bufferBytes]).toEqual([3, pages * 4096]);
    for (let blocks = 1; blocks <= pages * 8; blocks = blocks * 2 + 1) {
      const data = pattern(blocks * 512, blocks);
      data.copy(queue.buffer(2));
      queue.submitWrite(7, blocks, 2, 0);
      queue.ring();
      await collect(queue, 1);
      queue.buffer(1).fill(0);
      queue.submitRead(7, blocks, 1, 0);
      queue.ring();
      await collect(queue, 1);
      expect(
        queue
          .buffer(1)
          .subarray(0, blocks * 512)
          .equals(data),
      ).toBe(true);
    }
  });

  // A list of more than 512 entries has a pointer where the list of 512 has its last page.
  test.each([0, 1024])('buffers with lists of several pages that begin at %i of one', async (pageOffset) => {
    const { queue } = await withQueue(
      { buffers: { count: 2, bytes: 4 << 20, pageOffset } },
      { emulated: { namespaces: [{ store: new MemoryStore(8 << 20) }], mdts: 10 }, nvme: { sgls: false } },
    );
    for (const bytes of [511, 512, 513, 514, 1023, 1024].map((pages) => pages * 4096)) {
      const data = pattern(bytes, bytes >>> 12);
      data.copy(queue.buffer(1));
      queue.submitWrite(3, bytes / 512, 1, 0);
      queue.ring();
      await collect(queue, 1);
      queue.buffer(0).fill(0);
      queue.submitRead(3, bytes / 512, 0, 0);
      queue.ring();
      await collect(queue, 1);
      expect(queue.buffer(0).subarray(0, bytes).equals(data)).toBe(true);
      const half = (bytes >>> 13) * 8;
      const [first, second] = [await queue.read(3, half), await queue.read(3 + half, bytes / 512 - half)];
      expect(Buffer.concat([first, second]).equals(data)).toBe(true);
    }
  });

  test.each([
    [512, 0],
    [4096, 1024],
    [131_072, 4092],
  ])('transfers of %i bytes from %i behind the beginning of a page, by SGL', async (bytes, pageOffset) => {
    const { queue } = await withQueue({ buffers: { count: 2, bytes, pageOffset } });
    const data = pattern(bytes);
    data.copy(queue.buffer(1));
    queue.submitWrite(5, bytes / 512, 1, 0);
    queue.ring();
    expect(await collect(queue, 1)).toEqual([[0, 0]]);
    queue.submitRead(5, bytes / 512, 0, 1);
    queue.ring();
    expect(await collect(queue, 1)).toEqual([[1, 0]]);
    expect(queue.buffer(0).equals(data)).toBe(true);
    expect((await queue.read(5, bytes / 512)).equals(data)).toBe(true);
  });

  test.each([-4, 2, 4096, 0.5])('buffers cannot begin at %d of a page', async (pageOffset) => {
    const { controller } = await opened();
    await expect(controller.createQueue({ buffers: { pageOffset } })).rejects.toThrow(
      /buffers\.pageOffset must be (an integer from 0 to 4092|a multiple of 4), got /,
    );
  });

  test('compare, write zeroes, flush', async () => {
    const { queue } = await withQueue();
    queue.buffer(0).fill(5);
    queue.submitWrite(0, 8, 0, 1);
    queue.ring();
    await collect(queue, 1);
    queue.submitCompare(0, 8, 0, 2);
    queue.submitCompare(8, 8, 0, 3);
    queue.submitFlush(4);
    queue.ring();
    const results = new Map(await collect(queue, 3));
    expect([results.get(2), results.get(4)]).toEqual([0, 0]);
    expect(decodeStatus(results.get(3)!).name).toBe('COMPARE_FAILURE');
    queue.submitWriteZeroes(4, 4, 5);
    queue.ring();
    await collect(queue, 1);
    expect((await queue.read(3, 2)).lastIndexOf(5)).toBe(511);
  });

  test('as many blocks as a command can name, with data and without', async () => {
    const namespaces = [{ store: new MemoryStore(40 << 20) }];
    const { queue } = await withQueue(
      { entries: 2, buffers: { count: 1, bytes: 32 << 20 } },
      { emulated: { namespaces, mdts: 0 }, nvme: { maxTransferBytes: 32 << 20 } },
    );
    const look = async (lba: number) => (await queue.read(lba, 1))[0];
    queue.buffer(0).fill(9);
    queue.submitWrite(3, 65_536, 0, 0);
    queue.ring();
    expect(await collect(queue, 1)).toEqual([[0, 0]]);
    expect([await look(3), await look(65_538), await look(65_539)]).toEqual([9, 9, 0]);
    await queue.write(65_539, Buffer.alloc(512, 7));
    queue.submitWriteZeroes(3, 65_536, 1);
    queue.ring();
    expect(await collect(queue, 1)).toEqual([[1, 0]]);
    expect([await look(3), await look(65_538), await look(65_539)]).toEqual([0, 0, 7]);
  });

  test('beyond 2^32 blocks', async () => {
    const namespaces = [{ store: new MemoryStore(2 ** 44) }];
    const { queue } = await withQueue({ buffers: {} }, { emulated: { namespaces } });
    const lba = 2 ** 34 + 3;
    queue.buffer(0).fill(9);
    queue.submitWrite(lba, 1, 0, 0);
    queue.ring();
    await collect(queue, 1);
    expect((await queue.read(lba, 1))[0]).toBe(9);
    expect((await queue.read(3, 1))[0]).toBe(0);
  });

  test('refuses what is not there', async () => {
    const { queue } = await withQueue({ buffers: { count: 2, bytes: 4096 } });
    const { blocks } = queue.namespace;
    expect(() => queue.submitRead(-1, 1, 0, 0)).toThrow(RangeError);
    expect(() => queue.submitRead(0, 0, 0, 0)).toThrow(RangeError);
    expect(() => queue.submitRead(0, 9, 0, 0)).toThrow(RangeError);
    expect(() => queue.submitRead(blocks, 1, 0, 0)).toThrow(RangeError);
    expect(() => queue.submitRead(NaN, 1, 0, 0)).toThrow(RangeError);
    expect(() => queue.submitRead(0, 1, 2, 0)).toThrow(RangeError);
    expect(() => queue.submitWriteZeroes(0, 65_537, 0)).toThrow(RangeError);
    expect(() => queue.buffer(2)).toThrow(RangeError);
    expect(queue.inFlight).toBe(0);
  });

  test('without buffers nothing can be transferred', async () => {
    const { queue } = await withQueue({});
    expect(() => queue.submitRead(0, 1, 0, 0)).toThrow(RangeError);
    expect(queue.submitFlush(0)).toBe(true);
    queue.ring();
    await collect(queue, 1);
  });
});

describe('both faces on one queue', () => {
  test.each(['poll', 'interrupt'] as const)('share it, completions by %s', async (completion) => {
    const { queue } = await withQueue({ completion, entries: 8, buffers: {} });
    const tags: number[] = [];
    let isDone = false;
    const promises = Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        await queue.write(i, Buffer.alloc(512, i));
        expect((await queue.read(i, 1))[0]).toBe(i);
      }),
    ).then(() => (isDone = true));
    while (!isDone || queue.inFlight > 0) {
      if (!isDone && queue.submitRead(200, 1, 0, tags.length)) queue.ring();
      const n = queue.poll();
      for (let i = 0; i < n; i++) tags.push(queue.completedTags[i]!);
      await turn();
    }
    await promises;
    expect(tags.length).toBeGreaterThan(0);
  });

  test('completions that a promise found are reported by the next poll', async () => {
    const { queue } = await withQueue();
    queue.submitRead(0, 1, 0, 77);
    queue.ring();
    await queue.read(0, 1);
    for (let i = 0; i < 20; i++) await turn();
    await queue.read(0, 1);
    expect(queue.poll()).toBe(1);
    expect(queue.completedTags[0]).toBe(77);
  });
});
