/** A device's state as a stream that is written. */
import { Writable } from 'node:stream';
import type { CallOptions } from '../connection/index.js';
import { UnsupportedError } from '../errors.js';
import * as option from '../options.js';
import { MigrationState } from '../protocol/constants.js';
import { isFailure, name, StepError } from './migration-states.js';
import type { MigrationSupport } from './migration.js';
import { Transfer, type Transfers } from './migration-transfer.js';

const { ERROR, STOP, RUNNING, RESUMING } = MigrationState;

/** Options of `Migration.restore`. */
export interface RestoreOptions extends CallOptions {
  /** Lets the device run once its state is in. Default true; else it is left in STOP. */
  run?: boolean | undefined;
}

export const RESTORE_OPTIONS = new option.OptionTable<RestoreOptions>({
  ...option.CALL_CHECKS,
  run: option.boolean,
});

export interface RestoreParts {
  transfers: Transfers;
  support: (options: CallOptions) => Promise<MigrationSupport | undefined>;
  /** DEVICE_RESET, with all that follows; undefined where the device cannot be reset. */
  reset: ((options: CallOptions) => Promise<void>) | undefined;
  /** The most bytes of one write. */
  chunkBytes: number;
}

/** See `Migration.restore`. */
export function openRestore(parts: RestoreParts, { run = true, ...options }: RestoreOptions): Writable {
  const { transfers, support, chunkBytes } = parts;
  const transfer = new Transfer(transfers, 'restore', chunkBytes, options);
  let begun: Promise<void> | undefined;
  // The device is touched when there is something for it.
  const begin = () => (begun ??= takeOver(transfer, parts));
  const send = async (data: Buffer) => {
    await begin();
    for (let at = 0; at < data.byteLength; at += chunkBytes) {
      await transfer.commands.write(data.subarray(at, at + chunkBytes), transfer.options);
    }
  };
  const end = async () => {
    await begin();
    // RESUMING to STOP is where the server says whether it has understood the state.
    await transfer.go(STOP);
    if (run) await transfer.go(RUNNING);
    transfer.complete();
  };
  const settle = (work: Promise<void>, done: (error?: Error | null) => void): void => {
    work.then(
      () => done(),
      (error: unknown) => void transfer.fail(error).then((told) => done(told as Error)),
    );
  };
  const stream = new Writable({
    construct: (done) => settle(requireSupport(support, transfer.options), done),
    write: (chunk: Buffer, _encoding, done) => settle(send(chunk), done),
    final: (done) => settle(end(), done),
    destroy: (error, done) => void transfer.fail(error).then((told) => done((told ?? error) as Error | null)),
  });
  transfer.onBreakOff = (reason) => stream.destroy(reason);
  return stream;
}

async function requireSupport(support: RestoreParts['support'], options: CallOptions): Promise<void> {
  if ((await support(options)) === undefined) {
    throw new UnsupportedError('the device does not support migration');
  }
}

/** Takes the device to RESUMING, in which it has nothing of any stream. */
async function takeOver(transfer: Transfer, { reset }: RestoreParts): Promise<void> {
  const found = await transfer.begin();
  if (found === RESUMING) await discard(transfer, reset);
  await transfer.go(RESUMING);
  transfer.staysStopped();
}

/** What a restore that died has left: STOP discards it, or the device rejects it and a reset does. */
async function discard(transfer: Transfer, reset: RestoreParts['reset']): Promise<void> {
  try {
    await transfer.go(STOP);
  } catch (error) {
    const now = await transfer.commands.state(transfer.options);
    if (!isFailure(error) || now !== ERROR || reset === undefined) throw error;
    await reset(transfer.options);
    const after = await transfer.commands.state(transfer.options);
    if (after !== RUNNING && after !== STOP) throw new StepError(`a reset left the device in ${name(after)}`);
    transfer.found(after);
  }
}
