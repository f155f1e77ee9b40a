/** What ends a save or a restore, and where the device is then: one transfer at a time, whole or an error. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { once } from 'node:events';
import { Readable, Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import {
  RamDevice,
  RamRegister,
  serve,
  type ConnectedClient,
  type EmulatorServer,
  type Verdict,
} from '../../lib/emulator/index.js';
import {
  ClosedError,
  MigrationError,
  MigrationState,
  UnsupportedError,
  connect,
  type ConnectOptions,
  type Device,
  type SaveOptions,
} from '../../lib/index.js';
import { Scratch } from '../cli/cli.js';
import { ScriptedPeer, words, type Received } from '../support/scripted-peer.js';
import { until } from '../support/until.js';

const { ERROR, STOP, RUNNING, STOP_COPY, RESUMING, PRE_COPY } = MigrationState;
const RAM_BYTES = 1 << 16;
const CHUNK: SaveOptions = { chunkBytes: 4096 };
/** Reads of 4 KiB that the whole state takes. */
const WHOLE_READS = 17;
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

/** A command as it comes: `SET 3`, `GET`, `READ`, `WRITE`, or its name. */
type Decide = (what: string, count: number) => Verdict | void;

class Rig {
  readonly model = new RamDevice({ sharedSize: 0, ramSize: RAM_BYTES, migration: 'pre-copy' });
  readonly scratch = new Scratch();
  readonly clients: ConnectedClient[] = [];
  /** What has come, and how often. */
  readonly counts = new Map<string, number>();
  decide: Decide = () => undefined;
  server!: EmulatorServer;

  static async open(): Promise<Rig> {
    const rig = new Rig();
    await rig.listen();
    cleanups.push(async () => {
      await rig.server.close();
      rig.model.close();
      rig.scratch.remove();
    });
    for (let i = 0; i < RAM_BYTES; i++) rig.model.ram[i] = (i * 7 + (i >> 8)) & 0xff;
    return rig;
  }

  async listen(): Promise<void> {
    this.server = await serve(this.model, {
      path: this.scratch.path('socket'),
      clients: 'many',
      onClient: (client) => this.clients.push(client),
      intercept: ({ name, payload }) => {
        const what = nameOf(name, payload);
        const count = (this.counts.get(what) ?? 0) + 1;
        this.counts.set(what, count);
        return this.decide(what, count) ?? 'pass';
      },
    });
  }

  async connect(options: ConnectOptions = {}): Promise<Device> {
    const device = await connect(this.scratch.path('socket'), options);
    cleanups.push(() => device.close());
    return device;
  }

  get state(): MigrationState {
    return this.model.migrationState!;
  }

  count(what: string): number {
    return this.counts.get(what) ?? 0;
  }

  /** The state as it is now, read by a client of its own. */
  async stream(): Promise<Buffer> {
    const device = await this.connect();
    const bytes = await buffer(device.migration.save());
    await device.migration.transition(RUNNING);
    await device.close();
    return bytes;
  }
}

function nameOf(name: string, payload: Buffer): string {
  if (name === 'MIG_DATA_READ') return 'READ';
  if (name === 'MIG_DATA_WRITE') return 'WRITE';
  if (name !== 'DEVICE_FEATURE') return name;
  const flags = payload.readUInt32LE(4);
  if (flags === 0x20002) return `SET ${payload.readUInt32LE(8)}`;
  return flags === 0x10002 ? 'GET' : 'feature';
}

/** The first chunk has come, more are left. */
async function begun(stream: Readable): Promise<void> {
  await once(stream, 'readable');
  stream.read();
}

async function closed(stream: Readable | Writable): Promise<unknown> {
  let failure: unknown;
  stream.on('error', (error) => (failure = error));
  if (!stream.closed) await once(stream, 'close').catch(() => undefined);
  return failure;
}

const failing = () => new Writable({ write: (_chunk, _encoding, done) => done(new Error('disk full')) });

