import { ftruncateSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { DmaBuffer } from '../../lib/device/dma.js';
import { native, type NativeMapping } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import { message, type Received } from '../support/scripted-peer.js';
import {
  dmaReadReply,
  dmaReadRequest,
  dmaWriteReply,
  dmaWriteRequest,
  request,
  wire,
} from '../support/wire.js';
import { DmaDevice, turn, until, type DmaDeviceOptions } from './dma-device.js';

const MIB = 1 << 20;
const PAGE = 4096;
const READ = 11;
const WRITE = 12;
const NO_REPLY = 0x10;
const E2BIG = 7;
const EACCES = 13;
const EFAULT = 14;
const EINVAL = 22;
const ENOTSUP = 95;

let device: DmaDevice;
let fdsBefore: number;
let ownFds: number[];
let mappings: NativeMapping[];

async function open(options?: DmaDeviceOptions): Promise<void> {
  device = await DmaDevice.open(options);
}

/** Memory of the caller's, which the library must not trust, and a view of it. */
function callersMemory(size: number): { fd: number; bytes: Buffer } {
  const path = join(tmpdir(), `vfio-user-dma-${process.pid}-${ownFds.length}`);
  const fd = openSync(path, 'wx+');
  rmSync(path);
  ownFds.push(fd);
  ftruncateSync(fd, size);
  const mapping = native().map(fd, 0, size, true, true) as NativeMapping;
  mappings.push(mapping);
  return { fd, bytes: Buffer.from(mapping.view(0, size) as ArrayBuffer) };
}

/** Bytes that tell where they belong. */
function pattern(length: number, seed = 0): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 7 + (i >>> 8) * 13 + seed) & 0xff;
  return bytes;
}

function read(address: bigint, count: number, cuts?: readonly number[]): Promise<Received> {
  return device.ask(dmaReadRequest({ address, count }), cuts);
}

function write(address: bigint, data: Uint8Array, cuts?: readonly number[]): Promise<Received> {
  return device.ask(dmaWriteRequest({ address, data }), cuts);
}

/** The reply's bytes, as the protocol's text has them. */
function bytesOf({ id, command, flags, errno, payload }: Received): Buffer {
  return message(id, command, flags, errno, payload);
}

function expectRefused(answer: Received, errno: number): void {
  expect(answer).toMatchObject({ flags: 0x21, errno });
  expect(answer.payload).toHaveLength(0);
}

// The test runner itself opens and closes files while it starts.
beforeAll(() => turn(200));

beforeEach(() => {
  fdsBefore = openFds();
  ownFds = [];
  mappings = [];
});

afterEach(async () => {
  device.close();
  for (const mapping of mappings) mapping.close();
  for (const fd of ownFds) native().closeFd(fd);
  await turn();
  expect(openFds()).toBe(fdsBefore);
});

