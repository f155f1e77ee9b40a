import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Connection } from '../../lib/connection/index.js';
import { ClosedError, ProtocolError, RemoteError, TimeoutError, UnsupportedError } from '../../lib/errors.js';
import { readToOf, readOf, takeUInt32, writeOf } from '../../lib/device/region-access.js';
import { openFd } from '../../lib/transport/index.js';
import { openFds } from '../support/fds.js';
import { ScriptedPeer, message, words, type Received } from '../support/scripted-peer.js';

let peer: ScriptedPeer;
let connection: Connection;
let fdsBefore: number;

function open(options = {}): void {
  peer = new ScriptedPeer();
  connection = new Connection(openFd(peer.clientFd), options);
}

function read(offset: number, options?: object): Promise<number> {
  return connection.access(readOf(0, offset, 4, takeUInt32), options);
}

function readInto(offset: number, target: Uint8Array, options?: object): Promise<void> {
  return connection.access(readToOf(0, offset, target), options);
}

function write(offset: number, body: Uint8Array, options?: object): Promise<void> {
  return connection.access(writeOf(0, offset, body), options);
}

/** The reply to a read: the access structure again, and the data. */
function data(request: Received, bytes: Uint8Array): Buffer {
  return Buffer.concat([request.payload.subarray(0, 16), bytes]);
}

/** Answers every read with its own offset. */
function answerReads(): void {
  peer.onMessage((request) => peer.reply(request, data(request, words(request.payload.readUInt32LE(0)))));
}

function turn(ms = 5): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

// The test runner itself opens and closes files while it starts.
beforeAll(() => turn(200));

beforeEach(() => {
  fdsBefore = openFds();
  open();
});

afterEach(async () => {
  connection.close();
  peer.close();
  await turn();
  expect(openFds()).toBe(fdsBefore);
});

