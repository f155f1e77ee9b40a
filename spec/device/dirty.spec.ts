/** Dirty pages, against the emulator where a server behaves, and against a scripted one where it does not. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import {
  serve,
  RamDevice,
  RamDma,
  RamRegister,
  type EmulatorOptions,
  type Verdict,
} from '../../lib/emulator/index.js';
import { Scratch } from '../cli/cli.js';
import {
  ClosedError,
  connect,
  ProtocolError,
  TimeoutError,
  UnsupportedError,
  type ConnectOptions,
} from '../../lib/index.js';
import type { Device, DmaBuffer } from '../../lib/index.js';
import { until } from '../support/until.js';
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
async function open(
  emulator: EmulatorOptions,
  options: ConnectOptions = {},
  decide: (what: string) => Verdict = () => 'pass',
): Promise<Served> {
  const scratch = new Scratch();
  const ram = new RamDevice();
  const names: string[] = [];
  const server = await serve(ram, {
    path: scratch.path('socket'),
    ...emulator,
    intercept: ({ name, payload }) => {
      names.push(name === 'DEVICE_FEATURE' ? `${name} ${payload.readUInt16LE(4)}` : name);
      return decide(name === 'DEVICE_FEATURE' ? featureName(payload) : name);
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

/** `START`, `STOP`, `REPORT`; what it is asked about them is a probe. */
function featureName(payload: Buffer): string {
  const isProbe = (payload.readUInt32LE(4) & 0x40000) !== 0;
  return isProbe ? 'probe' : (['START', 'STOP', 'REPORT'][payload.readUInt16LE(4) - 6] ?? 'feature');
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

  test('calls that are made at once are carried out in their order', async () => {
    const { device } = await open({ dirtyPages });
    const { dirty } = device.dma;
    const outcomes = await Promise.allSettled([
      dirty.report(),
      dirty.start(),
      dirty.start(),
      dirty.report(),
      dirty.stop(),
      dirty.report(),
      dirty.stop(),
      dirty.start(),
      dirty.report(),
    ]);
    const refused = outcomes.flatMap(({ status }, i) => (status === 'rejected' ? [i] : []));
    expect(refused).toEqual([0, 2, 5]);
    for (const i of refused)
      expect(outcomes[i]).toMatchObject({
        reason: { name: 'TypeError', message: expect.stringMatching('watched') },
      });
    expect(dirty.method).toBe(dirtyPages);
    await dirty.stop();
    expect(dirty.method).toBeUndefined();
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
async function openLying(
  report: (data: Buffer) => Buffer | number | 'silence',
  options: {
    capabilities?: object;
    unmap?: (request: Buffer) => Buffer | number | 'silence';
    onStop?: () => void;
  } = {},
): Promise<DmaDevice> {
  const device = await DmaDevice.open({ timeoutMs: 5_000, ...options });
  cleanups.push(() => device.close());
  const { peer } = device;
  peer.onMessage((received): void => {
    if ((received.flags & 1) !== 0) return;
    if (received.command !== 3 && received.command !== 16) return peer.reply(received);
    const word = received.payload.readUInt32LE(4);
    if (received.command === 16 && (word & 0x4ffff) === 7) options.onStop?.();
    const answer =
      received.command === 3
        ? (options.unmap?.(received.payload) ?? received.payload)
        : (word & 0x40000) !== 0
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
  const bitmap = Buffer.alloc(Number(data.readBigUInt64LE(8)) / PAGE / 8);
  Buffer.from(bytes).copy(bitmap);
  return feature(8, 0x10000, Buffer.concat([data, bitmap]));
};

describe('a server that lies or is late', () => {
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

  // It may have begun anew for a report whose answer did not come: what was asked for counts as written.
  test('one that does not answer is a TimeoutError, and all that was asked for is in the next report', async () => {
    let isLate = true;
    const device = await openLying((data) => (isLate ? 'silence' : good(data)));
    const { iova } = await device.dma.alloc(PAGE);
    await device.dma.dirty.start();
    await device.send(dmaWriteRequest({ address: iova, data: [1] }));
    await expect(device.dma.dirty.report({ timeoutMs: 30 })).rejects.toThrow(TimeoutError);
    isLate = false;
    expect(await device.dma.dirty.report()).toEqual([{ iova, length: 4 * MIB }]);
    expect(await device.dma.dirty.report()).toEqual([]);
  });

  test('writes by message are kept where nothing was asked for', async () => {
    const device = await openLying((data) => good(data));
    const { iova } = await device.dma.alloc(PAGE);
    await device.dma.dirty.start();
    await device.send(dmaWriteRequest({ address: iova, data: [1] }));
    const signal = AbortSignal.abort(new Error('mine'));
    await expect(device.dma.dirty.report({ signal })).rejects.toThrow('mine');
    expect(await device.dma.dirty.report()).toEqual([{ iova, length: PAGE }]);
  });

  const late = 'silence' as const;
  const shared = { share: true };

  test.each<[string, (data: Buffer) => Buffer | number | 'silence', number]>([
    ['that is not answered', () => late, 4 * MIB],
    ['whose bitmap is cut', (data) => good(data).subarray(0, -8), 4 * MIB],
    ['about another range', (data) => (data.writeBigUInt64LE(0n, 0), good(data)), 4 * MIB],
    ['that fails (EIO)', () => 5, 4 * MIB],
    ['that fails without an errno', () => 0, 4 * MIB],
    // It says that it has not done it.
    ['that is refused (EINVAL)', () => EINVAL, PAGE],
    ['that is refused (ENOTSUP)', () => 95, PAGE],
  ])('a report %s: of that mapping, and of no other', async (_title, report, length) => {
    let fails = true;
    const device = await openLying((data) => {
      const isFirst = data.readBigUInt64LE(0) === 0x1_0000_0000n;
      return isFirst || !fails ? good(data, 1) : report(Buffer.from(data));
    });
    const a = await device.dma.alloc(PAGE, shared);
    const b = await device.dma.alloc(PAGE, { ...shared, readable: false });
    await device.dma.dirty.start();
    await expect(device.dma.dirty.report({ timeoutMs: 1_000 })).rejects.toThrow();
    fails = false;
    expect(await device.dma.dirty.report()).toEqual([
      { iova: a.iova, length: PAGE },
      { iova: b.iova, length },
    ]);
  });

  test.each(['at once', 'in a microtask', 'in a turn'])(
    'a report that is aborted %s loses nothing',
    async (when) => {
      const dirtied = new Set<bigint>();
      const device = await openLying((data) => {
        // It gives what it has once.
        const isDirty = dirtied.delete(data.readBigUInt64LE(0));
        return good(data, isDirty ? 1 : 0);
      });
      const { iova } = await device.dma.alloc(PAGE);
      await device.dma.dirty.start();
      for (let times = 0; times < 20; times++) {
        dirtied.add(iova);
        const abort = new AbortController();
        const reporting = device.dma.dirty.report({ signal: abort.signal }).catch(() => []);
        if (when === 'at once') abort.abort();
        else if (when === 'in a microtask') queueMicrotask(() => abort.abort());
        else setImmediate(() => abort.abort());
        const ranges = [...(await reporting), ...(await device.dma.dirty.report())];
        expect(ranges.some((range) => range.iova === iova)).toBe(true);
      }
    },
  );

  test('several at once share what there is, and none is lost when one is aborted', async () => {
    let isDirty = true;
    const device = await openLying((data) => {
      const bits = isDirty ? 1 : 0;
      isDirty = false;
      return good(data, bits);
    });
    const { iova } = await device.dma.alloc(PAGE);
    await device.dma.dirty.start();
    const abort = new AbortController();
    const first = device.dma.dirty.report({ signal: abort.signal });
    const others = [device.dma.dirty.report(), device.dma.dirty.report()];
    setImmediate(() => abort.abort(new Error('mine')));
    const ranges = (await Promise.allSettled([first, ...others])).flatMap((result) =>
      result.status === 'fulfilled' ? result.value : [],
    );
    expect(ranges.filter((range) => range.iova === iova)).toHaveLength(1);
  });

  test('a mapping that takes several chunks: those that came, and the one that did not, whole', async () => {
    let fails = false;
    let asked = 0;
    const chunks: bigint[] = [];
    // 64 bytes of bitmap in a message: 512 pages.
    const device = await openLying(
      (data) => {
        chunks.push(data.readBigUInt64LE(0));
        if (fails && ++asked === 2) return 'silence';
        const bitmap = Buffer.alloc(Number(data.readBigUInt64LE(8)) / PAGE / 8);
        if (fails) bitmap[0] = 4;
        return feature(8, 0x10000, Buffer.concat([data, bitmap]));
      },
      { capabilities: { max_data_xfer_size: 128 } },
    );
    const { iova } = await device.dma.alloc(6 * MIB);
    await device.dma.dirty.start();
    // Whether it reports chunks at all was asked at the start.
    expect(chunks.splice(0)).toEqual([iova]);
    fails = true;
    await expect(device.dma.dirty.report({ timeoutMs: 500 })).rejects.toThrow(TimeoutError);
    expect(chunks).toEqual([iova, iova + BigInt(2 * MIB)]);
    fails = false;
    expect(await device.dma.dirty.report()).toEqual([
      { iova: iova + 2n * 4096n, length: PAGE },
      { iova: iova + BigInt(2 * MIB), length: 2 * MIB },
    ]);
  });

  test.each(['logging', 'legacy'] as const)(
    'START or STOP that is not answered, with %s: watching can begin again',
    async (dirtyPages) => {
      const controls: string[] = [];
      let verdict: Verdict = 'pass';
      const { device } = await open({ dirtyPages }, {}, (what) => {
        if (!['START', 'STOP', 'DIRTY_PAGES'].includes(what)) return 'pass';
        controls.push(what);
        return verdict;
      });
      await device.dma.alloc(MIB);
      const { dirty } = device.dma;
      // Carried out, and too late.
      verdict = { delayMs: 1_000 };
      await expect(dirty.start({ timeoutMs: 500 })).rejects.toThrow(TimeoutError);
      verdict = 'pass';
      await dirty.start();
      verdict = 'drop';
      await expect(dirty.stop({ timeoutMs: 500 })).rejects.toThrow(TimeoutError);
      await expect(dirty.report()).rejects.toThrow(TypeError);
      verdict = 'pass';
      await dirty.start();
      expect(dirty.method).toBe(dirtyPages);
      await dirty.stop();
      await dirty.start();
      if (dirtyPages === 'logging') {
        const expected = ['START', 'STOP', 'START', 'STOP', 'STOP', 'START', 'STOP', 'START'];
        expect(controls).toEqual(expected);
      } else expect(controls).toHaveLength(8);
    },
  );
});

describe('a server that reports whole mappings only, as libvfio-user does', () => {
  const ENOTSUP = 95;
  const BITMAP = 64;
  const capabilities = { max_data_xfer_size: BITMAP + 64 };

  /** What it was asked for, and that it takes the page size that it is asked for. */
  async function openWhole(most = 1n << 40n): Promise<{ device: DmaDevice; log: string[] }> {
    const log: string[] = [];
    const mappings = new Map<bigint, bigint>();
    const device = await DmaDevice.open({ timeoutMs: 5_000, capabilities });
    cleanups.push(() => device.close());
    const { peer } = device;
    peer.onMessage((received): void => {
      if ((received.flags & 1) !== 0) return;
      // DMA_MAP
      if (received.command === 2)
        mappings.set(received.payload.readBigUInt64LE(16), received.payload.readBigUInt64LE(24));
      if (received.command !== 16)
        return peer.reply(received, received.command === 3 ? received.payload : undefined);
      const word = received.payload.readUInt32LE(4);
      if ((word & 0x40000) !== 0) return peer.reply(received, received.payload);
      const data = received.payload.subarray(8);
      if ((word & 0xffff) === 6) {
        const asked = data.readBigUInt64LE(0);
        log.push(`START ${asked}`);
        return peer.reply(received, feature(6, 0x20000, control(asked < most ? asked : most)));
      }
      if ((word & 0xffff) === 7) {
        log.push('STOP');
        return peer.reply(received, received.payload);
      }
      const [iova, length, pageSize] = [0, 8, 16].map((at) => data.readBigUInt64LE(at)) as [
        bigint,
        bigint,
        bigint,
      ];
      log.push(`REPORT ${length}`);
      if (mappings.get(iova) !== length) return peer.refuse(received, ENOTSUP);
      const bitmap = Buffer.alloc(((Number(length / pageSize) + 63) >> 6) << 3);
      bitmap[0] = 1;
      peer.reply(received, feature(8, 0x10000, Buffer.concat([data, bitmap])));
    });
    return { device, log };
  }

  test('a mapping that it cannot tell of is refused at the start, with the page size that works', async () => {
    const { device, log } = await openWhole();
    // Of different kinds, so that they lie in mappings of their own.
    const small = await device.dma.alloc(2 * MIB, { readable: false });
    const { iova } = await device.dma.alloc(6 * MIB);
    const { dirty } = device.dma;
    await expect(dirty.start()).rejects.toThrow(
      `the server reports whole mappings only, and the bitmap of the ${6 * MIB} bytes at 0x${iova.toString(16)}, in pages of ` +
        `4096, is longer than a message of 128 bytes: start with a pageSize of 16384, or map it in parts of at most ${2 * MIB} bytes`,
    );
    expect(log.splice(0)).toEqual(['START 4096', `REPORT ${2 * MIB}`, 'STOP']);
    expect(dirty.method).toBeUndefined();
    await expect(dirty.report()).rejects.toThrow(TypeError);

    await dirty.start({ pageSize: 16_384 });
    expect(log.splice(0)).toEqual(['START 16384']);
    expect(await dirty.report()).toEqual(
      [iova, small.iova].sort((a, b) => Number(a - b)).map((address) => ({ iova: address, length: 16_384 })),
    );
  });

  test('one that is mapped later is refused by the report, with the same words', async () => {
    const { device } = await openWhole();
    const { dirty } = device.dma;
    await dirty.start();
    await device.dma.alloc(6 * MIB);
    const refused = dirty.report();
    await expect(refused).rejects.toThrow(UnsupportedError);
    await expect(refused).rejects.toThrow(/start with a pageSize of 16384/);
  });

  test('a page size that it does not take is not named', async () => {
    const { device } = await openWhole(4096n);
    await device.dma.alloc(6 * MIB);
    await expect(device.dma.dirty.start({ pageSize: MIB })).rejects.toThrow(
      /longer than a message of 128 bytes: map it in parts of at most 2097152 bytes/,
    );
  });

  test('one that is not watched is not asked about', async () => {
    const { device, log } = await openWhole();
    const { iova } = await device.dma.alloc(6 * MIB);
    await device.dma.dirty.start({ ranges: [{ iova: iova + BigInt(64 * MIB), length: MIB }] });
    expect(log).toEqual(['START 4096']);
  });

  test('with a log of before 2022, whose page size nobody chooses', async () => {
    const { device, names } = await open({ dirtyPages: 'legacy', maxDataXferSize: 128 });
    await device.dma.alloc(6 * MIB);
    const started = device.dma.dirty.start();
    await expect(started).rejects.toThrow(
      /longer than a message of 128 bytes: map it in parts of at most 2097152 bytes/,
    );
    expect(names.filter((name) => name === 'DIRTY_PAGES')).toHaveLength(2);
  });
});

test.each([['EIO', 5] as const, ['EBUSY', 16] as const])(
  'a log of before 2022 whose START fails (%s) is not taken for a server without one',
  async (code, errno) => {
    let fails = true;
    const { device } = await open({ dirtyPages: 'legacy' }, {}, (what) =>
      fails && what === 'DIRTY_PAGES' ? { errno } : 'pass',
    );
    const { dirty } = device.dma;
    await expect(dirty.start()).rejects.toMatchObject({ name: 'RemoteError', code });
    expect(dirty.method).toBeUndefined();
    fails = false;
    await dirty.start();
    expect(dirty.method).toBe('legacy');
  },
);

describe('memory that is unmapped', () => {
  const bitmapReply = (request: Buffer, ...bytes: number[]): Buffer => {
    const bitmap = Buffer.alloc(Number(request.readBigUInt64LE(32)));
    Buffer.from(bytes).copy(bitmap);
    return Buffer.concat([request.subarray(0, 40), bitmap]);
  };

  test('what was written between the last report and DMA_UNMAP comes with that', async () => {
    const device = await openLying((data) => good(data, 1), {
      unmap: (request) => bitmapReply(request, 0b10),
    });
    const buffer = await device.dma.alloc(5 * MIB);
    const { iova } = buffer;
    await device.dma.dirty.start();
    await buffer.free();
    expect(await device.dma.dirty.report()).toEqual([{ iova, length: 2 * PAGE }]);
  });

  test.each<[string, (request: Buffer) => Buffer | number | 'silence']>([
    ['no bitmap', (request) => request.subarray(0, 24)],
    ['a bitmap of other pages', (request) => bitmapReply((request.writeBigUInt64LE(8192n, 24), request))],
    ['a bitmap that is too short', (request) => bitmapReply(request).subarray(0, -8)],
    ['nothing', () => 'silence'],
  ])('a DMA_UNMAP that brings %s: all of it', async (_title, unmap) => {
    const device = await openLying((data) => good(data), { unmap: (request) => unmap(Buffer.from(request)) });
    const buffer = await device.dma.alloc(5 * MIB);
    const { iova } = buffer;
    await device.dma.dirty.start();
    await buffer.free({ timeoutMs: 50 }).catch(() => undefined);
    expect(await device.dma.dirty.report()).toEqual([{ iova, length: 6 * MIB }]);
  });

  test('a DMA_UNMAP with a bitmap that fails: all of it, as it may have been done', async () => {
    const device = await openLying((data) => good(data), {
      unmap: (request) => (request.length > 24 ? 5 : request),
    });
    const buffer = await device.dma.alloc(5 * MIB);
    const { iova } = buffer;
    await device.dma.dirty.start();
    await buffer.free();
    expect(await device.dma.dirty.report()).toEqual([{ iova, length: 6 * MIB }]);
  });

  test.each(['logging', 'legacy'] as const)(
    'while the server is away, with %s: all that it could write',
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
      const buffer = await device.dma.alloc(5 * MIB);
      const { iova } = buffer;
      await device.dma.dirty.start();
      await copy(device, source, iova, 1);
      const lost = new Promise((resolve) => device.once('lost', () => resolve(undefined)));
      const back = new Promise((resolve) => device.once('reconnected', () => resolve(undefined)));
      await server.close();
      await lost;
      await expect(device.dma.dirty.report()).rejects.toThrow(ClosedError);
      await buffer.free();
      server = await start();
      await back;
      // They lie side by side.
      expect(await device.dma.dirty.report()).toEqual([{ iova: source.iova, length: 10 * MIB }]);
    },
  );
});

test('a bitmap of a million pages, every second one dirty: the loop turns meanwhile', async () => {
  const size = 4096 * MIB;
  const scratch = new Scratch();
  const fd = openSync(scratch.path('memory'), 'w+');
  ftruncateSync(fd, size);
  cleanups.push(() => {
    closeSync(fd);
    scratch.remove();
  });
  // The scripted peer sends no more at once.
  const capabilities = { max_data_xfer_size: 1 << 17 };
  const everySecond = (data: Buffer) => {
    const bitmap = Buffer.alloc(Number(data.readBigUInt64LE(8)) / PAGE / 8, 0x55);
    return feature(8, 0x10000, Buffer.concat([data, bitmap]));
  };
  const device = await openLying(everySecond, { capabilities });
  await device.dma.map({ fd, size });
  await device.dma.dirty.start();
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  cleanups.push(() => clearInterval(timer));
  const ranges = await device.dma.dirty.report();
  expect(ranges).toHaveLength(size / PAGE / 2);
  // Each of some ten milliseconds; marking and telling take a hundred and more.
  expect(turns).toBeGreaterThan(3);
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

describe('the time of a caller', () => {
  /** A device that is watched, whose server is silent about `what`. */
  async function silent(what: string, options: ConnectOptions = {}) {
    let isSilent = false;
    const served = await open({ dirtyPages: 'logging' }, options, (asked) =>
      isSilent && asked === what ? 'drop' : 'pass',
    );
    const hush = (on = true) => (isSilent = on);
    return { ...served, hush };
  }

  test('is for waiting for another report, too; so is its signal', async () => {
    const { device, hush } = await silent('REPORT');
    await device.dma.alloc(PAGE);
    const { dirty } = device.dma;
    await dirty.start();
    hush();
    const abort = new AbortController();
    const stuck = dirty.report({ timeoutMs: Infinity, signal: abort.signal });
    const over = new Error('over');
    const stopped = expect(stuck).rejects.toBe(over);
    const own = new AbortController();
    const waiting = [
      dirty.report({ signal: own.signal }),
      dirty.start({ signal: own.signal }),
      dirty.stop({ signal: own.signal }),
    ];
    own.abort(new Error('enough'));
    for (const call of waiting) await expect(call).rejects.toThrow('enough');
    await expect(dirty.report({ timeoutMs: 20 })).rejects.toThrow('waiting for its turn');
    abort.abort(over);
    await stopped;
    hush(false);
    // What was asked for and not told counts as written.
    expect(await dirty.report()).not.toEqual([]);
  });

  test('a start that is aborted at last has ended the log that it began', async () => {
    let asked = 0;
    let stops = 0;
    const answer = () => {
      asked++;
      return 'silence' as const;
    };
    // The bitmap of the mapping is longer than a message: starting asks for a part of it.
    const options = { capabilities: { max_data_xfer_size: 4096 }, onStop: () => stops++ };
    const device = await openLying(answer, options);
    await device.dma.alloc(256 * MIB);
    const abort = new AbortController();
    const failed = expect(device.dma.dirty.start({ signal: abort.signal })).rejects.toThrow('enough');
    await until(() => asked === 1);
    abort.abort(new Error('enough'));
    await failed;
    expect(device.dma.dirty.method).toBeUndefined();
    expect(stops).toBe(1);
  });
});
