import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { DmaBatchError, ProtocolError, RemoteError, TimeoutError } from '../../lib/errors.js';
import type { DmaBuffer, DmaMapping } from '../../lib/device/dma.js';
import { native } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import { dmaReadRequest } from '../support/wire.js';
import { DmaDevice, turn, until, type DmaDeviceOptions } from './dma-device.js';

const PAGE = 4096;
const EINVAL = 22;
const EFAULT = 14;
const EIO = 5;

let device: DmaDevice;
let fdsBefore: number;
let fd: number;

async function open(options?: DmaDeviceOptions): Promise<void> {
  device = await DmaDevice.open(options);
}

function page(i: number): { fd: number; offset: number; size: number; iova: bigint } {
  return { fd, offset: i * PAGE, size: PAGE, iova: BigInt(i) * 0x10000n };
}

beforeAll(() => turn(200));

beforeEach(() => {
  fdsBefore = openFds();
  fd = native().memfd('spec', 128 * PAGE, false);
});

afterEach(async () => {
  device.close();
  native().closeFd(fd);
  await turn();
  expect(openFds()).toBe(fdsBefore);
});

describe('a transaction', () => {
  test('64 maps go out before the first is answered', async () => {
    await open();
    device.fate = () => 'silence';
    const done = device.dma.transaction((tx) => Array.from({ length: 64 }, (_, i) => tx.map(page(i))));
    await until(() => device.silenced.length === 64);
    for (const received of device.silenced) device.peer.reply(received);
    const mappings = await done;
    expect(mappings).toHaveLength(64);
    expect(mappings.every(({ isClosed }) => !isClosed)).toBe(true);
    expect(mappings[5]).toMatchObject({ iova: 0x50000n, size: PAGE });
    device.fate = () => undefined;
    await device.dma.transaction((tx) => {
      for (const mapping of mappings) tx.unmap(mapping);
    });
    expect(mappings.every(({ isClosed }) => isClosed)).toBe(true);
  });

  test('commands leave in the order in which it was told', async () => {
    await open();
    const old = [await device.dma.map(page(100)), await device.dma.map(page(101))];
    device.takeLog();
    await device.dma.transaction((tx) => {
      tx.map(page(1));
      tx.unmap(old[0]!);
      tx.map(page(2));
      tx.unmap(old[1]!);
      tx.alloc(PAGE);
    });
    expect(device.takeLog().map((line) => line.split('+')[0])).toEqual([
      'MAP 0x10000',
      'UNMAP 0x640000',
      'MAP 0x20000',
      'UNMAP 0x650000',
      'MAP 0x100000000',
    ]);
  });

  test('gives what its callback gave', async () => {
    await open();
    expect(await device.dma.transaction(() => Promise.resolve(7))).toBe(7);
    expect(device.takeLog()).toEqual([]);
  });

  test('one that fails: which is told, and the rest is as it was', async () => {
    await open();
    const old = await device.dma.map({ ...page(100), share: true });
    device.takeLog();
    device.fate = (line) => (line.startsWith('MAP 0x20000+') ? EIO : undefined);
    const made: DmaMapping[] = [];
    const error = await device.dma
      .transaction((tx) => {
        tx.unmap(old);
        for (let i = 0; i < 4; i++) made.push(tx.map(page(i)));
      })
      .catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(DmaBatchError);
    expect(error).toMatchObject({
      code: 'ERR_VFIO_USER_DMA_BATCH',
      message: expect.stringMatching(
        /1 of 5 failed, the rest was undone: DMA_MAP of 4096 bytes at 0x20000: .*EIO/,
      ),
      failures: [{ operation: 'DMA_MAP', iova: 0x20000n, size: PAGE, error: expect.any(RemoteError) }],
      undoFailures: [],
    });
    expect(made.every(({ isClosed }) => isClosed)).toBe(true);
    expect(old.isClosed).toBe(false);
    expect([...device.maps.keys()]).toEqual([old.iova]);
    expect(device.maps.get(old.iova)!.memory).toBeDefined();
    expect((await device.ask(dmaReadRequest({ address: old.iova, count: 4 }))).errno).toBe(0);
    expect((await device.ask(dmaReadRequest({ address: 0x10000n, count: 4 }))).errno).toBe(EFAULT);
    await old.unmap();
    expect(old.isClosed).toBe(true);
  });

  test('an unmap that is refused undoes the maps', async () => {
    await open();
    const old = await device.dma.map(page(100));
    device.fate = (line) => (line.startsWith('UNMAP 0x640000') ? EIO : undefined);
    await expect(
      device.dma.transaction((tx) => {
        tx.map(page(1));
        tx.unmap(old);
      }),
    ).rejects.toMatchObject({ failures: [{ operation: 'DMA_UNMAP', iova: old.iova }] });
    expect([...device.maps.keys()]).toEqual([old.iova]);
    expect(old.isClosed).toBe(false);
  });

  test('what cannot be undone is told, too', async () => {
    await open();
    const old = await device.dma.map(page(100));
    let maps = 0;
    device.fate = (line) => (line.startsWith('MAP') && ++maps > 0 ? EIO : undefined);
    const error = await device.dma
      .transaction((tx) => {
        tx.unmap(old);
        tx.map(page(1));
      })
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      failures: [{ operation: 'DMA_MAP', iova: 0x10000n }],
      undoFailures: [{ operation: 'DMA_MAP', iova: old.iova }],
      message: expect.stringContaining('not undone'),
    });
    expect(old.isClosed).toBe(true);
    device.fate = () => undefined;
    await device.dma.map(page(100));
  });

  test('a callback that throws undoes it all, and its error is the error', async () => {
    await open();
    const reason = new Error('changed my mind');
    await expect(
      device.dma.transaction((tx) => {
        tx.map(page(1));
        throw reason;
      }),
    ).rejects.toBe(reason);
    await expect(
      device.dma.transaction(async (tx) => {
        tx.map(page(1));
        await turn();
        // Refused before it is sent.
        tx.map(page(1));
      }),
    ).rejects.toThrow(RangeError);
    expect(device.maps.size).toBe(0);
    await device.dma.map(page(1));
  });

  test('misuse', async () => {
    await open();
    await expect(device.dma.transaction(() => device.dma.transaction(() => 1))).rejects.toThrow(TypeError);
    await expect(device.dma.transaction(() => device.dma.unmapAll())).rejects.toThrow(TypeError);
    await expect(device.dma.transaction((tx) => tx.unmap(tx.map(page(1))))).rejects.toThrow(
      /mapped in this transaction/,
    );
    const tx = await device.dma.transaction((mine) => mine);
    expect(() => tx.map(page(1))).toThrow(/over/);
    const mapping = await device.dma.map(page(2));
    expect(() => tx.unmap(mapping)).toThrow(/over/);
    // What is unmapped keeps its addresses until the commit.
    await expect(
      device.dma.transaction((mine) => {
        mine.unmap(mapping);
        mine.map(page(2));
      }),
    ).rejects.toThrow(RangeError);
    expect(mapping.isClosed).toBe(false);
    await device.dma.transaction(async (mine) => {
      mine.unmap(mapping);
      await expect(mapping.unmap()).rejects.toThrow(TypeError);
    });
    expect(mapping.isClosed).toBe(true);
    await mapping.unmap();
  });

  test('two at once run one after the other', async () => {
    await open();
    const order: string[] = [];
    const run = (name: string, i: number) =>
      device.dma.transaction(async (tx) => {
        order.push(`${name} begins`);
        tx.map(page(i));
        await turn();
        order.push(`${name} ends`);
      });
    await Promise.all([run('a', 1), run('b', 2)]);
    expect(order).toEqual(['a begins', 'a ends', 'b begins', 'b ends']);
  });

  test('a timeout keeps the addresses of that one, and the others go', async () => {
    await open();
    device.fate = (line) => (line.startsWith('MAP 0x20000+') ? 'silence' : undefined);
    const error = (await device.dma
      .transaction(
        (tx) => {
          for (let i = 1; i < 4; i++) tx.map(page(i));
        },
        { timeoutMs: 50 },
      )
      .catch((reason: unknown) => reason)) as DmaBatchError;
    expect(error.failures).toHaveLength(1);
    expect(error.failures[0]!.error).toBeInstanceOf(TimeoutError);
    expect(device.maps.size).toBe(0);
    await expect(device.dma.map(page(2))).rejects.toThrow(/overlap/);
    await device.dma.map(page(1));
  });

  test('the connection ends in the middle: nothing hangs, nothing is left', async () => {
    await open();
    const old = await device.dma.map(page(100));
    device.fate = () => 'silence';
    const done = device.dma
      .transaction((tx) => {
        tx.unmap(old);
        for (let i = 0; i < 8; i++) tx.map(page(i));
      })
      .catch((reason: unknown) => reason);
    await until(() => device.silenced.length === 9);
    device.connection.close();
    const error = (await done) as DmaBatchError;
    expect(error).toBeInstanceOf(DmaBatchError);
    expect(error.failures.every(({ operation }) => operation === 'DMA_MAP')).toBe(true);
    // It may be mapped again when the server comes back.
    expect(old.isClosed).toBe(false);
  });
});