describe.each([
  ['on the command socket', false],
  ['on the twin socket', true],
])('%s', (_, twin) => {
  test('a read is answered with the bytes, a write with exactly 16', async () => {
    await open({ twin });
    const buffer = await device.dma.alloc(PAGE);
    const data = pattern(100);
    const address = buffer.iova + 50n;
    const written = await device.ask(dmaWriteRequest({ address, data }, { id: 0xfffe }));
    expect(bytesOf(written)).toEqual(dmaWriteReply({ address, count: 100 }, { id: 0xfffe }));
    expect(buffer.bytes.subarray(50, 150)).toEqual(data);
    expect(buffer.bytes.subarray(0, 50)).toEqual(Buffer.alloc(50));
    expect(buffer.bytes.subarray(150)).toEqual(Buffer.alloc(PAGE - 150));
    const got = await device.ask(dmaReadRequest({ address, count: 100 }, { id: 0x8001 }));
    expect(bytesOf(got)).toEqual(dmaReadReply({ address, data }, { id: 0x8001 }));
    expect(device.connection.counters).toMatchObject({ served: 2, refused: 0 });
  });

  const sizes = [
    1, 2, 3, 4, 7, 8, 511, 512, 4095, 4096, 4097, 32_768, 65_519, 65_520, 65_521, 65_536, 65_552,
  ];
  sizes.push(100_000, 300_000, MIB - 1, MIB);

  test.each(sizes)('%d bytes, both ways, byte by byte', async (size) => {
    await open({ twin });
    const buffer = await device.dma.alloc(MIB + 2 * PAGE);
    for (const offset of [0, 1, PAGE - 1]) {
      buffer.bytes.fill(0x5a);
      const data = pattern(size, offset);
      const address = buffer.iova + BigInt(offset);
      expect(bytesOf(await write(address, data))).toEqual(dmaWriteReply({ address, count: size }));
      expect(buffer.bytes.subarray(offset, offset + size).equals(data)).toBe(true);
      expect(buffer.bytes.subarray(0, offset).every((byte) => byte === 0x5a)).toBe(true);
      expect(buffer.bytes.subarray(offset + size).every((byte) => byte === 0x5a)).toBe(true);
      expect(bytesOf(await read(address, size)).equals(dmaReadReply({ address, data }))).toBe(true);
    }
  });

  test("the same in a caller's file", async () => {
    await open({ twin });
    const { fd, bytes } = callersMemory(MIB + 2 * PAGE);
    const { iova } = await device.dma.map({ fd, size: MIB + 2 * PAGE });
    for (const size of [1, 4096, 65_536, 65_537, MIB]) {
      const data = pattern(size, size);
      const address = iova + 3n;
      bytes.fill(0x5a);
      expect(bytesOf(await write(address, data))).toEqual(dmaWriteReply({ address, count: size }));
      expect(bytes.subarray(3, 3 + size).equals(data)).toBe(true);
      expect(bytes.subarray(0, 3)).toEqual(Buffer.alloc(3, 0x5a));
      expect(bytes.subarray(3 + size).every((byte) => byte === 0x5a)).toBe(true);
      expect(bytesOf(await read(address, size)).equals(dmaReadReply({ address, data }))).toBe(true);
    }
  });

  test('a long write arrives whole wherever it is cut', async () => {
    await open({ twin });
    const buffer = await device.dma.alloc(256 * 1024);
    const data = pattern(200_000);
    for (const cuts of [
      [1],
      [15],
      [16],
      [17],
      [31],
      [32],
      [33],
      [20, 40],
      [16, 32, 48],
      [65_536],
      [200_031],
    ]) {
      buffer.bytes.fill(0);
      const answer = await write(buffer.iova + 77n, data, cuts);
      expect(bytesOf(answer)).toEqual(dmaWriteReply({ address: buffer.iova + 77n, count: data.length }));
      expect(buffer.bytes.subarray(77, 77 + data.length).equals(data)).toBe(true);
      expect(buffer.bytes.subarray(0, 77)).toEqual(Buffer.alloc(77));
      expect(buffer.bytes.subarray(77 + data.length).every((byte) => byte === 0)).toBe(true);
    }
  });

  test('many requests at once are answered in order', async () => {
    await open({ twin });
    const buffer = await device.dma.alloc(64 * PAGE);
    pattern(64 * PAGE).copy(buffer.bytes);
    const requests: Buffer[] = [];
    for (let i = 0; i < 64; i++) {
      const address = buffer.iova + BigInt(i * PAGE);
      requests.push(dmaReadRequest({ address, count: PAGE }, { id: 2 * i }));
      requests.push(dmaWriteRequest({ address, data: Buffer.alloc(PAGE, i) }, { id: 2 * i + 1 }));
    }
    const sent = device.send(Buffer.concat(requests));
    for (let i = 0; i < 64; i++) {
      const got = await device.answer();
      expect(got.id).toBe(2 * i);
      expect(got.payload.subarray(16).equals(pattern(64 * PAGE).subarray(i * PAGE, (i + 1) * PAGE))).toBe(
        true,
      );
      expect((await device.answer()).id).toBe(2 * i + 1);
    }
    await sent;
    for (let i = 0; i < 64; i++) expect(buffer.bytes[i * PAGE]).toBe(i);
  });

  test('one that wants no reply is carried out, or refused, in silence', async () => {
    await open({ twin });
    const buffer = await device.dma.alloc(PAGE);
    await device.send(
      Buffer.concat([
        dmaWriteRequest({ address: buffer.iova, data: [1, 2, 3] }, { flags: NO_REPLY, id: 1 }),
        dmaReadRequest({ address: buffer.iova, count: 1 }, { flags: NO_REPLY, id: 2 }),
        dmaWriteRequest({ address: 0n, data: [1] }, { flags: NO_REPLY, id: 3 }),
        dmaReadRequest({ address: buffer.iova, count: 3 }, { id: 4 }),
      ]),
    );
    expect(bytesOf(await device.answer())).toEqual(
      dmaReadReply({ address: buffer.iova, data: [1, 2, 3] }, { id: 4 }),
    );
    expect(device.connection.counters).toMatchObject({ served: 3, refused: 1 });
    const long = pattern(100_000);
    await device.send(dmaWriteRequest({ address: buffer.iova, data: long }, { flags: NO_REPLY }));
    expectRefused(await read(0n, 1), EFAULT);
    expect(buffer.bytes).toEqual(long.subarray(0, PAGE));
  });

  test('fds that come with a request are closed', async () => {
    await open({ twin });
    const buffer = await device.dma.alloc(MIB);
    const fds = [native().eventfd(0), native().eventfd(0)];
    const socket = device.twin ?? device.peer;
    socket.send(dmaReadRequest({ address: buffer.iova, count: 8 }), fds);
    expect((await device.answer()).errno).toBe(0);
    const long = dmaWriteRequest({ address: buffer.iova, data: pattern(100_000) });
    socket.send(long.subarray(0, 40), fds);
    await turn();
    socket.send(long.subarray(40), fds);
    expect((await device.answer()).errno).toBe(0);
    for (const fd of fds) native().closeFd(fd);
  });
});

