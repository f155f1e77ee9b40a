/**
 * What the caller does with its arrays while they are read into or written: their ArrayBuffer may be transferred away or
 * resized at any time. It ends that call by name, and nothing else.
 */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { connect, type ConnectOptions } from '../../lib/device/connect.js';
import type { Device } from '../../lib/device/device.js';
import type { Region } from '../../lib/device/region.js';
import { ScriptedPeer, message, type Received } from '../support/scripted-peer.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZE = 4 * MIB;
const REGION_READ = 9;
const GONE = /the array was detached or resized while the call was under way/;

let peer: ScriptedPeer;
let device: Device;
let region: Region;
const thrown: unknown[] = [];
const onThrown = (error: unknown): void => void thrown.push(error);

async function open(options: ConnectOptions = {}, capabilities = {}): Promise<void> {
  peer = new ScriptedPeer();
  const opening = peer.open({ regions: [{ size: SIZE }], capabilities });
  device = await connect({ fd: peer.clientFd }, options);
  await opening;
  region = device.region(0);
}

beforeEach(() => {
  process.on('uncaughtException', onThrown);
  process.on('unhandledRejection', onThrown);
});

afterEach(async () => {
  await device.close();
  peer.close();
  await turn();
  process.off('uncaughtException', onThrown);
  process.off('unhandledRejection', onThrown);
  expect(thrown.splice(0)).toEqual([]);
});

const turn = (ms = 5) => new Promise((resolve) => setTimeout(resolve, ms));

/** The reply to a read: bytes of 7. */
function answerOf({ id, payload }: Received): Buffer {
  const count = payload.readUInt32LE(12);
  return message(id, REGION_READ, 1, 0, Buffer.concat([payload.subarray(0, 16), Buffer.alloc(count, 7)]));
}

function answer(request: Received): void {
  if (request.command === REGION_READ) peer.send(answerOf(request));
  else peer.reply(request, request.payload.subarray(0, 16));
}

/** What may happen to an array's memory; each gives the array. */
const FATES: [name: string, take: () => { bytes: Uint8Array; strike: () => void }][] = [
  [
    'transferred',
    () => {
      const bytes = new Uint8Array(64 * KIB);
      return { bytes, strike: () => void structuredClone(bytes.buffer, { transfer: [bytes.buffer] }) };
    },
  ],
  ['shrunk', () => resizable((buffer) => buffer.resize(KIB))],
  ['shrunk to nothing', () => resizable((buffer) => buffer.resize(0))],
  [
    'grown, where the array goes to the end of it',
    () => resizable((buffer) => buffer.resize(128 * KIB), false),
  ],
];

interface Resizable extends ArrayBuffer {
  resize(size: number): void;
}

function resizable(change: (buffer: Resizable) => void, isFixed = true) {
  const Constructor = ArrayBuffer as unknown as new (size: number, options: object) => Resizable;
  const buffer = new Constructor(64 * KIB, { maxByteLength: 128 * KIB });
  const bytes = isFixed ? new Uint8Array(buffer, 0, 64 * KIB) : new Uint8Array(buffer);
  return { bytes, strike: () => change(buffer) };
}