/** Each is broken off while the device is in STOP_COPY, with more to read. */
const ENDS: Record<string, (device: Device, options: SaveOptions) => Promise<unknown>> = {
  'for await, break': async (device, options) => {
    for await (const _chunk of device.migration.save(options)) break;
  },
  'for await, throw': async (device, options) => {
    for await (const _chunk of device.migration.save(options)) throw new Error('mine');
  },
  'destroy()': async (device, options) => {
    const stream = device.migration.save(options);
    await begun(stream);
    stream.destroy();
  },
  'destroy(error)': async (device, options) => {
    const stream = device.migration.save(options);
    stream.on('error', () => undefined);
    await begun(stream);
    stream.destroy(new Error('mine'));
  },
  'a consumer that fails': (device, options) => pipeline(device.migration.save(options), failing()),
  'the signal of a pipeline': async (device, options) => {
    const abort = new AbortController();
    const consumer = new Writable({ write: () => abort.abort() });
    await pipeline(device.migration.save(options), consumer, { signal: abort.signal });
  },
  'the signal of the save': async (device, options) => {
    const abort = new AbortController();
    const stream = device.migration.save({ ...options, signal: abort.signal });
    stream.on('error', () => undefined);
    await begun(stream);
    abort.abort(new Error('mine'));
  },
  'nothing but close()': async (device, options) => {
    const stream = device.migration.save(options);
    stream.on('error', () => undefined);
    await begun(stream);
  },
};

describe('a save that is broken off', () => {
  test.each(Object.keys(ENDS))('%s, and close() at once: the device runs, and was drained', async (how) => {
    const rig = await Rig.open();
    const device = await rig.connect();
    await ENDS[how]!(device, CHUNK).catch(() => undefined);
    await device.close();
    expect(rig.state).toBe(RUNNING);
    expect(rig.count('READ')).toBeGreaterThanOrEqual(WHOLE_READS);
    expect(rig.count(`SET ${RUNNING}`)).toBe(1);
  });

  test.each(Object.keys(ENDS))('%s, in PRE_COPY: the device runs on', async (how) => {
    const rig = await Rig.open();
    const device = await rig.connect();
    await ENDS[how]!(device, { ...CHUNK, preCopy: true }).catch(() => undefined);
    await device.close();
    expect(rig.state).toBe(RUNNING);
    expect(rig.count(`SET ${STOP_COPY}`)).toBe(0);
  });

  test.each(Object.keys(ENDS))('%s: one that was in STOP stays there', async (how) => {
    const rig = await Rig.open();
    const device = await rig.connect();
    await device.migration.transition(STOP);
    await ENDS[how]!(device, CHUNK).catch(() => undefined);
    await device.close();
    expect(rig.state).toBe(STOP);
    expect(rig.count(`SET ${RUNNING}`)).toBe(0);
  });

  test('with all of it read, and not taken to its end', async () => {
    const rig = await Rig.open();
    const device = await rig.connect();
    for await (const _chunk of device.migration.save()) {
      await until(() => rig.state === STOP);
      break;
    }
    await device.close();
    expect(rig.state).toBe(RUNNING);
  });

  test('before it has begun: nothing is sent', async () => {
    const rig = await Rig.open();
    const device = await rig.connect();
    const { sent } = device.counters;
    const stream = device.migration.save();
    stream.destroy();
    await closed(stream);
    const aborted = device.migration.save({ signal: AbortSignal.abort(new Error('mine')) });
    await expect(buffer(aborted)).rejects.toThrow('mine');
    expect(device.counters.sent - sent).toBeLessThanOrEqual(2);
    expect(rig.count('GET')).toBe(0);
  });

  test('close() in the middle: the stream fails by name, and later calls are refused', async () => {
    const rig = await Rig.open();
    const device = await rig.connect();
    const stream = device.migration.save(CHUNK);
    const failure = closed(stream);
    await begun(stream);
    const closing = device.close();
    await expect(device.bar(0).readUInt32(0)).rejects.toBeInstanceOf(ClosedError);
    await expect(device.migration.transition(STOP)).rejects.toBeInstanceOf(Error);
    expect(device.close()).toBe(closing);
    await closing;
    expect(await failure).toBeInstanceOf(ClosedError);
    expect(rig.state).toBe(RUNNING);
  });

  test('close() without one is done when it returns', async () => {
    const rig = await Rig.open();
    const device = await rig.connect();
    await buffer(device.migration.save());
    void device.close();
    expect(await device.closed).toBeInstanceOf(ClosedError);
    expect(rig.state).toBe(STOP);
  });

  test('what comes right after a break waits for the device to be back', async () => {
    const rig = await Rig.open();
    const device = await rig.connect();
    for await (const _chunk of device.migration.save(CHUNK)) break;
    const bytes = await buffer(device.migration.save(CHUNK));
    expect(bytes.subarray(-RAM_BYTES).equals(rig.model.ram)).toBe(true);
    await device.migration.transition(RUNNING);
    for await (const _chunk of device.migration.save(CHUNK)) break;
    await device.migration.transition(STOP);
    expect(rig.state).toBe(STOP);
  });

  test.each<[string, (what: string, count: number) => Verdict | void]>([
    ['refused', (what, count) => (what === `SET ${STOP}` && count === 2 ? { errno: 16 } : undefined)],
    ['not answered', (what, count) => (what === `SET ${STOP}` && count === 2 ? 'drop' : undefined)],
    ['refused to run', (what, count) => (what === `SET ${RUNNING}` && count < 3 ? { errno: 16 } : undefined)],
    ['not asked for its state', (what, count) => (what === 'GET' && count === 3 ? 'drop' : undefined)],
    ['not drained', (what, count) => (what === 'READ' && count > 1 ? 'drop' : undefined)],
  ])('and %s at first: it is tried again', async (_title, decide) => {
    const rig = await Rig.open();
    const device = await rig.connect({ timeoutMs: 500 });
    rig.decide = decide;
    for await (const _chunk of device.migration.save(CHUNK)) break;
    await device.close();
    expect(rig.state).toBe(RUNNING);
  });

  test('and a server that answers nothing any more: close() ends all the same', async () => {
    const rig = await Rig.open();
    const device = await rig.connect({ timeoutMs: 300 });
    for await (const _chunk of device.migration.save(CHUNK)) {
      rig.decide = () => 'drop';
      break;
    }
    await device.close();
    expect(await device.closed).toBeInstanceOf(ClosedError);
  });
});

