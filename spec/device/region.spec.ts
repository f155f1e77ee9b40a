import { Duplex, PassThrough } from 'node:stream';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, test } from '@jest/globals';
import { connect, type ConnectOptions } from '../../lib/device/connect.js';
import type { Device } from '../../lib/device/device.js';
import type { Region } from '../../lib/device/region.js';
import {
  RAM_IDENTIFICATION,
  RamDevice,
  RamRegister,
  serveFd,
  serveStream,
} from '../../lib/emulator/index.js';
import { RemoteError, TimeoutError, UnsupportedError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { ScriptedDevice } from '../support/scripted-device.js';

const SERVER = new URL('../support/emulator-thread.mjs', import.meta.url);
const KIB = 1024;
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

/** A device whose region 0 is `size` bytes of memory, counting up. */
async function scripted(size = 64, options: ConnectOptions = {}, maxDataXferSize?: number, flags = 3) {
  const bytes = Buffer.from(Array.from({ length: size }, (_, i) => i & 0xff));
  const capabilities = maxDataXferSize === undefined ? {} : { max_data_xfer_size: maxDataXferSize };
  const server = new ScriptedDevice({
    flags: 1,
    numRegions: 1,
    regions: { 0: { size, bytes, flags } },
    capabilities,
  });
  cleanups.push(() => server.close());
  const device = await connect(server.endpoint, options);
  cleanups.push(() => device.close());
  return { server, bytes, device, region: device.region(0) };
}

describe('values', () => {
  test.each([
    [1, 0x05n],
    [2, 0x0605n],
    [4, 0x08070605n],
    [8, 0x0c0b0a0908070605n],
  ] as const)('of %i bytes are little-endian, both ways', async (width, value) => {
    const { region, bytes, server } = await scripted();
    server.log.length = 0;
    const name = `UInt${8 * width}` as 'UInt8';
    const read = await region[`read${name}`](5);
    expect(BigInt(read)).toBe(value);
    const written = (width === 8 ? value : Number(value)) as number;
    await region[`write${name}`](32, written);
    expect(bytes.subarray(32, 32 + width)).toEqual(bytes.subarray(5, 5 + width));
    expect(bytes[32 + width]).toBe(32 + width);
    expect(server.takeAccesses(0)).toEqual([`read 0x5+${width}`, `write 0x20+${width}`]);
  });

  test.each<[string, (region: Region) => Promise<unknown>, typeof RangeError | typeof TypeError]>([
    ['a value too large', (r) => r.writeUInt8(0, 256), RangeError],
    ['a negative value', (r) => r.writeUInt32(0, -1), RangeError],
    ['a fraction', (r) => r.writeUInt16(0, 1.5), RangeError],
    ['NaN', (r) => r.writeUInt32(0, NaN), RangeError],
    ['a bigint too large', (r) => r.writeUInt64(0, 1n << 64n), RangeError],
    ['a negative bigint', (r) => r.writeUInt64(0, -1n), RangeError],
    ['a number for 64 bits', (r) => r.writeUInt64(0, 1 as unknown as bigint), TypeError],
    ['a bigint for 32 bits', (r) => r.writeUInt32(0, 1n as unknown as number), TypeError],
    ['an offset past the end', (r) => r.readUInt32(64), RangeError],
    ['a value that ends past the end', (r) => r.readUInt64(57), RangeError],
    ['a negative offset', (r) => r.readUInt8(-1), RangeError],
    ['an offset that is none', (r) => r.readUInt8(NaN), RangeError],
    ['an offset between bytes', (r) => r.writeUInt8(0.5, 1), RangeError],
    ['an offset of 2^53', (r) => r.readUInt8(2 ** 53), RangeError],
    ['a length past the end', (r) => r.read(0, 65), RangeError],
    ['a negative length', (r) => r.read(0, -1), RangeError],
    ['a length that is none', (r) => r.read(0, 1.5), RangeError],
    ['data past the end', (r) => r.write(60, Buffer.alloc(5)), RangeError],
    ['data that is a string', (r) => r.write(0, 'x' as unknown as Buffer), TypeError],
    ['a target that is an array', (r) => r.readInto(0, [1] as unknown as Buffer), TypeError],
    ['a mask never waited for', (r) => r.waitFor(61, 1, 1), RangeError],
  ])('%s is refused before anything is sent', async (_, call, kind) => {
    const { region, server } = await scripted();
    server.log.length = 0;
    await expect(call(region)).rejects.toThrow(kind);
    expect(server.log).toEqual([]);
  });

  test.each<[string, (region: Region) => unknown, typeof RangeError | typeof TypeError]>([
    ['readUInt8Sync', (r) => r.readUInt8Sync(64), RangeError],
    ['readUInt64Sync', (r) => r.readUInt64Sync(60), RangeError],
    ['readSync', (r) => r.readSync(0, 65), RangeError],
    ['readIntoSync', (r) => r.readIntoSync(-1, Buffer.alloc(1)), RangeError],
    ['writeSync', (r) => r.writeSync(64, Buffer.alloc(1)), RangeError],
    ['writeSync of a string', (r) => r.writeSync(0, 'x' as unknown as Buffer), TypeError],
    ['writeUInt16Sync', (r) => r.writeUInt16Sync(0, 65536), RangeError],
    ['writeUInt64Sync', (r) => r.writeUInt64Sync(0, 1 as unknown as bigint), TypeError],
    ['post', (r) => r.post(63, Buffer.alloc(2)), RangeError],
    ['postUInt32', (r) => r.postUInt32(0, -1), RangeError],
  ])('%s throws before anything is sent', async (_, call, kind) => {
    const { region, server } = await scripted();
    server.log.length = 0;
    expect(() => call(region)).toThrow(kind);
    await new Promise((resolve) => setTimeout(resolve, 2));
    expect(server.log).toEqual([]);
  });

  test.each([
    ['cannot be read', 2, (r: Region) => r.read(0, 1)],
    ['cannot be written', 1, (r: Region) => r.write(0, Buffer.alloc(1))],
  ])('a region that %s by its flags', async (words, flags, call) => {
    const { region, server } = await scripted(64, {}, undefined, flags);
    server.log.length = 0;
    await expect(call(region)).rejects.toThrow(words);
    await expect(call(region)).rejects.toThrow(RangeError);
    expect(server.log).toEqual([]);
  });

  test('nothing is sent for no bytes', async () => {
    const { region, server } = await scripted();
    server.log.length = 0;
    expect(await region.read(64, 0)).toHaveLength(0);
    await region.write(0, Buffer.alloc(0));
    region.post(0, Buffer.alloc(0));
    expect(server.log).toEqual([]);
  });
});

describe('chunks', () => {
  test('of reads are as long as the server takes them, and land in order', async () => {
    const { region, bytes, server } = await scripted(1000, {}, 300);
    server.log.length = 0;
    expect(await region.read(10, 900)).toEqual(bytes.subarray(10, 910));
    expect(server.takeAccesses(0)).toEqual(['read 0xa+300', 'read 0x136+300', 'read 0x262+300']);
    await region.read(0, 300);
    expect(server.takeAccesses(0)).toEqual(['read 0x0+300']);
  });

  test('of writes are the smaller of what the server takes and the write chunk', async () => {
    const { region, bytes, server } = await scripted(1000, { writeChunkBytes: 400 }, 500);
    server.log.length = 0;
    await region.write(0, Buffer.alloc(1000, 0xee));
    expect(server.takeAccesses(0)).toEqual(['write 0x0+400', 'write 0x190+400', 'write 0x320+200']);
    expect(bytes.every((byte) => byte === 0xee)).toBe(true);
    region.post(0, Buffer.alloc(500));
    await region.readUInt8(0);
    expect(server.takeAccesses(0)).toEqual(['write 0x0+400', 'write 0x190+100', 'read 0x0+1']);
  });

  test('of 32 KiB are written where nothing is said', async () => {
    const { region, server } = await scripted(100 * KIB);
    server.log.length = 0;
    await region.write(0, Buffer.alloc(65 * KIB));
    expect(server.takeAccesses(0)).toEqual(['write 0x0+32768', 'write 0x8000+32768', 'write 0x10000+1024']);
  });

  test('after one that failed are not sent, and the failure is what the caller hears', async () => {
    const { region, server } = await scripted(1000, { writeChunkBytes: 10 });
    const { twist } = server;
    expect(twist).toBeUndefined();
    server.twist = (asked, answer) => {
      if (asked.payload.readUInt32LE(0) === 20) {
        answer.bytes.writeUInt32LE(0x21, 8);
        answer.bytes.writeUInt32LE(5, 12);
      }
      return answer;
    };
    server.log.length = 0;
    await expect(region.write(0, Buffer.alloc(1000))).rejects.toMatchObject({ code: 'EIO' });
    expect(server.takeAccesses(0).length).toBeLessThan(10);
  });
});

describe('waitFor', () => {
  test('gives the value when the bits under the mask are right, of 32 bits and of 64', async () => {
    const { region, bytes } = await scripted();
    const waiting = region.waitFor(8, 0xff00, 0x1200);
    setTimeout(() => bytes.writeUInt32LE(0x12ff, 8), 10);
    expect(await waiting).toBe(0x12ff);
    bytes.writeBigUInt64LE(1n << 63n, 16);
    expect(await region.waitFor(16, 1n << 63n, 1n << 63n)).toBe(1n << 63n);
    expect(await region.waitFor(3, 0xff, 3, { width: 1 })).toBe(3);
    expect(await region.waitFor(4, 0xffff, 0x0504, { width: 2 })).toBe(0x0504);
  });

  test('that does not come true is a TimeoutError that says what was waited for', async () => {
    const { region } = await scripted();
    const waiting = region.waitFor(0, 1, 1, { timeoutMs: 30, intervalMs: 1 });
    await expect(waiting).rejects.toThrow(TimeoutError);
    await expect(waiting).rejects.toThrow(
      'region 0 at 0x0 & 0x1 == 0x1: not so, the last value was 0x3020100, within 30 ms',
    );
  });

  test('is ended by an abort, and by an error of the device', async () => {
    const { region, server } = await scripted();
    const controller = new AbortController();
    const waiting = region.waitFor(0, 1, 1, { signal: controller.signal });
    setTimeout(() => controller.abort(), 10);
    await expect(waiting).rejects.toMatchObject({ name: 'AbortError' });
    server.twist = (_asked, answer) => {
      answer.bytes.writeUInt32LE(0x21, 8);
      return answer;
    };
    await expect(region.waitFor(0, 1, 1)).rejects.toThrow(RemoteError);
  });
});

test('posted writes are done when a fence is, and their errors are told by it', async () => {
  const [ours, theirs] = native().socketPair() as [number, number];
  const model = new RamDevice({ sharedSize: 0 });
  const server = serveFd(model, theirs);
  const device = await connect({ fd: ours });
  device.bar(2).post(4, Buffer.from('posted'));
  device.bar(2).postUInt32(16, 0x01020304);
  expect(await device.fence()).toBe(0);
  expect(model.ram.toString('latin1', 4, 10)).toBe('posted');
  expect(model.ram.readUInt32LE(16)).toBe(0x01020304);
  await device.close();
  await server.close();
});

describe('synchronous faces', () => {
  let device: Device;

  /** The accesses that came, as `[command, offset, count]`. */
  async function thread(options = {}): Promise<() => Promise<number[][]>> {
    const [ours, theirs] = native().socketPair() as [number, number];
    const worker = new Worker(SERVER, { workerData: { fd: theirs, options, device: { sharedSize: 0 } } });
    const ended = new Promise((resolve) => worker.once('exit', resolve));
    cleanups.push(() => ended);
    device = await connect({ fd: ours }, { writeChunkBytes: 1000 });
    cleanups.push(() => device.close());
    return () =>
      new Promise((resolve) => {
        worker.once('message', resolve);
        worker.postMessage('');
      });
  }

  test('read and write values of every width', async () => {
    await thread();
    expect(device.bar(0).readUInt32Sync(RamRegister.IDENTIFICATION)).toBe(RAM_IDENTIFICATION);
    const ram = device.bar(2);
    ram.writeUInt8Sync(0, 0x12);
    ram.writeUInt16Sync(2, 0x3456);
    ram.writeUInt32Sync(4, 0x789abcde);
    ram.writeUInt64Sync(8, 0x1122334455667788n);
    expect(await ram.read(0, 16)).toEqual(Buffer.from('12005634debc9a788877665544332211', 'hex'));
    expect(ram.readUInt8Sync(0)).toBe(0x12);
    expect(ram.readUInt16Sync(2)).toBe(0x3456);
    expect(ram.readUInt32Sync(4)).toBe(0x789abcde);
    expect(ram.readUInt64Sync(8)).toBe(0x1122334455667788n);
  });

  test('move long data in chunks', async () => {
    const accesses = await thread({ maxDataXferSize: 2000 });
    const data = Buffer.from(Array.from({ length: 4500 }, (_, i) => (i * 7) & 0xff));
    await accesses();
    device.bar(2).writeSync(100, data);
    expect(device.bar(2).readSync(100, 4500)).toEqual(data);
    expect(await accesses()).toEqual([
      ...[0, 1000, 2000, 3000].map((at) => [10, 100 + at, 1000]),
      [10, 4100, 500],
      ...[0, 2000].map((at) => [9, 100 + at, 2000]),
      [9, 4100, 500],
    ]);
  });

  test('throw what the server answers, and go on', async () => {
    await thread();
    expect(() => device.bar(0).writeUInt16Sync(4, 1)).toThrow(RemoteError);
    expect(device.bar(0).readUInt32Sync(0)).toBe(RAM_IDENTIFICATION);
  });
});

test('synchronous faces need a Unix socket', async () => {
  const model = new RamDevice({ sharedSize: 0 });
  const [up, down] = [new PassThrough(), new PassThrough()];
  const near = Duplex.from({ writable: up, readable: down });
  const far = Duplex.from({ writable: down, readable: up });
  const server = serveStream(model, far);
  const device = await connect({ stream: near });
  expect(() => device.bar(0).readUInt32Sync(0)).toThrow(UnsupportedError);
  expect(await device.bar(0).readUInt32(0)).toBe(RAM_IDENTIFICATION);
  await device.close();
  await server.close();
});
