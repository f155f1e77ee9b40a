/** Dirty pages, against the emulator where a server behaves, and against a scripted one where it does not. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { serve, RamDevice, RamDma, RamRegister, type EmulatorOptions } from '../../lib/emulator/index.js';
import { Scratch } from '../cli/cli.js';
import {
  connect,
  ProtocolError,
  TimeoutError,
  UnsupportedError,
  type ConnectOptions,
} from '../../lib/index.js';
import type { Device, DmaBuffer } from '../../lib/index.js';
import { dmaWriteRequest } from '../support/wire.js';
import { DmaDevice } from './dma-device.js';

const PAGE = 4096;
const MIB = 1 << 20;
const EINVAL = 22;

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

interface Served {
  device: Device;
  names: string[];
}

/** A RAM device, opened; `names` are the commands that came. */
async function open(emulator: EmulatorOptions, options: ConnectOptions = {}): Promise<Served> {
  const scratch = new Scratch();
  const ram = new RamDevice();
  const names: string[] = [];
  const server = await serve(ram, {
    path: scratch.path('socket'),
    ...emulator,
    intercept: ({ name, payload }) => {
      names.push(name === 'DEVICE_FEATURE' ? `${name} ${payload.readUInt16LE(4)}` : name);
      return 'pass';
    },
  });
  const device = await connect(scratch.path('socket'), options);
  cleanups.push(
    () => scratch.remove(),
    () => ram.close(),
    () => server.close(),
    () => device.close(),
  );
  return { device, names };
}

/** The device copies `length` bytes from the start of `from` to `to`. */
async function copy(device: Device, from: DmaBuffer, to: bigint, length: number): Promise<void> {
  const bar = device.bar(0);
  await bar.writeUInt64(RamRegister.DMA_SOURCE, from.iova);
  await bar.writeUInt64(RamRegister.DMA_DESTINATION, to);
  await bar.writeUInt32(RamRegister.DMA_LENGTH, length);
  await bar.writeUInt32(RamRegister.DMA_COMMAND, RamDma.COPY);
}

const LOG = /DIRTY_PAGES|FEATURE [678]|UNMAP/;

