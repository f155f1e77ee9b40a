/** Messages that go from one socket to another within one call, and what is left to the caller. */
import { constants } from 'node:os';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { native, RELAY_TALLY, RelayTally, WITH_FDS } from '../../lib/native.js';
import { makePair, thrownName, type Pair } from './support.js';

const { EAGAIN, EBADF } = constants.errno;
const LONGEST = 2048;

let client: Pair;
let server: Pair;
const into = Buffer.alloc(65_536);
const tally = new Float64Array(RELAY_TALLY);

beforeEach(() => {
  client = makePair();
  server = makePair();
  tally.fill(NaN);
});

afterEach(() => {
  client.close();
  server.close();
});

/** A header that says `size`, and as many bytes as there are to be. */
function message(id: number, size: number, length = size): Buffer {
  const bytes = Buffer.alloc(length, id);
  if (length >= 8) bytes.writeUInt32LE(size, 4);
  return bytes;
}

function send(from: Pair['left'], bytes: Buffer, fds: number[] | null = null): void {
  expect(native().send(from.handle, bytes, bytes.length, null, 0, 0, 0, fds)).toBe(bytes.length);
}

function received(by: Pair['left']): Buffer {
  const bytes = Buffer.alloc(65_536);
  const count = native().recv(by.handle, bytes, 0, bytes.length);
  return bytes.subarray(0, Math.max(count, 0));
}

/** The client's end is `left` of its pair, the server's of its own: the relay has the others. */
function relay(patienceUs = 10, turnUs = 1_000): number {
  return native().relay(
    client.right.handle,
    server.right.handle,
    into,
    patienceUs,
    turnUs,
    16,
    4,
    LONGEST,
    tally,
  );
}

const told = () => ({
  messages: RelayTally.MESSAGES.map((at) => tally[at]),
  bytes: RelayTally.BYTES.map((at) => tally[at]),
});
const left = () => ({ side: tally[RelayTally.SIDE], from: tally[RelayTally.FROM] });

test('passes on what both have sent, and counts it', () => {
  send(client.left, Buffer.concat([message(1, 16), message(2, 40)]));
  send(server.left, message(3, 100));
  expect(relay()).toBe(-EAGAIN);
  expect(received(server.left)).toEqual(Buffer.concat([message(1, 16), message(2, 40)]));
  expect(received(client.left)).toEqual(message(3, 100));
  expect(told()).toEqual({ messages: [2, 1], bytes: [56, 100] });
});

test('sends each message by itself', () => {
  send(client.left, Buffer.concat([message(1, 16), message(2, 40)]));
  relay();
  const bytes = Buffer.alloc(16);
  expect(native().recv(server.left.handle, bytes, 0, 16)).toBe(16);
  expect(received(server.left)).toEqual(message(2, 40));
});

test('ends when nothing comes, and when a turn is over', () => {
  expect(relay(0, 0)).toBe(-EAGAIN);
  const begin = performance.now();
  expect(relay(1_000, 1_000)).toBe(-EAGAIN);
  expect(performance.now() - begin).toBeGreaterThan(0.9);
  expect(told()).toEqual({ messages: [0, 0], bytes: [0, 0] });
});

describe('leaves to the caller', () => {
  test.each([
    ['part of a header', message(2, 16, 7)],
    ['part of a message', message(2, 40, 39)],
    ['a message that is too long', message(2, LONGEST + 1)],
    ['a size that is less than a header', message(2, 15, 16)],
    ['a size that is most of all', message(2, 0xffff_ffff, 16)],
  ])('%s, behind what was passed on', (_what, rest) => {
    send(server.left, Buffer.concat([message(1, 20), rest]));
    expect(relay()).toBe(20 + rest.length);
    expect(left()).toEqual({ side: 1, from: 20 });
    expect(into.subarray(20, 20 + rest.length)).toEqual(rest);
    expect(received(client.left)).toEqual(message(1, 20));
    expect(told()).toEqual({ messages: [0, 1], bytes: [0, 20] });
  });

  test('what came with fds, all of it', () => {
    const fd = native().eventfd(0);
    send(client.left, message(1, 16), [fd]);
    expect(relay()).toBe(16 + WITH_FDS);
    expect(left()).toEqual({ side: 0, from: 0 });
    expect(client.right.takeFds().map((own) => native().closeFd(own))).toEqual([0]);
    native().closeFd(fd);
    expect(received(server.left)).toHaveLength(0);
  });

  test('the end of either stream', () => {
    server.left.close();
    expect(relay()).toBe(0);
    expect(left()).toEqual({ side: 1, from: 0 });
    send(client.left, message(1, 16));
    client.left.close();
    // What it said last cannot be passed on any more.
    expect(relay()).toBe(16);
    expect(left()).toEqual({ side: 0, from: 0 });
  });

  test('what the other does not take', () => {
    const filling = message(9, LONGEST);
    let room = 0;
    while (
      native().send(server.right.handle, filling, filling.length, null, 0, 0, 0, null) === filling.length
    )
      room++;
    expect(room).toBeGreaterThan(0);
    send(client.left, Buffer.concat([message(1, LONGEST), message(2, 16)]));
    expect(relay()).toBe(LONGEST + 16);
    expect(left()).toEqual({ side: 0, from: 0 });
    expect(told().messages).toEqual([0, 0]);
  });
});

test('refuses what is no socket, no memory, no tally, and sockets that are closed', () => {
  const right = client.right.handle;
  const other = server.right.handle;
  expect(thrownName(() => native().relay(right, {} as never, into, 1, 1, 16, 4, 1, tally))).toBe('TypeError');
  expect(thrownName(() => native().relay(right, other, 'into' as never, 1, 1, 16, 4, 1, tally))).toBe(
    'TypeError',
  );
  expect(thrownName(() => native().relay(right, other, Buffer.alloc(0), 1, 1, 16, 4, 1, tally))).toBe(
    'RangeError',
  );
  expect(thrownName(() => native().relay(right, other, into, 1_001, 1, 16, 4, 1, tally))).toBe('RangeError');
  expect(thrownName(() => native().relay(right, other, into, 1, 1_001, 16, 4, 1, tally))).toBe('RangeError');
  expect(thrownName(() => native().relay(right, other, into, 1, 1, 16, 4, -1, tally))).toBe('RangeError');
  expect(thrownName(() => native().relay(right, other, into, 1, 1, 16, 13, 1, tally))).toBe('RangeError');
  expect(thrownName(() => native().relay(right, other, into, 1, 1, 4_097, 4, 1, tally))).toBe('RangeError');
  expect(
    thrownName(() => native().relay(right, other, into, 1, 1, 16, 4, 1, new Float64Array(RELAY_TALLY - 1))),
  ).toBe('RangeError');
  expect(
    thrownName(() => native().relay(right, other, into, 1, 1, 16, 4, 1, new Uint8Array(64) as never)),
  ).toBe('TypeError');
  const gone = new Float64Array(RELAY_TALLY);
  structuredClone(gone.buffer, { transfer: [gone.buffer] });
  expect(thrownName(() => native().relay(right, other, into, 1, 1, 16, 4, 1, gone))).toBe('RangeError');
  expect(native().relay(right, right, into, 1, 1, 16, 4, 1, tally)).toBe(-EBADF);
  server.right.close();
  expect(native().relay(right, other, into, 1, 1, 16, 4, 1, tally)).toBe(-EBADF);
});
