/** Migration against the emulator's RAM device, and against a peer that answers what no good server would. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { createReadStream, createWriteStream } from 'node:fs';
import { once } from 'node:events';
import { PassThrough, type Readable, type Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { RamDevice, serve, type RamOptions } from '../../lib/emulator/index.js';
import {
  MigrationError,
  MigrationState,
  UnsupportedError,
  connect,
  type ConnectOptions,
  type Device,
  type PreCopyLimits,
} from '../../lib/index.js';
import { Scratch } from '../cli/cli.js';
import { ScriptedPeer, words, type Received } from '../support/scripted-peer.js';

const { ERROR, STOP, RUNNING, STOP_COPY, RESUMING, PRE_COPY } = MigrationState;
const SMALL: RamOptions = { sharedSize: 0, ramSize: 1 << 16 };
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

interface Served {
  model: RamDevice;
  device: Device;
}

async function served(
  migration: RamOptions['migration'],
  intercept?: (message: { name: string; payload: Buffer }) => { errno: number } | undefined,
): Promise<Served> {
  const scratch = new Scratch();
  const model = new RamDevice({ ...SMALL, ...(migration && { migration }) });
  const path = scratch.path('socket');
  const server = await serve(model, { path, intercept: (message) => intercept?.(message) ?? 'pass' });
  const device = await connect(path);
  cleanups.push(async () => {
    await device.close();
    await server.close();
    model.close();
    scratch.remove();
  });
  return { model, device };
}

function fill(model: RamDevice): Buffer {
  for (let i = 0; i < model.ram.length; i++) model.ram[i] = (i * 7 + (i >> 8)) & 0xff;
  return Buffer.from(model.ram);
}

async function settled(stream: Readable | Writable): Promise<Error | undefined> {
  let failure: Error | undefined;
  stream.on('error', (error: Error) => (failure = error));
  if (!stream.closed) await once(stream, 'close').catch(() => undefined);
  return failure;
}

describe('what the device can do', () => {
  test.each([
    ['stop-copy', { stopCopy: true, preCopy: false }],
    ['pre-copy', { stopCopy: true, preCopy: true }],
  ] as const)('%s', async (migration, support) => {
    const { device } = await served(migration);
    expect(await device.migration.support()).toEqual(support);
    expect(await device.migration.state()).toBe(RUNNING);
  });

  test('none: streams fail by name, and nothing was changed', async () => {
    const { device } = await served(undefined);
    expect(await device.migration.support()).toBeUndefined();
    await expect(buffer(device.migration.save())).rejects.toBeInstanceOf(UnsupportedError);
    const restore = device.migration.restore();
    expect(await settled(restore)).toBeInstanceOf(UnsupportedError);
  });

  test('preCopy where it cannot be read while it runs', async () => {
    const { device, model } = await served('stop-copy');
    await expect(buffer(device.migration.save({ preCopy: true }))).rejects.toThrow(/PRE_COPY/);
    expect(model.migrationState).toBe(RUNNING);
    await expect(buffer(device.migration.save({ preCopy: {} }))).rejects.toThrow(/PRE_COPY/);
    for (const wrong of [0, -1, 1.5, NaN, Infinity]) {
      expect(() => device.migration.save({ chunkBytes: wrong })).toThrow(RangeError);
      expect(() => device.migration.save({ preCopy: { maxBytes: wrong } })).toThrow(RangeError);
      expect(() => device.migration.save({ preCopy: { maxRounds: wrong } })).toThrow(RangeError);
    }
  });
});

describe('arcs', () => {
  const states = [STOP, RUNNING, STOP_COPY, RESUMING, PRE_COPY];
  /** How each state is reached from RUNNING. */
  const ways: Record<number, readonly MigrationState[]> = {
    [RUNNING]: [],
    [STOP]: [STOP],
    [STOP_COPY]: [STOP_COPY],
    [RESUMING]: [RESUMING],
    [PRE_COPY]: [PRE_COPY],
  };
  const pairs = states.flatMap((from) => states.map((to) => [from, to] as const));

  test.each(pairs)('from %i to %i: there, or refused in a state that is named', async (from, to) => {
    const { device, model } = await served('pre-copy');
    for (const step of ways[from]!) await device.migration.transition(step);
    expect(model.migrationState).toBe(from);
    // RESUMING is left by what the state of nothing is: refused, and so ERROR.
    if (from === RESUMING && to !== RESUMING) {
      await expect(device.migration.transition(to)).rejects.toMatchObject({
        name: 'MigrationError',
        state: 'ERROR',
        message: expect.stringMatching(/reset it to recover/),
      });
      await expect(device.migration.transition(STOP)).rejects.toThrow(/no way leads from ERROR to STOP/);
      await device.reset();
    } else {
      await device.migration.transition(to);
      expect(model.migrationState).toBe(to);
    }
  });

  test('PRE_COPY and STOP_COPY are no way to anywhere', async () => {
    const { device } = await served('stop-copy');
    await device.migration.transition(STOP_COPY);
    await expect(device.migration.transition(PRE_COPY)).rejects.toMatchObject({
      name: 'MigrationError',
      state: 'RUNNING',
      message: expect.stringMatching(/did not go from RUNNING to PRE_COPY .*EINVAL.*can go on from there/),
    });
    await expect(device.migration.transition(ERROR)).rejects.toBeInstanceOf(MigrationError);
  });
});