describe.each<['logging' | 'legacy']>([['logging'], ['legacy']])('a server that has %s', (dirtyPages) => {
  test('what the device wrote by fd, and by message, is one report', async () => {
    const { device } = await open({ dirtyPages });
    const source = await device.dma.alloc(MIB);
    const byFd = await device.dma.alloc(5 * MIB);
    const byMessage = await device.dma.alloc(5 * MIB, { share: false });
    await copy(device, source, byFd.iova, 10);
    const { dirty } = device.dma;
    expect(dirty.method).toBeUndefined();
    await dirty.start();
    expect(dirty.method).toBe(dirtyPages);
    expect(dirty.serverPageSize).toBe(PAGE);
    expect(await dirty.report()).toEqual([]);

    await copy(device, source, byFd.iova + 3n * 4096n, 1);
    await copy(device, source, byFd.iova + 10n * 4096n - 1n, 2);
    await copy(device, source, byFd.iova + BigInt(byFd.size - 1), 1);
    await copy(device, source, byMessage.iova + 4096n, 2 * PAGE);
    const ranges = [];
    for await (const range of dirty) ranges.push(range);
    expect(ranges).toEqual(
      [
        { iova: byFd.iova + 3n * 4096n, length: PAGE },
        { iova: byFd.iova + 9n * 4096n, length: 2 * PAGE },
        { iova: byFd.iova + BigInt(byFd.size - PAGE), length: PAGE },
        { iova: byMessage.iova + 4096n, length: 2 * PAGE },
      ].sort((a, b) => Number(a.iova - b.iova)),
    );
    expect(await dirty.report()).toEqual([]);
    await dirty.stop();
    await dirty.stop();
    await expect(dirty.report()).rejects.toThrow(TypeError);
    await copy(device, source, byFd.iova, 1);
    await dirty.start();
    expect(await dirty.report()).toEqual([]);
  });

  test('every page on its own: the order of the bits', async () => {
    const { device } = await open({ dirtyPages });
    const buffer = await device.dma.alloc(130 * PAGE);
    await device.dma.dirty.start();
    for (const page of [0, 1, 7, 8, 63, 64, 65, 127, 128, 129]) {
      const iova = buffer.iova + BigInt(page * PAGE);
      await copy(device, buffer, iova, 1);
      expect(await device.dma.dirty.report()).toEqual([{ iova, length: PAGE }]);
    }
  });

  test('memory that is mapped later is watched, and what is unmapped is reported once more', async () => {
    const { device, names } = await open({ dirtyPages });
    const source = await device.dma.alloc(MIB);
    await device.dma.dirty.start();
    const later = await device.dma.alloc(5 * MIB);
    const { iova } = later;
    await copy(device, source, iova + 4096n, PAGE);
    names.length = 0;
    await later.free();
    const asked = names.filter((name) => LOG.test(name));
    expect(asked).toEqual(dirtyPages === 'logging' ? ['DEVICE_FEATURE 8', 'DMA_UNMAP'] : ['DMA_UNMAP']);
    expect(await device.dma.dirty.report()).toEqual([{ iova: iova + 4096n, length: PAGE }]);
  });

  test('unmapAll and transactions lose nothing', async () => {
    const { device } = await open({ dirtyPages });
    const source = await device.dma.alloc(MIB);
    const one = await device.dma.alloc(5 * MIB);
    const two = await device.dma.alloc(5 * MIB);
    await device.dma.dirty.start();
    await copy(device, source, one.iova, 1);
    await copy(device, source, two.iova, 1);
    await device.dma.unmapAll();
    expect(await device.dma.dirty.report()).toEqual([
      { iova: one.iova, length: PAGE },
      { iova: two.iova, length: PAGE },
    ]);
  });

  test('ranges: nothing else is reported', async () => {
    const { device } = await open({ dirtyPages });
    const source = await device.dma.alloc(MIB);
    const buffer = await device.dma.alloc(5 * MIB);
    const byMessage = await device.dma.alloc(5 * MIB, { share: false });
    const watched = { iova: buffer.iova + 0x10100n, length: 0x1000 };
    await device.dma.dirty.start({ ranges: [watched, { iova: byMessage.iova, length: 1 }] });
    for (const page of [0n, 0xfn, 0x10n, 0x11n, 0x12n, 0x20n]) {
      await copy(device, source, buffer.iova + page * 4096n, 1);
      await copy(device, source, byMessage.iova + page * 4096n, 1);
    }
    expect(await device.dma.dirty.report()).toEqual(
      [
        { iova: buffer.iova + 0x10000n, length: 2 * PAGE },
        { iova: byMessage.iova, length: PAGE },
      ].sort((a, b) => Number(a.iova - b.iova)),
    );
  });

  test('larger pages', async () => {
    const { device } = await open({ dirtyPages });
    const source = await device.dma.alloc(MIB);
    const buffer = await device.dma.alloc(5 * MIB);
    await device.dma.dirty.start({ pageSize: 65_536 });
    await copy(device, source, buffer.iova + 65_535n, 1);
    expect(await device.dma.dirty.report()).toEqual([{ iova: buffer.iova, length: 65_536 }]);
    expect(device.dma.dirty.serverPageSize).toBe(dirtyPages === 'logging' ? 65_536 : PAGE);
  });
});