describe('alignment', () => {
  test('every offset in a page, both ways', async () => {
    await open();
    const buffer = await device.dma.alloc(3 * PAGE);
    const data = pattern(3 * PAGE);
    data.copy(buffer.bytes);
    const requests: Buffer[] = [];
    for (let i = 0; i < PAGE; i++) {
      const count = 1 + ((i * 37) % (2 * PAGE));
      requests.push(dmaReadRequest({ address: buffer.iova + BigInt(i), count }, { id: i }));
    }
    const sent = device.send(Buffer.concat(requests));
    let wrong = 0;
    for (let i = 0; i < PAGE; i++) {
      const count = 1 + ((i * 37) % (2 * PAGE));
      const expected = dmaReadReply(
        { address: buffer.iova + BigInt(i), data: data.subarray(i, i + count) },
        { id: i },
      );
      if (!bytesOf(await device.answer()).equals(expected)) wrong++;
    }
    await sent;
    expect(wrong).toBe(0);
    for (let i = 0; i < PAGE; i += 61) {
      const part = pattern(1 + ((i * 37) % (2 * PAGE)), i);
      await write(buffer.iova + BigInt(i), part);
      if (!buffer.bytes.subarray(i, i + part.length).equals(part)) wrong++;
    }
    expect(wrong).toBe(0);
  });
});

