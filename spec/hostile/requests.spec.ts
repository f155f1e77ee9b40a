/** DMA requests that ask for what they must not have, come at the wrong time, or come without end. */
import { describe, expect, test } from '@jest/globals';
import type { Device } from '../../lib/device/device.js';
import { ClosedError } from '../../lib/errors.js';
import type { ScriptedDevice } from '../support/scripted-device.js';
import { message, words, type Received } from '../support/scripted-peer.js';
import { hostile, keepPromises, opened, turn } from './session.js';
import { until } from '../support/until.js';

keepPromises();

const MIB = 1 << 20;
const END = 1n << 64n;
const IOVA = 0x1_0000_0000n;
const [EINVAL, EFAULT, E2BIG, ENOTSUP] = [22, 14, 7, 95];

let server: ScriptedDevice;
let device: Device;

async function openDevice(): Promise<void> {
  server = hostile(undefined);
  device = await opened(server, { timeoutMs: 2_000 });
}

function request(command: number, payload: Uint8Array, id = 500, flags = 0): Buffer {
  return message(id, command, flags, 0, payload);
}

/** What the client answers to a command. */
async function answerTo(bytes: Buffer): Promise<Received> {
  const { length } = server.log;
  server.peer.send(bytes);
  await until(() => server.log.length > length);
  return server.log[length]!;
}

describe('a request', () => {
  const data = (address: bigint, count: bigint, length: number): Buffer =>
    Buffer.concat([words([address], [count]), Buffer.alloc(length)]);

  test.each<[string, number, Buffer, number]>([
    ['READ that is empty', 11, Buffer.alloc(0), EINVAL],
    ['READ of 15 bytes', 11, Buffer.alloc(15), EINVAL],
    ['READ with a tail', 11, data(IOVA, 4n, 4), EINVAL],
    ['READ of nothing', 11, data(IOVA, 0n, 0), EINVAL],
    ['READ of 2^64-1 bytes', 11, data(IOVA, END - 1n, 0), E2BIG],
    ['READ of 2^32 bytes', 11, data(IOVA, 1n << 32n, 0), E2BIG],
    ['READ of 1 MiB and one', 11, data(IOVA, BigInt(MIB) + 1n, 0), E2BIG],
    ['READ of what is not mapped', 11, data(0n, 4n, 0), EFAULT],
    ['READ that runs out of what is mapped', 11, data(IOVA + 4096n, BigInt(MIB), 0), EFAULT],
    ['READ that wraps', 11, data(END - 4n, 8n, 0), EFAULT],
    ['READ at the end of all', 11, data(END - 1n, 1n, 0), EFAULT],
    ['WRITE that is empty', 12, Buffer.alloc(0), EINVAL],
    ['WRITE with less than it says', 12, data(IOVA, 8n, 4), EINVAL],
    ['WRITE with more than it says', 12, data(IOVA, 4n, 8), EINVAL],
    ['WRITE of 2^64-1 bytes', 12, data(IOVA, END - 1n, 8), E2BIG],
    ['WRITE of what is not mapped', 12, data(0n, 4n, 4), EFAULT],
    ['WRITE that wraps', 12, data(END - 4n, 8n, 8), EFAULT],
    ['VERSION', 1, Buffer.alloc(4), ENOTSUP],
    ['GET_INFO', 4, Buffer.alloc(16), ENOTSUP],
    ['command 0', 0, Buffer.alloc(0), ENOTSUP],
    ['command 65535', 65535, Buffer.alloc(40), ENOTSUP],
  ])('%s', async (_, command, payload, errno) => {
    await openDevice();
    const { iova, bytes } = await device.dma.alloc(8192);
    // The table's addresses are given for memory that begins at IOVA.
    if (command === 11 || command === 12) {
      if (payload.length >= 8 && payload.readBigUInt64LE(0) === IOVA) payload.writeBigUInt64LE(iova, 0);
      if (payload.length >= 8 && payload.readBigUInt64LE(0) === IOVA + 4096n)
        payload.writeBigUInt64LE(iova + 4n * BigInt(MIB) - 4096n, 0);
    }
    bytes.fill(1);
    const answer = await answerTo(request(command, payload));
    expect(answer).toMatchObject({ id: 500, command, flags: 0x21, errno });
    expect(answer.payload).toHaveLength(0);
    expect(bytes.every((byte) => byte === 1)).toBe(true);
    await device.fence();
  });

  test('that wants no reply gets none', async () => {
    await openDevice();
    for (const command of [11, 12, 99]) server.peer.send(request(command, Buffer.alloc(3), 7, 0x10));
    await device.fence();
    expect(server.log.filter(({ id, flags }) => id === 7 && (flags & 1) === 1)).toEqual([]);
    expect(device.counters.refused).toBe(3);
  });

  test('whose data is cut off by the end of the connection writes nothing twice and leaves nothing', async () => {
    await openDevice();
    const { iova, bytes } = await device.dma.alloc(MIB);
    const whole = request(12, Buffer.concat([words([iova], [BigInt(MIB)]), Buffer.alloc(MIB, 9)]));
    await server.peer.sendAll(whole.subarray(0, MIB / 2));
    await turn(5);
    expect(bytes.subarray(0, 1000).every((byte) => byte === 9)).toBe(true);
    server.close();
    expect((await device.closed).message).toMatch(/middle of a message/);
    await expect(device.region(0).readUInt32(0)).rejects.toThrow(ClosedError);
  });

  test('under way while the device is closed is not served', async () => {
    await openDevice();
    const { iova } = await device.dma.alloc(MIB);
    const whole = request(12, Buffer.concat([words([iova], [BigInt(MIB)]), Buffer.alloc(MIB)]));
    await server.peer.sendAll(whole.subarray(0, MIB / 2));
    await turn(5);
    await device.close();
    await server.peer.sendAll(whole.subarray(MIB / 2)).catch(() => undefined);
    server.peer.setReading(true);
    expect(device.counters.served).toBe(0);
  });
});

