import { once } from 'node:events';
import { Readable } from 'node:stream';
import { afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals';
import type { Vector } from '../../lib/device/irq-vector.js';
import { ClosedError, TimeoutError, TransportError } from '../../lib/errors.js';
import { openFds } from '../support/fds.js';
import { IrqDevice, turn } from './irq-device.js';

const INTX = 0;

let device: IrqDevice;
let vector: Vector;
let fdsBefore: number;

// The test runner itself opens and closes files while it starts.
beforeAll(() => turn(200));

beforeEach(async () => {
  fdsBefore = openFds();
  device = await IrqDevice.open({ irqs: [{ count: 1 }] });
  [vector] = (await device.irqs.intx.enable()) as [Vector];
});

afterEach(async () => {
  device.close();
  await turn();
  expect(openFds()).toBe(fdsBefore);
});

function signal(count = 1): void {
  device.signal(INTX, 0, count);
}

describe('waiting', () => {
  test('a wait that was over before its deadline does not keep the process alive once the vector is closed', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    const before = timers();
    const waiting = vector.wait({ timeoutMs: 60_000 });
    signal();
    await waiting;
    vector.close();
    expect(timers()).toBe(before);
  });

  test('gives the count that the server signals', async () => {
    const waiting = vector.wait();
    signal(3);
    await expect(waiting).resolves.toBe(3);
    expect(vector.count).toBe(3);
  });

  test('what came with nobody waiting is kept, and given at once as one count', async () => {
    signal(2);
    await turn();
    signal(5);
    await turn();
    await expect(vector.wait()).resolves.toBe(7);
    await expect(vector.wait({ timeoutMs: 10 })).rejects.toBeInstanceOf(TimeoutError);
    expect(vector.count).toBe(7);
  });

  test('one count wakes one waiter, the one that waits longest', async () => {
    const order: string[] = [];
    const first = vector.wait().then((count) => order.push(`first ${count}`));
    const second = vector.wait().then((count) => order.push(`second ${count}`));
    signal(4);
    await first;
    await turn();
    expect(order).toEqual(['first 4']);
    signal(9);
    await second;
    expect(order).toEqual(['first 4', 'second 9']);
  });

  test('a deadline ends it by name', async () => {
    const waiting = vector.wait({ timeoutMs: 10 });
    await expect(waiting).rejects.toMatchObject({
      code: 'ETIMEDOUT',
      timeoutMs: 10,
      message: expect.stringContaining('INTx'),
    });
  });

  test("the device's deadline holds where nothing is said", async () => {
    const hasty = await IrqDevice.open({ irqs: [{ count: 1 }], timeoutMs: 15 });
    const [own] = await hasty.irqs.intx.enable();
    await expect(own.wait()).rejects.toMatchObject({ code: 'ETIMEDOUT', timeoutMs: 15 });
    hasty.close();
  });

  test('a waiter that gave up takes no count', async () => {
    const waiting = vector.wait({ timeoutMs: 5 });
    const next = vector.wait();
    await expect(waiting).rejects.toBeInstanceOf(TimeoutError);
    signal();
    await expect(next).resolves.toBe(1);
  });

  test("a signal ends it with the signal's reason", async () => {
    const controller = new AbortController();
    const waiting = vector.wait({ signal: controller.signal });
    controller.abort('enough');
    await expect(waiting).rejects.toBe('enough');
    await expect(vector.wait({ signal: AbortSignal.abort('before') })).rejects.toBe('before');
  });

  test('an abort after the count is of no account', async () => {
    const controller = new AbortController();
    const waiting = vector.wait({ signal: controller.signal });
    signal();
    await expect(waiting).resolves.toBe(1);
    controller.abort();
  });

  test('a timeout that makes no sense is refused', async () => {
    await expect(vector.wait({ timeoutMs: 0 })).rejects.toBeInstanceOf(RangeError);
    await expect(vector.wait({ timeoutMs: NaN })).rejects.toBeInstanceOf(RangeError);
    await expect(vector.wait({ timeoutMs: '5' as unknown as number })).rejects.toBeInstanceOf(TypeError);
  });

  test('take gives what is there without waiting, also what the loop has not read', () => {
    expect(vector.take()).toBe(0);
    signal(6);
    expect(vector.take()).toBe(6);
    expect(vector.take()).toBe(0);
    expect(vector.count).toBe(6);
  });

  test('signal does what the server does', async () => {
    vector.signal();
    await expect(vector.wait()).resolves.toBe(1);
    vector.signal(41);
    await expect(vector.wait()).resolves.toBe(41);
  });
});

