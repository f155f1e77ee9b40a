import { constants } from 'node:os';
import { performance } from 'node:perf_hooks';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import {
  NO_SOCKET,
  native,
  OTHER_READABLE,
  FAST_PATH_CALL_AT,
  FAST_PATH_OTHER_AT,
  FAST_PATH_REPLY_AT,
  READABLE,
  UNSENT,
  WRITABLE,
} from '../../lib/native.js';
import { makePair, sendText, startWorker, thrownName } from './support.js';
import type { Pair } from './support.js';

const { EAGAIN } = constants.errno;

let pair: Pair;
let other: Pair;

beforeEach(() => {
  pair = makePair();
  other = makePair();
});

afterEach(() => {
  pair.close();
  other.close();
});

function recvWait(timeoutMs: number, otherSocket = other.right.handle): string | number {
  const into = Buffer.alloc(64);
  const size = native().recvWait(pair.right.handle, into, 0, into.length, timeoutMs, otherSocket);
  return size < 0 ? size : into.toString('utf8', 0, size);
}

describe('wait', () => {
  test('says what is ready', () => {
    expect(native().wait(pair.right.handle, READABLE, 0, NO_SOCKET)).toBe(0);
    expect(native().wait(pair.right.handle, READABLE | WRITABLE, 0, NO_SOCKET)).toBe(WRITABLE);
    sendText(pair.left, 'x');
    expect(native().wait(pair.right.handle, READABLE | WRITABLE, 50, NO_SOCKET)).toBe(READABLE | WRITABLE);
    expect(native().wait(pair.right.handle, WRITABLE, 50, NO_SOCKET)).toBe(WRITABLE);
    expect(native().wait(pair.right.handle, 0, 0, NO_SOCKET)).toBe(0);
  });

  test('says that the other socket is readable', () => {
    expect(native().wait(pair.right.handle, READABLE, 0, other.right.handle)).toBe(0);
    sendText(other.left, 'x');
    expect(native().wait(pair.right.handle, READABLE, 50, other.right.handle)).toBe(OTHER_READABLE);
    expect(native().wait(pair.right.handle, 0, 50, other.right.handle)).toBe(OTHER_READABLE);
    sendText(pair.left, 'x');
    expect(native().wait(pair.right.handle, READABLE, 50, other.right.handle)).toBe(
      READABLE | OTHER_READABLE,
    );
  });

  test('takes a hang-up for something to read, and to write where that was asked', () => {
    pair.left.close();
    expect(native().wait(pair.right.handle, READABLE, 50, NO_SOCKET)).toBe(READABLE);
    expect(native().wait(pair.right.handle, WRITABLE, 50, NO_SOCKET)).toBe(READABLE | WRITABLE);
    other.left.close();
    expect(native().wait(pair.right.handle, 0, 50, other.right.handle)).toBe(READABLE | OTHER_READABLE);
  });

  test('ignores another socket that is closed', () => {
    other.right.close();
    expect(native().wait(pair.right.handle, READABLE, 1, other.right.handle)).toBe(0);
    expect(recvWait(1)).toBe(-EAGAIN);
  });

  test('waits no longer than 50 ms, whatever it is told', () => {
    for (const timeoutMs of [1e9, Infinity]) {
      const start = performance.now();
      expect(native().wait(pair.right.handle, READABLE, timeoutMs, NO_SOCKET)).toBe(0);
      expect(recvWait(timeoutMs)).toBe(-EAGAIN);
      // Only that it does end: a busy machine may take its time.
      expect(performance.now() - start).toBeLessThan(10_000);
    }
  });

  test('takes a time that has passed for none', () => {
    for (const timeoutMs of [0, -1, -Infinity, NaN]) {
      expect(native().wait(pair.right.handle, READABLE, timeoutMs, NO_SOCKET)).toBe(0);
      expect(recvWait(timeoutMs)).toBe(-EAGAIN);
    }
  });

  test('refuses what it does not know', () => {
    expect(thrownName(() => native().wait(pair.right.handle, 8, 0, NO_SOCKET))).toBe('RangeError');
    expect(thrownName(() => native().wait(pair.right.handle, '1' as never, 0, NO_SOCKET))).toBe('TypeError');
    expect(thrownName(() => native().wait(pair.right.handle, READABLE, '1' as never, NO_SOCKET))).toBe(
      'TypeError',
    );
    expect(thrownName(() => pair.right.setSpinCeiling(-1))).toBe('RangeError');
    expect(thrownName(() => pair.right.setSpinCeiling('1' as never))).toBe('TypeError');
  });
});

