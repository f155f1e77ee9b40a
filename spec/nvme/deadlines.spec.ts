/** Deadlines of commands, of whole calls, and of those that wait for room; and what a long call takes. */
import { describe, expect, test } from '@jest/globals';
import { setTimeout } from 'node:timers/promises';
import { MemoryStore, onNthCommand, type NvmeVerdict } from '../../lib/emulator/index.js';
import { ClosedError, TimeoutError } from '../../lib/index.js';
import { errorOf, opened, pattern, until } from './fixture.js';

describe('the default deadline', () => {
  test('is for each command, not for the transfer', async () => {
    const { emulated, controller } = await opened({ emulated: { mdts: 1 }, nvme: { timeoutMs: 400 } });
    const queue = await controller.createQueue({ entries: 3 });
    emulated.intercept = ({ queue: id }) => (id > 0 ? { delayMs: 20 } : 'pass');
    const data = pattern(60 * 8192);
    // 60 commands, two at a time: 600 ms.
    await queue.write(0, data);
    emulated.intercept = undefined;
    expect((await queue.read(0, 960)).equals(data)).toBe(true);
  });

  test('is for what waits for room, too, when nothing at all is answered', async () => {
    const { emulated, controller } = await opened({ nvme: { timeoutMs: 200 } });
    const queue = await controller.createQueue({ entries: 2 });
    await queue.read(0, 1);
    emulated.stall();
    const calls = Array.from({ length: 2_000 }, (_, i) => errorOf(queue.read(i, 1)));
    const long = errorOf(queue.read(0, 4_000));
    for (const error of await Promise.all([...calls, long])) expect(error).toBeInstanceOf(TimeoutError);
    expect((await queue.read(0, 1)).length).toBe(512);
  });

  test('goes on with what waited as soon as a slot is free', async () => {
    const { emulated, controller } = await opened({ nvme: { timeoutMs: 400 } });
    const queue = await controller.createQueue({ entries: 2 });
    emulated.intercept = onNthCommand(1, 'hold');
    const first = errorOf(queue.read(0, 1));
    const second = queue.read(1, 1, { timeoutMs: 20_000 });
    expect(await first).toBeInstanceOf(TimeoutError);
    expect((await second).length).toBe(512);
  });
});

describe('a deadline of the caller’s', () => {
  test('is for the whole transfer', async () => {
    const { emulated, controller } = await opened({ emulated: { mdts: 1 } });
    const queue = await controller.createQueue({ entries: 2 });
    emulated.intercept = ({ queue: id }) => (id > 0 ? { delayMs: 10 } : 'pass');
    const error = await errorOf(queue.read(0, 8_000, { timeoutMs: 100 }));
    expect(error).toMatchObject({ name: 'TimeoutError', timeoutMs: 100 });
    emulated.intercept = undefined;
    // It comes after what was sent when the time was over, and the controller may yet have to fetch that.
    await queue.read(0, 1);
    const { commandCount } = emulated;
    expect(commandCount).toBeLessThan(500);
    await setTimeout(100);
    // No further part was sent.
    expect(emulated.commandCount).toBe(commandCount);
  });

  test.each([NaN, -1, 0])('%p is refused', async (timeoutMs) => {
    const { controller } = await opened();
    const queue = await controller.createQueue();
    await expect(queue.read(0, 1, { timeoutMs })).rejects.toThrow(RangeError);
    await expect(queue.writeZeroes(0, 1, { timeoutMs })).rejects.toThrow(RangeError);
    await expect(controller.smartLog({ timeoutMs })).rejects.toThrow(RangeError);
  });

  test.each(['5', null])('%j is refused', async (timeoutMs) => {
    const { controller } = await opened();
    const queue = await controller.createQueue();
    await expect(queue.read(0, 1, { timeoutMs: timeoutMs as never })).rejects.toThrow(TypeError);
  });

  test('a command that was given up gives its slot back', async () => {
    const { emulated, controller } = await opened({ nvme: { timeoutMs: 300 } });
    const queue = await controller.createQueue({ entries: 2 });
    await queue.read(0, 1);
    emulated.intercept = onNthCommand(1, 'lose');
    const abort = new AbortController();
    const read = errorOf(queue.read(0, 1, { timeoutMs: 60_000, signal: abort.signal }));
    await until(() => emulated.commandCount === 2);
    abort.abort(new Error('enough'));
    expect((await read).message).toBe('enough');
    expect((await queue.read(0, 1, { timeoutMs: 20_000 })).length).toBe(512);
    expect(queue.inFlight).toBe(0);
  });
});

describe('a write that is given up', () => {
  const verdicts: NvmeVerdict[] = ['hold', { delayMs: 150 }];

  test.each(verdicts)('%j: the caller hears of it when the controller is done with it', async (verdict) => {
    const store = new MemoryStore(1 << 20);
    const { emulated, controller } = await opened({
      emulated: { namespaces: [{ store }] },
      nvme: { timeoutMs: 2_000 },
    });
    const queue = await controller.createQueue();
    // There are bounce pages after that: without them it would be given up before it is sent.
    await queue.read(0, 1);
    emulated.intercept = onNthCommand(1, verdict);
    const error = await errorOf(queue.write(0, Buffer.alloc(512, 1), { timeoutMs: 30 }));
    expect(error).toBeInstanceOf(TimeoutError);
    await queue.write(0, Buffer.alloc(512, 2));
    await until(() => queue.inFlight === 0);
    expect(store.read(0, 1)[0]).toBe(2);
  });
});