describe('listeners', () => {
  test('each hears every count, whether somebody waited or not', async () => {
    const heard: number[][] = [[], []];
    vector.onInterrupt((count) => heard[0]!.push(count));
    vector.onInterrupt((count) => heard[1]!.push(count));
    const waiting = vector.wait();
    signal(2);
    await waiting;
    signal(3);
    await turn();
    expect(heard).toEqual([
      [2, 3],
      [2, 3],
    ]);
    expect(vector.take()).toBe(3);
  });

  test('one that was taken away hears no more, the same function added again does', async () => {
    const heard: number[] = [];
    const listener = (count: number): void => void heard.push(count);
    const remove = vector.onInterrupt(listener);
    vector.onInterrupt(listener);
    remove();
    remove();
    signal(8);
    await turn();
    expect(heard).toEqual([8]);
  });

  test('one that is called may take others away, and add some', async () => {
    const heard: string[] = [];
    vector.onInterrupt(() => {
      heard.push('first');
      remove();
      vector.onInterrupt(() => heard.push('late'));
    });
    const remove = vector.onInterrupt(() => heard.push('second'));
    signal();
    await turn();
    expect(heard).toEqual(['first', 'second']);
    signal();
    await turn();
    expect(heard.slice(2)).toEqual(['first', 'late']);
  });

  test('one that is called may close the vector', async () => {
    const heard: number[] = [];
    vector.onInterrupt((count) => {
      heard.push(count);
      vector.close();
    });
    signal();
    await turn();
    expect(heard).toEqual([1]);
    expect(vector.isClosed).toBe(true);
  });

  test('one that is there when enable returns hears the first count, however early it came', async () => {
    await device.irqs.intx.disable();
    device.fate = (line) => {
      // Before the client has read the reply.
      if (line.startsWith('SET_IRQS')) setImmediate(() => signal(5));
      return undefined;
    };
    const heard: number[] = [];
    const [early] = await device.irqs.intx.enable();
    early.onInterrupt((count) => heard.push(count));
    await turn();
    expect(heard).toEqual([5]);
  });

  test('one that throws does not keep the count from the others, and its error is uncaught', async () => {
    const uncaught: unknown[] = [];
    const queue = jest.spyOn(globalThis, 'queueMicrotask').mockImplementation((task) => {
      try {
        task();
      } catch (error) {
        uncaught.push(error);
      }
    });
    const heard: number[] = [];
    vector.onInterrupt(() => {
      throw new Error('a mistake');
    });
    vector.onInterrupt((count) => heard.push(count));
    signal(2);
    expect(vector.take()).toBe(2);
    queue.mockRestore();
    expect(heard).toEqual([2]);
    expect(uncaught).toEqual([new Error('a mistake')]);
  });

  test('it is an event emitter, whose onInterrupt is another name', async () => {
    const heard: string[] = [];
    const listener = (count: number): void => void heard.push(`on ${count}`);
    vector.on('interrupt', listener);
    vector.once('interrupt', (count) => heard.push(`once ${count}`));
    vector.onInterrupt((count) => heard.push(`onInterrupt ${count}`));
    signal(2);
    await turn();
    expect(heard.splice(0)).toEqual(['on 2', 'once 2', 'onInterrupt 2']);
    vector.off('interrupt', listener);
    signal(1);
    await turn();
    expect(heard).toEqual(['onInterrupt 1']);
  });

  test('anything but a function is refused', () => {
    expect(() => vector.onInterrupt('no' as unknown as () => void)).toThrow(TypeError);
  });
});