describe('buffers of a transaction', () => {
  const MIB = 1 << 20;

  test('are there at once, share mappings, and are as others are after the commit', async () => {
    await open();
    device.fate = () => 'silence';
    const done = device.dma.transaction((tx) => {
      const small = Array.from({ length: 64 }, () => tx.alloc(PAGE));
      const other = tx.alloc(100, { writable: false });
      const large = tx.alloc(5 * MIB);
      for (const [i, buffer] of small.entries()) buffer.bytes.fill(i);
      large.bytes.write('large');
      tx.map(page(1));
      return { small, other, large };
    });
    await until(() => device.silenced.length === 4);
    expect(device.takeLog()).toEqual([
      'MAP 0x100000000+0x400000 flags 3, 1 fds',
      'MAP 0x100400000+0x400000 flags 1, 1 fds',
      'MAP 0x100800000+0x600000 flags 3, 1 fds',
      'MAP 0x10000+0x1000 offset 0x1000 flags 3, 1 fds',
    ]);
    device.fate = () => undefined;
    for (const received of device.silenced) device.peer.reply(received);
    const { small, other, large } = await done;
    expect(new Set(small.map(({ iova }) => iova)).size).toBe(64);
    const got = await device.ask(dmaReadRequest({ address: small[7]!.iova, count: 4 }));
    expect(got.payload.subarray(16)).toEqual(Buffer.alloc(4, 7));
    expect(
      (await device.ask(dmaReadRequest({ address: large.iova, count: 5 }))).payload.toString('latin1', 16),
    ).toBe('large');
    // What it mapped serves those that come later, too.
    device.takeLog();
    expect((await device.dma.alloc(PAGE)).iova).toBe(small[0]!.iova + BigInt(64 * PAGE));
    expect(device.takeLog()).toEqual([]);
    await large.free();
    await other.free();
    await small[0]!.free();
    expect(device.takeLog()).toEqual(['UNMAP 0x100800000+0x600000']);
    expect([large.isClosed, other.isClosed, small[0]!.isClosed, small[1]!.isClosed]).toEqual([
      true,
      true,
      true,
      false,
    ]);
  });

  test('take a place in what is mapped already, zeroed', async () => {
    await open();
    const before = await device.dma.alloc(PAGE);
    before.bytes.fill(1);
    await before.free();
    device.takeLog();
    const [buffer] = await device.dma.transaction((tx) => [tx.alloc(PAGE)]);
    expect(device.takeLog()).toEqual([]);
    expect(buffer.iova).toBe(before.iova);
    expect(buffer.bytes).toEqual(Buffer.alloc(PAGE));
  });

  test.each<[string, boolean]>([
    ['a command that fails', false],
    ['a callback that throws', true],
  ])('%s: they are closed, their memory is given back', async (_, throws) => {
    await open();
    const kept = await device.dma.alloc(PAGE);
    const maps = [...device.maps.keys()];
    const buffers: DmaBuffer[] = [];
    if (!throws) device.fate = (line) => (line.startsWith('MAP 0x20000+') ? EIO : undefined);
    const failed: unknown = await device.dma
      .transaction((tx) => {
        buffers.push(tx.alloc(PAGE), tx.alloc(5 * MIB), tx.alloc(PAGE, { readable: false }));
        tx.map(page(2));
        if (throws) throw new Error('changed my mind');
      })
      .catch((error: unknown) => error);
    if (throws) expect((failed as Error).message).toBe('changed my mind');
    else expect(failed).toMatchObject({ failures: [{ iova: 0x20000n }], undoFailures: [] });
    expect([...device.maps.keys()]).toEqual(maps);
    expect(buffers.every(({ isClosed }) => isClosed)).toBe(true);
    expect(buffers.every(({ bytes }) => bytes.length === 0)).toBe(true);
    for (const buffer of buffers) await buffer.free();
    device.fate = () => undefined;
    // The place beside the one that was there before is free again.
    const next = await device.dma.alloc(PAGE);
    expect(next.iova).toBe(kept.iova + BigInt(PAGE));
    expect([...device.maps.keys()]).toEqual(maps);
  });

  test('a mapping of theirs that fails', async () => {
    await open();
    device.fate = (line) => (line.startsWith('MAP') ? EIO : undefined);
    let buffer!: DmaBuffer;
    await expect(device.dma.transaction((tx) => void (buffer = tx.alloc(PAGE)))).rejects.toMatchObject({
      name: 'DmaBatchError',
      failures: [{ operation: 'DMA_MAP', iova: 0x1_0000_0000n, size: 4 * MIB }],
    });
    expect(buffer.isClosed).toBe(true);
    device.fate = () => undefined;
    expect((await device.dma.alloc(PAGE)).isClosed).toBe(false);
  });

  test('misuse', async () => {
    await open({ secureDma: true });
    await expect(device.dma.transaction((tx) => tx.alloc(0))).rejects.toThrow(RangeError);
    await expect(device.dma.transaction((tx) => tx.alloc(1, { alignment: 3 }))).rejects.toThrow(RangeError);
    await expect(device.dma.transaction((tx) => tx.alloc(1, { share: true }))).rejects.toThrow(/secureDma/);
    const tx = await device.dma.transaction((mine) => mine);
    expect(() => tx.alloc(1)).toThrow(/over/);
    // It cannot be given back before the server has it.
    await device.dma.transaction(async (mine) => {
      const buffer = mine.alloc(5 * MIB);
      await expect(buffer.free()).rejects.toThrow(TypeError);
      expect(buffer.isClosed).toBe(false);
    });
  });
});