describe('long calls', () => {
  test('Write Zeroes over a large namespace makes its commands as there is room, and can be aborted', async () => {
    const store = Object.assign(new MemoryStore(2 ** 45), { clear: () => undefined });
    const { emulated, controller } = await opened({ emulated: { namespaces: [{ store }] } });
    const queue = await controller.createQueue({ entries: 16 });
    const abort = new AbortController();
    const call = errorOf(
      queue.writeZeroes(0, queue.namespace.blocks, { timeoutMs: Infinity, signal: abort.signal }),
    );
    await until(() => emulated.commandCount > 100);
    abort.abort(new Error('enough'));
    expect((await call).message).toBe('enough');
    await queue.flush();
    expect(queue.inFlight).toBe(0);
  });

  test('deallocate, of more ranges than one command has, and longer ones', async () => {
    const store = Object.assign(new MemoryStore(2 ** 45), { clear: () => undefined });
    // The emulator clears 8 TiB piece by piece.
    const nvme = { timeoutMs: 60_000 };
    const { emulated, controller } = await opened({ emulated: { namespaces: [{ store }] }, nvme });
    const queue = await controller.createQueue({ entries: 4 });
    const ranges = Array.from({ length: 700 }, (_, i) => ({ lba: i, blocks: 1 }));
    await queue.deallocate([...ranges, { lba: 0, blocks: 2 ** 34 }]);
    // 705 ranges, 256 a command.
    expect(emulated.commandCount).toBe(3);
  });

  test('many calls with one signal', async () => {
    const { emulated, controller } = await opened();
    const queue = await controller.createQueue({ entries: 4 });
    await queue.read(0, 1);
    emulated.intercept = ({ queue: id }) => (id > 0 ? 'hold' : 'pass');
    const before = emulated.commandCount;
    const abort = new AbortController();
    const { signal } = abort;
    const calls = Array.from({ length: 20_000 }, (_, i) => errorOf(queue.read(i % 100, 1, { signal })));
    // A command that the controller has not fetched cannot be aborted: its slot would come back at its deadline.
    await until(() => emulated.commandCount === before + queue.depth);
    abort.abort(new Error('enough'));
    for (const error of await Promise.all(calls)) expect(error.message).toBe('enough');
    emulated.intercept = undefined;
    expect((await queue.read(0, 1)).length).toBe(512);
  });

  test('many calls when the controller ends', async () => {
    const { emulated, device, controller } = await opened();
    const queue = await controller.createQueue({ entries: 4 });
    await queue.read(0, 1);
    emulated.intercept = ({ queue: id }) => (id > 0 ? 'hold' : 'pass');
    const calls = Array.from({ length: 20_000 }, (_, i) => errorOf(queue.read(i % 100, 1)));
    await device.close();
    for (const error of await Promise.all(calls)) expect(error).toBeInstanceOf(ClosedError);
  });
});

describe('room', () => {
  /** Eight reads of 128 KiB have all bounce pages but one: one more of those waits, and behind it one of a page. */
  async function behindALongOne(options: { timeoutMs?: number; signal?: AbortSignal }) {
    const { emulated, device, controller } = await opened({ emulated: { mdts: 5 } });
    const queue = await controller.createQueue({ entries: 32 });
    await queue.read(0, 1);
    emulated.intercept = ({ queue: id }) => (id > 0 ? 'hold' : 'pass');
    const reads = Array.from({ length: 8 }, (_, i) => errorOf(queue.read(0, i === 0 ? 248 : 256)));
    expect(queue.inFlight).toBe(8);
    const long = errorOf(queue.read(0, 256, options));
    const short = errorOf(queue.read(0, 1));
    expect(queue.inFlight).toBe(8);
    const end = () => Promise.all([device.close(), ...reads, short]);
    return { queue, long, end };
  }

  test('of a call that is completed is used in the same turn', async () => {
    const { controller } = await opened();
    const queue = await controller.createQueue({ entries: 2 });
    await queue.read(0, 1);
    const [first, second, third] = [queue.read(0, 1), queue.read(1, 1), queue.read(2, 1)];
    await first;
    expect(queue.inFlight).toBe(1);
    await second;
    expect(queue.inFlight).toBe(1);
    await third;
    expect(queue.inFlight).toBe(0);
  });

  test('that a call would have had which is aborted is used in the same turn', async () => {
    const abort = new AbortController();
    const { queue, long, end } = await behindALongOne({ signal: abort.signal });
    abort.abort(new Error('given up'));
    expect(queue.inFlight).toBe(9);
    expect((await long).message).toBe('given up');
    await end();
  });

  test('that a call would have had whose deadline has passed is used in the same turn', async () => {
    const { queue, long, end } = await behindALongOne({ timeoutMs: 50 });
    expect(await long).toBeInstanceOf(TimeoutError);
    expect(queue.inFlight).toBe(9);
    await end();
  });
});