describe('iterating', () => {
  test('yields each count, and ends when the vector is closed', async () => {
    const seen: number[] = [];
    signal(1);
    await turn();
    for await (const count of vector) {
      seen.push(count);
      if (seen.length === 3) vector.close();
      else setImmediate(() => signal(seen.length * 10));
    }
    expect(seen).toEqual([1, 10, 20]);
    for await (const count of vector) seen.push(count);
    expect(seen).toHaveLength(3);
  });

  test('a loop that waits ends when the vector is closed', async () => {
    setTimeout(() => vector.close(), 5);
    const seen: number[] = [];
    for await (const count of vector) seen.push(count);
    expect(seen).toEqual([]);
  });

  test('has no deadline', async () => {
    const hasty = await IrqDevice.open({ irqs: [{ count: 1 }], timeoutMs: 10 });
    const [own] = await hasty.irqs.intx.enable();
    setTimeout(() => hasty.signal(INTX, 0, 2), 40);
    for await (const count of own) {
      expect(count).toBe(2);
      break;
    }
    hasty.close();
  });

  test('throws when the connection ends', async () => {
    const loop = (async () => {
      for await (const count of vector) expect(count).toBe(1);
    })();
    signal();
    await turn();
    device.peer.close();
    await expect(loop).rejects.toBeInstanceOf(ClosedError);
  });

  test('return() ends steps that wait at once; they take nothing, and the vector stays open', async () => {
    const iterator = vector[Symbol.asyncIterator]();
    const steps = [iterator.next(), iterator.next(), iterator.next()];
    signal(2);
    expect(await steps[0]).toEqual({ value: 2, done: false });
    expect(await iterator.return()).toEqual({ value: undefined, done: true });
    expect(await Promise.all(steps.slice(1))).toEqual(Array(2).fill({ value: undefined, done: true }));
    expect(await iterator.next()).toEqual({ value: undefined, done: true });
    signal(5);
    expect(await vector.wait()).toBe(5);
    expect(await iterator.return()).toEqual({ value: undefined, done: true });
    const other = vector[Symbol.asyncIterator]();
    signal(6);
    expect(await other.next()).toEqual({ value: 6, done: false });
  });

  test('throw() ends them as well, and rejects with what it was given', async () => {
    const iterator = vector[Symbol.asyncIterator]();
    const step = iterator.next();
    await expect(iterator.throw(new Error('enough'))).rejects.toThrow('enough');
    expect(await step).toEqual({ value: undefined, done: true });
    signal(5);
    expect(await vector.wait()).toBe(5);
  });

  test('a count that has come when return() is called is given to the step that it woke', async () => {
    const iterator = vector[Symbol.asyncIterator]();
    const step = iterator.next();
    vector.signal(3);
    // Read here and now, before the step has been resumed.
    vector.take();
    const ended = iterator.return();
    expect(await step).toEqual({ value: 3, done: false });
    await ended;
  });

  test('one iterator that ends does not end another', async () => {
    const [first, second] = [vector[Symbol.asyncIterator](), vector[Symbol.asyncIterator]()];
    const steps = [first.next(), second.next()];
    await first.return();
    signal(4);
    expect(await Promise.all(steps)).toEqual([
      { value: undefined, done: true },
      { value: 4, done: false },
    ]);
    await second.return();
  });

  test('the end of the connection is thrown by one step, and the others are done', async () => {
    const iterator = vector[Symbol.asyncIterator]();
    const steps = [iterator.next(), iterator.next()];
    device.peer.close();
    await expect(steps[0]).rejects.toBeInstanceOf(ClosedError);
    expect(await steps[1]).toEqual({ value: undefined, done: true });
    expect(await iterator.next()).toEqual({ value: undefined, done: true });
  });

  test('a stream over it can be destroyed while it waits', async () => {
    const stream = Readable.from(vector);
    stream.resume();
    await turn();
    const closed = once(stream, 'close');
    stream.destroy();
    await closed;
    signal(7);
    expect(await vector.wait()).toBe(7);
  });

  test('forty thousand waits with one signal and one deadline end together', async () => {
    const controller = new AbortController();
    const options = { signal: controller.signal, timeoutMs: 60_000 };
    const waits = Array.from({ length: 40_000 }, () => vector.wait(options));
    controller.abort(new Error('enough'));
    const aborted = await Promise.allSettled(waits);
    expect(aborted.every((wait) => wait.status === 'rejected')).toBe(true);
    const late = await Promise.allSettled(
      Array.from({ length: 40_000 }, () => vector.wait({ timeoutMs: 100 })),
    );
    expect(late.every((wait) => wait.status === 'rejected')).toBe(true);
    signal(8);
    expect(await vector.wait()).toBe(8);
  });
});

