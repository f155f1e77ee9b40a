import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, test } from '@jest/globals';
import { Connection, negotiate } from '../../lib/connection/index.js';
import { Dma } from '../../lib/device/dma.js';
import { RegionDescription } from '../../lib/device/region-description.js';
import { Region } from '../../lib/device/region.js';
import { DeviceContext } from '../../lib/device/device-context.js';
import { native } from '../../lib/native.js';
import { openFd } from '../../lib/transport/index.js';
import { dmaReadRequest, dmaWriteRequest } from '../support/wire.js';

const MIB = 1 << 20;
const IOVA = 0x1_0000_0000n;
const SERVER = fileURLToPath(new URL('../support/blocking-server.cjs', import.meta.url));

interface Answer {
  command: number;
  flags: number;
  errno: number;
  payload: Uint8Array;
}

let worker: Worker;
let ended: Promise<unknown>;
let answers: Answer[];
let connection: Connection;
let context: DeviceContext;
let dma: Dma;
let region: Region;

function socketPair(): [number, number] {
  return native().socketPair() as [number, number];
}

/** A server that makes these requests whenever a region is accessed, before it answers. */
async function open(twinSocket: boolean, requests: Buffer[]): Promise<void> {
  const [ours, theirs] = socketPair();
  const twin = twinSocket ? socketPair() : undefined;
  worker = new Worker(SERVER, { workerData: { fd: theirs, twin, requests } });
  ended = new Promise((resolve) => worker.on('exit', resolve));
  answers = [];
  worker.on('message', (answer: Answer) => answers.push(answer));
  connection = new Connection(openFd(ours));
  const negotiated = await negotiate(connection, { twinSocket }, {});
  expect(negotiated.twinSocket).toBe(twinSocket);
  context = new DeviceContext(connection, negotiated, {
    mmap: 'never',
    writeChunkBytes: 4096,
    chunksInFlight: 4,
    inFlightFixed: false,
    spinUs: 50,
    tryOptional: false,
  });
  dma = new Dma(context);
  const capabilities = { unknown: [] };
  const info = { index: 0, flags: 3, size: 4096, offset: 0, argsz: 32, truncated: false, capabilities };
  region = new Region(context, new RegionDescription(info, []));
}

/** All that the server had answered to it; it ends. */
async function takeAnswers(): Promise<Answer[]> {
  connection.close();
  await ended;
  return answers;
}

afterEach(async () => {
  connection.close();
  context.closeResources();
  await ended;
});

describe.each([
  ['on the command socket', false],
  ['on the twin socket', true],
])('a server that wants memory before it answers a synchronous call, %s', (_, twinSocket) => {
  test('gets it', async () => {
    await open(twinSocket, [
      dmaWriteRequest({ address: IOVA + 8n, data: Buffer.from('written') }),
      dmaReadRequest({ address: IOVA, count: 16 }),
      dmaReadRequest({ address: 0n, count: 16 }),
    ]);
    const buffer = await dma.alloc(4096, { share: false });
    buffer.bytes.write('before: ');
    expect(region.readUInt32Sync(0, { timeoutMs: 4_000 })).toBe(0x2a2a2a2a);
    expect(buffer.bytes.toString('latin1', 0, 15)).toBe('before: written');
    region.writeUInt32Sync(0, 1, { timeoutMs: 4_000 });
    expect(connection.counters).toMatchObject({ served: 4, refused: 2 });
    const got = await takeAnswers();
    expect(got.map(({ command, errno }) => [command, errno])).toEqual([
      [12, 0],
      [11, 0],
      [11, 14],
      [12, 0],
      [11, 0],
      [11, 14],
    ]);
    expect(Buffer.from(got[1]!.payload.subarray(16, 31)).toString()).toBe('before: written');
  });

  test('a MiB at a time, which no socket takes at once', async () => {
    await open(twinSocket, [
      dmaReadRequest({ address: IOVA, count: MIB }),
      dmaWriteRequest({ address: IOVA + BigInt(MIB), data: Buffer.alloc(MIB, 0x33) }),
      dmaReadRequest({ address: IOVA + BigInt(MIB) / 2n, count: MIB }),
    ]);
    const buffer = await dma.alloc(2 * MIB, { share: false });
    buffer.bytes.fill(0x11, 0, MIB);
    expect(region.readUInt32Sync(0, { timeoutMs: 4_000 })).toBe(0x2a2a2a2a);
    expect(buffer.bytes.subarray(MIB).equals(Buffer.alloc(MIB, 0x33))).toBe(true);
    const [first, second, third] = await takeAnswers();
    expect(Buffer.from(first!.payload.subarray(16)).equals(Buffer.alloc(MIB, 0x11))).toBe(true);
    expect(second!.payload).toHaveLength(16);
    const mixed = Buffer.concat([Buffer.alloc(MIB / 2, 0x11), Buffer.alloc(MIB / 2, 0x33)]);
    expect(Buffer.from(third!.payload.subarray(16)).equals(mixed)).toBe(true);
  });

  test('and before an asynchronous one, too', async () => {
    await open(twinSocket, [
      dmaWriteRequest({ address: IOVA, data: Buffer.alloc(MIB, 0x44) }),
      dmaReadRequest({ address: IOVA, count: MIB }),
    ]);
    const buffer = await dma.alloc(MIB, { share: false });
    // Without a twin socket these go out one by one: a pipelined command would be taken for the reply to the request.
    const values = await Promise.all([region.readUInt32(0), region.readUInt32(4), region.readUInt32(8)]);
    expect(values).toEqual([0x2a2a2a2a, 0x2a2a2a2a, 0x2a2a2a2a]);
    expect(buffer.bytes.equals(Buffer.alloc(MIB, 0x44))).toBe(true);
    const got = await takeAnswers();
    expect(got.map(({ command }) => command)).toEqual([12, 11, 12, 11, 12, 11]);
    expect(got.every(({ errno }) => errno === 0)).toBe(true);
  });
});