describe('a flood', () => {
  const FLOOD_MS = 300;

  /** Resident memory, once what can be freed was. */
  function memory(): number {
    return process.memoryUsage().rss;
  }

  /** Sends these bytes again and again for a while; how often they went out whole. */
  async function flood(bytes: Buffer): Promise<number> {
    const end = performance.now() + FLOOD_MS;
    let rounds = 0;
    let done = false;
    const until = turn(FLOOD_MS).then(() => (done = true));
    while (!done && performance.now() < end && !server.peer.ended) {
      const sent = server.peer.sendAll(bytes).then(
        () => true,
        () => false,
      );
      if (!(await Promise.race([sent, until.then(() => false)]))) break;
      rounds++;
    }
    return rounds;
  }

  test.each<[string, () => Buffer]>([
    ['replies that nobody asked for', () => message(0x7abc, 9, 1, 0, Buffer.alloc(20))],
    ['errors of posted writes', () => message(0x8abc, 10, 0x21, 22, Buffer.alloc(0))],
    ['requests that are refused and want no reply', () => request(11, Buffer.alloc(16), 1, 0x10)],
    ['empty messages', () => message(1, 0, 1, 0, Buffer.alloc(0))],
  ])('of %s costs no memory, and calls go on', async (_, one) => {
    await openDevice();
    const bytes = Buffer.concat(Array.from({ length: 1000 }, one));
    await flood(bytes);
    const before = memory();
    const flooding = flood(bytes);
    // The server answers between its floods.
    await flooding;
    expect(memory() - before).toBeLessThan(64 * MIB);
    await device.fence({ timeoutMs: 5_000 });
    expect(device.counters.received).toBeGreaterThan(1000);
  });

  test('of requests whose answers are not read is stopped, and what waits is bounded', async () => {
    await openDevice();
    const { iova } = await device.dma.alloc(MIB);
    const bytes = Buffer.concat(
      Array.from({ length: 1000 }, () => request(11, words([iova], [BigInt(MIB)]))),
    );
    server.peer.setReading(false);
    const before = memory();
    expect(await flood(bytes)).toBeLessThan(20);
    // Without a bound a thousand answers would be a gigabyte.
    expect(memory() - before).toBeLessThan(64 * MIB);
    const call = device.region(0).readUInt32(0, { timeoutMs: 50 });
    await expect(call).rejects.toThrow(/no answer|closed/);
  });
});
