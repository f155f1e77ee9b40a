/** Blocks of a disk from a file, or from stdin. */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { addAbortSignal, type Readable } from 'node:stream';
import { UsageError } from '../../errors.js';
import { withFate } from '../../output-file.js';
import { startCounter, startProgress, type Progress } from '../../progress.js';
import { interruptible } from '../../stop-signals.js';
import { counted } from '../../format-text.js';
import { checkRange, CHUNK_BYTES, fileName, type BlockTarget } from './block-io.js';

export interface WriteOptions {
  lba: number;
  input?: string;
  pad: boolean;
  flush: boolean;
}

/** `withTarget` opens the disk, and closes it whatever comes of what it is given. */
export async function writeBlocks(
  options: WriteOptions,
  withTarget: (work: (target: BlockTarget) => Promise<void>) => Promise<void>,
): Promise<void> {
  const { lba } = options;
  const input = fileName(options.input);
  const total = input === undefined ? undefined : await fileSize(input);
  await interruptible((signal) =>
    withTarget(async (target) => {
      const { blockSize } = target;
      if (total !== undefined) {
        if (total % blockSize !== 0 && !options.pad) throw partial(blockSize);
        checkRange(target, lba, Math.ceil(total / blockSize));
      }
      const source: Readable =
        input === undefined ? process.stdin : createReadStream(input, { highWaterMark: CHUNK_BYTES });
      const progress = total === undefined ? startCounter() : startProgress(total);
      const tally: Tally = { written: 0, uncertain: 0 };
      try {
        signal.throwIfAborted();
        await writeAll(target, addAbortSignal(signal, source), options, tally, progress);
        if (options.flush) await target.flush();
      } catch (error) {
        // The stream has an error of its own for that it was aborted.
        throw withFate(signal.aborted ? signal.reason : error, describeTally(tally));
      } finally {
        progress.stop();
        source.destroy();
      }
    }),
  );
}

/** Blocks, from the first one on. */
interface Tally {
  /** The device has said so. */
  written: number;
  /** Those after them that may or may not have been written. */
  uncertain: number;
}

function describeTally({ written, uncertain }: Tally): string {
  const sure =
    written === 0 ? 'nothing has been written' : `the first ${counted(written, 'block')} have been written`;
  return uncertain === 0 ? sure : `${sure}, but perhaps some of the next ${counted(uncertain, 'block')}`;
}

/** Writes what comes, a chunk while the next one is gathered. Nothing is under way when it ends. */
async function writeAll(
  target: BlockTarget,
  source: AsyncIterable<Buffer>,
  { lba, pad }: WriteOptions,
  tally: Tally,
  progress: Progress,
): Promise<void> {
  const { blockSize, blocks, name } = target;
  let last: Promise<void> = Promise.resolve();
  try {
    for await (const chunk of chunksOf(source)) {
      const missing = -chunk.length & (blockSize - 1);
      if (missing > 0 && !pad) throw partial(blockSize);
      const data = missing === 0 ? chunk : Buffer.concat([chunk, Buffer.alloc(missing)]);
      await last;
      const at = lba + tally.written;
      if (at + data.length / blockSize > blocks)
        throw new UsageError(`there is more data than room: ${name} has ${blocks} blocks`);
      last = writeChunk(target, at, data, tally).then(() => progress.add(chunk.length));
      last.catch(() => undefined);
    }
  } catch (error) {
    await last.catch(() => undefined);
    throw error;
  }
  await last;
  // What failed to produce any data leaves an empty pipe.
  if (tally.written === 0) throw new UsageError('stdin is empty');
}

async function writeChunk(target: BlockTarget, at: number, data: Buffer, tally: Tally): Promise<void> {
  tally.uncertain = data.length / target.blockSize;
  await target.write(at, data);
  tally.written += tally.uncertain;
  tally.uncertain = 0;
}

/** What a stream gives, in chunks of CHUNK_BYTES but for the last one. */
async function* chunksOf(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  let parts: Buffer[] = [];
  let held = 0;
  for await (const part of source) {
    parts.push(part);
    held += part.length;
    while (held >= CHUNK_BYTES) {
      const all = Buffer.concat(parts);
      yield all.subarray(0, CHUNK_BYTES);
      parts = [all.subarray(CHUNK_BYTES)];
      held -= CHUNK_BYTES;
    }
  }
  if (held > 0) yield Buffer.concat(parts);
}

function partial(blockSize: number): UsageError {
  return new UsageError(
    `the data is no whole number of blocks of ${blockSize} bytes: --pad fills the last one`,
  );
}

async function fileSize(path: string): Promise<number> {
  const stats = await stat(path);
  if (!stats.isFile()) throw new UsageError(`${path} is not a regular file`);
  if (stats.size === 0) throw new UsageError(`${path} is empty`);
  return stats.size;
}