describe('one at a time', () => {
  test.each(['save', 'restore'] as const)('a %s beside a save is refused by name', async (kind) => {
    const rig = await Rig.open();
    const device = await rig.connect();
    const first = device.migration.save(CHUNK);
    await once(first, 'readable');
    const { migration } = device;
    const second =
      kind === 'save'
        ? buffer(migration.save())
        : pipeline(Readable.from([Buffer.alloc(10)]), migration.restore());
    await expect(second).rejects.toMatchObject({
      name: 'MigrationError',
      message: expect.stringMatching(/a save of this device is under way/),
    });
    await expect(migration.transition(RUNNING)).rejects.toBeInstanceOf(MigrationError);
    const bytes = await buffer(first);
    expect(bytes.subarray(-RAM_BYTES).equals(rig.model.ram)).toBe(true);
    expect(rig.state).toBe(STOP);
    await migration.transition(RUNNING);
  });

  test('two saves of two connections at once: one is whole, the other refused', async () => {
    const rig = await Rig.open();
    const devices = [await rig.connect(), await rig.connect()];
    for (let times = 0; times < 10; times++) {
      const results = await Promise.allSettled(
        devices.map((device) => buffer(device.migration.save({ chunkBytes: 4096 }))),
      );
      for (const result of results) {
        if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(MigrationError);
        else expect(result.value.subarray(-RAM_BYTES).equals(rig.model.ram)).toBe(true);
      }
      expect(results.some(({ status }) => status === 'fulfilled')).toBe(true);
      if (rig.state !== RUNNING) await devices[0]!.migration.transition(RUNNING);
    }
  });

  test('a save and a transition of another connection: whole, or an error', async () => {
    const rig = await Rig.open();
    const device = await rig.connect();
    const other = await rig.connect();
    const stream = device.migration.save(CHUNK);
    await begun(stream);
    await expect(other.migration.transition(RUNNING)).rejects.toMatchObject({ state: 'STOP_COPY' });
    await other.reset();
    await expect(buffer(stream)).rejects.toMatchObject({ name: 'MigrationError', state: 'RUNNING' });
    expect(rig.state).toBe(RUNNING);
  });

  test('a restore and a reset of another connection: an error, although STOP would be accepted', async () => {
    const rig = await Rig.open();
    const bytes = await rig.stream();
    const device = await rig.connect();
    const other = await rig.connect();
    const restore = device.migration.restore();
    await new Promise((resolve) => restore.write(bytes, resolve));
    await other.reset();
    const failure = closed(restore);
    restore.end();
    expect(await failure).toMatchObject({ name: 'MigrationError', state: 'STOP' });
  });

  test('a restore and a reset of its own device: an error, although another has brought a whole state', async () => {
    const rig = await Rig.open();
    const bytes = await rig.stream();
    const device = await rig.connect();
    const restore = device.migration.restore({ run: false });
    await new Promise((resolve) => restore.write(bytes.subarray(0, 5_000), resolve));
    await device.reset();
    const other = await rig.connect();
    const dies = other.migration.restore();
    dies.on('error', () => undefined);
    await new Promise((resolve) => dies.write(bytes, resolve));
    rig.clients.at(-1)!.close();
    await other.closed;
    expect(rig.state).toBe(RESUMING);
    const failure = closed(restore);
    restore.end();
    expect(await failure).toMatchObject({
      name: 'MigrationError',
      message: expect.stringMatching(/the device was reset meanwhile/),
    });
  });
});

