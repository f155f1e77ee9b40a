/** A device's state on its way to a file and back. */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { MigrationError, MigrationState, UnsupportedError, type Device } from '../index.js';
import { migrationStateName } from '../protocol/index.js';
import { UsageError } from './errors.js';
import { OutputFile, STANDARD_STREAM, withFate } from './output-file.js';
import { startCounter, startProgress, type Progress } from './progress.js';
import { interruptible } from './signals.js';
import { byteCount } from './text.js';

export interface Save {
  /** Reads while the device runs, where it can. */
  precopy: boolean;
  /** Lets the device run afterwards. */
  resume?: boolean;
  keepPartial: boolean;
}

/** Saves the state under that name; `-` is stdout. What there is to say goes to stderr. */
export async function saveState(device: Device, name: string, options: Save): Promise<void> {
  if (name === STANDARD_STREAM && process.stdout.isTTY === true) {
    throw new UsageError("a device's state is not for a terminal: name a FILE, or use a pipe");
  }
  await requireMigration(device);
  const file = await OutputFile.create(name);
  const progress = startCounter();
  try {
    await interruptible((signal) => save(device, file, options, progress, signal));
  } catch (error) {
    progress.stop();
    throw await file.abandon(await withState(device, error), options.keepPartial);
  }
  progress.stop();
  await file.finish();
  if (options.resume === true) await device.migration.transition(MigrationState.RUNNING);
  const where = name === STANDARD_STREAM ? 'stdout' : name;
  await tell(device, `saved ${byteCount(file.bytes)} to ${where}`);
}

async function save(
  device: Device,
  file: OutputFile,
  { precopy }: Save,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  // Undefined leaves it to the device whether it is read while it runs.
  const state = device.migration.save({ preCopy: precopy ? undefined : false, signal });
  for await (const chunk of state as AsyncIterable<Buffer>) {
    signal.throwIfAborted();
    await file.write(chunk);
    progress.add(chunk.length);
  }
}

/** Restores what has that name; `-` is stdin. */
export async function restoreState(device: Device, name: string, run: boolean): Promise<void> {
  await requireMigration(device);
  const { source, size } = await openSource(name);
  const progress = size === undefined ? startCounter() : startProgress(size);
  let bytes = 0;
  try {
    await interruptible(async (signal) => {
      const chunks = counted(source, name, (count) => {
        bytes += count;
        progress.add(count);
      });
      // The device is touched when there is something for it.
      const first = await chunks.next();
      await pipeline(restOf(first, chunks), device.migration.restore({ run, signal }), { signal });
    });
  } catch (error) {
    progress.stop();
    throw await withState(device, error);
  } finally {
    source.destroy();
  }
  progress.stop();
  await tell(device, `restored ${byteCount(bytes)} from ${name === STANDARD_STREAM ? 'stdin' : name}`);
}

/** What the device can do, and where it is, in a line. */
export async function describeState(device: Device): Promise<string> {
  const { stopCopy, preCopy } = await requireMigration(device);
  const can = [stopCopy ? 'stop-copy' : '', preCopy ? 'pre-copy' : ''].filter((word) => word !== '');
  return `${migrationStateName(await device.migration.state())}, can ${can.join(' and ') || 'nothing'}`;
}

async function requireMigration(device: Device) {
  const support = await device.migration.support();
  if (support === undefined) throw new UnsupportedError('the device does not support migration');
  return support;
}

/** A regular file has a size; it is opened before the device is touched. */
async function openSource(name: string): Promise<{ source: Readable; size: number | undefined }> {
  if (name === STANDARD_STREAM) {
    if (process.stdin.isTTY === true) {
      throw new UsageError("a device's state does not come from a terminal: name a FILE, or use a pipe");
    }
    return { source: process.stdin, size: undefined };
  }
  const file = await open(name);
  const stats = await file.stat();
  if (stats.isDirectory()) {
    await file.close();
    throw new UsageError(`${name} is a directory`);
  }
  const source = createReadStream(name, { fd: file });
  return { source, size: stats.isFile() ? stats.size : undefined };
}

/** The chunks, at least one of them: nothing at all is what a saver that failed leaves in a pipe. */
async function* counted(
  source: Readable,
  name: string,
  count: (bytes: number) => void,
): AsyncGenerator<Buffer, void, undefined> {
  let isEmpty = true;
  for await (const chunk of source as AsyncIterable<Buffer>) {
    isEmpty = false;
    yield chunk;
    count(chunk.length);
  }
  if (isEmpty) {
    throw new UsageError(
      `${name === STANDARD_STREAM ? 'stdin' : name} is empty: there is nothing to restore`,
    );
  }
}

async function* restOf(
  first: IteratorResult<Buffer, void>,
  rest: AsyncIterable<Buffer>,
): AsyncGenerator<Buffer, void, undefined> {
  if (first.done === true) return;
  yield first.value;
  yield* rest;
}

/** The error with where the device is now; a MigrationError says so itself. */
async function withState(device: Device, error: unknown): Promise<unknown> {
  if (error instanceof MigrationError || error instanceof UsageError) return error;
  const state = await device.migration.state().catch(() => undefined);
  if (state === undefined) return error;
  return withFate(error, `the device is in state ${migrationStateName(state)}`);
}

/** On stderr: stdout may be the state's. */
async function tell(device: Device, what: string): Promise<void> {
  const state = migrationStateName(await device.migration.state());
  process.stderr.write(`${what}; the device is in state ${state}\n`);
}
