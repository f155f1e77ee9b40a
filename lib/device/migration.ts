/**
 * Migration: the device's state as a stream (specification: Device Features, VFIO_USER_MIG_DATA_READ and _WRITE).
 *
 * ```
 *                ┌─────────────── PRE_COPY ◀──▶ RUNNING ◀──▶ STOP ◀──▶ RESUMING
 *                └──▶ STOP_COPY ◀──────────────────────────────┘
 * ```
 * These are the direct arcs. Other transitions are made of them: the shortest way, never through PRE_COPY or STOP_COPY.
 * ERROR is left by a reset alone.
 */
import { Readable, Writable } from 'node:stream';
import type { CallOptions } from '../connection/index.js';
import {
  MigrationError,
  ProtocolError,
  RemoteError,
  TimeoutError,
  UnsupportedError,
  type VfioUserError,
} from '../errors.js';
import {
  Command,
  DEVICE_FEATURE_GET,
  DEVICE_FEATURE_SET,
  Feature,
  MIGRATION_PRE_COPY,
  MIGRATION_STOP_COPY,
  MigrationState,
  migrationStateName,
} from '../protocol/constants.js';
import {
  decodeMigDataReadReply,
  decodeMigStateReply,
  decodeMigrationReply,
  encodeGetMigState,
  encodeGetMigration,
  encodeMigDataRead,
  encodeMigDataWrite,
  encodeSetMigState,
} from '../protocol/migration.js';
import type { Features } from './features.js';
import type { Session } from './session.js';

const { ERROR, STOP, RUNNING, STOP_COPY, RESUMING, PRE_COPY } = MigrationState;

/** Direct arcs, from each state; the specification's list. */
const ARCS: Readonly<Record<number, readonly MigrationState[]>> = {
  [RUNNING]: [STOP, PRE_COPY],
  [STOP]: [RUNNING, STOP_COPY, RESUMING],
  [STOP_COPY]: [STOP],
  [PRE_COPY]: [RUNNING, STOP_COPY],
  [RESUMING]: [STOP],
};
/** How long the rest of a stream that nobody wants may take. */
const DRAIN_MS = 5_000;
const SAVING: readonly MigrationState[] = [PRE_COPY, STOP_COPY];
const DEFAULT_PRE_COPY_BYTES = 1 << 30;
const DEFAULT_PRE_COPY_ROUNDS = 1;

/** What the device can do. */
export interface MigrationSupport {
  /** The state can be read while the device is stopped. */
  stopCopy: boolean;
  /** It can be read while the device runs, too. */
  preCopy: boolean;
}

/** How much is read while the device still runs; what is left then is read when it has stopped. */
export interface PreCopyLimits {
  /** The most bytes, however much the device still has. Default 1 GiB. */
  maxBytes?: number | undefined;
  /**
   * How often what there is is read, to the read that brings less than was asked for. A device that goes on changing has
   * more by then; no round follows one that brought nothing, or no less than the one before. Default 1.
   */
  maxRounds?: number | undefined;
}

export interface SaveOptions extends CallOptions {
  /**
   * Reads state while the device still runs, before it is stopped, so that it is stopped for less long: true, or how much.
   * Default false, which every device can do and every destination understands: libvfio-user's sample offers PRE_COPY,
   * and sends in it what its other half refuses (EINVAL) or does not survive.
   */
  preCopy?: boolean | PreCopyLimits | undefined;
  /** The most bytes of one read. Default: what the server allows, up to 1 MiB. */
  chunkBytes?: number | undefined;
}

export interface RestoreOptions extends CallOptions {
  /** Lets the device run once its state is in. Default true; else it is left in STOP. */
  run?: boolean | undefined;
}

export class Migration {
  readonly #session: Session;
  readonly #features: Features;
  #support: MigrationSupport | undefined;

  /** @internal */
  constructor(session: Session, features: Features) {
    this.#session = session;
    this.#features = features;
  }

  /** What the device can do; undefined where it cannot migrate. Asked once. */
  async support(options?: CallOptions): Promise<MigrationSupport | undefined> {
    if (this.#support !== undefined) return this.#support;
    if (!(await this.#features.probe(Feature.MIGRATION, { get: true }, options))) return undefined;
    const flags = await this.#features.request(encodeGetMigration(), options, (_slot, bytes, start, end) =>
      decodeMigrationReply(bytes, start, end),
    );
    this.#support = {
      stopCopy: (flags & MIGRATION_STOP_COPY) !== 0,
      preCopy: (flags & MIGRATION_PRE_COPY) !== 0,
    };
    return this.#support;
  }

  /** The device's state now. */
  state(options?: CallOptions): Promise<MigrationState> {
    return this.#features.request(encodeGetMigState(), options, (_slot, bytes, start, end) =>
      decodeMigStateReply(bytes, start, end, DEVICE_FEATURE_GET),
    );
  }