describe('the end', () => {
  test('many listeners are no leak, and close() lets go of them', () => {
    const warned: unknown[] = [];
    const onWarning = (warning: unknown) => warned.push(warning);
    const emitWarning = jest.spyOn(process, 'emitWarning').mockImplementation(onWarning);
    const stop = Array.from({ length: 20 }, () => vector.onInterrupt(() => undefined));
    vector.on('close', () => undefined);
    expect(warned).toEqual([]);
    vector.close();
    emitWarning.mockRestore();
    expect([vector.listenerCount('interrupt'), vector.listenerCount('close')]).toEqual([0, 1]);
    for (const remove of stop) remove();
  });

  test('close gives the fd back once, and rejects who waits', async () => {
    const open = openFds();
    const waiting = vector.wait();
    const { fd } = vector;
    expect(fd).toBeGreaterThanOrEqual(0);
    vector.close();
    vector.close();
    await expect(waiting).rejects.toBeInstanceOf(ClosedError);
    expect(vector.isClosed).toBe(true);
    expect(vector.fd).toBe(-1);
    expect(openFds()).toBe(open - 1);
  });

  test('those who listen hear of it, whoever closed it', async () => {
    let closed = 0;
    vector.on('close', () => closed++);
    vector.close();
    expect(closed).toBe(0);
    await turn();
    vector.close();
    await turn();
    expect(closed).toBe(1);
    const [next] = await device.irqs.intx.enable();
    const ended = once(next, 'close');
    await device.irqs.intx.disable();
    await ended;
    expect(next.isClosed).toBe(true);
  });

  test('a closed vector gives nothing, and the server signals into nothing', async () => {
    signal(3);
    await turn();
    vector.close();
    signal();
    await expect(vector.wait()).rejects.toBeInstanceOf(ClosedError);
    expect(vector.take()).toBe(0);
    expect(() => vector.signal()).toThrow(TransportError);
  });

  test('it can be disposed of', async () => {
    vector[Symbol.dispose]();
    expect(vector.isClosed).toBe(true);
    await vector[Symbol.asyncDispose]();
  });

  test('when the connection ends, who waits is told why', async () => {
    const waiting = [vector.wait(), vector.wait()];
    device.peer.close();
    const errors = await Promise.all(waiting.map((one) => one.catch((error: unknown) => error)));
    for (const error of errors) {
      expect(error).toBeInstanceOf(ClosedError);
      expect((error as ClosedError).cause).toBe(device.connection.endReason);
    }
    await expect(vector.wait()).rejects.toBeInstanceOf(ClosedError);
    expect(vector.isClosed).toBe(false);
  });

  test('what was signalled before the connection ended is still there', async () => {
    signal(2);
    await turn();
    signal(3);
    device.peer.close();
    await device.connection.closed;
    await expect(vector.wait()).resolves.toBe(5);
    await expect(vector.wait()).rejects.toBeInstanceOf(ClosedError);
  });

  test('closing the device closes its vectors', async () => {
    const waiting = vector.wait();
    device.close();
    await expect(waiting).rejects.toBeInstanceOf(ClosedError);
    expect(vector.isClosed).toBe(true);
  });
});