describe('other servers', () => {
  test('one whose DMA_UNMAP alone brings a bitmap', async () => {
    const { device, names } = await open({ dirtyPages: 'unmap' });
    const source = await device.dma.alloc(MIB);
    const buffer = await device.dma.alloc(5 * MIB);
    names.length = 0;
    await device.dma.dirty.start();
    expect(device.dma.dirty.method).toBe('unmap');
    expect(names).toEqual(['DEVICE_FEATURE 6', 'DIRTY_PAGES', 'DMA_MAP', 'DMA_UNMAP']);
    await copy(device, source, buffer.iova + 4096n, PAGE);
    expect(await device.dma.dirty.report()).toEqual([]);
    const { iova } = buffer;
    await buffer.free();
    expect(await device.dma.dirty.report()).toEqual([{ iova: iova + 4096n, length: PAGE }]);
  });

  test('one that tells nothing is refused, unless nothing is shared with it', async () => {
    const { device } = await open({ dirtyPages: 'none' });
    await expect(device.dma.dirty.start()).rejects.toThrow(UnsupportedError);
    expect(device.dma.dirty.method).toBeUndefined();
    const { device: secure, names } = await open({ dirtyPages: 'none' }, { secureDma: true });
    const buffer = await secure.dma.alloc(MIB);
    names.length = 0;
    await secure.dma.dirty.start();
    expect(names).toEqual([]);
    expect(secure.dma.dirty.method).toBe('messages');
    await copy(secure, buffer, buffer.iova + 0x8000n, 1);
    expect(await secure.dma.dirty.report()).toEqual([{ iova: buffer.iova + 0x8000n, length: PAGE }]);
  });

  test('one that answered minor 0 is not asked, but where it may be', async () => {
    const { device, names } = await open({ dirtyPages: 'logging', minor: 0 });
    names.length = 0;
    await expect(device.dma.dirty.start()).rejects.toThrow(UnsupportedError);
    expect(names).toEqual([]);
    const { device: other } = await open({ dirtyPages: 'logging', minor: 0 }, { tryOptional: true });
    await other.dma.dirty.start();
    expect(other.dma.dirty.method).toBe('logging');
  });

  test.each(['logging', 'legacy'] as const)(
    'one that comes back, with %s: all that it could write',
    async (dirtyPages) => {
      const scratch = new Scratch();
      const ram = new RamDevice();
      const start = () => serve(ram, { path: scratch.path('socket'), dirtyPages });
      let server = await start();
      const device = await connect(scratch.path('socket'), { reconnect: true });
      cleanups.push(
        () => scratch.remove(),
        () => ram.close(),
        () => server.close(),
        () => device.close(),
      );
      const source = await device.dma.alloc(MIB);
      const handled = await device.dma.map({
        handler: { read: (_address, length) => Buffer.alloc(length), write: () => undefined },
        size: PAGE,
        iova: 0x1000n,
      });
      await device.dma.dirty.start();
      const back = new Promise((resolve) => device.once('reconnected', () => resolve(undefined)));
      await server.close();
      server = await start();
      await back;
      const before = await device.dma.dirty.report();
      expect(before).toEqual([{ iova: source.iova, length: 4 * MIB }]);
      await copy(device, source, source.iova + 4096n, 1);
      await copy(device, source, handled.iova, 1);
      expect(await device.dma.dirty.report()).toEqual([
        { iova: handled.iova, length: PAGE },
        { iova: source.iova + 4096n, length: PAGE },
      ]);
    },
  );
});