describe('a device that is somewhere else', () => {
  test.each([
    ['PRE_COPY', [PRE_COPY], /transition\(RUNNING\)/],
    ['STOP_COPY', [STOP_COPY], /transition\(STOP\)/],
    ['RESUMING', [RESUMING], /reset it/],
  ] as const)('save() in %s is refused, and says what leads out of it', async (state, way, advice) => {
    const rig = await Rig.open();
    const device = await rig.connect();
    for (const step of way) await device.migration.transition(step);
    const failure: unknown = await buffer(device.migration.save()).catch((error: unknown) => error);
    expect(failure).toMatchObject({ name: 'MigrationError', state });
    expect((failure as Error).message).toMatch(advice);
    expect(rig.state).toBe(way[0]);
    expect(rig.count('READ')).toBe(0);
  });

  test('the rest of a stream is nobody else’s: it is discarded, and the next one is whole', async () => {
    const rig = await Rig.open();
    const first = await rig.connect();
    const stream = first.migration.save(CHUNK);
    stream.on('error', () => undefined);
    await begun(stream);
    // As if its process had died.
    rig.clients[0]!.close();
    await first.closed;
    const second = await rig.connect();
    await expect(buffer(second.migration.save())).rejects.toMatchObject({ state: 'STOP_COPY' });
    await second.migration.transition(STOP);
    const bytes = await buffer(second.migration.save());
    expect(bytes.subarray(-RAM_BYTES).equals(rig.model.ram)).toBe(true);
  });

  test.each(['died', 'was aborted', 'was closed'])(
    'a restore after one that %s has nothing of it',
    async (how) => {
      const rig = await Rig.open();
      const bytes = await rig.stream();
      const before = Buffer.from(rig.model.ram);
      rig.model.ram.fill(0);
      const first = await rig.connect();
      const restore = first.migration.restore();
      restore.on('error', () => undefined);
      await new Promise((resolve) => restore.write(bytes.subarray(0, 10_000), resolve));
      expect(rig.state).toBe(RESUMING);
      if (how === 'died') rig.clients.at(-1)!.close();
      else if (how === 'was aborted') restore.destroy(new Error('mine'));
      await first.close();
      if (how !== 'died') expect(rig.state).toBe(ERROR);
      else expect(rig.state).toBe(RESUMING);
      const second = await rig.connect();
      if (rig.state === ERROR) {
        const again = pipeline(Readable.from([bytes]), second.migration.restore());
        await expect(again).rejects.toMatchObject({
          state: 'ERROR',
          message: expect.stringMatching(/reset it/),
        });
        await second.reset();
      }
      await pipeline(Readable.from([bytes]), second.migration.restore());
      expect(rig.model.ram.equals(before)).toBe(true);
      expect(rig.state).toBe(RUNNING);
    },
  );
});