  /**
   * Takes the device to `target` along direct arcs.
   * @throws MigrationError where no way leads there, or where a step failed: `state` says where the device is then.
   */
  async transition(target: MigrationState, options?: CallOptions): Promise<void> {
    let from = await this.state(options);
    for (const next of pathBetween(from, target)) {
      try {
        from = await this.#setState(next, options);
      } catch (error) {
        throw await this.#stepError(from, next, error);
      }
      if (from !== next)
        throw migrationError(`the server went to ${name(from)} instead of ${name(next)}`, from);
    }
  }

  /**
   * The device's state as a stream. The device is stopped while it is read (and, where it was running, read before that
   * with `preCopy`), and left in STOP at the end: `transition(RUNNING)` sets it running again. Destroyed or failed, the
   * stream takes the device back to where it was; a MigrationError says where it is and what leads on from there.
   * @throws RangeError for limits that are no numbers of bytes or rounds.
   */
  save(options: SaveOptions = {}): Readable {
    checkPositive('chunkBytes', options.chunkBytes);
    const limits = limitsOf(options);
    checkPositive('preCopy.maxBytes', limits?.maxBytes);
    checkPositive('preCopy.maxRounds', limits?.maxRounds);
    return Readable.from(this.#saved(options), { objectMode: false, highWaterMark: 1 });
  }

  /**
   * A stream that takes a state that `save` gave. The device is stopped meanwhile and runs at the end. A stream that is
   * destroyed, or that the device rejects, leaves it in STOP or ERROR; the MigrationError says which. Out of ERROR leads a
   * reset alone; out of STOP `transition(RUNNING)` where the device accepts what it has, or another `restore()`
   * (libvfio-user refuses a reset in STOP).
   */
  restore(options: RestoreOptions = {}): Writable {
    const chunkBytes = Math.min(this.#session.maxDataXferSize, this.#session.options.writeChunkBytes);
    // The device takes data: it must not be left waiting for more.
    let resuming = false;
    const begin = async () => {
      await this.#beginRestore(options);
      resuming = true;
    };
    const send = async (data: Buffer) => {
      try {
        for (let at = 0; at < data.byteLength; at += chunkBytes) {
          await this.#write(data.subarray(at, at + chunkBytes), options);
        }
      } catch (error) {
        resuming = false;
        throw await this.#failed('the device did not take the data', error, STOP);
      }
    };
    const end = async () => {
      resuming = false;
      await this.#endRestore(options);
    };
    const abandon = async () => {
      if (resuming) await this.#goTo(STOP);
    };
    return new Writable({
      construct: (done) => settle(begin(), done),
      write: (chunk: Buffer, _encoding, done) => settle(send(chunk), done),
      final: (done) => settle(end(), done),
      destroy: (error, done) => settle(abandon(), () => done(error)),
    });
  }

  async *#saved(options: SaveOptions): AsyncGenerator<Buffer> {
    const support = await this.support(options);
    if (support === undefined) throw new UnsupportedError('the device does not support migration');
    const limits = limitsOf(options);
    if (limits !== undefined && !support.preCopy) {
      throw new UnsupportedError('the device cannot be read while it runs (PRE_COPY)');
    }
    const size = Math.min(options.chunkBytes ?? Infinity, this.#session.maxDataXferSize);
    const before = await this.state(options);
    let outcome: 'destroyed' | 'failed' | 'whole' = 'destroyed';
    try {
      // A device that is stopped is not set running for the sake of PRE_COPY.
      if (limits !== undefined && before === RUNNING) {
        await this.transition(PRE_COPY, options);
        yield* this.#readRounds(limits, size, options);
      }
      await this.transition(STOP_COPY, options);
      yield* this.#readAll(size, options);
      await this.transition(STOP, options);
      outcome = 'whole';
    } catch (error) {
      outcome = 'failed';
      throw await this.#failed('the state could not be read', error, before);
    } finally {
      if (outcome === 'destroyed') await this.#leave(before, size);
    }
  }

  /** Nobody wants the rest; libvfio-user's sample ends when STOP_COPY is left before all has been read. */
  async #leave(before: MigrationState, size: number): Promise<void> {
    const deadline = performance.now() + DRAIN_MS;
    const left = () => Math.max(1, deadline - performance.now());
    try {
      let isRest = (await this.state()) === STOP_COPY;
      while (isRest && performance.now() < deadline) {
        isRest = (await this.#read(size, { timeoutMs: left() })).byteLength === size;
      }
    } catch {
      // It could not be drained: leaving is tried all the same.
    }
    await this.#goTo(before);
  }

  /** What there is in PRE_COPY, which may never end: the limits do. */
  async *#readRounds(
    { maxBytes = DEFAULT_PRE_COPY_BYTES, maxRounds = DEFAULT_PRE_COPY_ROUNDS }: PreCopyLimits,
    size: number,
    options: CallOptions,
  ): AsyncGenerator<Buffer> {
    let left = maxBytes;
    let before = Infinity;
    for (let round = 0; round < maxRounds && left > 0; round++) {
      let bytes = 0;
      for await (const data of this.#readAll(size, options, left)) {
        bytes += data.byteLength;
        yield data;
      }
      // It changes as fast as it is read, or not at all.
      if (bytes === 0 || bytes >= before) return;
      before = bytes;
      left -= bytes;
    }
  }

  async *#readAll(size: number, options: CallOptions, most = Infinity): AsyncGenerator<Buffer> {
    for (let left = most; left > 0;) {
      const asked = Math.min(size, left);
      const data = await this.#read(asked, options);
      if (data.byteLength > 0) yield data;
      // Less than was asked for is the end (specification: VFIO_USER_MIG_DATA_READ).
      if (data.byteLength < asked) return;
      left -= asked;
    }
  }

