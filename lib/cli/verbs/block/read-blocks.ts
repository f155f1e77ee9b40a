/** Blocks of a disk into a file, or to stdout. */
import { UsageError } from '../../errors.js';
import { writeOutput } from '../../output-file.js';
import { startProgress } from '../../progress.js';
import { checkRange, CHUNK_BYTES, fileName, type BlockTarget } from './block-io.js';

export interface ReadOptions {
  lba: number;
  blocks?: number;
  output?: string;
  keepPartial: boolean;
}

/** The file's name; undefined for stdout. @throws UsageError for a terminal. */
export function outputOf({ output }: ReadOptions): string | undefined {
  const file = fileName(output);
  if (file === undefined && process.stdout.isTTY === true) {
    throw new UsageError('raw bytes are not written to a terminal: use --output FILE, or a pipe');
  }
  return file;
}

export async function readBlocks(target: BlockTarget, options: ReadOptions): Promise<void> {
  const file = outputOf(options);
  const { blocks, blockSize } = target;
  const count = options.blocks ?? blocks - options.lba;
  checkRange(target, options.lba, count);
  const progress = startProgress(file === undefined ? 0 : count * blockSize);
  try {
    await writeOutput(
      file,
      async (output, signal) => {
        for await (const chunk of readAhead(target, options.lba, count)) {
          signal.throwIfAborted();
          await output.write(chunk);
          progress.add(chunk.length);
        }
      },
      options.keepPartial,
    );
  } finally {
    progress.stop();
  }
}

/** The blocks in chunks, the next of which is read while one is handed out. */
async function* readAhead(
  target: BlockTarget,
  lba: number,
  count: number,
): AsyncGenerator<Buffer, void, undefined> {
  const most = CHUNK_BYTES / target.blockSize;
  const readFrom = (at: number) => {
    const chunk = target.read(lba + at, Math.min(most, count - at));
    // It may fail before it is awaited: the rejection is handled there.
    chunk.catch(() => undefined);
    return chunk;
  };
  let next = readFrom(0);
  for (let at = most; ; at += most) {
    const chunk = await next;
    if (at >= count) {
      yield chunk;
      return;
    }
    next = readFrom(at);
    yield chunk;
  }
}