describe('what is wrong with a request', () => {
  let buffer: DmaBuffer;
  let end: bigint;

  beforeEach(async () => {
    await open();
    buffer = await device.dma.alloc(PAGE);
    buffer.bytes.fill(0x5a);
    end = buffer.iova + BigInt(4 * MIB);
  });

  afterEach(() => expect(buffer.bytes).toEqual(Buffer.alloc(PAGE, 0x5a)));

  const payload = (address: bigint, count: bigint | number, data = 0): Buffer =>
    wire().u64(address).u64(count).zeros(data).build();

  test.each<[string, number, number, (iova: bigint, end: bigint) => Buffer]>([
    ['a read without payload', READ, EINVAL, () => Buffer.alloc(0)],
    ['a read of half a structure', READ, EINVAL, (iova) => payload(iova, 4).subarray(0, 15)],
    ['a read with data', READ, EINVAL, (iova) => payload(iova, 4, 4)],
    ['a read of nothing', READ, EINVAL, (iova) => payload(iova, 0)],
    ['a read of more than 1 MiB', READ, E2BIG, (iova) => payload(iova, MIB + 1)],
    ['a read of 4 GiB', READ, E2BIG, (iova) => payload(iova, 0x1_0000_0000n)],
    ['a read of 2^64 - 1', READ, E2BIG, (iova) => payload(iova, 0xffff_ffff_ffff_ffffn)],
    ['a read of 2^32 and one', READ, E2BIG, (iova) => payload(iova, 0x1_0000_0001n)],
    ['a read at 0', READ, EFAULT, () => payload(0n, 4)],
    ['a read right before the memory', READ, EFAULT, (iova) => payload(iova - 1n, 2)],
    ['a read right behind it', READ, EFAULT, (_, end) => payload(end, 1)],
    ['a read past its end', READ, EFAULT, (_, end) => payload(end - 1n, 2)],
    ['a read of 1 MiB past its end', READ, EFAULT, (_, end) => payload(end - 1n, MIB)],
    ['a read at the last address', READ, EFAULT, () => payload(0xffff_ffff_ffff_ffffn, 1)],
    ['a read that wraps', READ, EFAULT, () => payload(0xffff_ffff_ffff_ffffn, 2)],
    ['a read 2^32 above', READ, EFAULT, (iova) => payload(iova + 0x1_0000_0000n, 1)],
    ['a read 2^53 above', READ, EFAULT, (iova) => payload(iova + (1n << 53n), 1)],
    ['a write without payload', WRITE, EINVAL, () => Buffer.alloc(0)],
    ['a write of half a structure', WRITE, EINVAL, (iova) => payload(iova, 4).subarray(0, 15)],
    ['a write without its data', WRITE, EINVAL, (iova) => payload(iova, 4)],
    ['a write with a byte too few', WRITE, EINVAL, (iova) => payload(iova, 4, 3)],
    ['a write with a byte too many', WRITE, EINVAL, (iova) => payload(iova, 4, 5)],
    ['a write of nothing', WRITE, EINVAL, (iova) => payload(iova, 0)],
    ['a long write with a byte too few', WRITE, EINVAL, (iova) => payload(iova, 100_000, 99_999)],
    ['a long write with a byte too many', WRITE, EINVAL, (iova) => payload(iova, 100_000, 100_001)],
    ['a write of more than 1 MiB', WRITE, E2BIG, (iova) => payload(iova, MIB + 1, MIB + 1)],
    ['a write of 2^64 - 1', WRITE, E2BIG, (iova) => payload(iova, 0xffff_ffff_ffff_ffffn, 4)],
    ['a write of 2^32 and four', WRITE, E2BIG, (iova) => payload(iova, 0x1_0000_0004n, 4)],
    ['a write at 0', WRITE, EFAULT, () => payload(0n, 4, 4)],
    ['a long write at 0', WRITE, EFAULT, () => payload(0n, 100_000, 100_000)],
    ['a write right before the memory', WRITE, EFAULT, (iova) => payload(iova - 1n, 2, 2)],
    ['a long write from before the memory', WRITE, EFAULT, (iova) => payload(iova - 1n, MIB, MIB)],
    ['a write past its end', WRITE, EFAULT, (_, end) => payload(end - 4n, 5, 5)],
    ['a long write past its end', WRITE, EFAULT, (_, end) => payload(end - 4n, MIB, MIB)],
    ['a write that wraps', WRITE, EFAULT, () => payload(0xffff_ffff_ffff_fffen, 4, 4)],
    ['a command of ours', 9, ENOTSUP, (iova) => payload(iova, 4)],
    ['VERSION', 1, ENOTSUP, () => Buffer.alloc(4)],
    ['a command that does not exist', 0xffff, ENOTSUP, () => Buffer.alloc(100_000)],
  ])('%s is refused, and nothing is touched', async (_, command, errno, make) => {
    const bytes = make(buffer.iova, end);
    expectRefused(await device.ask(request(command, bytes, { id: 77 })), errno);
    // Nor has the stream lost step.
    expect(await read(buffer.iova, 1)).toMatchObject({ flags: 1, payload: expect.any(Buffer) });
    expect(device.connection.counters).toMatchObject({ served: 1, refused: 1 });
  });

  test.each<[string, (iova: bigint) => Buffer, number[]]>([
    ['a long write of the wrong size', (iova) => request(WRITE, payload(iova, 100_000, 99_999)), [20, 40]],
    ['a long write of nothing', (iova) => request(WRITE, payload(iova, 0, 50)), [32]],
    ['a write cut in its structure', (iova) => request(WRITE, payload(iova, 8, 7)), [17]],
    ['a read that looks long', (iova) => request(READ, payload(iova, 50_000, 50_000)), [32, 60]],
  ])('%s, in chunks', async (_, make, cuts) => {
    expectRefused(await device.ask(make(buffer.iova), cuts), EINVAL);
    expect((await read(buffer.iova, 1)).flags).toBe(1);
  });

  test('random requests are answered, one reply each, and reach no memory that is not mapped', async () => {
    const near = fc.bigInt({ min: -20n, max: 20n });
    const address = fc.oneof(
      fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
      near.map((by) => end + by),
      near.map((by) => (by < 0n ? 0xffff_ffff_ffff_ffffn + by : by)),
    );
    const count = fc.oneof(
      fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
      fc.bigInt({ min: 0n, max: 64n }),
    );
    const one = fc.record({
      command: fc.constantFrom(READ, WRITE),
      address,
      count,
      extra: fc.nat({ max: 64 }),
    });
    await fc.assert(
      fc.asyncProperty(one, async ({ command, address, count, extra }) => {
        const answer = await device.ask(request(command, payload(address, count, extra), { id: 5 }));
        expect(answer).toMatchObject({ id: 5, command });
        const inside = address >= buffer.iova && address + count <= end && count > 0n && count <= BigInt(MIB);
        const sound = inside && BigInt(extra) === (command === READ ? 0n : count);
        expect(answer.flags).toBe(sound ? 1 : 0x21);
      }),
      { numRuns: 300 },
    );
  });
});