describe('unmapAll', () => {
  async function some(): Promise<DmaMapping[]> {
    const buffer = await device.dma.alloc(PAGE);
    expect(buffer.isClosed).toBe(false);
    const mappings = [await device.dma.map(page(1)), await device.dma.map({ ...page(2), share: false })];
    device.takeLog();
    return mappings;
  }

  test('in one command where the server knows it', async () => {
    await open();
    const buffer = await device.dma.alloc(PAGE);
    const mappings = await some();
    await device.dma.unmapAll();
    expect(device.takeLog()).toEqual(['UNMAP 0x0+0x0']);
    expect(mappings.every(({ isClosed }) => isClosed)).toBe(true);
    expect(buffer.isClosed).toBe(true);
    expect(buffer.bytes).toHaveLength(0);
    // And there is room for new ones.
    expect((await device.dma.alloc(PAGE)).isClosed).toBe(false);
    await device.dma.map(page(1));
  });

  test('one by one where it does not, and it is not asked again', async () => {
    await open();
    device.fate = (line) => (line === 'UNMAP 0x0+0x0' ? EINVAL : undefined);
    const mappings = await some();
    await device.dma.unmapAll();
    expect(device.takeLog()).toEqual([
      'UNMAP 0x0+0x0',
      'UNMAP 0x10000+0x1000',
      'UNMAP 0x20000+0x1000',
      'UNMAP 0x100000000+0x400000',
    ]);
    expect(mappings.every(({ isClosed }) => isClosed)).toBe(true);
    await some();
    await device.dma.unmapAll();
    expect(device.takeLog()).not.toContain('UNMAP 0x0+0x0');
  });

  test('what is refused is told and stays', async () => {
    await open();
    const mappings = await some();
    device.fate = (line) =>
      line === 'UNMAP 0x0+0x0' || line.startsWith('UNMAP 0x10000+') ? EINVAL : undefined;
    await expect(device.dma.unmapAll()).rejects.toMatchObject({
      name: 'DmaBatchError',
      failures: [{ operation: 'DMA_UNMAP', iova: 0x10000n, size: PAGE }],
    });
    expect(mappings.map(({ isClosed }) => isClosed)).toEqual([false, true]);
  });

  test('a reply about something else is a ProtocolError, and nothing is given out again', async () => {
    await open();
    await some();
    const payload = Buffer.alloc(24);
    payload.writeBigUInt64LE(1n, 8);
    device.fate = (line) => (line === 'UNMAP 0x0+0x0' ? payload : undefined);
    await expect(device.dma.unmapAll()).rejects.toThrow(ProtocolError);
    await expect(device.dma.map(page(1))).rejects.toThrow(/overlap/);
  });

  test('frees what was quarantined', async () => {
    await open({ twin: true });
    await some();
    device.fate = (line) => (line.startsWith('MAP 0x30000+') ? 'silence' : undefined);
    await expect(device.dma.map({ ...page(3), timeoutMs: 20 })).rejects.toThrow(TimeoutError);
    await device.dma.unmapAll();
    device.fate = () => undefined;
    await device.dma.map(page(3));
  });

  test('nothing to unmap is nothing to send', async () => {
    await open();
    await device.dma.unmapAll();
    expect(device.takeLog()).toEqual([]);
  });
});
