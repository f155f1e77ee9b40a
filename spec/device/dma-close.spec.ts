/** Giving DMA memory back while others use it, or are taking it away: it goes once, and nobody waits longer than he said. */
import { afterEach, describe, expect, test } from '@jest/globals';
import type { DmaMapping } from '../../lib/device/dma.js';
import { native } from '../../lib/native.js';
import { DmaDevice, turn, until, type DmaDeviceOptions, type Fate } from './dma-device.js';

const MIB = 1 << 20;
const PAGE = 4096;
/** More than small buffers share: it has a mapping of its own. */
const LARGE = 5 * MIB;
const EINVAL = 22;
const EIO = 5;
const ALL = 'UNMAP 0x0+0x0';
const LATE = 'still waiting';

let device: DmaDevice;
const fds: number[] = [];

afterEach(() => {
  device.close();
  for (const fd of fds.splice(0)) native().closeFd(fd);
});

async function open(options?: DmaDeviceOptions): Promise<DmaDevice['dma']> {
  device = await DmaDevice.open(options);
  return device.dma;
}

async function map(): Promise<DmaMapping> {
  const fd = native().memfd('spec', PAGE, false);
  fds.push(fd);
  return device.dma.map({ fd, size: PAGE });
}

/** What a call ends with; 'done' where nothing is wrong. */
function ending(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => 'done',
    (error: unknown) => error,
  );
}

/** What has come of it by now. */
function soFar(outcome: Promise<unknown>, ms = 20): Promise<unknown> {
  // Nobody waits for it where the call has ended.
  const late = new Promise<typeof LATE>((resolve) => setTimeout(resolve, ms, LATE).unref());
  return Promise.race([outcome, late]);
}

function holdUnmaps(fate: Fate = 'silence'): void {
  device.fate = (line) => (line.startsWith('UNMAP') ? fate : undefined);
}