describe.each(FATES)('an array whose memory is %s', (_, take) => {
  test('while a read into it is under way: the read rejects, the next one is answered', async () => {
    await open();
    const { bytes, strike } = take();
    const reading = region.readInto(0, bytes);
    const request = await peer.receive();
    strike();
    answer(request);
    await expect(reading).rejects.toThrow(TypeError);
    await expect(reading).rejects.toThrow(GONE);
    peer.onMessage(answer);
    expect(await region.readUInt32(0)).toBe(0x07070707);
  });

  test('in the middle of an answer that is received into it', async () => {
    await open();
    const { bytes, strike } = take();
    const reading = region.readInto(0, bytes);
    const reply = answerOf(await peer.receive());
    await peer.sendAll(reply.subarray(0, 20_000));
    await turn();
    strike();
    await peer.sendAll(reply.subarray(20_000, 50_000));
    await turn();
    peer.onMessage(answer);
    const next = region.readUInt32(0);
    await peer.sendAll(reply.subarray(50_000));
    await expect(reading).rejects.toThrow(GONE);
    expect(await next).toBe(0x07070707);
  });

  test('while a write of it waits for room: it is not sent, what stands behind it is', async () => {
    await open({ inFlight: 1, writeChunkBytes: MIB });
    const first = region.write(0, Buffer.alloc(4));
    const { bytes, strike } = take();
    const writing = region.write(8, bytes);
    const next = region.write(16, Buffer.alloc(4));
    const request = await peer.receive();
    strike();
    const seen: number[] = [];
    peer.onMessage((received) => {
      seen.push(Number(received.payload.readBigUInt64LE(0)));
      answer(received);
    });
    answer(request);
    await expect(writing).rejects.toThrow(GONE);
    await Promise.all([first, next]);
    expect(seen).toEqual([16]);
  });

  test('while a write of it waits for room in the socket: what is sent is what it was', async () => {
    await open({ writeChunkBytes: MIB });
    peer.setReading(false);
    const filling = Array.from({ length: 100 }, () => region.write(0, Buffer.alloc(64 * KIB)));
    const { bytes, strike } = take();
    bytes.fill(9);
    const writing = region.write(8, bytes);
    strike();
    let last: Buffer | undefined;
    peer.onMessage((received) => {
      last = received.payload.subarray(16);
      answer(received);
    });
    peer.setReading(true);
    await Promise.all([...filling, writing]);
    expect(last!.equals(Buffer.alloc(64 * KIB, 9))).toBe(true);
  });

  test.each(['read', 'write'] as const)('between two chunks of a long %s', async (verb) => {
    await open({}, { max_data_xfer_size: 4 * KIB });
    const { bytes, strike } = take();
    const transfer = verb === 'write' ? region.write(0, bytes) : region.readInto(0, bytes);
    let chunks = 0;
    peer.onMessage((received) => {
      if (++chunks === 1) strike();
      answer(received);
    });
    await expect(transfer).rejects.toThrow(GONE);
    // Those that were under way.
    expect(chunks).toBe(4);
    expect(await region.readUInt32(0)).toBe(0x07070707);
  });
});

test('an array that was transferred before is refused: it would be a transfer of nothing', async () => {
  await open();
  const bytes = new Uint8Array(64);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  await expect(region.readInto(0, bytes)).rejects.toThrow(TypeError);
  await expect(region.write(0, bytes)).rejects.toThrow(TypeError);
  expect(() => region.readIntoSync(0, bytes)).toThrow(TypeError);
  expect(() => region.writeSync(0, bytes)).toThrow(TypeError);
  expect(() => region.post(0, bytes)).toThrow(TypeError);
  await expect(region.write(0, new Uint8Array(0))).resolves.toBeUndefined();
  expect(peer.pending).toEqual([]);
});

test('a server that answers by single bytes, and an array that goes meanwhile', async () => {
  await open();
  const bytes = new Uint8Array(200);
  const reading = region.readInto(0, bytes);
  const reply = answerOf(await peer.receive());
  for (const [i, byte] of reply.entries()) {
    peer.send(Buffer.from([byte]));
    if (i === 100) structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
    if (i % 8 === 0) await turn(0);
  }
  await expect(reading).rejects.toThrow(GONE);
  peer.onMessage(answer);
  expect(await region.readUInt32(0)).toBe(0x07070707);
});

test('posted writes are copied when they wait', async () => {
  await open({ inFlight: 1 });
  const first = region.readUInt32(0);
  const waits = region.readUInt32(0);
  const bytes = new Uint8Array(64).fill(3);
  region.post(0, bytes);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  const posted: Buffer[] = [];
  peer.onMessage((received) => {
    if (received.command === REGION_READ) answer(received);
    else posted.push(received.payload.subarray(16));
  });
  await Promise.all([first, waits]);
  await turn();
  expect(posted).toEqual([Buffer.alloc(64, 3)]);
});