describe.each([0, 50, 10_000])('recvWait that may spin for %d µs', (ceiling) => {
  beforeEach(() => pair.right.setSpinCeiling(ceiling));

  test('gives what is there', () => {
    sendText(pair.left, 'there');
    expect(recvWait(0)).toBe('there');
    sendText(pair.left, 'there');
    expect(recvWait(50)).toBe('there');
  });

  test('answers -EAGAIN when nothing comes', () => {
    for (let i = 0; i < 6; i++) expect(recvWait(2)).toBe(-EAGAIN);
  });

  test('answers 0 at the end of the stream', () => {
    pair.left.close();
    expect(recvWait(50)).toBe('');
  });

  test('ends when the other socket has something', () => {
    sendText(other.left, 'x');
    for (let i = 0; i < 6; i++) expect(recvWait(50)).toBe(-EAGAIN);
    sendText(pair.left, 'mine first');
    expect(recvWait(50)).toBe('mine first');
  });

  test('gets every answer of a peer, whichever way it waits', async () => {
    const fds = native().socketPair() as [number, number];
    const socket = new (native().Socket)(fds[0], () => {});
    socket.setSpinCeiling(ceiling);
    const worker = startWorker(
      `
      const socket = new addon.Socket(workerData, () => {});
      const bytes = Buffer.alloc(64);
      for (;;) {
        const size = addon.recvWait(socket.handle, bytes, 0, 64, 50, -1);
        if (size === 0) break;
        if (size > 0) addon.send(socket.handle, bytes, size, null, 0, 0, 0, null);
      }
      socket.close();
    `,
      fds[1],
    );
    const bytes = Buffer.alloc(64);
    const answers: number[] = [];
    for (let i = 0; i < 1000; i++) {
      bytes.writeUInt32LE(i);
      native().send(socket.handle, bytes, 64, null, 0, 0, 0, null);
      bytes.fill(0);
      let size: number;
      while ((size = native().recvWait(socket.handle, bytes, 0, 64, 50, NO_SOCKET)) === -EAGAIN);
      expect(size).toBe(64);
      answers.push(bytes.readUInt32LE());
    }
    expect(answers).toEqual(Array.from({ length: 1000 }, (_, i) => i));
    socket.close();
    await new Promise((resolve) => worker.once('exit', resolve));
  });
});

describe('roundTrip', () => {
  const memory = native().fastPath!;

  /** What the addon is told, and its result. */
  function call(length: number, timeoutMs = 50, other = NO_SOCKET, socket = pair.right.handle): number {
    [socket, length, timeoutMs, other].forEach((word, i) =>
      memory.writeInt32LE(word, FAST_PATH_CALL_AT + 4 * i),
    );
    native().roundTrip();
    return memory.readInt32LE(FAST_PATH_CALL_AT + 16);
  }

  function roundTrip(question: string, timeoutMs = 50, other = NO_SOCKET): string | number {
    const result = call(memory.write(question), timeoutMs, other);
    return result > 0 ? memory.toString('utf8', FAST_PATH_REPLY_AT, FAST_PATH_REPLY_AT + result) : result;
  }

  test('sends the question and brings the answer', () => {
    sendText(pair.left, 'answer');
    expect(roundTrip('question')).toBe('answer');
    const bytes = Buffer.alloc(64);
    expect(bytes.toString('utf8', 0, native().recv(pair.left.handle, bytes, 0, 64))).toBe('question');
  });

  test('waits no longer than it is told', () => {
    expect(roundTrip('question', 1)).toBe(-EAGAIN);
    expect(roundTrip('question', 0)).toBe(-EAGAIN);
  });

  test('says how much was not sent, and then does not wait', () => {
    const bytes = Buffer.alloc(1 << 20);
    while (native().send(pair.right.handle, bytes, bytes.length, null, 0, 0, 0, null) > 0);
    sendText(pair.left, 'answer');
    expect(roundTrip('question')).toBe(UNSENT);
    pair.right.close();
    expect(roundTrip('question')).toBe(UNSENT);
  });

  test('leaves the end of the stream to those who send and receive', () => {
    pair.left.close();
    expect(roundTrip('question')).toBe(UNSENT);
  });

  test('ends when another socket has something, and says with an answer whether it has', () => {
    const isReadable = () => memory.readUInt32LE(FAST_PATH_OTHER_AT);
    sendText(pair.left, 'answer');
    expect(roundTrip('question', 50, other.right.handle)).toBe('answer');
    expect(isReadable()).toBe(0);
    sendText(other.left, 'first');
    expect(roundTrip('question', 50, other.right.handle)).toBe(-EAGAIN);
    sendText(pair.left, 'answer');
    expect(roundTrip('question', 50, other.right.handle)).toBe('answer');
    expect(isReadable()).toBe(1);
    other.right.close();
    sendText(pair.left, 'answer');
    expect(roundTrip('question', 50, other.right.handle)).toBe('answer');
    expect(isReadable()).toBe(0);
  });

  test.each([-2, 1 << 19, 0x7fff_ffff, -0x8000_0000])('refuses %d, which names no socket', (handle) => {
    expect(thrownName(() => call(8, 50, NO_SOCKET, handle))).toBe('TypeError');
    expect(thrownName(() => call(8, 50, handle))).toBe('TypeError');
  });

  test('refuses to ask nobody', () => {
    expect(thrownName(() => call(8, 50, NO_SOCKET, NO_SOCKET))).toBe('TypeError');
  });

  test('takes no more than there is memory for', () => {
    expect(thrownName(() => call(FAST_PATH_REPLY_AT + 1))).toBe('RangeError');
    expect(thrownName(() => call(-1))).toBe('RangeError');
  });

  test('waits for a slice at the most', () => {
    const start = performance.now();
    expect(call(8, 0x7fff_ffff)).toBe(-EAGAIN);
    expect(call(8, -1)).toBe(-EAGAIN);
    expect(performance.now() - start).toBeGreaterThanOrEqual(100);
  });
});
