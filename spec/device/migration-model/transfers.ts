/** Saves and restores as their users have them, and what holds when one of them has ended. */
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { MigrationError, MigrationState, type Device, type SaveOptions } from '../../../lib/index.js';
import { RAM_BYTES, RECORD_BYTES } from './machine.js';
import type { Ram } from './ram.js';
import { migrationStateName } from '../../../lib/protocol/constants.js';
import type { Record } from './record.js';
import type { Operation, Side } from './side.js';
import type { Step, StreamEnd } from './steps.js';

const { ERROR, STOP, RUNNING, RESUMING } = MigrationState;
/** Where a save begins, and goes back to. */
const HOMES: readonly MigrationState[] = [RUNNING, STOP];
/** A restore discards what another one has left. */
const RESTORABLE: readonly MigrationState[] = [RUNNING, STOP, RESUMING];
/** Leaving tries three times: one fault ends a transfer, and one more may meet the way back. */
export const MOST_FAULTS = 2;
const MINE = new Error('mine');

export type SaveStep = Omit<Extract<Step, { do: 'save' }>, 'do' | 'then'>;
export type RestoreStep = Omit<Extract<Step, { do: 'restore' }>, 'do' | 'then'>;

/** What streams are broken off by, after so many chunks. */
interface Breaking {
  end: StreamEnd;
  after: number;
  /** Those that hold go on then. */
  released: Promise<void>;
}

/** What came of a stream: its bytes where it is whole. */
interface Outcome {
  bytes: Buffer | undefined;
  error: unknown;
}

export class Transfers {
  /** The last whole stream. */
  last: Buffer | undefined;
  readonly #record: Record;
  readonly #ram: Ram;
  #release: () => void = () => undefined;
  #released: Promise<void> = Promise.resolve();

  constructor(record: Record, ram: Ram) {
    this.#record = record;
    this.#ram = ram;
    this.release();
  }

  /** What holds goes on. */
  release(): void {
    this.#release();
    this.#released = new Promise((resolve) => (this.#release = resolve));
  }

  save(side: Side, device: Device, step: SaveStep, options: SaveOptions = {}): Promise<void> {
    const abort = step.isAbortable ? new AbortController() : undefined;
    const operation = side.begin('save', device);
    const begun = this.#record.now();
    const stopped: { memory?: ReturnType<NonNullable<Side['guest']>['snapshot']> } = {};
    const stream = device.migration.save({
      chunkBytes: step.chunkBytes,
      preCopy: step.preCopy,
      signal: abort?.signal,
      onStopped: () => {
        if (side.machine.isCopying && side.machine.isStopped) this.#record.problem('DMA goes on after STOP');
        if (side.device === device && side.guest !== undefined) stopped.memory = side.guest.snapshot();
      },
      ...options,
    });
    const consumed = consume(stream, { ...step, released: this.#released });
    return this.#record.call({
      label: `save, ${step.end}${step.preCopy ? ', PRE_COPY' : ''}`,
      promise: this.#ended(stream, consumed, operation, side),
      abort,
      whyNot: (error) => {
        const mayBeRefused = error instanceof MigrationError && !HOMES.includes(operation.stateBefore);
        return error === MINE || mayBeRefused ? undefined : side.whyNot(operation, error);
      },
      onValue: (bytes) => {
        if (bytes === undefined) return;
        this.isWhole(bytes, begun);
        const isStill = stopped.memory !== undefined && side.isClean(operation, MOST_FAULTS);
        if (isStill && side.machine.state === STOP) side.guest!.compareWith(stopped.memory!);
        this.last = bytes;
      },
    });
  }

  restore(side: Side, device: Device, step: RestoreStep): Promise<void> {
    const bytes = this.#streamFor(step);
    if (bytes === undefined) return Promise.resolve();
    const abort = step.isAbortable ? new AbortController() : undefined;
    const operation = side.begin('restore', device);
    const before = Buffer.from(side.machine.model.ram);
    const stream = device.migration.restore({ signal: abort?.signal, run: step.run });
    const written = produce(stream, bytes, step.chunkBytes, { ...step, released: this.#released });
    const isSound = step.stream === 'whole';
    return this.#record.call({
      label: `restore of ${bytes.length} (${step.stream}), ${step.end}`,
      promise: this.#endedRestore(stream, written, operation, side, before),
      abort,
      whyNot: (error) => {
        const mayBeRefused = error instanceof MigrationError && !this.#mustRestore(operation, isSound);
        return error === MINE || mayBeRefused ? undefined : side.whyNot(operation, error);
      },
      onValue: (isDone) => {
        if (!isDone) return;
        if (!isSound) this.#record.problem(`a ${step.stream} stream was restored`);
        if (side.isClean(operation, MOST_FAULTS)) this.hasArrived(side, bytes, step.run ? RUNNING : STOP);
      },
    });
  }

  /** The device is what the stream was of. */
  hasArrived(side: Side, bytes: Buffer, state: MigrationState): void {
    const { machine } = side;
    if (machine.state !== state)
      this.#record.problem(`restored, and in ${migrationStateName(machine.state)}`);
    if (!machine.model.ram.equals(bytes.subarray(-RAM_BYTES)))
      this.#record.problem('what was restored is not what was saved');
  }