describe('permissions', () => {
  test('hold in each direction', async () => {
    await open();
    const readOnly = await device.dma.alloc(200_000, { writable: false });
    const writeOnly = await device.dma.alloc(200_000, { readable: false });
    readOnly.bytes.fill(1);
    writeOnly.bytes.fill(2);
    for (const size of [1, 150_000]) {
      expect((await read(readOnly.iova, size)).errno).toBe(0);
      expectRefused(await write(readOnly.iova, Buffer.alloc(size, 9)), EACCES);
      expectRefused(await read(writeOnly.iova, size), EACCES);
      expect((await write(writeOnly.iova, Buffer.alloc(size, 9))).errno).toBe(0);
    }
    expect(readOnly.bytes.every((byte) => byte === 1)).toBe(true);
    expect(writeOnly.bytes[149_999]).toBe(9);
  });

  test("hold for a caller's file", async () => {
    await open();
    const { fd, bytes } = callersMemory(2 * PAGE);
    bytes.fill(3);
    const first = await device.dma.map({ fd, size: PAGE, writable: false });
    const second = await device.dma.map({ fd, offset: PAGE, size: PAGE, readable: false });
    expectRefused(await write(first.iova, Buffer.alloc(1, 9)), EACCES);
    expectRefused(await read(second.iova, 1), EACCES);
    expect((await read(first.iova, 1)).payload[16]).toBe(3);
    expect((await write(second.iova, Buffer.alloc(1, 9))).errno).toBe(0);
    expect(bytes[PAGE]).toBe(9);
  });
});