describe('replies and callers', () => {
  test('replies in any order find their callers', async () => {
    const calls = [0, 4, 8].map((offset) => read(offset));
    const requests = [await peer.receive(), await peer.receive(), await peer.receive()];
    for (const request of requests.reverse()) {
      peer.reply(request, data(request, words(request.payload.readUInt32LE(0) + 100)));
    }
    expect(await Promise.all(calls)).toEqual([100, 104, 108]);
  });

  test('ten thousand concurrent reads each get the right bytes, at most 128 in flight', async () => {
    let most = 0;
    peer.onMessage((request) => {
      most = Math.max(most, connection.counters.inFlight);
      peer.reply(request, data(request, words(request.payload.readUInt32LE(0))));
    });
    const values = await Promise.all(Array.from({ length: 10_000 }, (_, i) => read(i)));
    expect(values).toEqual(values.map((_, i) => i));
    expect(most).toBeLessThanOrEqual(128);
    expect(connection.counters).toMatchObject({ inFlight: 0, queued: 0, sent: 10_000, received: 10_000 });
  });

  test('commands go out in the order of the calls, posted ones too, also when they have to wait', async () => {
    connection.inFlightLimit = 2;
    const calls = [1, 2, 3].map((i) => write(i, words(i)));
    connection.post(writeOf(0, 4, words(4)));
    calls.push(write(5, words(5)));
    const order: number[] = [];
    peer.onMessage((request) => {
      order.push(request.payload.readUInt32LE(0));
      if ((request.flags & 0x10) === 0) peer.reply(request, request.payload.subarray(0, 16));
    });
    await Promise.all(calls);
    expect(order).toEqual([1, 2, 3, 4, 5]);
  });

  test('an error reply rejects with its errno and command, with a payload or without', async () => {
    const calls = [read(0), read(4), read(8)].map((call) => call.catch((error: unknown) => error));
    peer.refuse(await peer.receive(), 22);
    const second = await peer.receive();
    peer.send(message(second.id, 9, 0x21, 22, second.payload));
    peer.refuse(await peer.receive(), 0);
    const [first, padded, silent] = (await Promise.all(calls)) as RemoteError[];
    expect(first).toBeInstanceOf(RemoteError);
    expect(first).toMatchObject({ code: 'EINVAL', errno: 22, command: 'REGION_READ' });
    expect(padded).toMatchObject({ code: 'EINVAL' });
    expect(silent).toMatchObject({ code: 'ERR_VFIO_USER_REMOTE', errno: 0 });
  });

  test('an unsolicited reply is dropped and counted', async () => {
    peer.send(message(77, 9, 1, 0, Buffer.alloc(20)));
    answerReads();
    expect(await read(4)).toBe(4);
    expect(connection.counters.unknown).toBe(1);
  });

  test('a second reply to the same command is dropped and counted', async () => {
    const call = read(4);
    const request = await peer.receive();
    const bytes = message(request.id, 9, 1, 0, data(request, words(7)));
    peer.send(Buffer.concat([bytes, bytes]));
    expect(await call).toBe(7);
    answerReads();
    expect(await read(8)).toBe(8);
    expect(connection.counters.unknown).toBe(1);
  });

  test('a reply to another command than the one asked ends the connection by name', async () => {
    const call = read(4);
    const request = await peer.receive();
    peer.send(message(request.id, 10, 1, 0, request.payload));
    await expect(call).rejects.toThrow(ClosedError);
    expect(await connection.closed).toBeInstanceOf(ProtocolError);
  });

  test.each([
    ['too little data', (payload: Buffer) => Buffer.concat([payload, Buffer.alloc(3)])],
    ['too much data', (payload: Buffer) => Buffer.concat([payload, Buffer.alloc(5)])],
    [
      'another offset',
      (payload: Buffer) => Buffer.concat([words([9n]), payload.subarray(8), Buffer.alloc(4)]),
    ],
    ['no access structure', () => Buffer.alloc(8)],
    ['nothing', () => Buffer.alloc(0)],
  ])('a reply with %s rejects the call and leaves the connection', async (_, twist) => {
    const call = read(4);
    const request = await peer.receive();
    peer.reply(request, twist(request.payload));
    await expect(call).rejects.toThrow(ProtocolError);
    answerReads();
    expect(await read(8)).toBe(8);
  });

  test.each([2, 15])('a message of type %i ends the connection', async (type) => {
    peer.send(message(0, 9, type, 0, Buffer.alloc(0)));
    expect(await connection.closed).toBeInstanceOf(ProtocolError);
  });

  test('a megabyte lands in the buffer of its caller, in pieces', async () => {
    const target = Buffer.alloc(1 << 20);
    const call = readInto(0, target);
    const request = await peer.receive();
    const bytes = Buffer.from(Array.from({ length: 1 << 20 }, (_, i) => (i * 31) & 0xff));
    await peer.sendAll(message(request.id, 9, 1, 0, data(request, bytes)));
    await call;
    expect(target.equals(bytes)).toBe(true);
  });

  test('no file descriptor of a reply is left over', async () => {
    const call = read(4);
    const request = await peer.receive();
    peer.reply(request, data(request, words(1)), [0, 1, 2]);
    expect(await call).toBe(1);
    expect(openFds()).toBe(fdsBefore + 2);
  });
});