describe('close() of a buffer that a driver uses', () => {
  test('aborted while the use ends: the memory goes back once', async () => {
    const dma = await open();
    const buffer = await dma.alloc(PAGE);
    buffer.beginUse();
    const abort = new AbortController();
    const closed = ending(buffer.close({ signal: abort.signal }));
    await turn();
    abort.abort(new Error('enough'));
    buffer.endUse();
    expect(await closed).toMatchObject({ message: 'enough' });
    await buffer.close();
    const [first, second] = [await dma.alloc(PAGE), await dma.alloc(PAGE)];
    expect(first.iova).toBe(buffer.iova);
    expect(second.iova).not.toBe(first.iova);
  });

  test('given up, and called again: it is done when the use has ended', async () => {
    const dma = await open();
    const buffer = await dma.alloc(PAGE);
    buffer.beginUse();
    expect(await ending(buffer.close({ timeoutMs: 10 }))).toMatchObject({
      name: 'TimeoutError',
      timeoutMs: 10,
    });
    const again = ending(buffer.close({ timeoutMs: Infinity }));
    expect(await soFar(again)).toBe(LATE);
    expect((await dma.alloc(PAGE)).iova).not.toBe(buffer.iova);
    buffer.endUse();
    expect(await again).toBe('done');
    expect((await dma.alloc(PAGE)).iova).toBe(buffer.iova);
  });

  test('given up by all: a large one is unmapped when the use has ended', async () => {
    const dma = await open();
    const buffer = await dma.alloc(LARGE);
    device.takeLog();
    buffer.beginUse();
    expect(await ending(buffer.close({ timeoutMs: 10 }))).toMatchObject({ name: 'TimeoutError' });
    buffer.endUse();
    await until(() => device.log.length > 0);
    await buffer.close();
    expect(device.takeLog()).toEqual(['UNMAP 0x100000000+0x600000']);
  });

  test('waiting for the use and DMA_UNMAP have one deadline', async () => {
    const dma = await open();
    const buffer = await dma.alloc(LARGE);
    holdUnmaps();
    buffer.beginUse();
    const closed = ending(buffer.close({ timeoutMs: 600 }));
    const ended = turn(500).then(() => buffer.endUse());
    expect(await soFar(closed, 1_000)).toMatchObject({ name: 'TimeoutError', timeoutMs: 600 });
    await ended;
  });

  test('the end of the device ends it by name, however long it would wait', async () => {
    const dma = await open();
    const buffers = [await dma.alloc(PAGE), await dma.alloc(LARGE)];
    for (const buffer of buffers) buffer.beginUse();
    const closed = buffers.map((buffer) => ending(buffer.close({ timeoutMs: Infinity })));
    device.close();
    for (const outcome of closed) expect(await soFar(outcome)).toMatchObject({ name: 'ClosedError' });
    for (const buffer of buffers) {
      buffer.endUse();
      expect(buffer.isClosed).toBe(true);
      await buffer.close();
    }
  });

  test('unmapAll() ends it by name; where that is refused it can be closed again', async () => {
    const dma = await open();
    const buffer = await dma.alloc(PAGE);
    buffer.beginUse();
    const closed = ending(buffer.close({ timeoutMs: Infinity }));
    holdUnmaps(EIO);
    await expect(dma.unmapAll()).rejects.toThrow('mappings are left');
    expect(await soFar(closed)).toMatchObject({ name: 'ClosedError' });
    buffer.endUse();
    expect(buffer.isClosed).toBe(false);
    await buffer.close();
    expect((await dma.alloc(PAGE)).iova).toBe(buffer.iova);
  });

  test('a driver that lets go of the memory when it is taken away: it is closed', async () => {
    const dma = await open();
    const [buffer, other] = [await dma.alloc(PAGE), await dma.alloc(LARGE)];
    buffer.beginUse();
    // What it hears of may be another memory's end, after this one's.
    expect(other.iova).not.toBe(buffer.iova);
    other.onRelease(() => buffer.endUse());
    const closed = ending(buffer.close({ timeoutMs: Infinity }));
    device.close();
    expect(await soFar(closed)).toBe('done');
  });

  test('a signal that was aborted before: nothing is done', async () => {
    const dma = await open();
    const buffer = await dma.alloc(LARGE);
    device.takeLog();
    await expect(buffer.close({ signal: AbortSignal.abort(new Error('no')) })).rejects.toThrow('no');
    expect(buffer.isClosed).toBe(false);
    expect(device.log).toEqual([]);
  });
});

