import { afterEach, describe, expect, test } from '@jest/globals';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connect } from '../../lib/device/connect.js';
import type { Device } from '../../lib/device/device.js';
import { RamDevice, serveFd } from '../../lib/emulator/index.js';
import { UnsupportedError } from '../../lib/errors.js';
import { native, type NativeMapping } from '../../lib/native.js';
import { ScriptedDevice } from '../support/scripted-device.js';
import { sparseMmap, sparseMmapFds } from '../support/wire.js';

const PAGE = 4096;
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

/** The emulator's RAM device, whose BAR1 is shared but for its first page, in two areas. */
async function ram(): Promise<{ device: Device; shared: Buffer }> {
  const [ours, theirs] = native().socketPair() as [number, number];
  const model = new RamDevice();
  cleanups.push(() => model.close());
  const server = serveFd(model, theirs);
  cleanups.push(() => server.close());
  const device = await connect({ fd: ours });
  cleanups.push(() => device.close());
  return { device, shared: model.shared!.bytes };
}

describe('a mapped area', () => {
  test('is the server’s own memory, in both directions and without a message', async () => {
    const { device, shared } = await ram();
    const area = device.bar(1).map();
    expect([area.offset, area.size]).toEqual([PAGE, PAGE]);
    const { sent } = device.counters;
    area.bytes.write('from the client', 16);
    expect(shared.toString('latin1', PAGE + 16, PAGE + 31)).toBe('from the client');
    shared.write('from the server', PAGE + 64);
    expect(area.bytes.toString('latin1', 64, 79)).toBe('from the server');
    expect(device.counters.sent).toBe(sent);
    expect((await device.bar(1).read(PAGE + 64, 15)).toString()).toBe('from the server');
  });

  test('has ordered accessors, words and copies of the same bytes', async () => {
    const { device, shared } = await ram();
    const area = device.bar(1).map(2 * PAGE + 8, 64);
    area.storeUInt32(4, 0xfedcba98);
    expect(area.loadUInt32(4)).toBe(0xfedcba98);
    expect(area.u32[1]).toBe(0xfedcba98);
    expect(shared.readUInt32LE(2 * PAGE + 12)).toBe(0xfedcba98);
    area.storeUInt64(8, 0x1122334455667788n);
    expect(area.loadUInt64(8)).toBe(0x1122334455667788n);
    expect(area.u64[1]).toBe(0x1122334455667788n);
    area.copyIn(16, Buffer.from('copied'));
    const out = Buffer.alloc(6);
    area.copyOut(16, out);
    expect(out.toString()).toBe('copied');
    expect(Buffer.from(area.window(16, 6)).toString()).toBe('copied');
  });

  test('ends with close, and with the device: views are detached, calls are refused', async () => {
    const { device } = await ram();
    const first = device.bar(1).map(PAGE, 64);
    const second = device.bar(1).map();
    const [bytes, words, window] = [first.bytes, second.u32, second.window(0, 8)];
    first.close();
    first.close();
    expect(bytes).toHaveLength(0);
    expect(() => first.loadUInt32(0)).toThrow(UnsupportedError);
    expect(() => first.copyOut(0, Buffer.alloc(1))).toThrow(UnsupportedError);
    expect(second.isClosed).toBe(false);
    await device.close();
    expect(second.isClosed).toBe(true);
    expect(words).toHaveLength(0);
    expect(window.byteLength).toBe(0);
    expect(() => second.bytes).toThrow(UnsupportedError);
  });

  test.each<[string, number | undefined, number | undefined]>([
    ['outside all areas', 0, 64],
    ['over the border of two', PAGE + 64, PAGE],
    ['past the last', 63 * 1024, 4096],
    ['nothing', PAGE, 0],
    ['a negative offset', -1, 1],
    ['a length that is none', PAGE, 1.5],
  ])('%s is refused', async (_, offset, length) => {
    const { device } = await ram();
    expect(() => device.bar(1).map(offset, length)).toThrow(RangeError);
  });

  test('of a region that cannot be mapped is refused', async () => {
    const { device } = await ram();
    expect(device.bar(2).mappable).toBe(false);
    expect(() => device.bar(2).map()).toThrow(/no mappable area/);
  });

  test('refuses what is outside of it or not aligned', async () => {
    const { device } = await ram();
    const area = device.bar(1).map(PAGE, 64);
    const calls: (() => unknown)[] = [
      () => area.loadUInt32(62),
      () => area.loadUInt32(2),
      () => area.loadUInt64(4),
      () => area.storeUInt64(64, 0n),
      () => area.loadUInt32(-4),
      () => area.loadUInt32(NaN),
      () => area.window(0, 65),
      () => area.window(10, -5),
      () => area.window(0, 1.5),
      () => area.copyOut(1, Buffer.alloc(64)),
      () => area.copyIn(64, Buffer.alloc(1)),
    ];
    for (const call of calls) expect(call).toThrow(RangeError);
  });
});

