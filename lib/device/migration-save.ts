/** A device's state as a stream that is read. */
import { Readable } from 'node:stream';
import type { CallOptions } from '../connection/index.js';
import { UnsupportedError } from '../errors.js';
import * as option from '../options.js';
import { MigrationState } from '../protocol/constants.js';
import type { MigrationSupport } from './migration.js';
import { Transfer, type Transfers } from './migration-transfer.js';

const { STOP, RUNNING, STOP_COPY, PRE_COPY } = MigrationState;

const DEFAULT_PRE_COPY_BYTES = 1 << 30;
const DEFAULT_PRE_COPY_ROUNDS = 1;

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

/** Options of `Migration.save`. */
export interface SaveOptions extends CallOptions {
  /**
   * Reads state while the device still runs, before it is stopped, so that it is stopped for less long: true, or how much.
   * Default false, which every device can do and every destination understands: libvfio-user's sample offers PRE_COPY,
   * and sends in it what its other half refuses (EINVAL) or does not survive.
   */
  preCopy?: boolean | PreCopyLimits | undefined;
  /** The most bytes of one read. Default: what the server allows, up to 1 MiB. */
  chunkBytes?: number | undefined;
  /** Is called when the device has been stopped: what is read from then on is the time in which it does not run. */
  onStopped?: (() => void) | undefined;
}

const LIMITS = new option.OptionTable<PreCopyLimits>({
  maxBytes: option.wholeNumber(1),
  maxRounds: option.wholeNumber(1),
});
export const SAVE_OPTIONS = new option.OptionTable<SaveOptions>({
  ...option.CALL_CHECKS,
  preCopy: option.byType('true, false or { maxBytes, maxRounds }', {
    boolean: option.boolean,
    object: option.options(LIMITS),
  }),
  chunkBytes: option.wholeNumber(1),
  onStopped: option.callback,
});

export interface SaveParts {
  transfers: Transfers;
  support: (options: CallOptions) => Promise<MigrationSupport | undefined>;
  /** The most that the server allows. */
  maxChunkBytes: number;
}

/** See `Migration.save`, which has checked the options. */
export function openSave({ transfers, support, maxChunkBytes }: SaveParts, options: SaveOptions): Readable {
  const limits = limitsOf(options);
  const chunkBytes = Math.min(options.chunkBytes ?? Infinity, maxChunkBytes);
  const transfer = new Transfer(transfers, 'save', chunkBytes, options);
  const chunks = stateOf(transfer, support, limits, options.onStopped);
  const stream = new Readable({
    highWaterMark: 1,
    read() {
      chunks.next().then(
        ({ done, value }) => this.push(done === true ? null : value),
        (error: unknown) => void transfer.fail(error).then((told) => this.destroy(told as Error)),
      );
    },
    destroy(error, done) {
      // What nobody has taken was not saved, although it was read.
      if (this.readableEnded) transfer.complete();
      void transfer.fail(error).then((told) => done((told ?? error) as Error | null));
    },
  });
  transfer.onBreakOff = (reason) => stream.destroy(reason);
  return stream;
}

/** All of it; it ends when the device is in STOP, and not before. */
async function* stateOf(
  transfer: Transfer,
  support: SaveParts['support'],
  limits: PreCopyLimits | undefined,
  onStopped: (() => void) | undefined,
): AsyncGenerator<Buffer, undefined, undefined> {
  const supported = await support(transfer.options);
  if (supported === undefined) throw new UnsupportedError('the device does not support migration');
  if (limits !== undefined && !supported.preCopy) {
    throw new UnsupportedError('the device cannot be read while it runs (PRE_COPY)');
  }
  const before = await transfer.begin();
  // A device that is stopped is not set running for the sake of PRE_COPY.
  if (limits !== undefined && before === RUNNING) {
    await transfer.go(PRE_COPY);
    yield* readRounds(transfer, limits);
  }
  await transfer.go(STOP_COPY);
  onStopped?.();
  yield* readAll(transfer);
  await transfer.go(STOP);
  return undefined;
}

/** What there is in PRE_COPY, which may never end: the limits do. */
async function* readRounds(
  transfer: Transfer,
  { maxBytes = DEFAULT_PRE_COPY_BYTES, maxRounds = DEFAULT_PRE_COPY_ROUNDS }: PreCopyLimits,
): AsyncGenerator<Buffer, void, undefined> {
  let left = maxBytes;
  let before = Infinity;
  for (let round = 0; round < maxRounds && left > 0; round++) {
    let bytes = 0;
    for await (const data of readAll(transfer, left)) {
      bytes += data.byteLength;
      yield data;
    }
    // It changes as fast as it is read, or not at all.
    if (bytes === 0 || bytes >= before) return;
    before = bytes;
    left -= bytes;
  }
}

async function* readAll(transfer: Transfer, most = Infinity): AsyncGenerator<Buffer, void, undefined> {
  for (let left = most; left > 0;) {
    const asked = Math.min(transfer.chunkBytes, left);
    const data = await transfer.commands.read(asked, transfer.options);
    if (data.byteLength > 0) yield data;
    // Less than was asked for is the end (specification: VFIO_USER_MIG_DATA_READ).
    if (data.byteLength < asked) return;
    left -= asked;
  }
}

/** Undefined where nothing is to be read before the device is stopped. */
function limitsOf({ preCopy = false }: SaveOptions): PreCopyLimits | undefined {
  if (typeof preCopy === 'boolean') return preCopy ? {} : undefined;
  return preCopy;
}