  /** Where a save that failed has left the device: where it was. */
  isHome(side: Side, operation: Operation, error?: unknown): void {
    const { machine } = side;
    if (!side.isClean(operation, MOST_FAULTS)) return;
    const { stateBefore } = operation;
    const state = migrationStateName(machine.state);
    if (machine.state !== stateBefore && HOMES.includes(stateBefore)) {
      this.#record.problem(
        `a ${operation.kind} that failed has left ${state}, and began in ${migrationStateName(stateBefore)}`,
      );
    }
    if (error instanceof MigrationError && ![state, 'unknown'].includes(error.state))
      this.#record.problem(`the error says ${error.state}, the device is in ${state}`);
  }

  /** Where a restore that failed has left it: with nothing half done that runs, and ready for another one. */
  isQuiet(side: Side, operation: Operation, before: Buffer): void {
    const { machine } = side;
    if (!side.isClean(operation, MOST_FAULTS)) return;
    const { state } = machine;
    // One that has not begun leaves what it found.
    if (![RUNNING, STOP, ERROR, operation.stateBefore].includes(state))
      this.#record.problem(`a restore that failed has left ${migrationStateName(state)}`);
    if (state === RUNNING && !machine.model.ram.equals(before))
      this.#record.problem('a restore failed, and the device runs on with what it brought');
  }

  #streamFor({ stream }: RestoreStep): Buffer | undefined {
    const whole = this.last;
    if (whole === undefined || stream === 'whole') return whole;
    if (stream === 'garbage') return Buffer.alloc(whole.length, 0x5a);
    return whole.subarray(0, whole.length - 100);
  }

  #mustRestore({ stateBefore }: Operation, isSound: boolean): boolean {
    return isSound && RESTORABLE.includes(stateBefore);
  }

  /** A stream that is whole has whole states, of which the last one was the device's at some time since it began. */
  isWhole(bytes: Buffer, begun = 0): void {
    if (bytes.length === 0 || bytes.length % RECORD_BYTES !== 0) {
      this.#record.problem(`a save of ${bytes.length} bytes is called whole: states are of ${RECORD_BYTES}`);
      return;
    }
    for (let at = 0; at < bytes.length; at += RECORD_BYTES) {
      if (bytes.readUInt32LE(at) !== RECORD_BYTES - 4)
        this.#record.problem(`no state begins at ${at} of a save`);
    }
    const wrong = this.#ram.whatIsWrong(bytes.subarray(-RAM_BYTES), begun);
    if (wrong !== undefined) this.#record.problem(`a save: ${wrong}`);
  }

  async #ended(
    stream: Readable,
    consumed: Promise<Outcome>,
    operation: Operation,
    side: Side,
  ): Promise<Buffer | undefined> {
    const { bytes, error } = await this.#closed(stream, consumed, side, operation);
    try {
      if (bytes === undefined) this.isHome(side, operation, error);
    } finally {
      side.end(operation);
    }
    if (error !== undefined) throw error;
    return bytes;
  }

  async #endedRestore(
    stream: Writable,
    written: Promise<Outcome>,
    operation: Operation,
    side: Side,
    before: Buffer,
  ): Promise<boolean> {
    const { bytes, error } = await this.#closed(stream, written, side, operation);
    try {
      if (bytes === undefined) this.isQuiet(side, operation, before);
    } finally {
      side.end(operation);
    }
    if (error !== undefined) throw error;
    return bytes !== undefined;
  }

  /** Waits for the stream's end, and for a connection that was lost meanwhile to be back. */
  async #closed(
    stream: Readable | Writable,
    work: Promise<Outcome>,
    side: Side,
    { device }: Operation,
  ): Promise<Outcome> {
    let errors = 0;
    stream.on('error', () => errors++);
    const outcome = await work;
    if (!stream.closed) await once(stream, 'close').catch(() => undefined);
    await side.isBack(device);
    if (errors > 1) this.#record.problem(`a stream has ${errors} errors`);
    return outcome;
  }
}

async function consume(stream: Readable, { end, after, released }: Breaking): Promise<Outcome> {
  const chunks: Buffer[] = [];
  const closed = once(stream, 'close').catch(() => undefined);
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      if (end === 'all' || chunks.length <= after) continue;
      if (end === 'break') return { bytes: undefined, error: undefined };
      if (end === 'hold') await Promise.race([released, closed]);
      if (end === 'destroy') stream.destroy();
      if (end === 'fail') stream.destroy(MINE);
    }
    return { bytes: Buffer.concat(chunks), error: undefined };
  } catch (error) {
    return { bytes: undefined, error: isBrokenOff(error, end) ? undefined : error };
  }
}

async function produce(
  stream: Writable,
  bytes: Buffer,
  chunkBytes: number,
  { end, after, released }: Breaking,
): Promise<Outcome> {
  let failure: unknown;
  stream.on('error', (error) => (failure ??= error));
  const closed = once(stream, 'close').catch(() => undefined);
  for (let at = 0, count = 0; at < bytes.length && !stream.destroyed; at += chunkBytes, count++) {
    if (end !== 'all' && count === after) {
      if (end === 'hold') await Promise.race([released, closed]);
      else stream.destroy(end === 'fail' ? MINE : undefined);
    }
    if (stream.destroyed) break;
    const taken = new Promise((resolve) => stream.write(bytes.subarray(at, at + chunkBytes), resolve));
    await Promise.race([taken, closed]);
  }
  const isBroken = stream.destroyed;
  if (!isBroken) stream.end();
  await closed;
  const isDone = failure === undefined && stream.writableFinished;
  return { bytes: isDone ? bytes : undefined, error: isBrokenOff(failure, end) ? undefined : failure };
}

/** What Node says of a stream that its consumer has destroyed. */
function isBrokenOff(error: unknown, end: StreamEnd): boolean {
  const { code } = (error ?? {}) as { code?: string };
  return end === 'destroy' && (code === 'ERR_STREAM_PREMATURE_CLOSE' || code === 'ABORT_ERR');
}