test('areas with fds of their own show each its file, from where it begins there', async () => {
  const files = [0, 1].map((i) => {
    const fd = native().memfd('spec', 4 * PAGE, false);
    cleanups.push(() => native().closeFd(fd));
    const mapping = native().map(fd, 0, 4 * PAGE, true, true);
    if (typeof mapping === 'number') throw new Error(`mmap: errno ${-mapping}`);
    Buffer.from(mapping.view(0, 4 * PAGE) as ArrayBuffer).fill(i + 1);
    mapping.copyIn(PAGE + 2, Buffer.from([0xa0 + i]), 0, 1);
    mapping.close();
    return fd;
  });
  const capabilities = sparseMmapFds([
    [0, PAGE, PAGE, 1],
    [PAGE, PAGE + 2, 64, 0],
  ]);
  const server = new ScriptedDevice({
    flags: 1,
    numRegions: 1,
    regions: { 0: { size: 4 * PAGE, flags: 7, capabilities, fds: files } },
  });
  cleanups.push(() => server.close());
  const device = await connect(server.endpoint);
  cleanups.push(() => device.close());
  expect([...device.region(0).map(0).bytes.subarray(0, 4)]).toEqual([2, 2, 0xa1, 2]);
  const odd = device.region(0).map(PAGE);
  expect([...odd.bytes.subarray(0, 2)]).toEqual([0xa0, 1]);
  // Its memory begins between words.
  expect(() => odd.u32).toThrow(UnsupportedError);
  expect(() => odd.loadUInt32(0)).toThrow(UnsupportedError);
});

describe('several files for several areas, without the capability that gives each its own', () => {
  function file(): number {
    const fd = native().memfd('spec', 4 * PAGE, false);
    cleanups.push(() => native().closeFd(fd));
    return fd;
  }

  async function opened(fds: number[]): Promise<Device> {
    const capabilities = sparseMmap([
      [0, PAGE],
      [2 * PAGE, PAGE],
    ]);
    const region = { size: 4 * PAGE, flags: 7, capabilities, fds };
    const server = new ScriptedDevice({ regions: { 0: region, 1: { ...region, fds: fds.slice(0, 1) } } });
    cleanups.push(() => server.close());
    const device = await connect(server.endpoint);
    cleanups.push(() => device.close());
    return device;
  }

  test('are not mapped by guessing', async () => {
    const device = await opened([file(), file()]);
    expect(device.bar(0).mappable).toBe(false);
    expect(device.bar(0).areas).toEqual([]);
    expect(() => device.bar(0).map(2 * PAGE)).toThrow(UnsupportedError);
    expect(() => device.bar(0).map()).toThrow(
      'region 0 came with 2 files for 2 areas, and without the capability (sparse_mmap_fds) that says which is in which: ' +
        'nothing of it is mapped',
    );
    expect(await device.bar(0).readUInt32(2 * PAGE)).toBe(0);
    expect(device.bar(1).mappable).toBe(true);
  });

  test('are one where they are copies of one', async () => {
    const fd = file();
    const device = await opened([fd, fd]);
    const mapping = native().map(fd, 0, 4 * PAGE, true, true) as NativeMapping;
    cleanups.push(() => mapping.close());
    mapping.copyIn(2 * PAGE, Buffer.from([7]), 0, 1);
    expect(device.bar(0).map(2 * PAGE).bytes[0]).toBe(7);
  });
});