describe('a restore that is broken off', () => {
  test('before there were bytes: the device runs on, whatever its source was', async () => {
    const rig = await Rig.open();
    const device = await rig.connect();
    const source = new Readable({ read: () => source.destroy(new Error('no such file')) });
    await expect(pipeline(source, device.migration.restore())).rejects.toThrow('no such file');
    expect(rig.state).toBe(RUNNING);
    expect(rig.count('GET')).toBe(0);
  });

  test.each<[string, (restore: Writable, abort: AbortController, device: Device) => unknown]>([
    ['destroy()', (restore) => restore.destroy()],
    ['its signal', (_restore, abort) => abort.abort(new Error('mine'))],
    ['close()', (_restore, _abort, device) => device.close()],
  ])('%s: not in RESUMING, and it does not run', async (_title, end) => {
    const rig = await Rig.open();
    const bytes = await rig.stream();
    const device = await rig.connect();
    const abort = new AbortController();
    const restore = device.migration.restore({ signal: abort.signal });
    const failure = closed(restore);
    await new Promise((resolve) => restore.write(bytes.subarray(0, 5_000), resolve));
    await end(restore, abort, device);
    await failure;
    await device.close();
    expect(rig.state).toBe(ERROR);
  });

  test.each([
    ['the way to RESUMING is refused', `SET ${RESUMING}`, RUNNING],
    ['the way to RUNNING is refused', `SET ${RUNNING}`, STOP],
  ])('%s', async (_title, refused, expected) => {
    const rig = await Rig.open();
    const bytes = await rig.stream();
    rig.counts.clear();
    rig.decide = (what, count) => (what === refused && count === 1 ? { errno: 16 } : undefined);
    const device = await rig.connect();
    const restoring = pipeline(Readable.from([bytes]), device.migration.restore());
    await expect(restoring).rejects.toMatchObject({ name: 'MigrationError' });
    expect(rig.state).toBe(expected);
  });

  test('RUNNING was carried out, and its answer is lost: the device is stopped, as the error says', async () => {
    const peer = new ScriptedPeer();
    let state: MigrationState = RUNNING;
    let withheld = 0;
    const opening = connect({ fd: peer.clientFd }, { timeoutMs: 100 });
    await peer.open({ minor: 2 });
    const device = await opening;
    cleanups.push(async () => {
      await device.close();
      peer.close();
    });
    peer.onMessage((asked: Received): void => {
      if (asked.command === 18) return peer.reply(asked);
      const flags = asked.payload.readUInt32LE(4);
      if (flags === 0x20002) state = asked.payload.readUInt32LE(8) as MigrationState;
      if (flags === 0x20002 && state === RUNNING && withheld++ === 0) return;
      if ((flags & 0x40000) !== 0) return peer.reply(asked, words(8, flags));
      peer.reply(asked, words(16, flags, flags === 0x10001 ? 5 : state, 0));
    });
    const restoring = pipeline(Readable.from([Buffer.alloc(8)]), device.migration.restore());
    await expect(restoring).rejects.toMatchObject({ name: 'MigrationError', state: 'STOP' });
    expect(state).toBe(STOP);
  });
});