describe('streams', () => {
  test.each([
    ['stop-copy', 1 << 20],
    ['stop-copy', 4096],
    ['pre-copy', 1000],
    ['pre-copy', 1 << 20],
  ] as const)(
    '%s in chunks of %i: the other device is what the first one was',
    async (migration, chunkBytes) => {
      const source = await served(migration);
      const destination = await served(migration);
      const bytes = fill(source.model);
      await source.device.bar(0).writeUInt32(4, 0xcafe);
      const preCopy = migration === 'pre-copy';
      const save = source.device.migration.save({ chunkBytes, preCopy });
      await pipeline(save, destination.device.migration.restore());
      expect(destination.model.ram.equals(bytes)).toBe(true);
      expect(await destination.device.bar(0).readUInt32(4)).toBe(0xcafe);
      expect(source.model.migrationState).toBe(STOP);
      expect(destination.model.migrationState).toBe(RUNNING);
    },
  );

  test('through a file and compression, and left stopped', async () => {
    const { device, model } = await served('pre-copy');
    const scratch = new Scratch();
    cleanups.push(() => scratch.remove());
    const file = scratch.path('state.gz');
    const bytes = fill(model);
    await pipeline(device.migration.save({ preCopy: true }), createGzip(), createWriteStream(file));
    await device.migration.transition(RUNNING);
    model.ram.fill(0);
    await pipeline(createReadStream(file), createGunzip(), device.migration.restore({ run: false }));
    expect(model.ram.equals(bytes)).toBe(true);
    expect(model.migrationState).toBe(STOP);
  });

  test('a device that was stopped is not set running for PRE_COPY, and stays stopped', async () => {
    const { device, model } = await served('pre-copy');
    await device.migration.transition(STOP);
    const states: (MigrationState | undefined)[] = [];
    const stream = device.migration.save({ chunkBytes: 8192, preCopy: true });
    for await (const _chunk of stream) states.push(model.migrationState);
    expect(new Set(states)).toEqual(new Set([STOP_COPY]));
    expect(model.migrationState).toBe(STOP);
  });

  test('it is not stopped before what it has while it runs was read, unless told', async () => {
    const { device, model } = await served('pre-copy');
    const states: (MigrationState | undefined)[] = [];
    for await (const _chunk of device.migration.save()) states.push(model.migrationState);
    expect(new Set(states)).toEqual(new Set([STOP_COPY]));
    await device.migration.transition(RUNNING);
    states.length = 0;
    for await (const _chunk of device.migration.save({ preCopy: true })) states.push(model.migrationState);
    expect(new Set(states)).toEqual(new Set([PRE_COPY, STOP_COPY]));
  });

  test.each([
    ['stop-copy', false],
    ['pre-copy', true],
  ] as const)('save() destroyed half way, %s: the device runs again', async (migration, preCopy) => {
    let reads = 0;
    const { device, model } = await served(migration, ({ name }) => {
      if (name === 'MIG_DATA_READ') reads++;
      return undefined;
    });
    const stream = device.migration.save({ chunkBytes: 4096, preCopy });
    await once(stream, 'readable');
    stream.destroy();
    await settled(stream);
    expect(model.migrationState).toBe(RUNNING);
    // 64 KiB of RAM and a page of registers: stopped, it is drained; what a device that runs has may have no end.
    if (preCopy) expect(reads).toBeLessThan(10);
    else expect(reads).toBeGreaterThanOrEqual(17);
  });

  test('restore() destroyed half way: ERROR, out of which a reset leads', async () => {
    const { device, model } = await served('stop-copy');
    const stream = device.migration.restore();
    stream.write(Buffer.from([0, 0, 1, 0, 1, 2, 3]));
    await new Promise((resolve) => stream.write(Buffer.alloc(10), resolve));
    stream.destroy();
    await settled(stream);
    expect(model.migrationState).toBe(ERROR);
    await device.reset();
    expect(await device.migration.state()).toBe(RUNNING);
  });

  test('a state that is not understood: the error says that it is ERROR', async () => {
    const { device } = await served('stop-copy');
    const state = new PassThrough();
    state.end(Buffer.from([4, 0, 0, 0, 1, 2, 3, 4]));
    const failed: unknown = await pipeline(state, device.migration.restore()).catch(
      (error: unknown) => error,
    );
    expect(failed).toMatchObject({ name: 'MigrationError', state: 'ERROR', code: 'ERR_VFIO_USER_MIGRATION' });
    expect((failed as Error).message).toMatch(/reset it to recover/);
  });

  test('a read that is refused: running again, and the error says so', async () => {
    let reads = 0;
    const { device, model } = await served('stop-copy', ({ name }) =>
      name === 'MIG_DATA_READ' && ++reads === 3 ? { errno: 5 } : undefined,
    );
    await expect(buffer(device.migration.save({ chunkBytes: 4096 }))).rejects.toMatchObject({
      name: 'MigrationError',
      state: 'RUNNING',
      message: expect.stringMatching(/MIG_DATA_READ: the server answered EIO/),
      cause: expect.objectContaining({ errno: 5 }),
    });
    expect(model.migrationState).toBe(RUNNING);
  });

  test('a write that is refused: the error says where it is', async () => {
    const { device } = await served('stop-copy', ({ name }) =>
      name === 'MIG_DATA_WRITE' ? { errno: 28 } : undefined,
    );
    const state = new PassThrough();
    state.end(Buffer.alloc(64));
    await expect(pipeline(state, device.migration.restore())).rejects.toMatchObject({
      name: 'MigrationError',
      state: 'ERROR',
      message: expect.stringMatching(/ENOSPC/),
    });
  });

  test.each([STOP, STOP_COPY, PRE_COPY])(
    'going to %i is refused: save() fails, the device runs',
    async (state) => {
      const { device, model } = await served('pre-copy', ({ name, payload }) =>
        // argsz, flags with SET, feature 2: the state.
        name === 'DEVICE_FEATURE' && payload.readUInt32LE(4) === 0x20002 && payload.readUInt32LE(8) === state
          ? { errno: 16 }
          : undefined,
      );
      const save = device.migration.save({ preCopy: true });
      const failed: unknown = await buffer(save).catch((error: unknown) => error);
      expect(failed).toMatchObject({ name: 'MigrationError' });
      expect((failed as MigrationError).message).toMatch(/EBUSY/);
      // Where STOP is refused nothing leads out of STOP_COPY.
      const now = state === STOP ? 'STOP_COPY' : 'RUNNING';
      expect((failed as MigrationError).state).toBe(now);
      expect(model.migrationState).toBe(state === STOP ? STOP_COPY : RUNNING);
    },
  );
});

