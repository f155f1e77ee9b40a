/**
 * A running device is moved to another server: its state, and the memory that it writes.
 *
 * ```
 *   source        RUNNING ──── memory, then state (PRE_COPY) ────▶ STOP ─────────────────────────────────▶ STOP
 *                    ▲                                               │ any failure before the destination runs
 *                    └───────────────────────────────────────────────┘
 *   destination   RUNNING or STOP ─────── RESUMING ──────▶ STOP ──── the rest of the memory ──── RUNNING
 * ```
 * The two never run at once: the source goes on only where it is known that the destination does not run, or its connection
 * has ended.
 */
import { performance } from 'node:perf_hooks';
import { Transform, type Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { forUndoing, isOver, withDeadline, type CallOptions } from '../connection/index.js';
import { MigrationError, TimeoutError, UnsupportedError } from '../errors.js';
import { bigInteger, outOfRange, UINT64_MAX, wrongType } from '../fields.js';
import * as option from '../options.js';
import { MigrationState, migrationStateName } from '../protocol/constants.js';
import type { Device } from './device.js';
import type { DirtyRange } from './dirty-bitmap.js';
import type { PreCopyLimits } from './migration-save.js';

const { RUNNING, STOP, ERROR } = MigrationState;

/** Memory that the device reaches, in this process: a `DmaBuffer` is one. */
export interface MigratedMemory {
  /** Where the device finds it. */
  readonly iova: bigint;
  /** The memory, as long as the migration takes. */
  readonly bytes: Uint8Array;
}

/** The same memory on both sides: at the same address, and as long. */
export interface MemoryPair {
  /** What the source writes. */
  source: MigratedMemory;
  /** What the destination is to find. */
  destination: MigratedMemory;
}

/** How far a migration is. */
export interface MigrateProgress {
  /** `memory` and `state` while the source runs, `stopped` while neither does. */
  phase: 'memory' | 'state' | 'stopped';
  /** Of memory copied until now. */
  memoryBytes: number;
  /** Of the device's state moved until now. */
  stateBytes: number;
}

/** Options of `migrate`. The time that they give is for all of it. */
export interface MigrateOptions extends CallOptions {
  /**
   * Memory of this process that the source writes, and its copy for the destination. What is written while it is copied is copied
   * again (`device.dma.dirty`). Default none: both share it, or there is none.
   */
  memory?: readonly MemoryPair[] | undefined;
  /** How often memory that was written meanwhile is copied before the source is stopped; it ends when little is left. Default 8. */
  memoryRounds?: number | undefined;
  /** Reads the state while the source still runs: see `SaveOptions.preCopy`. Default false. */
  preCopy?: boolean | PreCopyLimits | undefined;
  /** Whether the destination runs afterwards. Default true. */
  run?: boolean | undefined;
  /** Is called as it goes on. What it throws ends the migration, and the source runs on. */
  onProgress?: ((progress: MigrateProgress) => void) | undefined;
}

/** What a migration took. */
export interface MigrateReport {
  /** Bytes of the device's state. */
  stateBytes: number;
  /** Bytes of memory copied, those that were copied again included. */
  memoryBytes: number;
  /** How often memory was gone through while the source ran. */
  memoryRounds: number;
  /** From the first call to the last, in milliseconds. */
  totalMs: number;
  /** From when the source was stopped until the destination ran (or had all, with `run: false`), in milliseconds. */
  downtimeMs: number;
}

const DEFAULT_ROUNDS = 8;
/** Less than this is copied while the device is stopped, in bytes. */
const LITTLE = 256 << 10;
/** Copied in one turn of the loop, in bytes: some milliseconds. */
const COPY_BYTES = 4 << 20;
/** How long each step of going back may take, in milliseconds. */
const UNDO_MS = 5_000;

const OPTIONS = new option.OptionTable<MigrateOptions>({
  ...option.CALL_CHECKS,
  memory: option.unchecked,
  memoryRounds: option.wholeNumber(1),
  preCopy: option.unchecked,
  run: option.boolean,
  onProgress: option.callback,
});

/**
 * Moves a running device to another server, together with the memory that it writes: memory first, while the source runs, then its
 * state, then what is left of both, while it is stopped. At the end the destination runs and the source is in STOP. Where it
 * fails the source runs on.
 *
 * @param source - RUNNING.
 * @param destination - the same kind of device, RUNNING or in STOP; it is stopped and takes the source's state.
 * @throws UnsupportedError where either cannot migrate, or the source's server cannot tell which memory it writes;
 * TypeError and RangeError for options that make no sense; MigrationError, whose `cause` is what failed, and whose message
 * says where both are; what `signal` is aborted with.
 *
 * @example
 * ```ts
 * const { downtimeMs } = await migrate(source, destination, { preCopy: true });
 * ```
 */
export async function migrate(
  source: Device,
  destination: Device,
  options: MigrateOptions = {},
): Promise<MigrateReport> {
  OPTIONS.check('migrate', options);
  if (source === destination) throw new TypeError('migrate: the destination is the source');
  const pairs = checkPairs(options.memory ?? []);
  const call = withDeadline({ timeoutMs: options.timeoutMs, signal: options.signal });
  await requireSupport(source, 'source', call);
  await requireSupport(destination, 'destination', call);
  const before = await source.migration.state(call);
  if (before !== RUNNING) {
    const name = migrationStateName(before);
    throw new MigrationError(`migrate: the source is in state ${name}; it must be RUNNING`, name);
  }
  return new LiveMigration(source, destination, pairs, options, call).run();
}

class LiveMigration {
  readonly #source: Device;
  readonly #destination: Device;
  readonly #pairs: readonly MemoryPair[];
  readonly #options: MigrateOptions;
  readonly #call: CallOptions;
  readonly #progress: MigrateProgress = { phase: 'memory', memoryBytes: 0, stateBytes: 0 };
  readonly #begun = performance.now();
  #stoppedAt = this.#begun;
  #movedAt = this.#begun;
  /** Of each pair, when it began. */
  readonly #sizes: readonly number[];
  /** The destination has the whole state: it could go on in the source's place. */
  #isMoved = false;
  #rounds = 0;

  constructor(
    source: Device,
    destination: Device,
    pairs: readonly MemoryPair[],
    options: MigrateOptions,
    call: CallOptions,
  ) {
    this.#source = source;
    this.#destination = destination;
    this.#pairs = pairs;
    this.#sizes = pairs.map(({ source }) => source.bytes.length);
    this.#options = options;
    this.#call = call;
  }

  async run(): Promise<MigrateReport> {
    const { dirty } = this.#source.dma;
    const watches = this.#pairs.length > 0;
    if (watches)
      await dirty.start({ ...this.#call, ranges: this.#pairs.map(({ source }) => rangeOf(source)) });
    try {
      if (watches) await this.#copyWhileRunning();
      await this.#moveState();
      if (watches) await this.#copyRanges(await dirty.report(this.#call));
      this.#requireMemory();
      if (this.#options.run !== false) await this.#destination.migration.transition(RUNNING, this.#call);
      this.#movedAt = performance.now();
    } catch (error) {
      throw await this.#fallBack(error);
    } finally {
      if (watches) await dirty.stop(this.#undoing).catch(() => undefined);
    }
    return {
      stateBytes: this.#progress.stateBytes,
      memoryBytes: this.#progress.memoryBytes,
      memoryRounds: this.#rounds,
      totalMs: performance.now() - this.#begun,
      downtimeMs: this.#movedAt - this.#stoppedAt,
    };
  }

  /** All memory once, then what was written meanwhile, until little is left. */
  async #copyWhileRunning(): Promise<void> {
    let ranges = this.#pairs.map(({ source }) => rangeOf(source));
    const most = this.#options.memoryRounds ?? DEFAULT_ROUNDS;
    for (this.#rounds = 1; ; this.#rounds++) {
      await this.#copyRanges(ranges);
      if (this.#rounds >= most || bytesOf(ranges) <= LITTLE) return;
      ranges = await this.#source.dma.dirty.report(this.#call);
    }
  }

  async #moveState(): Promise<void> {
    this.#tell('state', 0, 0);
    const { preCopy = false } = this.#options;
    const save = this.#source.migration.save({
      ...this.#call,
      preCopy,
      onStopped: () => {
        this.#stoppedAt = performance.now();
        this.#tell('stopped', 0, 0);
      },
    });
    const count = new Transform({
      transform: (chunk: Uint8Array, _encoding, done) => {
        try {
          this.#tell(this.#progress.phase, 0, chunk.byteLength);
          done(null, chunk);
        } catch (error) {
          // What a caller's `onProgress` throws ends the migration.
          done(error as Error);
        }
      },
    });
    const restore = this.#destination.migration.restore({ ...this.#call, run: false });
    try {
      await pipeline(save, count, restore);
    } finally {
      // Broken off, each takes its device back before it is closed.
      await Promise.all([closed(save), closed(restore)]);
    }
    this.#isMoved = true;
  }

  async #copyRanges(ranges: readonly DirtyRange[]): Promise<void> {
    for (const { iova, length } of ranges) {
      for (let at = 0; at < length; at += COPY_BYTES) {
        this.#checkTime();
        this.#copyNow([{ iova: iova + BigInt(at), length: Math.min(COPY_BYTES, length - at) }]);
        await nextTurn();
      }
    }
  }

  /** @throws TimeoutError, or the signal's reason, once the call is over. */
  #checkTime(): void {
    const { signal, timeoutMs = Infinity } = this.#call;
    signal?.throwIfAborted();
    if (isOver(this.#call)) throw new TimeoutError('migrate', timeoutMs);
  }

  /** A buffer that was closed, or an array that was transferred, would be left out. @throws TypeError. */
  #requireMemory(): void {
    for (const [i, pair] of this.#pairs.entries())
      for (const side of ['source', 'destination'] as const) {
        const { length } = pair[side].bytes;
        if (length === this.#sizes[i]) continue;
        throw new TypeError(
          `memory[${i}].${side} has ${length} bytes now, and had ${this.#sizes[i]}: it was closed, transferred or resized`,
        );
      }
  }

  /** Pages of a range that are none of a pair's belong to others. */
  #copyNow(ranges: readonly DirtyRange[]): void {
    this.#requireMemory();
    for (const { iova, length } of ranges) {
      for (const { source, destination } of this.#pairs) {
        const from = Math.max(0, Number(iova - source.iova));
        const to = Math.min(source.bytes.length, Number(iova + BigInt(length) - source.iova));
        if (to <= from) continue;
        destination.bytes.set(source.bytes.subarray(from, to), from);
        this.#tell(this.#progress.phase, to - from, 0);
      }
    }
  }

  #tell(phase: MigrateProgress['phase'], memoryBytes: number, stateBytes: number): void {
    this.#progress.phase = phase;
    this.#progress.memoryBytes += memoryBytes;
    this.#progress.stateBytes += stateBytes;
    this.#options.onProgress?.({ ...this.#progress });
  }

  /** The source goes on, where the destination does not. @returns what to throw. */
  async #fallBack(cause: unknown): Promise<unknown> {
    const { migration } = this.#source;
    const destination = this.#isMoved ? await this.#stopDestination() : 'has not taken its place';
    if (destination !== undefined) await migration.transition(RUNNING, this.#undoing).catch(() => undefined);
    const at = await migration.state(this.#undoing).catch(() => undefined);
    const { signal } = this.#options;
    if (signal?.aborted === true && at === RUNNING) return signal.reason;
    const name = at === undefined ? 'unknown' : migrationStateName(at);
    const why = cause instanceof Error ? cause.message : String(cause);
    const rest = destination ?? 'may run, so that the source was left stopped';
    const message = `migrate: ${why}; the source is in state ${name}, and the destination ${rest}`;
    return new MigrationError(message, name, { cause });
  }

  /** Sees to it that the destination does not run. @returns how it is then; undefined where that is not known. */
  async #stopDestination(): Promise<string | undefined> {
    const { migration } = this.#destination;
    try {
      const state = await migration.state(this.#undoing);
      if (state !== ERROR) await migration.transition(STOP, this.#undoing);
      return `is in state ${migrationStateName(state === ERROR ? ERROR : STOP)}`;
    } catch {
      // Nobody drives it any more.
      return this.#destination.isClosed ? 'is gone' : undefined;
    }
  }

  /** Going back is not stopped by what stopped the migration. */
  get #undoing(): CallOptions {
    return forUndoing(this.#call, UNDO_MS);
  }
}

function rangeOf({ iova, bytes }: MigratedMemory): DirtyRange {
  return { iova, length: bytes.length };
}

function bytesOf(ranges: readonly DirtyRange[]): number {
  return ranges.reduce((sum, { length }) => sum + length, 0);
}

/** @throws TypeError and RangeError for pairs that are none. */
function checkPairs(pairs: unknown): readonly MemoryPair[] {
  if (!Array.isArray(pairs)) throw wrongType('migrate: memory', 'a list of { source, destination }', pairs);
  for (const [i, pair] of (pairs as (MemoryPair | null | undefined)[]).entries()) {
    const name = `migrate: memory[${i}]`;
    const source = checkMemory(`${name}.source`, pair?.source);
    const destination = checkMemory(`${name}.destination`, pair?.destination);
    if (source.iova === destination.iova && source.bytes.length === destination.bytes.length) continue;
    throw outOfRange(
      `${name}: both sides must have the same address and size, not ${source.bytes.length} bytes at ` +
        `0x${source.iova.toString(16)} and ${destination.bytes.length} at 0x${destination.iova.toString(16)}`,
    );
  }
  return pairs as MemoryPair[];
}

function checkMemory(name: string, memory: MigratedMemory | undefined): MigratedMemory {
  if (typeof memory !== 'object' || memory === null)
    throw wrongType(name, 'a DmaBuffer, or { iova, bytes }', memory);
  const { iova, bytes } = memory;
  bigInteger(`${name}.iova`, iova, 0n, UINT64_MAX);
  if (!(bytes instanceof Uint8Array)) throw wrongType(`${name}.bytes`, 'a Uint8Array', bytes);
  if (bytes.length === 0)
    throw outOfRange(`${name}.bytes must have at least one byte, not none: is it closed?`);
  return memory;
}

async function requireSupport(device: Device, which: string, call: CallOptions): Promise<void> {
  const support = await device.migration.support(call);
  if (support?.stopCopy !== true)
    throw new UnsupportedError(`migrate: the ${which} does not support migration`);
}

/** A stream that was broken off has left the device when it is closed. */
async function closed(stream: Readable | Writable): Promise<void> {
  if (!stream.closed) await new Promise((resolve) => stream.once('close', resolve));
}
