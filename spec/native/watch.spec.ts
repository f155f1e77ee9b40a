import { AsyncLocalStorage } from 'node:async_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { READABLE, WRITABLE } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import { makePair, recvText, runScript, sendText, thrownName } from './support.js';
import type { Pair } from './support.js';
import { until } from '../support/until.js';

let pair: Pair;

afterEach(() => pair.close());

/** The next event of the right socket. */
function nextEvent(watch = READABLE): Promise<number> {
  return new Promise((resolve) => {
    pair = makePair(undefined, (events) => {
      pair.right.watch(0);
      resolve(events);
    });
    pair.right.watch(watch);
  });
}

describe('watch', () => {
  test('reports bytes to read', async () => {
    const event = nextEvent();
    sendText(pair.left, 'x');
    expect(await event).toBe(READABLE);
  });

  test('reports room to write', async () => {
    expect(await nextEvent(WRITABLE)).toBe(WRITABLE);
  });

  test('reports a hang-up as something to read', async () => {
    const event = nextEvent();
    pair.left.close();
    expect(await event).toBe(READABLE);
    expect(recvText(pair.right)).toBe('');
  });

  test('reports an error as something to read, as long as nobody reads it', async () => {
    const results: (string | number)[] = [];
    await new Promise<void>((resolve) => {
      let events = 0;
      pair = makePair(undefined, (bits) => {
        expect(bits & READABLE).toBe(READABLE);
        // Ignored twice: the third time it is still there.
        if (++events < 3) return;
        results.push(recvText(pair.right), recvText(pair.right));
        pair.right.close();
        resolve();
      });
      sendText(pair.right, 'never read');
      pair.right.watch(READABLE);
      pair.left.close();
    });
    expect(results[0]).toBe(-104); // ECONNRESET
    expect(results[1]).toBe('');
  });

  test('goes on while there is something to read, and stops when told', async () => {
    let calls = 0;
    pair = makePair(undefined, () => {
      if (++calls === 3) pair.right.watch(0);
    });
    pair.right.watch(READABLE);
    sendText(pair.left, 'x');
    await until(() => calls === 3);
    await sleep(20);
    expect(calls).toBe(3);
    // And starts again.
    pair.right.watch(READABLE);
    await until(() => calls > 3);
  });

  test('may be changed by the callback', async () => {
    const seen: number[] = [];
    pair = makePair(undefined, (events) => {
      seen.push(events);
      pair.right.watch(events === WRITABLE ? READABLE : 0);
    });
    pair.right.watch(WRITABLE);
    await sleep(20);
    expect(seen).toEqual([WRITABLE]);
    sendText(pair.left, 'x');
    await sleep(20);
    expect(seen).toEqual([WRITABLE, READABLE]);
  });

  test('calls nobody after close', async () => {
    let calls = 0;
    pair = makePair(undefined, () => calls++);
    pair.right.watch(READABLE);
    sendText(pair.left, 'x');
    pair.right.close();
    await sleep(20);
    expect(calls).toBe(0);
  });

  test('lets a callback close its own socket and those that are ready too', async () => {
    const before = openFds();
    let calls = 0;
    const pairs = Array.from({ length: 8 }, () =>
      makePair(undefined, () => {
        calls++;
        for (const each of pairs) each.close();
      }),
    );
    pair = pairs[0]!;
    for (const each of pairs) {
      each.right.watch(READABLE);
      sendText(each.left, 'x');
    }
    await sleep(20);
    expect(calls).toBe(1);
    expect(openFds()).toBe(before);
  });

  test('runs nextTick callbacks and microtasks before the next event', async () => {
    const order: string[] = [];
    const done = new Promise<void>((resolve) => {
      pair = makePair(undefined, () => {
        order.push('event');
        process.nextTick(() => order.push('tick'));
        void Promise.resolve().then(() => order.push('microtask'));
        if (order.length > 3) {
          pair.right.watch(0);
          setImmediate(resolve);
        }
      });
      pair.right.watch(READABLE);
      sendText(pair.left, 'x');
    });
    await done;
    expect(order.slice(0, 6)).toEqual(['event', 'tick', 'microtask', 'event', 'tick', 'microtask']);
  });

  test('calls back in the asynchronous context of the first watch', async () => {
    const storage = new AsyncLocalStorage<string>();
    const seen = new Promise<string | undefined>((resolve) => {
      pair = makePair(undefined, () => {
        pair.right.close();
        resolve(storage.getStore());
      });
    });
    storage.run('context', () => pair.right.watch(READABLE));
    sendText(pair.left, 'x');
    expect(await seen).toBe('context');
  });

  test('refuses bits that it does not know', () => {
    pair = makePair();
    expect(thrownName(() => pair.right.watch(4))).toBe('RangeError');
    expect(thrownName(() => pair.right.watch('1' as never))).toBe('TypeError');
  });
});

describe('in a process of its own', () => {
  const setUp = `
    const make = (onEvent) => {
      const [a, b] = addon.socketPair();
      const left = new addon.Socket(a, () => {});
      const right = new addon.Socket(b, onEvent);
      return { left, right };
    };
    const send = (socket) => addon.send(socket.handle, Buffer.from('x'), 1, null, 0, 0, 0, null);
  `;

  test('what a callback throws is an uncaughtException, and the loop goes on', () => {
    expect(
      runScript(`${setUp}
        const seen = [];
        const { left, right } = make(() => {
          if (seen.length === 2) return right.close(), report(seen);
          throw new Error('thrown ' + seen.length);
        });
        process.on('uncaughtException', (error, origin) => seen.push(error.message + ', ' + origin));
        right.watch(1);
        send(left);
      `),
    ).toEqual(['thrown 0, uncaughtException', 'thrown 1, uncaughtException']);
  });

  test('an uncaught error ends the process', () => {
    expect(() =>
      runScript(`${setUp}
        const { left, right } = make(() => { throw new Error('fatal'); });
        right.watch(1);
        send(left);
      `),
    ).toThrow(/ended with 1: [^]*fatal/);
  });

  test('a watched socket keeps the process alive unless it is unref’d', () => {
    expect(
      runScript(`${setUp}
        const { right } = make(() => {});
        const { right: second } = make(() => {});
        right.unref();
        right.watch(1);
        second.watch(1);
        second.unref();
        // Only the loop is asked: if a handle held it, the process would not end.
        process.on('exit', () => report('ended'));
      `),
    ).toBe('ended');
    expect(
      runScript(`${setUp}
        const { left, right } = make(() => { right.close(); report('event'); });
        right.unref();
        right.watch(1);
        right.ref();
        setTimeout(() => send(left), 50).unref();
      `),
    ).toBe('event');
  });

  test('a watched socket that nothing refers to is not collected', () => {
    expect(
      runScript(`${setUp}
        let left;
        (() => {
          const pair = make(() => { report('event'); process.exit(); });
          pair.right.watch(1);
          left = pair.left;
        })();
        let rounds = 0;
        collect(() => rounds++ === 10).then(() => send(left));
      `),
    ).toBe('event');
  });

  test('the process ends with sockets open, watched, and in the middle of a callback', () => {
    expect(
      runScript(`${setUp}
        for (let i = 0; i < 10; i++) make(() => {}).right.watch(1);
        const { left, right } = make(() => { report('exiting'); process.exit(0); });
        right.watch(1);
        send(left);
      `),
    ).toBe('exiting');
  });
});
