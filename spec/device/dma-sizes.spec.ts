/**
 * DMA by message at every size and alignment, compared byte by byte with what was sent; a peer of the spec's own builds
 * the requests and checks the replies.
 *
 * What runs by default is every size up to a little more than a page, the neighbours of every page and power of two up to
 * 1 MiB, and every offset in the first page. `npm run test:dma-sizes` runs every single size up to 1 MiB (it moves more
 * than a terabyte, in five minutes on an idle machine); VFIO_USER_DMA_SIZES=FROM-TO is the part of it between two sizes.
 */
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { ftruncateSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RamDevice, RamDma, RamRegister, serve } from '../../lib/emulator/index.js';
import { connect, type Device } from '../../lib/index.js';
import { native, type NativeMapping } from '../../lib/native.js';
import { Scratch } from '../cli/cli.js';
import { DmaPeer } from '../support/dma-peer.js';
import { message, words } from '../support/scripted-peer.js';

const PAGE = 4096;
const MIB = 1 << 20;
/** Bytes around what is written that must stay as they were. */
const GUARD = 64;
const SIZE = MIB + 4 * PAGE;

const every = process.env['VFIO_USER_DMA_SIZES'] ?? '';

// More than a few seconds of work, and under sanitizers it takes several times as long.
jest.setTimeout(300_000);

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

/** Bytes that do not repeat: what lands in the wrong place, or is left from before, is seen. */
const source = ((): Buffer => {
  const bytes = Buffer.allocUnsafeSlow(2 * MIB);
  let state = 0x9e3779b9;
  for (let at = 0; at < bytes.length; at += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes.writeInt32LE(state | 0, at);
  }
  return bytes;
})();

const REPLY = 0x1;

/** What a server would not do in a hurry: it answers only what opening and mapping take. */
async function open(twin: boolean): Promise<{ device: Device; peer: DmaPeer; main: DmaPeer }> {
  const main = new DmaPeer();
  const peer = twin ? new DmaPeer() : main;
  const opening = connect({ fd: main.clientFd });
  const reply = (to: Buffer, payload: Buffer) =>
    message(to.readUInt16LE(0), to.readUInt16LE(2), REPLY, 0, payload);
  const capabilities = twin ? { twin_socket: { supported: true, fd_index: 0 } } : {};
  const json = Buffer.from(`${JSON.stringify({ capabilities })}\0`);
  const version = Buffer.concat([Buffer.from([0, 0, 2, 0]), json]);
  const greeting = reply(await main.receive(), version);
  const info = await main.exchange(greeting, null, twin ? [peer.clientFd] : null);
  if (twin) native().closeFd(peer.clientFd);
  await main.send(reply(info, words(16, 1, 0, 0)));
  const device = await opening;
  cleanups.push(async () => {
    await device.close();
    main.close();
    peer.close();
  });
  return { device, peer, main };
}

/** Lets the client map something, and answers its DMA_MAP. */
async function answered<T>(main: DmaPeer, asked: Promise<T>): Promise<T> {
  const map = await main.receive();
  await main.send(message(map.readUInt16LE(0), map.readUInt16LE(2), REPLY, 0, Buffer.alloc(0)));
  return asked;
}

interface Target {
  peer: DmaPeer;
  iova: bigint;
  bytes: Buffer;
}

/** Memory of the library's own. */
async function ownMemory(twin: boolean): Promise<Target> {
  const { device, peer, main } = await open(twin);
  const buffer = await answered(main, device.dma.alloc(SIZE));
  return { peer, iova: buffer.iova, bytes: buffer.bytes };
}

/** A file of the caller's, which the library must not trust: it is read and written another way. */
async function callersFile(twin: boolean): Promise<Target> {
  const { device, peer, main } = await open(twin);
  const path = join(tmpdir(), `vfio-user-dma-sizes-${process.pid}`);
  const fd = openSync(path, 'wx+');
  rmSync(path);
  ftruncateSync(fd, SIZE);
  const mapping = native().map(fd, 0, SIZE, true, true) as NativeMapping;
  const { iova } = await answered(main, device.dma.map({ fd, size: SIZE, share: false }));
  native().closeFd(fd);
  cleanups.push(() => mapping.close());
  return { peer, iova, bytes: Buffer.from(mapping.view(0, SIZE) as ArrayBuffer) };
}

