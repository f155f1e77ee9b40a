/** A device's state on its way to a file and back. */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { MigrationError, MigrationState, UnsupportedError, migrate, type Device } from '../index.js';
import { migrationStateName } from '../protocol/index.js';
import { UsageError } from './errors.js';
import { STANDARD_STREAM, withFate, writeOutput, type OutputFile } from './output-file.js';
import { isReaderGone, print } from './output.js';
import { toJson } from './json.js';
import { startCounter, startProgress, type Progress } from './progress.js';
import { interruptible } from './stop-signals.js';
import { byteCount } from './format-text.js';

export interface Save {
  /** Reads while the device runs, where it can. */
  precopy: boolean;
  /** Lets the device run afterwards. */
  resume?: boolean;
  keepPartial: boolean;
}

export interface Move {
  /** Reads while the source runs, where both can. */
  precopy: boolean;
  /** Leaves the destination stopped. */
  stayStopped?: boolean;
  json?: boolean;
}

/** Moves a device that runs from one server to another. */
export async function moveDevice(source: Device, destination: Device, options: Move): Promise<void> {
  const both = [await requireMigration(source), await requireMigration(destination)];
  const progress = startCounter();
  let before = 0;
  const run = options.stayStopped !== true;
  try {
    const report = await interruptible((signal) =>
      migrate(source, destination, {
        signal,
        run,
        preCopy: options.precopy && both.every(({ preCopy }) => preCopy),
        onProgress: ({ phase, stateBytes }) => {
          progress.add(stateBytes - before);
          before = stateBytes;
          progress.say(phase === 'stopped' ? 'the device is stopped' : 'the device runs');
        },
      }),
    );
    const { stateBytes, totalMs, downtimeMs } = report;
    await print(
      options.json === true
        ? `${toJson({ stateBytes, totalMs, downtimeMs, running: run })}\n`
        : `moved ${byteCount(stateBytes)} in ${totalMs.toFixed(0)} ms, stopped for ${downtimeMs.toFixed(1)} ms; the ` +
            `destination ${run ? 'runs' : 'is stopped'}\n`,
    );
  } finally {
    progress.stop();
  }
}

/** Saves the state under that name; `-` is stdout. What there is to say goes to stderr. */
export async function saveState(device: Device, name: string, options: Save): Promise<void> {
  if (name === STANDARD_STREAM && process.stdout.isTTY === true) {
    throw new UsageError("a device's state is not for a terminal: name a FILE, or use a pipe");
  }
  const { preCopy } = await requireMigration(device);
  const before = await device.migration.state();
  const progress = startCounter();
  let bytes: number | undefined;
  try {
    await writeOutput(
      name,
      async (file, signal) => {
        await save(device, file, options.precopy && preCopy, progress, signal);
        bytes = file.bytes;
      },
      options.keepPartial,
    );
  } catch (error) {
    // All was read, and is not there all the same.
    throw bytes === undefined ? error : await withReturn(device, before, error);
  } finally {
    progress.stop();
  }
  if (options.resume === true) await device.migration.transition(MigrationState.RUNNING);
  const where = name === STANDARD_STREAM ? 'stdout' : name;
  await tell(device, `saved ${byteCount(bytes ?? 0)} to ${where}`);
}

async function save(
  device: Device,
  file: OutputFile,
  preCopy: boolean,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  if (preCopy) progress.say('the device runs');
  const onStopped = () => progress.say('the device is stopped');
  const state = device.migration.save({ preCopy, signal, onStopped });
  try {
    for await (const chunk of state as AsyncIterable<Buffer>) {
      await file.write(chunk);
      progress.add(chunk.length);
    }
  } catch (error) {
    await closed(state);
    throw await withState(device, error);
  }
}

/** Restores what has that name; `-` is stdin. */
export async function restoreState(device: Device, name: string, run: boolean): Promise<void> {
  await requireMigration(device);
  const { source, size } = await openSource(name);
  const progress = size === undefined ? startCounter() : startProgress(size);
  let restore: Writable | undefined;
  let bytes = 0;
  try {
    await interruptible(async (signal) => {
      const chunks = counted(source, name, (count) => {
        bytes += count;
        progress.add(count);
      });
      // The device is touched when there is something for it.
      const first = await chunks.next();
      restore = device.migration.restore({ run, signal });
      await pipeline(restOf(first, chunks), restore, { signal });
    });
  } catch (error) {
    if (restore !== undefined) await closed(restore);
    throw await withState(device, error);
  } finally {
    progress.stop();
    source.destroy();
  }
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

/** A stream that was broken off has left the device when it is closed. */
async function closed(stream: Readable | Writable): Promise<void> {
  stream.on('error', () => undefined);
  if (!stream.closed) await new Promise((resolve) => stream.once('close', resolve));
}

/** The error, once the device has been taken back to where it was. */
async function withReturn(device: Device, before: MigrationState, error: unknown): Promise<unknown> {
  await device.migration.transition(before).catch(() => undefined);
  return withState(device, error);
}

/** The error with where the device is now; a MigrationError says so itself. */
async function withState(device: Device, error: unknown): Promise<unknown> {
  if (error instanceof MigrationError || error instanceof UsageError) return error;
  const state = await device.migration.state().catch(() => undefined);
  if (state === undefined) return error;
  const fate = `the device is in state ${migrationStateName(state)}`;
  if (!isReaderGone(error)) return withFate(error, fate);
  // That has an exit status of its own, and no words.
  process.stderr.write(`vfio-user: ${fate}\n`);
  return error;
}

/** On stderr: stdout may be the state's. */
async function tell(device: Device, what: string): Promise<void> {
  const state = migrationStateName(await device.migration.state());
  process.stderr.write(`${what}; the device is in state ${state}\n`);
}