describe('neighbouring mappings', () => {
  test('are one range, whoever owns the memory', async () => {
    await open();
    const { fd, bytes } = callersMemory(4 * PAGE);
    const buffer = await device.dma.alloc(4 * MIB);
    const after = buffer.iova + BigInt(4 * MIB);
    await device.dma.map({ fd, size: PAGE, iova: after });
    await device.dma.map({ fd, offset: 2 * PAGE, size: PAGE, iova: after + BigInt(PAGE) });
    const address = after - 100_000n;
    const data = pattern(100_000 + 2 * PAGE);
    expect(bytesOf(await write(address, data))).toEqual(dmaWriteReply({ address, count: data.length }));
    expect(buffer.bytes.subarray(-100_000).equals(data.subarray(0, 100_000))).toBe(true);
    expect(bytes.subarray(0, PAGE).equals(data.subarray(100_000, 100_000 + PAGE))).toBe(true);
    expect(bytes.subarray(PAGE, 2 * PAGE)).toEqual(Buffer.alloc(PAGE));
    expect(bytes.subarray(2 * PAGE, 3 * PAGE).equals(data.subarray(100_000 + PAGE))).toBe(true);
    expect(bytesOf(await read(address, data.length)).equals(dmaReadReply({ address, data }))).toBe(true);
    const small = await read(after - 1n, 2);
    expect(small.payload.subarray(16)).toEqual(data.subarray(99_999, 100_001));
  });

  test('with one that does not allow it, or a gap, nothing is touched', async () => {
    await open();
    const { fd, bytes } = callersMemory(4 * PAGE);
    bytes.fill(0x5a);
    const base = 0x10_0000n;
    await device.dma.map({ fd, size: PAGE, iova: base });
    await device.dma.map({ fd, offset: PAGE, size: PAGE, iova: base + 4096n, writable: false });
    await device.dma.map({ fd, offset: 2 * PAGE, size: PAGE, iova: base + 8192n });
    await device.dma.map({ fd, offset: 3 * PAGE, size: PAGE, iova: base + 16384n });
    expectRefused(await write(base + 4000n, pattern(200)), EACCES);
    expectRefused(await write(base, pattern(3 * PAGE)), EACCES);
    expectRefused(await write(base + 8192n, pattern(PAGE + 1)), EFAULT);
    expectRefused(await read(base, 3 * PAGE + 1), EFAULT);
    // A hole weighs more than a permission.
    expectRefused(await write(base, pattern(5 * PAGE)), EFAULT);
    expect(bytes).toEqual(Buffer.alloc(4 * PAGE, 0x5a));
    expect((await read(base, 3 * PAGE)).payload.subarray(16)).toEqual(Buffer.alloc(3 * PAGE, 0x5a));
  });

  test('the last page of the address space is reached, and no further', async () => {
    await open();
    const { fd, bytes } = callersMemory(PAGE);
    bytes.fill(4);
    const iova = 0xffff_ffff_ffff_f000n;
    await device.dma.map({ fd, size: PAGE, iova });
    await device.dma.map({ fd, size: PAGE, iova: 0n });
    expect((await read(iova + 4095n, 1)).payload[16]).toBe(4);
    expectRefused(await read(iova + 4095n, 2), EFAULT);
    expectRefused(await write(iova, Buffer.alloc(PAGE + 1)), EFAULT);
  });
});

