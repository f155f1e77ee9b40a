/** `vfio-user nvme write`: blocks from a file, or from stdin. */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { addAbortSignal, type Readable } from 'node:stream';
import type { Command } from 'commander';
import type { NvmeQueue } from '../../../nvme/index.js';
import { UsageError } from '../../errors.js';
import { size } from '../../numbers.js';
import { withFate } from '../../output-file.js';
import { startCounter, startProgress, type Progress } from '../../progress.js';
import { interruptible } from '../../stop-signals.js';
import { counted } from '../../format-text.js';
import { checkRange, CHUNK_BYTES, fileName, openQueue } from './block-io.js';
import { namespaceId, withController } from './with-controller.js';

interface WriteOptions {
  nsid?: number;
  lba: number;
  input?: string;
  pad: boolean;
  flush: boolean;
}

const HELP = `
The data has to be whole blocks; --pad fills the last one with zeroes. Where not all of it is written, a line on stderr says
how much was.

Examples:
  $ vfio-user nvme write /run/nvme.sock --lba 2048 --input image.bin
  $ zcat image.gz | vfio-user nvme write /run/nvme.sock --pad`;

export function registerNvmeWrite(nvme: Command): void {
  nvme
    .command('write')
    .description('write blocks from a file, or from stdin')
    .argument('<SOCKET>', 'where the server listens')
    .option('--nsid <n>', 'the namespace; the first active one where nothing is said', namespaceId)
    .option('--lba <n>', 'the first block', size, 0)
    .option('--input <file>', 'read from a file; - is stdin, as is nothing')
    .option('--pad', 'fill the last block with zeroes', false)
    .option('--no-flush', 'do not wait until the data is durable')
    .addHelpText('after', HELP)
    .action(write);
}

async function write(socket: string, options: WriteOptions, command: Command): Promise<void> {
  const { lba } = options;
  const input = fileName(options.input);
  const total = input === undefined ? undefined : await fileSize(input);
  await interruptible((signal) =>
    withController(command, socket, async (controller) => {
      const queue = await openQueue(controller, options.nsid);
      const { blockSize } = queue.namespace;
      if (total !== undefined) {
        if (total % blockSize !== 0 && !options.pad) throw partial(blockSize);
        checkRange(queue, lba, Math.ceil(total / blockSize));
      }
      const source: Readable =
        input === undefined ? process.stdin : createReadStream(input, { highWaterMark: CHUNK_BYTES });
      const progress = total === undefined ? startCounter() : startProgress(total);
      const tally: Tally = { written: 0, uncertain: 0 };
      try {
        signal.throwIfAborted();
        await writeAll(queue, addAbortSignal(signal, source), options, tally, progress);
        if (options.flush) await queue.flush();
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
  /** The controller has said so. */
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
  queue: NvmeQueue,
  source: AsyncIterable<Buffer>,
  { lba, pad }: WriteOptions,
  tally: Tally,
  progress: Progress,
): Promise<void> {
  const { blockSize, blocks } = queue.namespace;
  let last: Promise<void> = Promise.resolve();
  try {
    for await (const chunk of chunksOf(source)) {
      const missing = -chunk.length & (blockSize - 1);
      if (missing > 0 && !pad) throw partial(blockSize);
      const data = missing === 0 ? chunk : Buffer.concat([chunk, Buffer.alloc(missing)]);
      await last;
      const at = lba + tally.written;
      if (at + data.length / blockSize > blocks)
        throw new UsageError('there is more data than room in the namespace');
      last = writeChunk(queue, at, data, tally).then(() => progress.add(chunk.length));
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

async function writeChunk(queue: NvmeQueue, at: number, data: Buffer, tally: Tally): Promise<void> {
  tally.uncertain = data.length / queue.namespace.blockSize;
  await queue.write(at, data);
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
