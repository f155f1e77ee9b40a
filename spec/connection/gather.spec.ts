/** Reads that are under way together leave together; nothing else that a caller can see depends on it. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Connection } from '../../lib/connection/index.js';
import { readOf, takeUInt32, writeOf } from '../../lib/device/region-access.js';
import { openFd } from '../../lib/transport/index.js';
import { ScriptedPeer, words, type Received } from '../support/scripted-peer.js';
import { until } from '../support/until.js';

let peer: ScriptedPeer;
let connection: Connection;
let order: number[];

beforeEach(() => {
  peer = new ScriptedPeer();
  connection = new Connection(openFd(peer.clientFd));
  order = [];
});

afterEach(() => {
  connection.close();
  peer.close();
});

function read(offset: number, options?: object): Promise<number> {
  return connection.access(readOf(0, offset, 4, takeUInt32), options);
}

function write(offset: number): Promise<void> {
  return connection.access(writeOf(0, offset, words(offset)), undefined);
}

function answer(request: Received): void {
  const offset = request.payload.readUInt32LE(0);
  order.push(offset);
  if ((request.flags & 0x10) !== 0) return;
  const head = request.payload.subarray(0, 16);
  peer.reply(request, request.command === 9 ? Buffer.concat([head, words(offset)]) : head);
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

describe('reads that go together', () => {
  test('reach the server in the order of the calls, with what is written and posted between them', async () => {
    peer.onMessage(answer);
    const calls = upTo(90).map((i): Promise<unknown> => {
      if (i % 30 === 20) return write(i);
      if (i % 30 !== 25) return read(i);
      connection.post(writeOf(0, i, words(i)));
      return Promise.resolve();
    });
    await Promise.all(calls);
    await read(90);
    expect(order).toEqual(upTo(91));
  });

  test('go out before a write that follows them, in the same turn', async () => {
    const calls = upTo(20).map((i) => read(i));
    calls.push(write(20).then(() => 20));
    // Nothing has been awaited, so the loop has not turned.
    expect(connection.counters.sent).toBe(21);
    peer.onMessage(answer);
    expect(await Promise.all(calls)).toEqual(upTo(21));
    expect(order).toEqual(upTo(21));
  });

  test('more than one message of the socket holds arrive whole', async () => {
    connection.inFlightLimit = 2_000;
    peer.onMessage(({ payload }) => order.push(payload.readUInt32LE(0)));
    const calls = Promise.allSettled(upTo(1_500).map((i) => read(i)));
    await until(() => order.length === 1_500);
    expect(order).toEqual(upTo(1_500));
    connection.close();
    await calls;
  });

  test('one that is given up in the same turn is sent all the same, and its reply wakes nobody', async () => {
    const abort = new AbortController();
    const calls = upTo(10).map((i) => read(i, i === 7 ? { signal: abort.signal } : undefined));
    abort.abort(new Error('enough'));
    peer.onMessage(answer);
    const results = await Promise.allSettled(calls);
    expect(results.map(({ status }) => status === 'fulfilled')).toEqual(upTo(10).map((i) => i !== 7));
    await read(10);
    expect(order).toEqual(upTo(11));
    expect(connection.counters).toMatchObject({ tombstones: 0, late: 1, inFlight: 0 });
  });

  test('have gone when the connection is closed in the same turn', async () => {
    peer.onMessage(({ payload }) => order.push(payload.readUInt32LE(0)));
    const calls = upTo(12).map((i) => read(i));
    connection.close();
    const results = await Promise.allSettled(calls);
    expect(results.every(({ status }) => status === 'rejected')).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(order).toEqual(upTo(12));
  });

  test('a server that reads nothing gets them later, in order', async () => {
    connection.inFlightLimit = 16_000;
    peer.setReading(false);
    const calls = Promise.allSettled(upTo(15_000).map((i) => read(i)));
    await new Promise((resolve) => setTimeout(resolve, 20));
    peer.onMessage(({ payload }) => order.push(payload.readUInt32LE(0)));
    peer.setReading(true);
    await until(() => order.length === 15_000);
    expect(order).toEqual(upTo(15_000));
    connection.close();
    await calls;
  });
});