describe('memory that goes away', () => {
  test("a caller's file that was truncated is EFAULT, not the end of the process", async () => {
    await open();
    const { fd } = callersMemory(4 * PAGE);
    const { iova } = await device.dma.map({ fd, size: 4 * PAGE });
    ftruncateSync(fd, PAGE);
    expect((await read(iova, 16)).errno).toBe(0);
    expectRefused(await read(iova + BigInt(2 * PAGE), 16), EFAULT);
    expectRefused(await write(iova + BigInt(2 * PAGE), Buffer.alloc(16)), EFAULT);
    expectRefused(await read(iova, 4 * PAGE), EFAULT);
  });

  test('unmapped, it is not found any more', async () => {
    await open();
    const buffer = await device.dma.alloc(5 * MIB);
    const { iova } = buffer;
    expect((await read(iova, 1)).errno).toBe(0);
    await buffer.free();
    expectRefused(await read(iova, 1), EFAULT);
    expectRefused(await write(iova, Buffer.alloc(100_000)), EFAULT);
  });

  test('a write that is still coming when its memory is unmapped goes nowhere', async () => {
    await open({ twin: true });
    const buffer = await device.dma.alloc(5 * MIB);
    const request = dmaWriteRequest({ address: buffer.iova, data: pattern(500_000) });
    await device.twin!.sendAll(request.subarray(0, 100_000));
    await until(() => buffer.bytes.subarray(99_000, 99_064).equals(pattern(99_064).subarray(99_000)));
    await buffer.free();
    await device.twin!.sendAll(request.subarray(100_000));
    expectRefused(await device.answer(), EFAULT);
    expectRefused(await read(buffer.iova, 1), EFAULT);
  });

  test('an answer that still waits when its memory is unmapped is what it was', async () => {
    await open({ twin: true });
    const buffer = await device.dma.alloc(5 * MIB);
    const data = pattern(MIB);
    data.copy(buffer.bytes);
    device.twin!.setReading(false);
    await device.send(dmaReadRequest({ address: buffer.iova, count: MIB }, { id: 3 }));
    await until(() => device.connection.counters.served > 0);
    await buffer.free();
    device.twin!.setReading(true);
    const answer = await device.answer();
    expect(bytesOf(answer).equals(dmaReadReply({ address: buffer.iova, data }, { id: 3 }))).toBe(true);
    expectRefused(await read(buffer.iova, 1), EFAULT);
  });

  test('the device is closed in the middle of both', async () => {
    await open({ twin: true });
    const buffer = await device.dma.alloc(5 * MIB);
    device.twin!.setReading(false);
    await device.send(dmaReadRequest({ address: buffer.iova, count: MIB }));
    await device.twin!.sendAll(
      dmaWriteRequest({ address: buffer.iova, data: pattern(MIB) }).subarray(0, 100_000),
    );
    await until(() => device.connection.counters.served > 0);
    device.close();
    expect(buffer.bytes).toHaveLength(0);
  });

  test('a server that asks and does not listen is not read from any more, and loses nothing', async () => {
    await open({ twin: true });
    const buffer = await device.dma.alloc(MIB);
    pattern(MIB).copy(buffer.bytes);
    device.twin!.setReading(false);
    const ask = dmaReadRequest({ address: buffer.iova, count: MIB });
    await device.send(Buffer.concat(Array.from({ length: 40 }, () => ask)));
    await until(() => device.connection.counters.served > 0);
    await turn(20);
    expect(device.connection.counters.served).toBeLessThan(10);
    device.twin!.setReading(true);
    for (let i = 0; i < 40; i++)
      expect((await device.answer()).payload.subarray(16).equals(pattern(MIB))).toBe(true);
    expect(device.connection.counters.served).toBe(40);
  });
});

describe('a mapping whose file this process cannot map', () => {
  test('is left to the server; its messages are refused', async () => {
    await open();
    // An eventfd stands for the dma-bufs that have no mmap: neither has one.
    const fd = native().eventfd(0);
    ownFds.push(fd);
    const { iova } = await device.dma.map({ fd, size: PAGE, share: true });
    expect(device.takeLog()).toEqual(['MAP 0x100000000+0x1000 flags 3, 1 fds']);
    expectRefused(await read(iova, 1), ENOTSUP);
    expectRefused(await write(iova, Buffer.alloc(100_000)), EFAULT);
    expectRefused(await write(iova, Buffer.alloc(100)), ENOTSUP);
    await expect(device.dma.map({ fd, size: PAGE, share: false })).rejects.toMatchObject({ code: 'ENODEV' });
  });
});