describe('a peer that is not good', () => {
  async function scripted(
    data: (size: number, state: MigrationState) => Buffer,
    { canPreCopy = false, ...options }: ConnectOptions & { canPreCopy?: boolean } = {},
  ) {
    const peer = new ScriptedPeer();
    let state: MigrationState = RUNNING;
    const opening = connect({ fd: peer.clientFd }, options);
    await peer.open({ minor: 2 });
    const device = await opening;
    peer.onMessage((asked: Received) => {
      if (asked.command === 17) return peer.reply(asked, data(asked.payload.readUInt32LE(4), state));
      if (asked.command !== 16) return peer.refuse(asked, 22);
      const flags = asked.payload.readUInt32LE(4);
      if (flags === 0x20002) state = asked.payload.readUInt32LE(8) as MigrationState;
      if ((flags & 0x40000) !== 0) return peer.reply(asked, words(8, flags));
      peer.reply(
        asked,
        flags === 0x10001 ? words(16, flags, canPreCopy ? 5 : 1, 0) : words(16, flags, state, 0),
      );
    });
    cleanups.push(async () => {
      await device.close();
      peer.close();
    });
    return { device, state: () => state };
  }

  test('padded replies: what counts is size; less than was asked for ends', async () => {
    let left = 2500;
    const { device } = await scripted((size) => {
      const count = Math.min(left, size);
      left -= count;
      return Buffer.concat([
        words(8 + size, count),
        Buffer.alloc(count, 0x11),
        Buffer.alloc(size - count, 0xee),
      ]);
    });
    const state = await buffer(device.migration.save({ chunkBytes: 1000 }));
    expect(state.equals(Buffer.alloc(2500, 0x11))).toBe(true);
  });

  test('an empty reply ends, too', async () => {
    const replies = [Buffer.concat([words(12, 4), Buffer.alloc(4, 1)]), words(8, 0)];
    const { device } = await scripted(() => replies.shift() ?? words(8, 0));
    expect(await buffer(device.migration.save({ chunkBytes: 4 }))).toEqual(Buffer.alloc(4, 1));
  });

  test.each([
    [
      'more than was asked for',
      (size: number) => Buffer.concat([words(9 + size, size + 1), Buffer.alloc(size + 1)]),
    ],
    ['less than size says', () => Buffer.concat([words(16, 8), Buffer.alloc(4)])],
    ['no structure at all', () => Buffer.alloc(3)],
  ])('%s: a MigrationError with a ProtocolError in it, and the device runs', async (_title, data) => {
    const { device, state } = await scripted(data);
    const failed: unknown = await buffer(device.migration.save({ chunkBytes: 64 })).catch(
      (error: unknown) => error,
    );
    expect(failed).toMatchObject({
      name: 'MigrationError',
      state: 'RUNNING',
      cause: { name: 'ProtocolError' },
    });
    expect(state()).toBe(RUNNING);
  });

  describe('one that has more and more while it runs', () => {
    const full = (size: number, byte: number, count = size) =>
      Buffer.concat([words(8 + count, count), Buffer.alloc(count, byte)]);

    /** `rounds` is what each round in PRE_COPY brings before a read comes short; endless where there is none. */
    async function saved(preCopy: PreCopyLimits | true, rounds?: number[]) {
      let left = rounds?.shift();
      let stopped = 300;
      const sizes: number[] = [];
      const { device, state } = await scripted(
        (size, now) => {
          if (now === PRE_COPY) {
            sizes.push(size);
            const count = Math.min(size, left ?? (rounds === undefined ? size : 0));
            if (left !== undefined) left -= count;
            if (count < size) left = rounds?.shift();
            return full(size, 0x11, count);
          }
          const count = Math.min(size, stopped);
          stopped -= count;
          return full(size, 0x22, count);
        },
        { canPreCopy: true },
      );
      const bytes = await buffer(device.migration.save({ chunkBytes: 1000, preCopy }));
      const before = bytes.indexOf(0x22);
      expect(bytes.length - before).toBe(300);
      expect(bytes.subarray(0, before).every((byte) => byte === 0x11)).toBe(true);
      expect(state()).toBe(STOP);
      return { before, sizes };
    }

    test('maxBytes ends it to the byte', async () => {
      expect(await saved({ maxBytes: 25_500 })).toEqual({
        before: 25_500,
        sizes: [...Array<number>(25).fill(1000), 500],
      });
    });

    test('a gibibyte ends it where nothing is said', async () => {
      let asked = 0;
      const chunkBytes = 1 << 17;
      const chunk = full(chunkBytes, 0x11);
      const { device } = await scripted(
        (size, now) => {
          if (now !== PRE_COPY) return words(8, 0);
          asked += size;
          return chunk;
        },
        { canPreCopy: true },
      );
      let bytes = 0;
      const stream = device.migration.save({ preCopy: true, chunkBytes });
      for await (const data of stream) bytes += (data as Buffer).length;
      expect([bytes, asked]).toEqual([1 << 30, 1 << 30]);
    });

    test('one round where nothing is said: to the read that comes short', async () => {
      expect((await saved(true, [2500, 2000, 1000])).before).toBe(2500);
      expect((await saved({}, [0, 2000])).before).toBe(0);
    });

    test('rounds, as long as each brings less than the one before', async () => {
      expect((await saved({ maxRounds: 10 }, [2500, 1900, 700, 700, 100])).before).toBe(5800);
      expect((await saved({ maxRounds: 10 }, [2500, 1900, 0, 700])).before).toBe(4400);
      expect((await saved({ maxRounds: 2 }, [2500, 1900, 700])).before).toBe(4400);
      expect((await saved({ maxRounds: 9, maxBytes: 3000 }, [2500, 1900, 700])).before).toBe(3000);
    });
  });

  test('an answer that cannot be is not kept: what the device can do is asked for again', async () => {
    const peer = new ScriptedPeer();
    const opening = connect({ fd: peer.clientFd });
    await peer.open({ minor: 2 });
    const device = await opening;
    cleanups.push(async () => {
      await device.close();
      peer.close();
    });
    const answers = [0xfa, 0, 4, 5];
    let asked = 0;
    peer.onMessage((message: Received) => {
      const flags = message.payload.readUInt32LE(4);
      peer.reply(message, flags === 0x10001 ? words(16, flags, answers[asked++]!, 0) : words(8, flags));
    });
    for (const flags of ['0xfa', '0x0', '0x4']) {
      await expect(device.migration.support()).rejects.toMatchObject({
        name: 'ProtocolError',
        message: `DEVICE_FEATURE MIGRATION reply: flags is ${flags}, STOP_COPY (0x1) must be set`,
      });
    }
    for (let i = 0; i < 2; i++)
      expect(await device.migration.support()).toEqual({ stopCopy: true, preCopy: true });
    expect(asked).toBe(4);
  });

  test('minor 0: DEVICE_FEATURE is not tried', async () => {
    const peer = new ScriptedPeer();
    const opening = connect({ fd: peer.clientFd });
    await peer.open({ minor: 0 });
    const device = await opening;
    expect(await device.migration.support()).toBeUndefined();
    await expect(device.migration.state()).rejects.toBeInstanceOf(UnsupportedError);
    expect(peer.pending).toHaveLength(0);
    await device.close();
    peer.close();
  });
});
