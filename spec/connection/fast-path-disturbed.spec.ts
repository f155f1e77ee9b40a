/**
 * What happens between two small synchronous accesses. The second trusts that what was quiet when the first looked still is,
 * unless it was told otherwise: here is whatever has to tell it.
 */
import { afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { Connection } from '../../lib/connection/index.js';
import { readOf, takeUInt32, writeOf } from '../../lib/device/region-access.js';
import { ClosedError, TimeoutError, UnsupportedError } from '../../lib/errors.js';
import { openFd, type MessageTap } from '../../lib/transport/index.js';
import { openFds } from '../support/fds.js';
import { ScriptedPeer, message, words } from '../support/scripted-peer.js';

const READ = 9;
const WRITE = 10;
const DMA_READ = 11;
const REPLY = 1;
const OFFSET = 0x40;
const REGION = 2;

let peer: ScriptedPeer;
let twin: ScriptedPeer | undefined;
let connection: Connection;
let told: string[];
let isHeard: boolean;
let fdsBefore: number;

const tap: MessageTap = {
  get active() {
    return isHeard;
  },
  telling: false,
  sent: () => void told.push('sent'),
  received: () => void told.push('received'),
  interrupt: () => undefined,
  ended: () => undefined,
};

function answer(value: number, id: number): Buffer {
  return message(id, READ, REPLY, 0, words([BigInt(OFFSET)], REGION, 4, value));
}

function dmaRead(id: number): Buffer {
  return message(id, DMA_READ, 0, 0, words([0n], [4n]));
}

function read(timeoutMs = 200): number {
  return connection.accessSync(readOf(REGION, OFFSET, 4, takeUInt32), { timeoutMs });
}

function readLater(timeoutMs = 200): Promise<number> {
  return connection.access(readOf(REGION, OFFSET, 4, takeUInt32), { timeoutMs });
}

function turn(ms = 10): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

beforeAll(() => turn(200));

beforeEach(() => {
  fdsBefore = openFds();
  told = [];
  isHeard = false;
  peer = new ScriptedPeer();
  twin = undefined;
  connection = new Connection(openFd(peer.clientFd), { tap });
  // The first, which finds all quiet.
  peer.send(answer(100, 0));
  expect(read()).toBe(100);
});

afterEach(async () => {
  connection.close();
  peer.close();
  twin?.close();
  await turn();
  expect(openFds()).toBe(fdsBefore);
});

function attachTwin(): ScriptedPeer {
  twin = new ScriptedPeer();
  connection.attachTwin(openFd(twin.clientFd));
  return twin;
}

/** Reads whenever a command of the server is served. What that threw. */
function readWhileServing(): unknown[] {
  const thrown: unknown[] = [];
  connection.requestHandler = {
    serve(request) {
      try {
        read();
      } catch (error) {
        thrown.push(error);
      }
      request.refuse(22);
    },
  };
  return thrown;
}

test('nothing: it goes the same way', () => {
  peer.send(answer(7, 1));
  expect(read()).toBe(7);
});

test('an asynchronous call is under way, and answered first', async () => {
  const earlier = readLater();
  peer.send(Buffer.concat([answer(3, 1), answer(4, 2)]));
  expect(read()).toBe(4);
  await expect(earlier).resolves.toBe(3);
});

test('an asynchronous call is under way, and answered last', async () => {
  const earlier = readLater();
  peer.send(answer(4, 2));
  expect(read()).toBe(4);
  peer.send(answer(3, 1));
  await expect(earlier).resolves.toBe(3);
});

test('a call was given up, and its answer comes late', async () => {
  await expect(readLater(20)).rejects.toThrow(TimeoutError);
  peer.send(Buffer.concat([answer(3, 1), answer(4, 2)]));
  expect(read()).toBe(4);
  expect(connection.counters).toMatchObject({ late: 1, tombstones: 0, unknown: 0 });
});

test('a synchronous call was given up, and its answer comes late', () => {
  expect(() => read(20)).toThrow(TimeoutError);
  peer.send(Buffer.concat([answer(3, 1), answer(4, 2)]));
  expect(read()).toBe(4);
  expect(connection.counters).toMatchObject({ late: 1, tombstones: 0, unknown: 0 });
});

test('an asynchronous call is under way where only one may be: nothing is sent', async () => {
  connection.inFlightLimit = 1;
  const earlier = readLater(1_000);
  const { sent } = connection.counters;
  expect(() => read(40)).toThrow(TimeoutError);
  expect(connection.counters.sent).toBe(sent);
  peer.send(answer(3, 1));
  await expect(earlier).resolves.toBe(3);
});

test('the answer of a call that was given up has not come where only one may be under way: nothing is sent', () => {
  connection.inFlightLimit = 1;
  expect(() => read(20)).toThrow(TimeoutError);
  const { sent } = connection.counters;
  expect(() => read(40)).toThrow(TimeoutError);
  expect(connection.counters.sent).toBe(sent);
});

test.each([1, 15, 16, 31])('%i bytes of a command of the server have come', async (length) => {
  peer.send(dmaRead(5).subarray(0, length));
  await turn();
  peer.send(Buffer.concat([dmaRead(5).subarray(length), answer(4, 1)]));
  expect(read()).toBe(4);
  expect(connection.counters.refused).toBe(1);
});

test('a command of the server is being served', async () => {
  const refusals = readWhileServing();
  peer.send(dmaRead(5));
  await turn();
  expect(refusals).toEqual([expect.any(UnsupportedError)]);
  expect(await peer.receive()).toMatchObject({ command: READ, id: 0 });
  expect(await peer.receive()).toMatchObject({ command: DMA_READ, id: 5 });
});

test('a twin socket came, with a command that was sent before the answer', () => {
  attachTwin().send(dmaRead(5));
  peer.send(answer(4, 1));
  expect(read()).toBe(4);
  expect(connection.counters.refused).toBe(1);
});

test('a command on the twin socket is being served', async () => {
  const second = attachTwin();
  peer.send(answer(3, 1));
  expect(read()).toBe(3);
  const refusals = readWhileServing();
  second.send(dmaRead(5));
  await turn();
  expect(refusals).toEqual([expect.any(UnsupportedError)]);
  peer.send(answer(4, 2));
  expect(read()).toBe(4);
});

test('the twin socket has ended, and the connection with it', async () => {
  const second = attachTwin();
  peer.send(answer(3, 1));
  expect(read()).toBe(3);
  second.close();
  await turn();
  expect(read).toThrow(ClosedError);
});

test('somebody has begun to listen, and stops', () => {
  isHeard = true;
  peer.send(answer(4, 1));
  expect(read()).toBe(4);
  expect(told).toEqual(['sent', 'received']);
  isHeard = false;
  peer.send(answer(5, 2));
  expect(read()).toBe(5);
  expect(told).toHaveLength(2);
});

test('synchronous calls are refused for a while', () => {
  connection.whyNotSync = 'this is a test';
  expect(read).toThrow('this is a test');
  connection.whyNotSync = undefined;
  peer.send(answer(4, 1));
  expect(read()).toBe(4);
});

test('a write was posted', async () => {
  connection.post(writeOf(REGION, OFFSET, words(1)));
  peer.send(answer(4, 1));
  expect(read()).toBe(4);
  const commands = [];
  for (let i = 0; i < 3; i++) commands.push((await peer.receive()).command);
  expect(commands).toEqual([READ, WRITE, READ]);
});

test('the connection was closed', () => {
  connection.close();
  expect(read).toThrow(ClosedError);
});

test('the server has gone, and it is known', async () => {
  peer.close();
  await turn();
  expect(read).toThrow(ClosedError);
});

test('the server has gone, and it is not known yet', () => {
  peer.close();
  expect(read).toThrow(ClosedError);
});

test('a flood of the server has stopped reading for a turn of the loop', async () => {
  for (let id = 0; id < 200; id++) peer.send(answer(9, 1000 + id));
  await new Promise((resolve) => setImmediate(resolve));
  peer.send(answer(4, 1));
  expect(read()).toBe(4);
  expect(connection.counters.unknown).toBe(200);
});
