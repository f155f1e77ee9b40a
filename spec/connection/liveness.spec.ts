/** Nobody waits while there is room, and nobody waits for ever: docs/timeouts.md. */
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, test } from '@jest/globals';
import { Connection } from '../../lib/connection/index.js';
import { connect } from '../../lib/device/connect.js';
import { readOf, takeUInt32, writeOf } from '../../lib/device/region-access.js';
import { RAM_IDENTIFICATION } from '../../lib/emulator/index.js';
import { TimeoutError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { openFd } from '../../lib/transport/index.js';
import { ScriptedPeer, words, type Received } from '../support/scripted-peer.js';
import { until } from '../support/until.js';

const KIB = 1024;
const FOREVER = { timeoutMs: Infinity };

const cleanups: (() => unknown)[] = [];
let peer: ScriptedPeer;
let connection: Connection;

function open(options = {}): void {
  peer = new ScriptedPeer();
  connection = new Connection(openFd(peer.clientFd), options);
  cleanups.push(
    () => connection.close(),
    () => peer.close(),
  );
}

afterEach(async () => {
  for (const run of cleanups.splice(0)) await run();
});

function read(offset: number, options?: object): Promise<number> {
  return connection.access(readOf(0, offset, 4, takeUInt32), options);
}

function write(offset: number, body: Uint8Array, options?: object): Promise<void> {
  return connection.access(writeOf(0, offset, body), options);
}

/** Answers a read with its own offset, a write with nothing. */
function answer(request: Received): void {
  const { payload, command } = request;
  const data = command === 9 ? words(payload.readUInt32LE(0)) : Buffer.alloc(0);
  peer.reply(request, Buffer.concat([payload.subarray(0, 16), data]));
}

/** What a call ends with. */
function ending(call: Promise<unknown>): Promise<unknown> {
  return call.catch((error: unknown) => error);
}

const turn = (ms = 5) => new Promise((resolve) => setTimeout(resolve, ms));

describe('room that becomes free is used in the same turn', () => {
  const offsetsOf = (requests: readonly Received[]) => requests.map(({ payload }) => payload.readUInt32LE(0));

  /** Two calls in flight, three that wait. */
  async function full(options?: object): Promise<{ sent: Received[]; calls: Promise<unknown>[] }> {
    open({ inFlight: 2 });
    const calls = [ending(read(0, options)), ending(read(4, options))];
    for (const offset of [8, 12, 16]) calls.push(ending(read(offset, FOREVER)));
    const sent = [await peer.receive(), await peer.receive()];
    expect(connection.counters).toMatchObject({ inFlight: 2, queued: 3 });
    return { sent, calls };
  }

  test('of an answer', async () => {
    const { sent } = await full();
    answer(sent[0]!);
    expect(offsetsOf([await peer.receive()])).toEqual([8]);
    expect(connection.counters).toMatchObject({ inFlight: 2, queued: 2 });
  });

  test('of an error', async () => {
    const { sent } = await full();
    peer.refuse(sent[1]!, 22);
    expect(offsetsOf([await peer.receive()])).toEqual([8]);
  });

  test('of calls that are given up at their deadline', async () => {
    const { calls } = await full({ timeoutMs: 20 });
    expect(await calls[0]).toBeInstanceOf(TimeoutError);
    expect(await calls[1]).toBeInstanceOf(TimeoutError);
    expect(connection.counters).toMatchObject({ inFlight: 2, queued: 1, tombstones: 2 });
    expect(offsetsOf([await peer.receive(), await peer.receive()])).toEqual([8, 12]);
  });

  test('of calls that are given up at the default deadline', async () => {
    open({ inFlight: 2, timeoutMs: 500 });
    const calls = [0, 4, 8, 12, 16].map((offset) => ending(read(offset)));
    await peer.receive();
    await peer.receive();
    expect(await calls[0]).toBeInstanceOf(TimeoutError);
    peer.onMessage(answer);
    expect(await Promise.all(calls.slice(2))).toEqual([8, 12, 16]);
  });

  test('of calls that are aborted', async () => {
    const controller = new AbortController();
    const { calls } = await full({ signal: controller.signal });
    controller.abort(new Error('enough'));
    await Promise.resolve();
    expect(connection.counters).toMatchObject({ inFlight: 2, queued: 1, tombstones: 2 });
    expect(await calls[1]).toMatchObject({ message: 'enough' });
    expect(offsetsOf([await peer.receive(), await peer.receive()])).toEqual([8, 12]);
  });

  test('of a message that had not gone and is taken back', async () => {
    open({ inFlight: 300 });
    peer.setReading(false);
    const controller = new AbortController();
    const body = Buffer.alloc(32 * KIB);
    const writes = Array.from({ length: 300 }, (_, i) =>
      ending(write(i, body, { signal: controller.signal })),
    );
    const waits = ending(read(1_000));
    expect(connection.counters).toMatchObject({ inFlight: 300, queued: 1 });
    controller.abort();
    await Promise.all(writes);
    expect(connection.counters).toMatchObject({ inFlight: 1, queued: 0 });
    expect(connection.counters.tombstones).toBeLessThan(100);
    peer.setReading(true);
    peer.onMessage(answer);
    expect(await waits).toBe(1_000);
  });

  test('of a limit that is raised', async () => {
    await full();
    connection.inFlightLimit = 4;
    expect(connection.counters).toMatchObject({ inFlight: 4, queued: 1 });
    expect(offsetsOf([await peer.receive(), await peer.receive()])).toEqual([8, 12]);
  });

  test('of the late reply, where one command at a time is allowed', async () => {
    open({ inFlight: 1 });
    const controller = new AbortController();
    const first = ending(read(0, { signal: controller.signal }));
    const second = read(4);
    const request = await peer.receive();
    controller.abort();
    await first;
    // The server may still be at it.
    expect(connection.counters).toMatchObject({ inFlight: 0, tombstones: 1, queued: 1 });
    answer(request);
    peer.onMessage(answer);
    expect(await second).toBe(4);
  });

  test('one signal of forty thousand calls sends none of them on its way out', async () => {
    open({ inFlight: 128 });
    const controller = new AbortController();
    const calls = Array.from({ length: 40_000 }, (_, i) => read(i, { signal: controller.signal }));
    const last = read(1);
    controller.abort(new Error('enough'));
    const results = await Promise.allSettled(calls);
    expect(results.every((result) => result.status === 'rejected')).toBe(true);
    peer.onMessage(answer);
    expect(await last).toBe(1);
    expect(connection.counters).toMatchObject({ sent: 129, inFlight: 0, queued: 0 });
  });

  test('nor does a deadline of forty thousand calls', async () => {
    open({ inFlight: 128 });
    const calls = Array.from({ length: 40_000 }, (_, i) => read(i, { timeoutMs: 400 }));
    const last = read(1, FOREVER);
    const results = await Promise.allSettled(calls);
    expect(results.every((result) => result.status === 'rejected')).toBe(true);
    const answerWhenThereIsRoom = (request: Received): void => {
      try {
        answer(request);
      } catch {
        setTimeout(answerWhenThereIsRoom, 1, request);
      }
    };
    peer.onMessage(answerWhenThereIsRoom);
    expect(await last).toBe(1);
    // Those that took the room of the first: fewer than commands may go unanswered.
    expect(connection.counters.sent).toBeLessThanOrEqual(1_025);
  });
});

describe('synchronous calls', () => {
  test('are sent when the calls before them are given up, although no timer runs', async () => {
    const [ours, theirs] = native().socketPair() as [number, number];
    const data = { fd: theirs, options: {}, device: { sharedSize: 0 }, drops: [4, 8] };
    const worker = new Worker(new URL('../support/emulator-thread.mjs', import.meta.url), {
      workerData: data,
    });
    const ended = new Promise((resolve) => worker.once('exit', resolve));
    const device = await connect({ fd: ours }, { inFlight: 2 });
    cleanups.push(
      () => device.close(),
      () => ended,
    );
    const region = device.bar(0);
    const dropped = [4, 8].map((offset) => ending(region.readUInt32(offset, { timeoutMs: 100 })));
    const queued = region.readUInt32(0);
    expect(region.readUInt32Sync(0)).toBe(RAM_IDENTIFICATION);
    expect(await queued).toBe(RAM_IDENTIFICATION);
    for (const error of await Promise.all(dropped)) expect(error).toBeInstanceOf(TimeoutError);
  });

  test('fail by name behind a server that answers nothing', async () => {
    open({ inFlight: 1, timeoutMs: 60 });
    const first = ending(read(0, FOREVER));
    const call = () => connection.accessSync(readOf(0, 4, 4, takeUInt32), undefined);
    expect(call).toThrow(/REGION_READ \(not sent: 1 commands without an answer\): no answer within 60 ms/);
    connection.close();
    await first;
  });
});

describe('the default deadline', () => {
  test('begins when the message is sent: calls that wait do not fail while others are answered', async () => {
    open({ inFlight: 1, timeoutMs: 1_000 });
    peer.onMessage((request) => void setTimeout(answer, 50, request));
    const began = performance.now();
    const calls = Array.from({ length: 30 }, (_, i) => read(i));
    expect(await Promise.all(calls)).toEqual(calls.map((_, i) => i));
    expect(performance.now() - began).toBeGreaterThan(1_000);
  });

  test('and has not begun for what waits for room in the socket', async () => {
    open({ inFlight: 1_000, timeoutMs: 1_000 });
    peer.onMessage(answer);
    peer.setReading(false);
    const body = Buffer.alloc(32 * KIB);
    const calls = Array.from({ length: 900 }, (_, i) => write(i, body));
    let isDone = false;
    const done = Promise.all(calls).finally(() => (isDone = true));
    const began = performance.now();
    // It takes what lies in the socket now and then.
    while (!isDone) {
      await turn(80);
      peer.setReading(true);
      await turn(0);
      peer.setReading(false);
    }
    await done;
    expect(performance.now() - began).toBeGreaterThan(1_000);
  });

  test('ends what waits when nothing at all is answered for so long', async () => {
    open({ inFlight: 2, timeoutMs: 80 });
    const calls = Array.from({ length: 50 }, (_, i) => ending(read(i)));
    const own = read(200, { timeoutMs: 60_000 });
    const errors = (await Promise.all(calls)) as Error[];
    for (const error of errors) expect(error).toBeInstanceOf(TimeoutError);
    expect(errors[10]!.message).toMatch(/^REGION_READ \(not sent: \d+ commands without an answer\)/);
    // Few were sent: those in flight at first, and those that took their room.
    expect(connection.counters.sent).toBeLessThanOrEqual(6);
    // A deadline of the caller's own is what it is.
    peer.onMessage(answer);
    expect(await own).toBe(200);
  });

  test('also behind a call that waits without end, and a call after that waits as long again', async () => {
    open({ inFlight: 1, timeoutMs: 80 });
    const first = read(0, FOREVER);
    const request = await peer.receive();
    expect(await ending(read(4))).toBeInstanceOf(TimeoutError);
    const began = performance.now();
    expect(await ending(read(8))).toBeInstanceOf(TimeoutError);
    expect(performance.now() - began).toBeGreaterThan(75);
    answer(request);
    expect(await first).toBe(0);
    expect(connection.counters.sent).toBe(1);
  });

  test('an answer that comes late is an answer', async () => {
    open({ inFlight: 1, timeoutMs: 400 });
    const requests: Received[] = [];
    peer.onMessage((request) => requests.push(request));
    const first = ending(read(0, { timeoutMs: 20 }));
    await first;
    const second = read(4);
    await turn(200);
    answer(requests.shift()!);
    await turn(300);
    // 500 ms after the second was made, 300 ms after it was sent.
    answer(requests.shift()!);
    expect(await second).toBe(4);
  });
});

describe('a deadline of the caller', () => {
  test('is for the whole call, waiting included, and the error says that it was not sent', async () => {
    open({ inFlight: 1 });
    const first = read(0, FOREVER);
    const error = await ending(read(4, { timeoutMs: 30 }));
    expect(error).toMatchObject({
      code: 'ETIMEDOUT',
      timeoutMs: 30,
      message: 'REGION_READ (not sent: 1 commands without an answer): no answer within 30 ms',
    });
    peer.onMessage(answer);
    expect(await first).toBe(0);
    expect(connection.counters.sent).toBe(1);
  });
});

describe('calls that were given up', () => {
  test('take no room until there are 1,024, and then a slow server is waited for', async () => {
    open({ inFlight: 128, timeoutMs: 20_000 });
    const requests: Received[] = [];
    peer.onMessage((request) => requests.push(request));
    for (let round = 0; round < 10; round++) {
      const controller = new AbortController();
      const calls = Array.from({ length: 128 }, (_, i) => ending(read(i, { signal: controller.signal })));
      controller.abort();
      await Promise.all(calls);
    }
    const last = read(4);
    await turn();
    expect(connection.counters).toMatchObject({ tombstones: 1_024, queued: 1, inFlight: 0 });
    expect(requests).toHaveLength(1_024);
    peer.onMessage(answer);
    for (const [i, request] of requests.splice(0).entries()) {
      answer(request);
      if (i % 50 === 0) await turn(1);
    }
    expect(await last).toBe(4);
    await until(() => connection.counters.late >= 1_024);
    expect(connection.counters).toMatchObject({ tombstones: 0, late: 1_024 });
  });

  test('one that answers none of them is given up with the connection', async () => {
    open({ inFlight: 1_024, timeoutMs: 100 });
    const controller = new AbortController();
    const calls = Array.from({ length: 1_024 }, (_, i) => ending(read(i, { signal: controller.signal })));
    controller.abort();
    await Promise.all(calls);
    expect(await ending(read(0))).toMatchObject({ name: 'ClosedError' });
    expect(await connection.closed).toMatchObject({ name: 'TimeoutError', timeoutMs: 100 });
  });
});

test('commands that wait for room in the socket do not stop the reading of answers', async () => {
  open({ inFlight: 1_000, timeoutMs: 10_000 });
  const requests: Received[] = [];
  peer.onMessage((request) => requests.push(request));
  peer.setReading(false);
  const body = Buffer.alloc(32 * KIB);
  const calls = Array.from({ length: 600 }, (_, i) => write(i, body));
  await turn();
  // A server that reads nothing more before its answer has gone, of which only some fit the socket at a time.
  let answered = 0;
  while (answered < 600) {
    if (requests.length === 0) {
      peer.setReading(true);
      await turn(1);
      peer.setReading(false);
      continue;
    }
    const { id, command, payload } = requests.shift()!;
    const head = Buffer.from([0, 0, 0, 0, 32, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    head.writeUInt16LE(id, 0);
    head.writeUInt16LE(command, 2);
    await peer.sendAll(Buffer.concat([head, payload.subarray(0, 16)]));
    answered++;
  }
  await Promise.all(calls);
});