const guard = Buffer.alloc(GUARD, 0x5a);

/** Both ways once; undefined where all is as it should be. Nothing else is touched at either end. */
async function wrongWith(target: Target, size: number, offset: number): Promise<string | undefined> {
  const { peer, bytes, iova } = target;
  const data = source.subarray((size * 31 + offset) % MIB).subarray(0, size);
  const end = offset + size;
  const before = Math.max(0, offset - GUARD);
  bytes.fill(0x5a, before, offset);
  bytes.fill(0x5a, end, end + GUARD);
  const address = iova + BigInt(offset);
  const id = (size * 7 + offset) & 0xffff;

  const written = await peer.write(id, address, data);
  if (!isHead(written, id, 12, 32, address, size) || written.length !== 32) return 'the reply to the write';
  if (data.compare(bytes, offset, end) !== 0) return 'what was written';
  if (guard.compare(bytes, end, end + GUARD) !== 0) return 'what lies behind';
  if (guard.compare(bytes, before, offset, 0, offset - before) !== 0) return 'what lies before';

  const got = await peer.read(id ^ 1, address, size);
  if (!isHead(got, id ^ 1, 11, 32 + size, address, size)) return 'the reply to the read';
  if (data.compare(got, 32) !== 0) return 'what was read';
  return undefined;
}

function isHead(
  reply: Buffer,
  id: number,
  command: number,
  size: number,
  address: bigint,
  count: number,
): boolean {
  return (
    reply.readUInt16LE(0) === id &&
    reply.readUInt16LE(2) === command &&
    reply.readUInt32LE(4) === size &&
    reply.length === size &&
    reply.readUInt32LE(8) === REPLY &&
    reply.readUInt32LE(12) === 0 &&
    reply.readBigUInt64LE(16) === address &&
    reply.readBigUInt64LE(24) === BigInt(count)
  );
}

async function expectAll(target: Target, cases: Iterable<readonly [size: number, offset: number]>) {
  let done = 0;
  for (const [size, offset] of cases) {
    const wrong = await wrongWith(target, size, offset);
    if (wrong !== undefined) throw new Error(`${size} bytes at offset ${offset}: ${wrong}`);
    done++;
  }
  return done;
}

/** Where a size begins in the first page: the sizes together take every place. */
const offsetOf = (size: number): number => (size * 1021) % PAGE;

function chosenSizes(): number[] {
  const sizes = new Set<number>();
  for (let size = 1; size <= 4200; size++) sizes.add(size);
  const around: number[] = [];
  for (let multiple = PAGE; multiple <= MIB; multiple += PAGE) around.push(multiple);
  for (let power = 1; power <= MIB; power *= 2) around.push(power);
  for (const at of around) for (const size of [at - 1, at, at + 1]) sizes.add(size);
  return [...sizes].filter((size) => size >= 1 && size <= MIB).sort((a, b) => a - b);
}

