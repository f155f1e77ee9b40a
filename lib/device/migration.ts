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
import { MigrationError, RemoteError, UnsupportedError } from '../errors.js';
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
const SAVING: readonly MigrationState[] = [PRE_COPY, STOP_COPY];

/** What the device can do. */
export interface MigrationSupport {
  /** The state can be read while the device is stopped. */
  stopCopy: boolean;
  /** It can be read while the device runs, too. */
  preCopy: boolean;
}

export interface SaveOptions extends CallOptions {
  /** Reads what is there while the device still runs, before it is stopped. Default: whether the device can. */
  preCopy?: boolean | undefined;
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
   * The device's state as a stream. The device is stopped while it is read (and read while it runs before that, with
   * `preCopy`), and left in STOP at the end. Destroyed or failed, the stream lets the device run again.
   */
  save(options: SaveOptions = {}): Readable {
    return Readable.from(this.#saved(options), { objectMode: false, highWaterMark: 1 });
  }

  /**
   * A stream that takes a state that `save` gave. The device is stopped meanwhile and runs at the end. A stream that is
   * destroyed, or that the device rejects, leaves it in STOP or ERROR; the error says which. A reset recovers both.
   */
  restore(options: RestoreOptions = {}): Writable {
    const chunkBytes = Math.min(this.#session.maxDataXferSize, this.#session.options.writeChunkBytes);
    const send = async (data: Buffer) => {
      for (let at = 0; at < data.byteLength; at += chunkBytes) {
        await this.#write(data.subarray(at, at + chunkBytes), options);
      }
    };
    return new Writable({
      construct: (done) => settle(this.#beginRestore(options), done),
      write: (chunk: Buffer, _encoding, done) => settle(send(chunk), done),
      final: (done) => settle(this.#endRestore(options), done),
      destroy: (error, done) => settle(this.#abandonRestore(), () => done(error), error),
    });
  }

  async *#saved(options: SaveOptions): AsyncGenerator<Buffer> {
    const support = await this.support(options);
    if (support === undefined) throw new UnsupportedError('the device does not support migration');
    const size = Math.min(options.chunkBytes ?? Infinity, this.#session.maxDataXferSize);
    let whole = false;
    try {
      if (options.preCopy ?? support.preCopy) {
        await this.transition(PRE_COPY, options);
        yield* this.#readAll(size, options);
        await this.transition(STOP_COPY, options);
      } else {
        // STOP_COPY may only be the end of a way.
        await this.transition(STOP_COPY, options);
      }
      yield* this.#readAll(size, options);
      await this.transition(STOP, options);
      whole = true;
    } finally {
      if (!whole) await this.#runAgain();
    }
  }

  async *#readAll(size: number, options: CallOptions): AsyncGenerator<Buffer> {
    for (let ended = false; !ended;) {
      const data = await this.#read(size, options);
      // Less than was asked for is the end (specification: VFIO_USER_MIG_DATA_READ).
      ended = data.byteLength < size;
      if (data.byteLength > 0) yield data;
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

  /** After an orderly end there is nothing to do; otherwise the device must not wait for more in RESUMING. */
  async #abandonRestore(): Promise<void> {
    if (this.#session.connection.endReason !== undefined || this.#support === undefined) return;
    if ((await this.state()) === RESUMING) await this.transition(STOP);
  }

  /** What went wrong is on its way to the caller already: this is only for the device's sake. */
  async #runAgain(): Promise<void> {
    if (this.#session.connection.endReason !== undefined) return;
    await this.transition(RUNNING).catch(() => undefined);
  }

  #setState(state: MigrationState, options: CallOptions | undefined): Promise<MigrationState> {
    return this.#features.request(encodeSetMigState(state), options, (_slot, bytes, start, end) =>
      decodeMigStateReply(bytes, start, end, DEVICE_FEATURE_SET),
    );
  }

  async #stepError(from: MigrationState, to: MigrationState, cause: unknown): Promise<unknown> {
    if (!(cause instanceof RemoteError)) return cause;
    const now = await this.state().catch(() => undefined);
    return migrationError(
      `the device refused to go from ${name(from)} to ${name(to)} (${cause.code})`,
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
  const recovery =
    state === ERROR || state === undefined ? 'reset it to recover' : `it can go on from there, or be reset`;
  return new MigrationError(`${what}; the device is in state ${where}: ${recovery}`, where, { cause });
}

function name(state: MigrationState): string {
  return migrationStateName(state);
}

function settle(
  work: Promise<void>,
  done: (error?: Error | null) => void,
  fallback: Error | null = null,
): void {
  work.then(
    () => done(fallback),
    (error: unknown) => done(error instanceof Error ? error : new Error(String(error))),
  );
}