describe('close() while unmapAll() is under way', () => {
  /** unmapAll, held by the server, and a close that comes after it. */
  async function both(options: { timeoutMs?: number; signal?: AbortSignal } = {}) {
    const dma = await open();
    const mapping = await map();
    const buffer = await dma.alloc(LARGE);
    holdUnmaps();
    const all = ending(dma.unmapAll(options));
    await until(() => device.silenced.length === 1);
    expect(device.log.at(-1)).toBe(ALL);
    return { all, mapping, buffer };
  }

  test('of a server that refuses it, and the mapping: it is still mapped', async () => {
    const { all, mapping, buffer } = await both();
    const closed = [ending(mapping.close()), ending(buffer.close())];
    holdUnmaps(EIO);
    device.peer.refuse(device.silenced[0]!, EINVAL);
    for (const outcome of closed) expect(await outcome).toMatchObject({ name: 'RemoteError', errno: EIO });
    expect(await all).toMatchObject({ name: 'DmaBatchError' });
    expect([mapping.isClosed, buffer.isClosed]).toEqual([false, false]);
    expect(device.maps.size).toBe(2);
  });

  test('of a server that refuses it: each is unmapped once', async () => {
    const { all, mapping, buffer } = await both();
    const closed = [ending(mapping.close()), ending(buffer.close())];
    device.fate = () => undefined;
    device.takeLog();
    device.peer.refuse(device.silenced[0]!, EINVAL);
    expect(await Promise.all([all, ...closed])).toEqual(['done', 'done', 'done']);
    expect(device.maps.size).toBe(0);
    expect(device.takeLog()).toHaveLength(2);
  });

  test('that is aborted: nobody knows whether the server has it, and so it says', async () => {
    const abort = new AbortController();
    const { all, mapping, buffer } = await both({ signal: abort.signal });
    const closed = [ending(mapping.close()), ending(buffer.close())];
    abort.abort(new Error('enough'));
    for (const outcome of [all, ...closed]) expect(await outcome).toMatchObject({ message: 'enough' });
  });

  test('waits no longer than its own options allow', async () => {
    const { mapping, buffer } = await both({ timeoutMs: Infinity });
    const abort = new AbortController();
    const calls = [mapping, buffer].flatMap((memory) => [
      ending(memory.close({ timeoutMs: 20 })),
      ending(memory.close({ signal: abort.signal })),
    ]);
    abort.abort(new Error('enough'));
    const outcomes = await Promise.all(calls.map((call) => soFar(call, 2_000)));
    expect(outcomes).toMatchObject([
      { name: 'TimeoutError', timeoutMs: 20 },
      { message: 'enough' },
      { name: 'TimeoutError', timeoutMs: 20 },
      { message: 'enough' },
    ]);
  });

  test('another unmapAll() waits no longer than its own options allow', async () => {
    await both({ timeoutMs: Infinity });
    expect(await soFar(ending(device.dma.unmapAll({ timeoutMs: 20 })), 2_000)).toMatchObject({
      name: 'TimeoutError',
      message: 'Dma.unmapAll (waiting for its turn): no answer within 20 ms',
    });
  });
});

describe('a transaction', () => {
  test('waits for its turn no longer than its options allow, and the next one has its turn', async () => {
    const dma = await open();
    let end!: () => void;
    const first = dma.transaction(() => new Promise<void>((resolve) => (end = resolve)));
    const second = ending(dma.transaction(() => 'never', { timeoutMs: 20 }));
    expect(await soFar(second, 2_000)).toMatchObject({ name: 'TimeoutError', timeoutMs: 20 });
    const third = dma.transaction(() => 'third');
    end();
    await first;
    expect(await third).toBe('third');
  });

  test('its time is for all of its commands; one with a time of its own has that', async () => {
    const dma = await open({ timeoutMs: 100_000 });
    device.fate = (line) => (line.startsWith('MAP') ? 'silence' : undefined);
    const page = {
      size: PAGE,
      share: false,
      handler: { read: () => Buffer.alloc(0), write: () => undefined },
    };
    const handler = { handler: page.handler, size: PAGE };
    const failed = await ending(
      dma.transaction(
        async (tx) => {
          tx.map(handler);
          await turn(150);
          tx.map(handler);
        },
        { timeoutMs: 200 },
      ),
    );
    expect(failed).toMatchObject({
      failures: [{ error: { timeoutMs: 200 } }, { error: { timeoutMs: 200 } }],
    });
    const own = await ending(
      dma.transaction((tx) => void tx.map({ ...handler, timeoutMs: 20 }), { timeoutMs: Infinity }),
    );
    expect(own).toMatchObject({ failures: [{ error: { timeoutMs: 20 } }] });
  });

  test('that nothing bounds is undone in the default time', async () => {
    const dma = await open({ timeoutMs: 100 });
    const abort = new AbortController();
    const failed = ending(
      dma.transaction(
        async (tx) => {
          tx.alloc(LARGE);
          await turn();
          holdUnmaps();
          throw new Error('no');
        },
        { timeoutMs: Infinity, signal: abort.signal },
      ),
    );
    await until(() => device.silenced.length === 1);
    expect(await soFar(failed, 5_000)).toMatchObject({ name: 'DmaBatchError', cause: { message: 'no' } });
    device.fate = () => undefined;
    expect(await dma.transaction(() => 'next')).toBe('next');
  });
});