(every === '' ? describe : describe.skip)('DMA by message', () => {
  test.each<[string, () => Promise<Target>]>([
    ['on the command socket', () => ownMemory(false)],
    ['on the twin socket', () => ownMemory(true)],
    ["on the twin socket, in a caller's file", () => callersFile(true)],
  ])('every size to 4,200, and around every page and power of two to 1 MiB, %s', async (_title, make) => {
    const sizes = chosenSizes();
    expect(sizes.length).toBeGreaterThan(4_900);
    const target = await make();
    expect(
      await expectAll(
        target,
        sizes.map((size) => [size, offsetOf(size)] as const),
      ),
    ).toBe(sizes.length);
  });

  test.each([
    ['on the command socket', false],
    ['on the twin socket', true],
  ])('every offset in the first page, %s', async (_title, twin) => {
    const target = await ownMemory(twin);
    const offsets = Array.from({ length: PAGE }, (_, offset) => offset);
    for (const size of [1, 6, PAGE - 1, PAGE, PAGE + 3, 3 * PAGE + 1]) {
      expect(
        await expectAll(
          target,
          offsets.map((offset) => [size, offset] as const),
        ),
      ).toBe(PAGE);
    }
  });

  test("every offset in the first page, in a caller's file", async () => {
    const target = await callersFile(false);
    for (const size of [1, PAGE, 2 * PAGE + 1]) {
      const offsets = Array.from({ length: PAGE }, (_, offset) => [size, offset] as const);
      expect(await expectAll(target, offsets)).toBe(PAGE);
    }
  });

  test('more than one request takes is the sum of its requests, whatever their lengths', async () => {
    const { device, peer, main } = await open(true);
    const size = 5 * MIB + 12_345;
    const buffer = await answered(main, device.dma.alloc(size));
    for (const step of [MIB, MIB - 1, 700_001]) {
      buffer.bytes.fill(0);
      for (let at = 0; at < size; at += step) {
        const data = source.subarray(at % MIB, (at % MIB) + Math.min(step, size - at));
        const written = await peer.write(1, buffer.iova + BigInt(at), data);
        expect(isHead(written, 1, 12, 32, buffer.iova + BigInt(at), data.length)).toBe(true);
      }
      for (let at = 0; at < size; at += step) {
        const data = source.subarray(at % MIB, (at % MIB) + Math.min(step, size - at));
        expect(data.compare(buffer.bytes, at, at + data.length)).toBe(0);
        const got = await peer.read(2, buffer.iova + BigInt(at), data.length);
        expect(data.compare(got, 32)).toBe(0);
      }
    }
  });
});

(every === '' ? describe : describe.skip)('the device of an emulator in the same process', () => {
  test.each([1, PAGE, MIB - 1, MIB, MIB + 1, 3 * MIB + 7])('copies %d bytes by message', async (length) => {
    const scratch = new Scratch();
    const ram = new RamDevice();
    const server = await serve(ram, { path: scratch.path('socket') });
    const device = await connect(scratch.path('socket'), { secureDma: true });
    cleanups.push(
      () => scratch.remove(),
      () => ram.close(),
      () => server.close(),
      () => device.close(),
    );
    const from = await device.dma.alloc(4 * MIB);
    const to = await device.dma.alloc(4 * MIB);
    for (let at = 0; at < from.size; at += 2 * MIB) source.copy(from.bytes, at, 0, 2 * MIB);
    const bar = device.bar(0);
    await bar.writeUInt64(RamRegister.DMA_SOURCE, from.iova + 13n);
    await bar.writeUInt64(RamRegister.DMA_DESTINATION, to.iova + 4093n);
    await bar.writeUInt32(RamRegister.DMA_LENGTH, length);
    await bar.writeUInt32(RamRegister.DMA_COMMAND, RamDma.COPY);
    expect(from.bytes.compare(to.bytes, 4093, 4093 + length, 13, 13 + length)).toBe(0);
    expect(to.bytes.subarray(0, 4093).every((byte) => byte === 0)).toBe(true);
    expect(to.bytes.subarray(4093 + length).every((byte) => byte === 0)).toBe(true);
    expect(device.counters).toMatchObject({ served: 2 * Math.ceil(length / MIB), refused: 0 });
  });
});

(every === '' ? describe.skip : describe)('DMA by message (VFIO_USER_DMA_SIZES names the sizes)', () => {
  test(
    'every single size',
    async () => {
      const [from = NaN, to = NaN] = every.split('-').map(Number);
      if (!(from >= 1 && to >= from && to <= MIB)) throw new RangeError(`VFIO_USER_DMA_SIZES=${every}`);
      const target = await ownMemory(true);
      const cases = function* (): Generator<readonly [number, number]> {
        for (let size = from; size <= to; size++) yield [size, offsetOf(size)];
      };
      expect(await expectAll(target, cases())).toBe(to - from + 1);
    },
    6 * 3_600_000,
  );
});