describe('an area of more than 4 GiB, as of a GPU', () => {
  const GIB = 2 ** 30;

  /** A sparse file of that size, the device that shares it, and the file as the server has it. */
  async function large(size: number): Promise<{ device: Device; file: NativeMapping }> {
    const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));
    cleanups.push(() => rmSync(directory, { recursive: true }));
    const fd = openSync(path.join(directory, 'memory'), 'w+');
    cleanups.push(() => closeSync(fd));
    ftruncateSync(fd, size);
    const file = native().map(fd, 0, size, true, true) as NativeMapping;
    cleanups.push(() => file.close());
    const server = new ScriptedDevice({ flags: 2, regions: { 2: { size, flags: 7, fds: [fd] } } });
    cleanups.push(() => server.close());
    const device = await connect(server.endpoint);
    cleanups.push(() => device.close());
    return { device, file };
  }

  function put(file: NativeMapping, offset: number, digits: string): void {
    file.copyIn(offset, Buffer.from(digits, 'hex'), 0, digits.length / 2);
  }

  function digitsAt(file: NativeMapping, offset: number, count: number): string {
    const bytes = Buffer.alloc(count);
    file.copyOut(offset, bytes, 0, count);
    return bytes.toString('hex');
  }

  test.each([4 * GIB, 4 * GIB + 4, 9 * GIB, 80 * GIB])(
    'of %d bytes has every word where it is',
    async (size) => {
      const { device, file } = await large(size);
      const area = device.bar(2).map();
      expect(area.size).toBe(size);
      const places = [0, GIB, 4 * GIB - 8, 4 * GIB, 8 * GIB + 16, size - (size % 8) - 8].filter(
        (at) => at + 8 <= size,
      );
      for (const [i, at] of places.entries()) {
        put(file, at, `0${i}22334455667788`);
        expect(area.loadUInt32(at)).toBe(0x44332200 + i);
        expect(area.loadUInt64(at)).toBe(0x8877665544332200n + BigInt(i));
        area.storeUInt32(at + 4, 0x0d0c0b0a);
        expect(digitsAt(file, at, 8)).toBe(`0${i}2233440a0b0c0d`);
        area.storeUInt64(at, 0x0807060504030201n);
        expect(digitsAt(file, at, 8)).toBe('0102030405060708');
        area.copyIn(at, Buffer.from('copied'));
        const out = Buffer.alloc(6);
        area.copyOut(at, out);
        expect(out.toString()).toBe('copied');
        expect(Buffer.from(area.window(at, 6)).toString()).toBe('copied');
      }
      put(file, size - 4, 'fffefdfc');
      expect(area.loadUInt32(size - 4)).toBe(0xfcfdfeff);
      expect(() => area.loadUInt32(size)).toThrow(RangeError);
      expect(() => area.loadUInt64(size)).toThrow(RangeError);
      expect(area.bytes).toHaveLength(4 * GIB);
      area.close();
      expect(() => area.loadUInt32(0)).toThrow(UnsupportedError);
      expect(() => area.loadUInt64(size - (size % 8) - 8)).toThrow(UnsupportedError);
    },
  );

  test('has arrays of all its words up to 4 GiB, and an error that says what to use beyond', async () => {
    const { device, file } = await large(5 * GIB);
    const whole = device.bar(2).map(0, 4 * GIB);
    put(file, 4 * GIB - 8, '0102030405060708');
    expect(whole.u32).toHaveLength(GIB);
    expect(whole.u32[GIB - 1]).toBe(0x08070605);
    expect(whole.u64).toHaveLength(GIB / 2);
    expect(whole.u64[GIB / 2 - 1]).toBe(0x0807060504030201n);
    const area = device.bar(2).map();
    expect(() => area.u32).toThrow(
      `the area has ${5 * GIB} bytes, and one array at most ${4 * GIB}: use loadUInt32 and storeUInt32, or window(offset, length) for a part of it`,
    );
    expect(() => area.u64).toThrow(UnsupportedError);
    expect(() => area.window(0, 4 * GIB + 1)).toThrow(
      `a window of ${4 * GIB + 1} bytes: it has at most ${4 * GIB}`,
    );
    expect(new Uint32Array(area.window(4 * GIB - 8, GIB))[1]).toBe(0x08070605);
  });

  test('a part beyond 4 GiB can be mapped by itself', async () => {
    const { device, file } = await large(6 * GIB);
    const area = device.bar(2).map(5 * GIB, PAGE);
    put(file, 5 * GIB + 4, '01020304');
    expect(area.u32[1]).toBe(0x04030201);
  });
});