describe('deadlines and aborts', () => {
  test('a call ends at its deadline, and its late reply wakes nobody', async () => {
    const late = read(4, { timeoutMs: 20 });
    await expect(late).rejects.toMatchObject({ name: 'TimeoutError', code: 'ETIMEDOUT' });
    const request = await peer.receive();
    expect(connection.counters.tombstones).toBe(1);
    const next = read(8);
    const second = await peer.receive();
    expect(second.id).not.toBe(request.id);
    peer.reply(request, data(request, words(1)));
    peer.reply(second, data(second, words(2)));
    expect(await next).toBe(2);
    expect(connection.counters).toMatchObject({ late: 1, tombstones: 0, unknown: 0 });
  });

  test('an aborted call rejects with the reason, before and after it is sent', async () => {
    const reason = new Error('enough');
    await expect(read(0, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const controller = new AbortController();
    const call = read(4, { signal: controller.signal });
    await peer.receive();
    controller.abort(reason);
    await expect(call).rejects.toBe(reason);
  });

  test('a call that waits for room is forgotten when it is aborted', async () => {
    connection.inFlightLimit = 1;
    const first = read(0);
    const controller = new AbortController();
    const second = read(4, { signal: controller.signal });
    const third = read(8);
    controller.abort();
    await expect(second).rejects.toMatchObject({ name: 'AbortError' });
    answerReads();
    expect(await Promise.all([first, third])).toEqual([0, 8]);
    expect(connection.counters.sent).toBe(2);
  });

  test('a buffer is not written to after its call was given up', async () => {
    const target = Buffer.alloc(200_000, 1);
    const call = readInto(0, target, { timeoutMs: 30 });
    const request = await peer.receive();
    const reply = message(request.id, 9, 1, 0, data(request, Buffer.alloc(200_000, 2)));
    await peer.sendAll(reply.subarray(0, 100_000));
    await expect(call).rejects.toThrow(TimeoutError);
    target.fill(3);
    await peer.sendAll(reply.subarray(100_000));
    answerReads();
    expect(await read(8)).toBe(8);
    expect(target.every((byte) => byte === 3)).toBe(true);
  });

  test('where one command at a time is allowed, one that timed out still counts', async () => {
    connection.inFlightLimit = 1;
    await expect(read(0, { timeoutMs: 10 })).rejects.toThrow(TimeoutError);
    const next = read(4);
    await turn(20);
    const first = await peer.receive();
    expect(peer.pending).toHaveLength(0);
    peer.reply(first, data(first, words(0)));
    answerReads();
    expect(await next).toBe(4);
  });

  test('more than 1,024 commands without a reply end the connection by name', async () => {
    connection.inFlightLimit = 2_000;
    // Long enough that all have gone out: what has not leaves no tombstone.
    const calls = Array.from({ length: 1_100 }, (_, i) => read(i, { timeoutMs: 500 }));
    const results = await Promise.allSettled(calls);
    expect(results.every((result) => result.status === 'rejected')).toBe(true);
    expect(await connection.closed).toMatchObject({ name: 'TimeoutError' });
  });

  test.each([0, -1, NaN])('a deadline of %p is refused', async (timeoutMs) => {
    await expect(read(0, { timeoutMs })).rejects.toThrow(RangeError);
  });
});

describe('the end', () => {
  test('every waiting call is rejected once, with the reason as cause', async () => {
    connection.inFlightLimit = 2;
    const calls = [0, 4, 8].map((offset) => read(offset));
    await peer.receive();
    peer.close();
    const results = await Promise.allSettled(calls);
    const reason = await connection.closed;
    for (const result of results) {
      expect(result).toMatchObject({ status: 'rejected', reason: { name: 'ClosedError', cause: reason } });
    }
    await expect(read(0)).rejects.toThrow(ClosedError);
    expect(() => connection.post(writeOf(0, 0, words(1)))).toThrow(ClosedError);
  });

  test('a stream that ends in the middle of a message says so', async () => {
    const call = read(0);
    const request = await peer.receive();
    peer.send(message(request.id, 9, 1, 0, data(request, words(1))).subarray(0, 20));
    peer.close();
    await expect(call).rejects.toThrow(ClosedError);
    expect((await connection.closed).message).toMatch(/middle of a message/);
  });

  test('what the server said before it went is still heard', async () => {
    const call = read(0);
    const request = await peer.receive();
    peer.reply(request, data(request, words(5)));
    peer.close();
    expect(await call).toBe(5);
    expect(await connection.closed).toBeInstanceOf(ClosedError);
  });

  test('closing twice is closing once', async () => {
    connection.close();
    connection.close();
    expect(await connection.closed).toBeInstanceOf(ClosedError);
  });
});

describe('back-pressure', () => {
  test('a server that does not read gets all of it later, in order', async () => {
    connection.inFlightLimit = 1_000;
    const body = Buffer.alloc(32 * 1024, 0xab);
    peer.setReading(false);
    const calls = Array.from({ length: 100 }, (_, i) => write(i, body, { timeoutMs: 20_000 }));
    const offsets: number[] = [];
    await turn(20);
    expect(connection.counters.inFlight).toBe(100);
    peer.setReading(true);
    peer.onMessage((request) => {
      offsets.push(request.payload.readUInt32LE(0));
      expect(request.payload.subarray(16).equals(body)).toBe(true);
      peer.reply(request, request.payload.subarray(0, 16));
    });
    await Promise.all(calls);
    expect(offsets).toEqual(offsets.map((_, i) => i));
  });

  test('a message that never went out leaves no tombstone', async () => {
    connection.inFlightLimit = 1_000;
    const body = Buffer.alloc(32 * 1024);
    peer.setReading(false);
    // Twelve times what the kernel keeps for a peer that does not read, or four times where it may keep more.
    const calls = Array.from({ length: 300 }, (_, i) => write(i, body, { timeoutMs: 50 }));
    await Promise.allSettled(calls);
    const { tombstones } = connection.counters;
    expect(tombstones).toBeLessThan(100);
    expect(tombstones).toBeGreaterThan(0);
  });
});

describe('synchronous calls', () => {
  function readSync(offset: number, options?: object): number {
    return connection.accessSync(readOf(0, offset, 4, takeUInt32), options);
  }

  test('time out by name, and the reply that comes later is drained', async () => {
    const began = performance.now();
    expect(() => readSync(0, { timeoutMs: 120 })).toThrow(TimeoutError);
    expect(performance.now() - began).toBeGreaterThan(100);
    const request = await peer.receive();
    peer.reply(request, data(request, words(1)));
    answerReads();
    expect(await read(4)).toBe(4);
    expect(connection.counters.late).toBe(1);
  });

  test('take a reply that is there already, and resolve others on the way', async () => {
    const earlier = read(0);
    const request = await peer.receive();
    // The reply to a call that has not been made: the id of the next one is known to be the next.
    peer.send(message(request.id + 1, 9, 1, 0, Buffer.concat([words([4n], 0, 4), words(44)])));
    peer.reply(request, data(request, words(11)));
    // Both lie in the socket: the first is unknown when the loop sees it, so the call is made before the loop turns.
    expect(readSync(4)).toBe(44);
    expect(await earlier).toBe(11);
  });

  test('are refused while a request of the server is served', async () => {
    let refused: unknown;
    connection.requestHandler = {
      serve: (request) => {
        try {
          readSync(0);
        } catch (error) {
          refused = error;
        }
        request.refuse(5);
      },
    };
    peer.send(message(9, 11, 0, 0, words([0n], [4n])));
    expect(await peer.receive()).toMatchObject({ id: 9, flags: 0x21, errno: 5 });
    expect(refused).toBeInstanceOf(UnsupportedError);
  });

  test('end when the server goes', () => {
    peer.close();
    expect(() => readSync(0)).toThrow(ClosedError);
  });
});

describe('requests of the server', () => {
  test('are refused with EINVAL where nobody serves them, and not answered when they want no reply', async () => {
    peer.send(message(1, 11, 0x10, 0, words([0n], [4n])));
    peer.send(message(2, 11, 0, 0, words([0n], [4n])));
    expect(await peer.receive()).toMatchObject({ id: 2, command: 11, flags: 0x21, errno: 22 });
    expect(connection.counters.refused).toBe(2);
  });
});

describe('posted writes', () => {
  test('have ids of their own, and an error to one is only counted', async () => {
    connection.post(writeOf(0, 0, words(1)));
    const posted = await peer.receive();
    expect(posted).toMatchObject({ command: 10, flags: 0x10 });
    expect(posted.id).toBeGreaterThanOrEqual(0x8000);
    peer.refuse(posted, 22);
    answerReads();
    expect(await read(4)).toBe(4);
    expect(connection.counters).toMatchObject({ postedErrors: 1, unknown: 0 });
  });
});

test.each([0, 1.5, 20_000])('an in-flight limit of %p is refused', (inFlight) => {
  expect(() => (connection.inFlightLimit = inFlight)).toThrow(RangeError);
});
