/**
 * Small synchronous accesses on a connection that is otherwise idle, which take the short way, and every answer with which
 * they have to leave it. The answer lies in the socket before the question goes out: a new connection's first id is 0.
 */
import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Connection } from '../../lib/connection/index.js';
import { readToOf, readOf, takeUInt32, writeOf } from '../../lib/device/region-access.js';
import { ClosedError, ProtocolError, RemoteError, TimeoutError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { openFd } from '../../lib/transport/index.js';
import { openFds } from '../support/fds.js';
import { ScriptedPeer, message, words } from '../support/scripted-peer.js';

const READ = 9;
const WRITE = 10;
const DMA_READ = 11;
const REPLY = 1;
const ERROR_REPLY = 0x21;
const OFFSET = 0x40;
const REGION = 2;

let peer: ScriptedPeer;
let connection: Connection;
let fdsBefore: number;

/** The access structure of an answer. */
function echo(count: number, offset = OFFSET, region = REGION): Buffer {
  return words([BigInt(offset)], region, count);
}

function answer(value: number, id = 0): Buffer {
  return message(id, READ, REPLY, 0, Buffer.concat([echo(4), words(value)]));
}

function read(timeoutMs = 200): number {
  return connection.accessSync(readOf(REGION, OFFSET, 4, takeUInt32), { timeoutMs });
}

function readInto(target: Uint8Array): void {
  connection.accessSync(readToOf(REGION, OFFSET, target), undefined);
}

function write(body: Uint8Array): void {
  connection.accessSync(writeOf(REGION, OFFSET, body), undefined);
}

function turn(ms = 5): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

beforeAll(() => turn(200));

beforeEach(() => {
  fdsBefore = openFds();
  peer = new ScriptedPeer();
  connection = new Connection(openFd(peer.clientFd));
});

afterEach(async () => {
  connection.close();
  peer.close();
  await turn();
  expect(openFds()).toBe(fdsBefore);
});

describe('what goes out', () => {
  test('a read is the header and the access structure', async () => {
    peer.send(answer(7));
    expect(read()).toBe(7);
    const request = await peer.receive();
    expect(request).toMatchObject({ id: 0, command: READ, flags: 0, errno: 0, fds: [] });
    expect(request.payload).toEqual(echo(4));
  });

  // With 96 bytes the message is as long as the memory of the short way.
  test.each([1, 8, 95, 96, 97, 4096])('a write of %i bytes ends in them', async (count) => {
    const body = Buffer.from(Array.from({ length: count }, (_, i) => (i * 7 + 1) & 0xff));
    peer.send(message(0, WRITE, REPLY, 0, echo(count)));
    write(body);
    const request = await peer.receive();
    expect(request).toMatchObject({ id: 0, command: WRITE, flags: 0 });
    expect(request.payload).toEqual(Buffer.concat([echo(count), body]));
  });

  test.each([0, 0xffff_ffff, 2 ** 32, 2 ** 32 + 4, 3 * 2 ** 32 - 1, Number.MAX_SAFE_INTEGER])(
    'an offset of %i, all 64 bits of it',
    async (offset) => {
      peer.send(message(0, READ, REPLY, 0, Buffer.concat([echo(4, offset), words(7)])));
      const value = connection.accessSync(readOf(REGION, offset, 4, takeUInt32), undefined);
      expect(value).toBe(7);
      expect((await peer.receive()).payload).toEqual(echo(4, offset));
    },
  );

  test('ids are not used again at once', async () => {
    for (let id = 0; id < 5; id++) {
      peer.send(answer(id, id));
      expect(read()).toBe(id);
    }
    expect(connection.counters).toMatchObject({ sent: 5, received: 5, inFlight: 0, unknown: 0, late: 0 });
    expect(connection.counters).toMatchObject({ bytesSent: 5 * 32, bytesReceived: 5 * 36 });
  });
});

describe('what comes', () => {
  test.each([1, 4, 4095, 4096, 4097, 65_536])('%i bytes', (count) => {
    const data = Buffer.from(Array.from({ length: count }, (_, i) => (i * 13 + 5) & 0xff));
    peer.send(message(0, READ, REPLY, 0, Buffer.concat([echo(count), data])));
    const target = Buffer.alloc(count);
    readInto(target);
    expect(target.equals(data)).toBe(true);
  });

  test('an answer with a command of the server behind it: both are dealt with', async () => {
    peer.send(Buffer.concat([answer(7), message(5, DMA_READ, 0, 0, words([0n], [4n]))]));
    expect(read()).toBe(7);
    expect(await peer.receive()).toMatchObject({ command: READ });
    expect(await peer.receive()).toMatchObject({ id: 5, command: DMA_READ, flags: ERROR_REPLY, errno: 22 });
  });

  test('a command of the server in front', () => {
    peer.send(Buffer.concat([message(5, DMA_READ, 0, 0, words([0n], [4n])), answer(7)]));
    expect(read()).toBe(7);
    expect(connection.counters.refused).toBe(1);
  });

  test('an answer that nobody asked for in front', () => {
    peer.send(answer(8, 1234));
    peer.send(answer(7));
    expect(read()).toBe(7);
    expect(connection.counters).toMatchObject({ unknown: 1, inFlight: 0 });
  });

  test('an error by its number, and the next call works', () => {
    peer.send(message(0, READ, ERROR_REPLY, 13, Buffer.alloc(0)));
    expect(read).toThrow(expect.objectContaining({ name: 'RemoteError', code: 'EACCES' }));
    peer.send(answer(7, 1));
    expect(read()).toBe(7);
  });

  test('an error that looks like data is an error', () => {
    peer.send(message(0, READ, ERROR_REPLY, 0, Buffer.concat([echo(4), words(7)])));
    expect(read).toThrow(RemoteError);
  });

  test.each([
    ['offset', echo(4, OFFSET + 1)],
    ['region', echo(4, OFFSET, REGION + 1)],
    ['count', echo(8)],
  ])('an answer to another %s', (_, structure) => {
    peer.send(message(0, READ, REPLY, 0, Buffer.concat([structure, words(7)])));
    expect(read).toThrow(ProtocolError);
    peer.send(answer(7, 1));
    expect(read()).toBe(7);
  });

  test.each([0, 15, 16, 19, 21])('an answer with %i bytes of payload', (length) => {
    const payload = Buffer.alloc(length);
    echo(4).copy(payload);
    peer.send(message(0, READ, REPLY, 0, payload));
    expect(read).toThrow(ProtocolError);
  });

  test('an answer to another command ends the connection', () => {
    peer.send(message(0, WRITE, REPLY, 0, Buffer.concat([echo(4), words(7)])));
    expect(read).toThrow(ClosedError);
    expect(read).toThrow(ClosedError);
  });

  test.each([0, 15, 0x7fff_ffff])('a message of %i bytes, it says, ends the connection', (size) => {
    const bytes = answer(7);
    bytes.writeUInt32LE(size, 4);
    peer.send(bytes);
    expect(read).toThrow(ClosedError);
  });

  test.each([1, 15, 16, 31, 32, 35])(
    '%i bytes and no more: the call times out, the rest is drained',
    async (length) => {
      peer.send(answer(8).subarray(0, length));
      const began = performance.now();
      expect(() => read(60)).toThrow(TimeoutError);
      expect(performance.now() - began).toBeGreaterThan(50);
      expect(connection.counters).toMatchObject({ tombstones: 1, inFlight: 0 });
      peer.send(answer(8).subarray(length));
      await turn();
      expect(connection.counters).toMatchObject({ tombstones: 0, late: 1 });
      peer.send(answer(7, 1));
      expect(read()).toBe(7);
    },
  );

  test('the end of the stream, in the middle of the answer and before it', () => {
    peer.send(answer(8).subarray(0, 20));
    peer.close();
    expect(read).toThrow(ClosedError);
    expect(read).toThrow(ClosedError);
  });

  test('nothing: the call times out when its time is over, and its answer is drained later', async () => {
    const began = performance.now();
    expect(() => read(120)).toThrow(TimeoutError);
    const took = performance.now() - began;
    expect(took).toBeGreaterThan(110);
    peer.send(answer(8));
    await turn();
    expect(connection.counters).toMatchObject({ tombstones: 0, late: 1 });
  });

  test('fds that nobody asked for are closed', () => {
    const { eventfd, closeFd } = native();
    const fds = [eventfd(0), eventfd(0)];
    peer.send(answer(7), fds);
    for (const fd of fds) closeFd(fd);
    expect(read()).toBe(7);
    expect(openFds()).toBe(fdsBefore + 2);
  });
});

test('what another call has waited takes nothing from the time of one that cannot go the short way', async () => {
  expect(() => read(60)).toThrow(TimeoutError);
  const otherPeer = new ScriptedPeer();
  const other = new Connection(openFd(otherPeer.clientFd));
  try {
    // A message has begun, so the socket cannot be read past the framer.
    const stray = answer(8, 1234);
    otherPeer.send(stray.subarray(0, 10));
    await turn(20);
    otherPeer.send(Buffer.concat([stray.subarray(10), answer(7)]));
    expect(other.accessSync(readOf(REGION, OFFSET, 4, takeUInt32), { timeoutMs: 40 })).toBe(7);
  } finally {
    other.close();
    otherPeer.close();
  }
});

test('a call that finds no room for as long as it may wait times out', () => {
  connection.inFlightLimit = 1;
  const earlier = connection.access(readOf(REGION, OFFSET, 4, takeUInt32), undefined);
  earlier.catch(() => undefined);
  expect(() => read(60)).toThrow(TimeoutError);
});