describe('a server that lies or is late', () => {
  const feature = (number: number, flags: number, data: Buffer): Buffer => {
    const head = Buffer.alloc(8);
    head.writeUInt32LE(8 + data.length, 0);
    head.writeUInt32LE((number | flags) >>> 0, 4);
    return Buffer.concat([head, data]);
  };
  const control = (pageSize: bigint): Buffer => {
    const data = Buffer.alloc(16);
    data.writeBigUInt64LE(pageSize, 0);
    return data;
  };

  /** Probes and START are answered well; REPORT by `report`, which is given the data of the request. */
  async function openLying(report: (data: Buffer) => Buffer | number | 'silence'): Promise<DmaDevice> {
    const device = await DmaDevice.open({ timeoutMs: 5_000 });
    cleanups.push(() => device.close());
    const { peer } = device;
    peer.onMessage((received) => {
      if ((received.flags & 1) !== 0 || received.command !== 16) {
        if ((received.flags & 1) === 0)
          peer.reply(received, received.command === 3 ? received.payload : undefined);
        return;
      }
      const word = received.payload.readUInt32LE(4);
      const answer =
        (word & 0x40000) !== 0
          ? received.payload
          : (word & 0xffff) === 6
            ? feature(6, 0x20000, control(4096n))
            : (word & 0xffff) === 7
              ? received.payload
              : report(received.payload.subarray(8));
      if (typeof answer === 'number') peer.refuse(received, answer);
      else if (answer !== 'silence') peer.reply(received, answer);
    });
    return device;
  }

  const good = (data: Buffer, ...bytes: number[]): Buffer => {
    const bitmap = Buffer.alloc(128);
    Buffer.from(bytes).copy(bitmap);
    return feature(8, 0x10000, Buffer.concat([data, bitmap]));
  };

  test('what is good is taken', async () => {
    const device = await openLying((data) => good(data, 0b1000_0011));
    const { iova } = await device.dma.alloc(PAGE);
    await device.dma.dirty.start();
    expect(await device.dma.dirty.report()).toEqual([
      { iova, length: 2 * PAGE },
      { iova: iova + 7n * 4096n, length: PAGE },
    ]);
  });

  test.each<[string, (data: Buffer) => Buffer]>([
    ['no bitmap', (data) => feature(8, 0x10000, data)],
    ['a bitmap that is too short', (data) => good(data).subarray(0, -8)],
    ['a bitmap that is too long', (data) => Buffer.concat([good(data), Buffer.alloc(8)])],
    ['another range', (data) => (data.writeBigUInt64LE(0n, 0), good(data))],
    ['another page size', (data) => (data.writeBigUInt64LE(8192n, 16), good(data))],
    ['another feature', (data) => feature(7, 0x10000, data)],
  ])('%s is a ProtocolError', async (_, report) => {
    const device = await openLying((data) => report(Buffer.from(data)));
    await device.dma.alloc(PAGE);
    await device.dma.dirty.start();
    await expect(device.dma.dirty.report()).rejects.toThrow(ProtocolError);
  });

  test('a report that fails loses nothing', async () => {
    let fails = true;
    const device = await openLying((data) => {
      const first = data.readBigUInt64LE(0) === 0x1_0000_0000n;
      if (!first && fails) return EINVAL;
      return good(data, first && !fails ? 0 : 1);
    });
    // Of different kinds, so that they lie in two mappings.
    const a = await device.dma.alloc(PAGE);
    const b = await device.dma.alloc(PAGE, { readable: false });
    await device.dma.dirty.start();
    await expect(device.dma.dirty.report()).rejects.toThrow('EINVAL');
    fails = false;
    expect(await device.dma.dirty.report()).toEqual([
      { iova: a.iova, length: PAGE },
      { iova: b.iova, length: PAGE },
    ]);
  });

  test('one that does not answer is a TimeoutError, and writes by message are kept', async () => {
    let isLate = true;
    const device = await openLying((data) => (isLate ? 'silence' : good(data)));
    const { iova } = await device.dma.alloc(PAGE);
    await device.dma.dirty.start();
    await device.send(dmaWriteRequest({ address: iova, data: [1] }));
    await expect(device.dma.dirty.report({ timeoutMs: 30 })).rejects.toThrow(TimeoutError);
    isLate = false;
    expect(await device.dma.dirty.report()).toEqual([{ iova, length: PAGE }]);
  });
});

describe('misuse', () => {
  test.each<[string, object]>([
    ['a page size that is no power of two', { pageSize: 5000 }],
    ['one below 4096', { pageSize: 2048 }],
    ['one above 1 GiB', { pageSize: 2 ** 31 }],
    ['no ranges', { ranges: [] }],
    ['a range of nothing', { ranges: [{ iova: 0n, length: 0 }] }],
    ['a range past the end', { ranges: [{ iova: (1n << 64n) - 1n, length: 2 }] }],
  ])('%s is a RangeError', async (_, options) => {
    const { device } = await open({ dirtyPages: 'logging' });
    await expect(device.dma.dirty.start(options)).rejects.toThrow(RangeError);
  });

  test('started twice', async () => {
    const { device } = await open({ dirtyPages: 'logging' });
    await device.dma.dirty.start();
    await expect(device.dma.dirty.start()).rejects.toThrow(TypeError);
  });
});