describe('a connection that is lost and comes back', () => {
  async function lost(rig: Rig, how: 'restart' | 'cut', device: Device): Promise<void> {
    const back = once(device, 'reconnected');
    if (how === 'cut') rig.clients.at(-1)!.close();
    else {
      await rig.server.close();
      await rig.model.reset();
      await rig.listen();
    }
    await back;
  }

  test.each(['idle', 'reading'] as const)('while the save is %s: the device runs again', async (what) => {
    const rig = await Rig.open();
    const device = await rig.connect({ reconnect: true });
    const stream = device.migration.save(CHUNK);
    const failure = closed(stream);
    await begun(stream);
    expect(rig.state).toBe(STOP_COPY);
    if (what === 'reading') {
      const reads = rig.count('READ');
      rig.decide = (command, count) => (command === 'READ' && count === reads + 3 ? 'drop' : undefined);
      stream.resume();
    }
    await lost(rig, 'cut', device);
    expect(await failure).toBeInstanceOf(ClosedError);
    expect(rig.state).toBe(RUNNING);
    rig.decide = () => undefined;
    const bytes = await buffer(device.migration.save());
    expect(bytes.subarray(-RAM_BYTES).equals(rig.model.ram)).toBe(true);
  });

  test('a save of a device that was in STOP: another process that runs is left alone', async () => {
    const rig = await Rig.open();
    const device = await rig.connect({ reconnect: true });
    await device.migration.transition(STOP);
    const stream = device.migration.save(CHUNK);
    const failure = closed(stream);
    await begun(stream);
    await lost(rig, 'restart', device);
    expect(await failure).toBeInstanceOf(ClosedError);
    expect(rig.count(`SET ${RUNNING}`)).toBe(0);
    expect(await device.bar(0).readUInt32(RamRegister.IDENTIFICATION)).not.toBe(0);
  });

  test('while it restores: not in RESUMING', async () => {
    const rig = await Rig.open();
    const bytes = await rig.stream();
    const device = await rig.connect({ reconnect: true });
    const restore = device.migration.restore();
    const failure = closed(restore);
    await new Promise((resolve) => restore.write(bytes.subarray(0, 5_000), resolve));
    await lost(rig, 'cut', device);
    expect(await failure).toBeInstanceOf(ClosedError);
    expect(rig.state).toBe(ERROR);
  });

  test.each([
    ['stop-copy', { stopCopy: true, preCopy: false }],
    [undefined, undefined],
  ] as const)(
    'what the device can do is asked of the server that has come: %s',
    async (migration, support) => {
      const rig = await Rig.open();
      const device = await rig.connect({ reconnect: true });
      expect(await device.migration.support()).toEqual({ stopCopy: true, preCopy: true });
      const other = new RamDevice({ sharedSize: 0, ramSize: RAM_BYTES, ...(migration && { migration }) });
      cleanups.push(() => other.close());
      const back = once(device, 'reconnected');
      await rig.server.close();
      rig.server = await serve(other, { path: rig.scratch.path('socket') });
      await back;
      expect(await device.migration.support()).toEqual(support);
      await expect(buffer(device.migration.save({ preCopy: true }))).rejects.toBeInstanceOf(UnsupportedError);
      expect(await device.features.probe(1)).toBe(support !== undefined);
    },
  );
});

describe("the time of a call is its caller's", () => {
  test('a transition of several steps ends at its deadline', async () => {
    const rig = await Rig.open();
    const device = await rig.connect({ timeoutMs: 20_000 });
    rig.decide = () => ({ delayMs: 120 });
    const late = device.migration.transition(STOP_COPY, { timeoutMs: 200 });
    await expect(late).rejects.toMatchObject({ name: 'MigrationError', cause: { timeoutMs: 200 } });
    expect(rig.count(`SET ${STOP_COPY}`)).toBe(0);
  });

  test('an aborted one ends at once, and asks for nothing more', async () => {
    const rig = await Rig.open();
    const device = await rig.connect({ timeoutMs: 20_000 });
    rig.decide = () => 'drop';
    const abort = new AbortController();
    const { migration } = device;
    const call = migration.transition(STOP, { signal: abort.signal }).catch((error: unknown) => error);
    await until(() => rig.count('GET') === 1);
    abort.abort(new Error('enough'));
    const after = new Promise((resolve) => setTimeout(resolve, 2_000, 'later').unref());
    expect(await Promise.race([call, after])).toMatchObject({ message: 'enough' });
    expect(rig.count('GET')).toBe(1);
  });

  test('also while it waits for another one', async () => {
    const rig = await Rig.open();
    const device = await rig.connect({ timeoutMs: 20_000 });
    rig.decide = () => 'drop';
    const { migration } = device;
    const stuck = migration.transition(STOP, { timeoutMs: Infinity }).catch((error: unknown) => error);
    await expect(migration.transition(STOP, { timeoutMs: 50 })).rejects.toMatchObject({ timeoutMs: 50 });
    const save = migration.save({ timeoutMs: 50 });
    save.resume();
    const [error] = (await once(save, 'error')) as [Error];
    expect(error).toMatchObject({ name: 'TimeoutError', timeoutMs: 50 });
    await device.close();
    expect(await stuck).toBeInstanceOf(ClosedError);
  });

  test('that of a save is for all of it, and the device is taken back', async () => {
    const rig = await Rig.open();
    const device = await rig.connect({ timeoutMs: 20_000 });
    // 17 reads of 40 ms each.
    rig.decide = (what) => (what === 'READ' ? { delayMs: 40 } : undefined);
    const save = device.migration.save({ ...CHUNK, timeoutMs: 200 });
    await expect(buffer(save)).rejects.toMatchObject({ name: 'MigrationError', cause: { timeoutMs: 200 } });
    expect(rig.state).toBe(RUNNING);
  });
});