  async #read(size: number, options: CallOptions): Promise<Buffer> {
    return this.#session.userConnection.call(
      Command.MIG_DATA_READ,
      encodeMigDataRead(size),
      null,
      (_slot, bytes, start, end) => decodeMigDataReadReply(bytes, start, end, size),
      options,
    );
  }

  async #write(data: Uint8Array, options: CallOptions): Promise<void> {
    return this.#session.userConnection.call(
      Command.MIG_DATA_WRITE,
      encodeMigDataWrite(data),
      null,
      () => undefined,
      options,
    );
  }

  async #beginRestore(options: CallOptions): Promise<void> {
    if ((await this.support(options)) === undefined) {
      throw new UnsupportedError('the device does not support migration');
    }
    await this.transition(RESUMING, options);
  }

  async #endRestore(options: RestoreOptions): Promise<void> {
    // RESUMING to STOP is where the server says whether it has understood the state.
    await this.transition(STOP, options);
    if (options.run ?? true) await this.transition(RUNNING, options);
  }

  /** For the device's sake alone: what went wrong before is what the caller is told. */
  async #goTo(state: MigrationState): Promise<void> {
    if (this.#session.connection.endReason !== undefined) return;
    await this.transition(state).catch(() => undefined);
  }

  /** Takes the device out of a transfer that failed, and makes an error of `cause` that says where it is now. */
  async #failed(what: string, cause: unknown, target: MigrationState): Promise<unknown> {
    await this.#goTo(target);
    if (!isFailure(cause)) return cause;
    const now = await this.state().catch(() => undefined);
    return migrationError(`${what} (${cause.message})`, now, cause);
  }

  #setState(state: MigrationState, options: CallOptions | undefined): Promise<MigrationState> {
    return this.#features.request(encodeSetMigState(state), options, (_slot, bytes, start, end) =>
      decodeMigStateReply(bytes, start, end, DEVICE_FEATURE_SET),
    );
  }

  async #stepError(from: MigrationState, to: MigrationState, cause: unknown): Promise<unknown> {
    if (!isFailure(cause)) return cause;
    const now = await this.state().catch(() => undefined);
    return migrationError(
      `the device did not go from ${name(from)} to ${name(to)} (${cause.message})`,
      now,
      cause,
    );
  }
}

/** The states on the shortest way, without where it begins; empty where it is there already. */
function pathBetween(from: MigrationState, to: MigrationState): MigrationState[] {
  const ways: MigrationState[][] = [[from]];
  for (const way of ways) {
    const last = way.at(-1)!;
    if (last === to) return way.slice(1);
    const interior = way.length > 1 && SAVING.includes(last);
    if (interior || way.length > 4) continue;
    for (const next of ARCS[last] ?? []) if (!way.includes(next)) ways.push([...way, next]);
  }
  throw migrationError(`no way leads from ${name(from)} to ${name(to)}`, from);
}

function migrationError(what: string, state: MigrationState | undefined, cause?: unknown): MigrationError {
  const where = state === undefined ? 'unknown' : name(state);
  return new MigrationError(`${what}; the device is in state ${where}: ${recoveryFrom(state)}`, where, {
    cause,
  });
}

function recoveryFrom(state: MigrationState | undefined): string {
  if (state === ERROR || state === undefined) return 'reset it to recover';
  if (state === RUNNING) return 'it can go on from there';
  return 'it can go on from there, transition(RUNNING) sets it running, or it can be reset';
}

/** Undefined where nothing is to be read before the device is stopped. */
function limitsOf({ preCopy = false }: SaveOptions): PreCopyLimits | undefined {
  if (typeof preCopy === 'boolean') return preCopy ? {} : undefined;
  return preCopy;
}

function checkPositive(name: string, value: number | undefined): void {
  if (value === undefined || (Number.isSafeInteger(value) && value > 0)) return;
  throw new RangeError(`${name} is a positive integer, not ${value}`);
}

function name(state: MigrationState): string {
  return migrationStateName(state);
}

/** What leaves the device in a state that its user must be told of; with the connection everything has ended. */
function isFailure(error: unknown): error is VfioUserError {
  return (
    error instanceof RemoteError ||
    error instanceof ProtocolError ||
    error instanceof TimeoutError ||
    error instanceof MigrationError
  );
}

function settle(work: Promise<void>, done: (error?: Error | null) => void): void {
  work.then(
    () => done(),
    (error: unknown) => done(error instanceof Error ? error : new Error(String(error))),
  );
}
