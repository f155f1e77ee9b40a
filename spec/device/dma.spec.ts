import { ftruncateSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import {
  ClosedError,
  ProtocolError,
  RemoteError,
  TimeoutError,
  TransportError,
  UnsupportedError,
} from '../../lib/errors.js';
import { F_SEAL_GROW, F_SEAL_SHRINK, native, type FdInfo } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import { words } from '../support/scripted-peer.js';
import { dmaReadRequest, dmaWriteRequest } from '../support/wire.js';
import { DmaDevice, turn, until, type DmaDeviceOptions } from './dma-device.js';

const MIB = 1 << 20;
const EACCES = 13;
const EINVAL = 22;
const EIO = 5;

let device: DmaDevice;
let fdsBefore: number;
let ownFds: number[];

async function open(options?: DmaDeviceOptions): Promise<void> {
  device = await DmaDevice.open(options);
}

/** Memory of the caller's. */
function memfd(size: number): number {
  const fd = native().memfd('spec', size, false);
  if (fd < 0) throw new Error(`memfd: errno ${-fd}`);
  ownFds.push(fd);
  return fd;
}

/** A file without a name that others may truncate, all of it a hole. */
function file(size: number): number {
  const path = join(tmpdir(), `vfio-user-dma-${process.pid}-${ownFds.length}`);
  const fd = openSync(path, 'wx+');
  rmSync(path);
  ownFds.push(fd);
  ftruncateSync(fd, size);
  return fd;
}

// The test runner itself opens and closes files while it starts.
beforeAll(() => turn(200));

beforeEach(() => {
  fdsBefore = openFds();
  ownFds = [];
});

afterEach(async () => {
  device.close();
  for (const fd of ownFds) native().closeFd(fd);
  await turn();
  expect(openFds()).toBe(fdsBefore);
});

describe('alloc', () => {
  test('gives zeroed memory that the server has too', async () => {
    await open();
    const buffer = await device.dma.alloc(10_000);
    expect(device.takeLog()).toEqual(['MAP 0x100000000+0x400000 flags 3, 1 fds']);
    expect(buffer).toMatchObject({ iova: 0x1_0000_0000n, size: 10_000, isClosed: false });
    expect(buffer.bytes).toEqual(Buffer.alloc(10_000));
    expect(buffer.bytes.byteOffset).toBe(0);
    expect(buffer.bytes.buffer.byteLength).toBe(10_000);

    const server = device.maps.get(buffer.iova)!.memory!;
    buffer.bytes.fill(0xab);
    expect(server.subarray(0, 10_000)).toEqual(Buffer.alloc(10_000, 0xab));
    server.fill(0xcd);
    expect(buffer.bytes).toEqual(Buffer.alloc(10_000, 0xcd));
  });

  test('the memory is of 2 MiB pieces, allocated, and cannot be resized', async () => {
    await open();
    const shared: (FdInfo | number)[] = [];
    device.peer.onMessage((received) => {
      shared.push(native().fdInfo(received.fds[0]!));
      for (const fd of received.fds) native().closeFd(fd);
      device.peer.reply(received);
    });
    await device.dma.alloc(1);
    const info = shared[0] as FdInfo;
    expect(info.size).toBe(4 * MIB);
    expect(info.seals & (F_SEAL_SHRINK | F_SEAL_GROW)).toBe(F_SEAL_SHRINK | F_SEAL_GROW);
  });

  test('small buffers share one mapping, each at its alignment and apart from the others', async () => {
    await open();
    const wanted = [
      [1, undefined],
      [100, 16],
      [4096, undefined],
      [64, 1],
      [8192, 65536],
      [3, 2 * MIB],
    ] as const;
    const buffers = await Promise.all(
      wanted.map(([size, alignment]) => device.dma.alloc(size, { alignment })),
    );
    expect(device.takeLog()).toHaveLength(1);
    for (const [index, buffer] of buffers.entries()) {
      expect(buffer.iova % BigInt(wanted[index]![1] ?? 4096)).toBe(0n);
      buffer.bytes.fill(index + 1);
    }
    for (const [index, buffer] of buffers.entries()) {
      expect(buffer.bytes).toEqual(Buffer.alloc(buffer.size, index + 1));
    }
  });

  test('asking for many at once makes no more mappings than needed', async () => {
    await open({ capabilities: { max_dma_maps: 16 } });
    const buffers = await Promise.all(Array.from({ length: 64 }, () => device.dma.alloc(MIB)));
    // Eight of 4 MiB, and then one that is as large as they are together.
    expect(device.takeLog()).toHaveLength(9);
    expect(new Set(buffers.map((buffer) => buffer.iova)).size).toBe(64);
    await buffers[7]!.free();
    expect((await device.dma.alloc(MIB)).iova).toBe(buffers[7]!.iova);
    expect(device.takeLog()).toEqual([]);
  });

  test('a server with few slots: they are named when they are used up', async () => {
    await open({ capabilities: { max_dma_maps: 2 } });
    const buffers = await Promise.all(Array.from({ length: 8 }, () => device.dma.alloc(MIB)));
    expect(device.takeLog()).toEqual([
      'MAP 0x100000000+0x400000 flags 3, 1 fds',
      'MAP 0x100400000+0x400000 flags 3, 1 fds',
    ]);
    await expect(device.dma.alloc(MIB)).rejects.toThrow(UnsupportedError);
    await expect(device.dma.alloc(MIB)).rejects.toThrow(/2 .*max_dma_maps/);
    await buffers[0]!.free();
    expect((await device.dma.alloc(MIB)).iova).toBe(buffers[0]!.iova);
  });

  test('with 16 slots, hundreds of MiB in small and large buffers', async () => {
    await open({ capabilities: { max_dma_maps: 16 } });
    const buffers = [];
    for (let i = 0; i < 40; i++) {
      buffers.push(await device.dma.alloc(MIB), await device.dma.alloc(5 * MIB));
    }
    expect(device.maps.size).toBeLessThanOrEqual(16);
    const places = buffers.map(({ iova, size }) => ({ iova, size })).sort((a, b) => Number(a.iova - b.iova));
    for (const [i, { iova, size }] of places.entries()) {
      if (i > 0) expect(iova).toBeGreaterThanOrEqual(places[i - 1]!.iova + BigInt(places[i - 1]!.size));
      const map = [...device.maps.values()].find(
        (m) => iova >= m.address && iova + BigInt(size) <= m.address + BigInt(m.size),
      );
      expect(map).toBeDefined();
    }
    for (const buffer of buffers) await buffer.free();
  });

  test('a refusal with 16 mappings says what it may mean', async () => {
    await open();
    const fd = memfd(17 * 4096);
    for (let i = 0; i < 16; i++) await device.dma.map({ fd, offset: i * 4096, size: 4096 });
    device.fate = () => EINVAL;
    await expect(device.dma.map({ fd, offset: 0, size: 4096 })).rejects.toThrow(
      /EINVAL \(16 mappings exist, and some servers, QEMU among them, take 16 without saying so\)/,
    );
    expect(await device.dma.map({ fd, size: 4096 }).catch((error: unknown) => error)).toBeInstanceOf(
      RemoteError,
    );
  });

  test('freed memory is used again, zeroed', async () => {
    await open();
    const first = await device.dma.alloc(4096);
    const { iova } = first;
    first.bytes.fill(0xee);
    await first.free();
    expect(first.isClosed).toBe(true);
    expect(first.bytes).toHaveLength(0);
    await first.free();
    const second = await device.dma.alloc(4096);
    expect(second.iova).toBe(iova);
    expect(second.bytes).toEqual(Buffer.alloc(4096));
    expect(device.takeLog()).toHaveLength(1);
  });

  test('a large buffer has a mapping of its own, in 2 MiB chunks, which goes with it', async () => {
    await open();
    await device.dma.alloc(1);
    const large = await device.dma.alloc(5 * MIB + 1);
    const view = large.bytes;
    expect(large.iova % BigInt(2 * MIB)).toBe(0n);
    expect(view).toHaveLength(5 * MIB + 1);
    await large.free();
    expect(device.takeLog()).toEqual([
      'MAP 0x100000000+0x400000 flags 3, 1 fds',
      'MAP 0x100400000+0x600000 flags 3, 1 fds',
      'UNMAP 0x100400000+0x600000',
    ]);
    expect(view).toHaveLength(0);
    expect((await device.dma.alloc(6 * MIB)).iova).toBe(0x1_0040_0000n);
  });

  test('arenaBytes says how much small buffers share', async () => {
    await open({ arenaBytes: 5 * MIB });
    await device.dma.alloc(6 * MIB);
    expect(device.takeLog()).toEqual(['MAP 0x100000000+0x600000 flags 3, 1 fds']);
    await device.dma.alloc(6 * MIB + 1);
    expect(device.takeLog()).toEqual(['MAP 0x100600000+0x800000 flags 3, 1 fds']);
  });

  test('what the device may do, and through what, keeps buffers in different mappings', async () => {
    await open();
    await device.dma.alloc(1);
    await device.dma.alloc(1, { writable: false });
    await device.dma.alloc(1, { readable: false });
    await device.dma.alloc(1, { share: false });
    await device.dma.alloc(1, { share: true });
    expect(device.takeLog()).toEqual([
      'MAP 0x100000000+0x400000 flags 3, 1 fds',
      'MAP 0x100400000+0x400000 flags 1, 1 fds',
      'MAP 0x100800000+0x400000 flags 2, 1 fds',
      'MAP 0x100c00000+0x400000 flags 3, 0 fds',
    ]);
  });

  test('a device with few address bits gets addresses that it has', async () => {
    await open();
    await device.dma.alloc(1);
    const low = await device.dma.alloc(1, { addressBits: 28 });
    expect(low.iova).toBe(0x20_0000n);
    const wide = await device.dma.alloc(1, { addressBits: 40 });
    expect(wide.iova).toBe(0x1_0000_1000n);
    expect(device.takeLog()).toHaveLength(2);
    await expect(device.dma.alloc(1, { addressBits: 20 })).rejects.toThrow(RangeError);
  });

  test('addresses below 4 GiB leave out the place where MSIs are written', async () => {
    await open();
    const fd = memfd(4 * MIB);
    await device.dma.map({ fd, size: 4096, iova: 0x20_0000n });
    // In use up to the last 2 MiB below it.
    const big = 0xfee0_0000 - 3 * 2 * MIB;
    await device.dma.map({ fd: file(big), size: big, addressBits: 32, share: false });
    const last = await device.dma.map({ fd, size: 2 * MIB, addressBits: 32 });
    expect(last.iova).toBe(0xfec0_0000n);
    const beyond = await device.dma.map({ fd, size: 2 * MIB, addressBits: 32 });
    expect(beyond.iova).toBe(0xff00_0000n);
  });

  test.each([
    ['no size', 0, {}],
    ['a negative size', -1, {}],
    ['half a byte', 1.5, {}],
    ['more than one buffer can have', 2 ** 32 + 1, {}],
    ['an alignment that is no power of two', 1, { alignment: 3 }],
    ['an alignment beyond 2 MiB', 1, { alignment: 4 * MIB }],
    ['an alignment of zero', 1, { alignment: 0 }],
    ['too few address bits', 1, { addressBits: 8 }],
  ])('%s is a RangeError, and nothing is sent', async (_, size, options) => {
    await open();
    await expect(device.dma.alloc(size, options)).rejects.toThrow(RangeError);
    expect(device.log).toEqual([]);
  });

  test('neither readable nor writable is a TypeError', async () => {
    await open();
    await expect(device.dma.alloc(1, { readable: false, writable: false })).rejects.toThrow(TypeError);
    await expect(device.dma.alloc('1' as never)).rejects.toThrow(TypeError);
  });

  test('a refusal leaves nothing behind', async () => {
    await open();
    device.fate = () => EINVAL;
    await expect(device.dma.alloc(1)).rejects.toThrow(RemoteError);
    await expect(device.dma.alloc(8 * MIB)).rejects.toMatchObject({ code: 'EINVAL', command: 'DMA_MAP' });
    device.fate = () => undefined;
    expect((await device.dma.alloc(1)).iova).toBe(0x1_0000_0000n);
  });

  test('of several that wait for one mapping, each tries for itself when it is refused', async () => {
    await open();
    let refusals = 1;
    device.fate = () => (refusals-- > 0 ? EINVAL : undefined);
    const results = await Promise.allSettled([1, 2, 3].map((size) => device.dma.alloc(size)));
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled']);
    expect(device.log).toHaveLength(2);
  });

  test('one that waits for a mapping that another asked for has a deadline and a signal of its own', async () => {
    await open();
    device.fate = () => 'silence';
    const first = device.dma.alloc(1);
    const stop = new AbortController();
    const second = device.dma.alloc(1, { timeoutMs: 20 });
    const third = device.dma.alloc(1, { signal: stop.signal });
    await expect(device.dma.alloc(1, { signal: AbortSignal.abort('early') })).rejects.toBe('early');
    await expect(second).rejects.toThrow(TimeoutError);
    stop.abort('stop');
    await expect(third).rejects.toBe('stop');
    await until(() => device.silenced.length > 0);
    device.peer.reply(device.silenced[0]!);
    expect((await first).iova).toBe(0x1_0000_0000n);
  });

  test('the smallest page of the server is kept to', async () => {
    await open({ capabilities: { pgsizes: 0x4000_0000 + 0x100_0000 } });
    const buffer = await device.dma.alloc(17 * MIB);
    expect(buffer.iova % BigInt(16 * MIB)).toBe(0n);
    expect(device.takeLog()).toEqual(['MAP 0x100000000+0x2000000 flags 3, 1 fds']);
    const fd = memfd(16 * MIB);
    await expect(device.dma.map({ fd, size: 4096 })).rejects.toThrow(/multiple of 16777216/);
    await expect(device.dma.map({ fd, size: 16 * MIB, iova: 0x1000n })).rejects.toThrow(
      /multiple of 16777216/,
    );
  });

  test('a server that takes no mappings is named', async () => {
    await open({ capabilities: { max_dma_maps: 0 } });
    await expect(device.dma.alloc(1)).rejects.toThrow(UnsupportedError);
  });
});

describe('map', () => {
  test("lets the server use the caller's memory, whose fd may be closed at once", async () => {
    await open();
    const fd = native().memfd('spec', 3 * 4096, false);
    const mapping = device.dma.map({ fd, offset: 4096, size: 8192, iova: 0xffff_ffff_ffff_e000n });
    native().closeFd(fd);
    expect(await mapping).toMatchObject({ iova: 0xffff_ffff_ffff_e000n, size: 8192, isClosed: false });
    expect(device.takeLog()).toEqual(['MAP 0xffffffffffffe000+0x2000 offset 0x1000 flags 3, 1 fds']);
    device.maps.get(0xffff_ffff_ffff_e000n)!.memory!.write('from the server', 8000);
    const answer = await device.ask(dmaReadRequest({ address: 0xffff_ffff_ffff_e000n + 8000n, count: 15 }));
    expect(answer.payload.subarray(16).toString()).toBe('from the server');
    await (await mapping).unmap();
    expect((await mapping).isClosed).toBe(true);
    expect(device.takeLog()).toEqual(['UNMAP 0xffffffffffffe000+0x2000']);
  });

  test('addresses that the library chooses lie on 2 MiB', async () => {
    await open();
    const fd = memfd(4096);
    const one = await device.dma.map({ fd, size: 4096 });
    const two = await device.dma.map({ fd, size: 4096 });
    expect([one.iova, two.iova]).toEqual([0x1_0000_0000n, 0x1_0020_0000n]);
  });

  test('share: false withholds the fd, and its offset', async () => {
    await open();
    await device.dma.map({ fd: memfd(8192), offset: 4096, size: 4096, share: false, writable: false });
    expect(device.takeLog()).toEqual(['MAP 0x100000000+0x1000 flags 1, 0 fds']);
  });

  test('secureDma withholds every fd', async () => {
    await open({ secureDma: true });
    const fd = memfd(4096);
    await device.dma.map({ fd, size: 4096 });
    await device.dma.alloc(1);
    expect(device.log.every((line) => line.endsWith(', 0 fds'))).toBe(true);
    await expect(device.dma.map({ fd, size: 4096, share: true })).rejects.toThrow(/secureDma/);
    await expect(device.dma.alloc(1, { share: true })).rejects.toThrow(UnsupportedError);
  });

  test('a server that takes no fds is given none', async () => {
    await open({ capabilities: { max_msg_fds: 0 } });
    await device.dma.alloc(1);
    expect(device.takeLog()).toEqual(['MAP 0x100000000+0x400000 flags 3, 0 fds']);
    await expect(device.dma.alloc(1, { share: true })).rejects.toThrow(UnsupportedError);
  });

  test('overlaps are refused before anything is sent', async () => {
    await open();
    const fd = memfd(16 * 4096);
    await device.dma.map({ fd, size: 4 * 4096, iova: 0x10_0000n });
    device.takeLog();
    for (const [iova, pages] of [
      [0x10_0000n, 4],
      [0x10_1000n, 1],
      [0xf_f000n, 2],
      [0xf_f000n, 16],
      [0x10_3000n, 2],
    ] as const) {
      await expect(device.dma.map({ fd, size: pages * 4096, iova })).rejects.toThrow(/overlap/);
    }
    expect(device.log).toEqual([]);
    await device.dma.map({ fd, size: 4096, iova: 0xf_f000n });
    await device.dma.map({ fd, size: 4096, iova: 0x10_4000n });
  });

  test('also with one that is under way', async () => {
    await open();
    const fd = memfd(4096);
    const first = device.dma.map({ fd, size: 4096, iova: 0x1000n });
    await expect(device.dma.map({ fd, size: 4096, iova: 0x1000n })).rejects.toThrow(RangeError);
    await first;
    expect(device.log).toHaveLength(1);
  });

  test.each([
    ['a size between pages', { size: 100 }],
    ['no size', { size: 0 }],
    ['an offset between pages', { size: 4096, offset: 10 }],
    ['a negative offset', { size: 4096, offset: -4096 }],
    ['an address between pages', { size: 4096, iova: 100n }],
    ['a negative address', { size: 4096, iova: -4096n }],
    ['addresses that wrap', { size: 8192, iova: 0xffff_ffff_ffff_f000n }],
    ['an address beyond 64 bits', { size: 4096, iova: 1n << 64n }],
    ["more than the file's bytes", { size: 16384 }],
    ['an offset that leaves too few', { size: 8192, offset: 4096 }],
    ['a file that is short for its addresses', { size: 2 ** 52, iova: 0n }],
  ])('%s is a RangeError', async (_, options) => {
    await open();
    await expect(device.dma.map({ fd: memfd(8192), ...options })).rejects.toThrow(RangeError);
    expect(device.log).toEqual([]);
  });

  test('an fd that is none, or may not be written, is a TransportError', async () => {
    await open();
    await expect(device.dma.map({ fd: 99_999, size: 4096 })).rejects.toMatchObject({ code: 'EBADF' });
    const readOnly = openSync(`/proc/self/fd/${file(4096)}`, 'r');
    ownFds.push(readOnly);
    await expect(device.dma.map({ fd: readOnly, size: 4096 })).rejects.toThrow(TransportError);
    await device.dma.map({ fd: readOnly, size: 4096, writable: false });
    expect(device.takeLog()).toEqual(['MAP 0x100000000+0x1000 flags 1, 1 fds']);
  });

  test('the limit of the server is named before anything is sent', async () => {
    await open({ capabilities: { max_dma_maps: 2 } });
    const fd = memfd(4096);
    const first = await device.dma.map({ fd, size: 4096 });
    await device.dma.map({ fd, size: 4096 });
    device.takeLog();
    await expect(device.dma.map({ fd, size: 4096, iova: 0n })).rejects.toThrow(/at most 2 DMA mappings/);
    await expect(device.dma.map({ fd, size: 4096 })).rejects.toThrow(UnsupportedError);
    await first.unmap();
    expect((await device.dma.map({ fd, size: 4096, iova: 0n })).iova).toBe(0n);
  });

  test('closes fds that come with a reply', async () => {
    await open();
    const extra = native().eventfd(0);
    device.fate = () => 'silence';
    const mapping = device.dma.map({ fd: memfd(4096), size: 4096 });
    await until(() => device.silenced.length > 0);
    device.peer.reply(device.silenced[0]!, Buffer.alloc(0), [extra]);
    await mapping;
    native().closeFd(extra);
  });
});

describe('unmap', () => {
  test('by address and size, exactly those of a mapping', async () => {
    await open();
    const mapping = await device.dma.map({ fd: memfd(8192), size: 8192 });
    const buffer = await device.dma.alloc(5 * MIB);
    device.takeLog();
    await expect(device.dma.unmap(mapping.iova, 4096)).rejects.toThrow(RangeError);
    await expect(device.dma.unmap(mapping.iova + 4096n, 4096)).rejects.toThrow(RangeError);
    await expect(device.dma.unmap(mapping.iova, 8191)).rejects.toThrow(RangeError);
    await expect(device.dma.unmap(0n, 8192)).rejects.toThrow(RangeError);
    await expect(device.dma.unmap(buffer.iova, 6 * MIB)).rejects.toThrow(RangeError);
    await expect(device.dma.unmap(1 as never, 8192)).rejects.toThrow(TypeError);
    expect(device.log).toEqual([]);
    await device.dma.unmap(mapping.iova, mapping.size);
    expect(mapping.isClosed).toBe(true);
    await expect(device.dma.unmap(mapping.iova, mapping.size)).rejects.toThrow(RangeError);
  });

  test('asked for twice is sent once', async () => {
    await open();
    const mapping = await device.dma.map({ fd: memfd(4096), size: 4096 });
    device.takeLog();
    await Promise.all([mapping.unmap(), mapping.unmap()]);
    await mapping.unmap();
    expect(device.takeLog()).toHaveLength(1);
  });

  test('refused by the server, it is still mapped', async () => {
    await open();
    const mapping = await device.dma.map({ fd: memfd(4096), size: 4096 });
    const buffer = await device.dma.alloc(5 * MIB);
    device.fate = () => EIO;
    await expect(mapping.unmap()).rejects.toThrow(RemoteError);
    await expect(buffer.free()).rejects.toThrow(RemoteError);
    expect([mapping.isClosed, buffer.isClosed]).toEqual([false, false]);
    expect((await device.ask(dmaReadRequest({ address: mapping.iova, count: 1 }))).errno).toBe(0);
    buffer.bytes.fill(1);
    device.fate = () => undefined;
    await mapping.unmap();
    await buffer.free();
    expect([mapping.isClosed, buffer.isClosed]).toEqual([true, true]);
  });

  test('an empty reply is as good as one that repeats the request', async () => {
    await open();
    const mapping = await device.dma.map({ fd: memfd(4096), size: 4096 });
    device.fate = () => Buffer.alloc(0);
    await mapping.unmap();
    expect((await device.dma.map({ fd: ownFds[0]!, size: 4096 })).iova).toBe(mapping.iova);
  });

  test.each([
    ['another address', (iova: bigint) => words(24, 0, [iova + 4096n], [4096n])],
    ['another size', (iova: bigint) => words(24, 0, [iova], [8192n])],
    ['half of it', (iova: bigint) => words(24, 0, [iova])],
    ['more than it', (iova: bigint) => words(24, 0, [iova], [4096n], 0)],
  ])('a reply with %s is a ProtocolError, and the addresses are not used again', async (_, reply) => {
    await open();
    const fd = memfd(4096);
    const mapping = await device.dma.map({ fd, size: 4096 });
    device.fate = (line) => (line.startsWith('UNMAP') ? reply(mapping.iova) : undefined);
    await expect(mapping.unmap()).rejects.toThrow(ProtocolError);
    expect(mapping.isClosed).toBe(true);
    await expect(device.dma.map({ fd, size: 4096, iova: mapping.iova })).rejects.toThrow(/given up/);
  });

  test('the server may use the memory until it has answered', async () => {
    await open();
    const mapping = await device.dma.map({ fd: memfd(4096), size: 4096 });
    device.fate = () => 'silence';
    const unmapped = mapping.unmap();
    await until(() => device.silenced.length > 0);
    const write = dmaWriteRequest({ address: mapping.iova, data: Buffer.from('last words') });
    expect(await device.ask(write)).toMatchObject({ flags: 1, errno: 0 });
    device.peer.reply(device.silenced[0]!, device.silenced[0]!.payload);
    await unmapped;
    expect(await device.ask(write)).toMatchObject({ flags: 0x21, errno: 14 });
  });
});

describe('quarantine', () => {
  test('a DMA_MAP that timed out keeps its addresses and its memory', async () => {
    await open();
    const fd = memfd(4096);
    device.fate = () => 'silence';
    await expect(device.dma.map({ fd, size: 4096, iova: 0x1000n, timeoutMs: 20 })).rejects.toThrow(
      TimeoutError,
    );
    await expect(device.dma.alloc(1, { timeoutMs: 20 })).rejects.toThrow(TimeoutError);
    device.fate = () => undefined;
    await expect(device.dma.map({ fd, size: 4096, iova: 0x1000n })).rejects.toThrow(/given up/);
    expect((await device.dma.alloc(1)).iova).toBe(0x1_0040_0000n);
    // The server may have carried it out all the same.
    expect((await device.ask(dmaReadRequest({ address: 0x1000n, count: 1 }))).errno).toBe(0);
    for (const late of device.silenced) device.peer.reply(late);
    await until(() => device.connection.counters.late === 2);
    await expect(device.dma.map({ fd, size: 4096, iova: 0x1000n })).rejects.toThrow(/given up/);
  });

  test('so does one that was aborted after it was sent', async () => {
    await open();
    const fd = memfd(4096);
    device.fate = () => 'silence';
    const stop = new AbortController();
    const mapping = device.dma.map({ fd, size: 4096, iova: 0x1000n, signal: stop.signal });
    const refused = expect(mapping).rejects.toBe('enough');
    await until(() => device.silenced.length > 0);
    stop.abort('enough');
    await refused;
    await expect(device.dma.map({ fd, size: 4096, iova: 0x1000n })).rejects.toThrow(/given up/);
  });

  test('one that was aborted before it was sent leaves nothing behind', async () => {
    await open({ inFlight: 1 });
    const fd = memfd(4096);
    device.fate = () => 'silence';
    const busy = device.dma.map({ fd, size: 4096, iova: 0x10_0000n });
    const queued = device.dma.map({ fd, size: 4096, iova: 0x1000n, timeoutMs: 20 });
    await expect(queued).rejects.toThrow(TimeoutError);
    const aborted = device.dma.map({ fd, size: 4096, iova: 0x1000n, signal: AbortSignal.abort('no') });
    await expect(aborted).rejects.toBe('no');
    device.peer.reply(device.silenced[0]!);
    await busy;
    device.fate = () => undefined;
    await device.dma.map({ fd, size: 4096, iova: 0x1000n });
    expect(device.log).toHaveLength(2);
  });

  test('a DMA_UNMAP that timed out keeps addresses and memory, for buffers too', async () => {
    await open();
    const fd = memfd(4096);
    const mapping = await device.dma.map({ fd, size: 4096 });
    const buffer = await device.dma.alloc(5 * MIB);
    buffer.bytes.write('still here');
    device.fate = () => 'silence';
    await expect(mapping.unmap({ timeoutMs: 20 })).rejects.toThrow(TimeoutError);
    await expect(buffer.free({ timeoutMs: 20 })).rejects.toThrow(TimeoutError);
    expect([mapping.isClosed, buffer.isClosed]).toEqual([true, true]);
    device.fate = () => undefined;
    await expect(device.dma.map({ fd, size: 4096, iova: mapping.iova })).rejects.toThrow(/given up/);
    const answer = await device.ask(dmaReadRequest({ address: buffer.iova, count: 10 }));
    expect(answer.payload.subarray(16).toString()).toBe('still here');
    expect((await device.dma.alloc(5 * MIB)).iova).not.toBe(buffer.iova);
    // Given up once, there is nothing more to do.
    device.takeLog();
    await mapping.unmap();
    await buffer.free();
    expect(device.log).toEqual([]);
  });

  test('what is given up counts against the limit of the server', async () => {
    await open({ capabilities: { max_dma_maps: 1 } });
    device.fate = () => 'silence';
    await expect(device.dma.alloc(1, { timeoutMs: 20 })).rejects.toThrow(TimeoutError);
    await expect(device.dma.alloc(1)).rejects.toThrow(UnsupportedError);
  });
});

describe('commands in flight', () => {
  test('one at a time while the server must ask for memory on the command socket', async () => {
    await open();
    expect(device.connection.inFlightLimit).toBe(128);
    const fd = memfd(4096);
    const shared = await device.dma.map({ fd, size: 4096 });
    expect(device.connection.inFlightLimit).toBe(128);
    const one = device.dma.map({ fd, size: 4096, share: false });
    expect(device.connection.inFlightLimit).toBe(1);
    const two = await device.dma.map({ fd, size: 4096, share: false });
    await (await one).unmap();
    await shared.unmap();
    expect(device.connection.inFlightLimit).toBe(1);
    await two.unmap();
    expect(device.connection.inFlightLimit).toBe(128);
  });

  test('also after a refusal', async () => {
    await open();
    device.fate = () => EACCES;
    await expect(device.dma.alloc(1, { share: false })).rejects.toThrow(RemoteError);
    expect(device.connection.inFlightLimit).toBe(128);
  });

  test('not with a twin socket', async () => {
    await open({ twin: true });
    await device.dma.alloc(1, { share: false });
    expect(device.connection.inFlightLimit).toBe(128);
  });

  test('not where the user said how many', async () => {
    await open({ inFlight: 5 });
    await device.dma.alloc(1, { share: false });
    expect(device.connection.inFlightLimit).toBe(5);
  });
});

describe('the end', () => {
  test('closing the device detaches every buffer and closes every mapping', async () => {
    await open();
    const small = await device.dma.alloc(4096);
    const large = await device.dma.alloc(5 * MIB);
    const mapping = await device.dma.map({ fd: memfd(4096), size: 4096 });
    const views = [small.bytes, large.bytes];
    device.close();
    expect(views.map((view) => view.length)).toEqual([0, 0]);
    expect([small.isClosed, large.isClosed, mapping.isClosed]).toEqual([true, true, true]);
    expect(small.bytes).toHaveLength(0);
    await Promise.all([small.free(), large.free(), mapping.unmap()]);
    await expect(device.dma.alloc(1)).rejects.toThrow(ClosedError);
    await expect(device.dma.map({ fd: ownFds[0]!, size: 4096 })).rejects.toThrow(ClosedError);
  });

  test('calls that wait end with the connection, and give everything back', async () => {
    await open();
    const fd = memfd(4096);
    const mapping = await device.dma.map({ fd, size: 4096 });
    device.fate = () => 'silence';
    const waiting = [device.dma.alloc(1), device.dma.alloc(5 * MIB), device.dma.map({ fd, size: 4096 })];
    const unmapped = mapping.unmap();
    await until(() => device.silenced.length === 4);
    device.close();
    for (const result of await Promise.allSettled(waiting)) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'ERR_VFIO_USER_CLOSED' } });
    }
    await unmapped;
  });

  test('when the server has gone, memory stays until it is freed', async () => {
    await open();
    const buffer = await device.dma.alloc(5 * MIB);
    const mapping = await device.dma.map({ fd: memfd(4096), size: 4096 });
    device.peer.close();
    await device.connection.closed;
    buffer.bytes.fill(7);
    await buffer.free();
    await mapping.unmap();
    expect([buffer.isClosed, mapping.isClosed]).toEqual([true, true]);
  });

  test('close() that the server refuses may be tried again', async () => {
    await open();
    const buffer = await device.dma.alloc(5 * MIB);
    const mapping = await device.dma.map({ fd: memfd(4096), size: 4096 });
    device.takeLog();
    device.fate = () => EIO;
    const refused = [buffer.close(), mapping.close()];
    expect([buffer.isClosed, mapping.isClosed]).toEqual([true, true]);
    for (const call of refused) await expect(call).rejects.toThrow(RemoteError);
    expect([buffer.isClosed, mapping.isClosed]).toEqual([false, false]);
    expect(device.takeLog()).toHaveLength(2);
    device.fate = () => undefined;
    await Promise.all([buffer.close(), mapping.close()]);
    expect(device.maps.size).toBe(0);
    expect(device.takeLog()).toHaveLength(2);
    expect([buffer.isClosed, mapping.isClosed]).toEqual([true, true]);
  });

  test('close() called again waits for the DMA_UNMAP that is under way', async () => {
    await open();
    const buffer = await device.dma.alloc(5 * MIB);
    const mapping = await device.dma.map({ fd: memfd(4096), size: 4096 });
    device.takeLog();
    void buffer.close();
    void mapping.close();
    await Promise.all([buffer.close(), mapping.close()]);
    expect(device.maps.size).toBe(0);
    expect(device.takeLog()).toHaveLength(2);
  });

  test('close() called again waits no longer than its own options allow', async () => {
    await open();
    const buffer = await device.dma.alloc(5 * MIB);
    device.fate = () => 'silence';
    const first = buffer.close({ timeoutMs: 400 });
    const error = await buffer.close({ timeoutMs: 20 }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ name: 'TimeoutError', timeoutMs: 20 });
    await expect(buffer.close({ signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough');
    await expect(first).rejects.toMatchObject({ name: 'TimeoutError', timeoutMs: 400 });
  });

  test('free() and unmap() are close() by other names', async () => {
    await open();
    const buffer = await device.dma.alloc(5 * MIB);
    const mapping = await device.dma.map({ fd: memfd(4096), size: 4096 });
    await Promise.all([buffer.free(), mapping.unmap()]);
    expect(device.maps.size).toBe(0);
    expect([buffer.isClosed, mapping.isClosed]).toEqual([true, true]);
  });

  test('both can be held with `await using`', async () => {
    await open();
    const buffer = await device.dma.alloc(5 * MIB);
    const mapping = await device.dma.map({ fd: memfd(4096), size: 4096 });
    device.takeLog();
    await buffer[Symbol.asyncDispose]();
    await mapping[Symbol.asyncDispose]();
    expect(device.takeLog()).toEqual(['UNMAP 0x100000000+0x600000', 'UNMAP 0x100600000+0x1000']);
  });
});
