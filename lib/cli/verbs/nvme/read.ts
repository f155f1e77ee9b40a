/** `vfio-user nvme read`: blocks into a file, or to stdout. */
import type { Command } from 'commander';
import type { NvmeQueue } from '../../../nvme/index.js';
import { UsageError } from '../../errors.js';
import { length, size } from '../../numbers.js';
import { writeOutput } from '../../output-file.js';
import { startProgress } from '../../progress.js';
import { checkRange, CHUNK_BYTES, fileName, openQueue } from './block-io.js';
import { namespaceId, withController } from './with-controller.js';

interface ReadOptions {
  nsid?: number;
  lba: number;
  blocks?: number;
  output?: string;
  keepPartial: boolean;
}

const HELP = `
A file gets its name when it is whole: a failure leaves what was there, and what was read as FILE.partial where
--keep-partial is given.

Examples:
  $ vfio-user nvme read /run/nvme.sock --lba 0 --blocks 8 | xxd
  $ vfio-user nvme read /run/nvme.sock --nsid 2 --output namespace.img        all of it`;

export function registerNvmeRead(nvme: Command): void {
  nvme
    .command('read')
    .description('read blocks into a file, or to stdout')
    .argument('<SOCKET>', 'where the server listens')
    .option('--nsid <n>', 'the namespace; the first active one where nothing is said', namespaceId)
    .option('--lba <n>', 'the first block', size, 0)
    .option('--blocks <n>', 'how many; all that follow where nothing is said', length)
    .option('--output <file>', 'write to a file; - is stdout, as is nothing')
    .option('--keep-partial', 'after a failure, keep what was read', false)
    .addHelpText('after', HELP)
    .action(read);
}

async function read(socket: string, options: ReadOptions, command: Command): Promise<void> {
  const file = fileName(options.output);
  if (file === undefined && process.stdout.isTTY === true) {
    throw new UsageError('raw bytes are not written to a terminal: use --output FILE, or a pipe');
  }
  await withController(command, socket, async (controller) => {
    const queue = await openQueue(controller, options.nsid);
    const { blocks, blockSize } = queue.namespace;
    const count = options.blocks ?? blocks - options.lba;
    checkRange(queue, options.lba, count);
    const progress = startProgress(file === undefined ? 0 : count * blockSize);
    try {
      await writeOutput(
        file,
        async (output, signal) => {
          for await (const chunk of readAhead(queue, options.lba, count)) {
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
  });
}

/** The blocks in chunks, the next of which is read while one is handed out. */
async function* readAhead(
  queue: NvmeQueue,
  lba: number,
  count: number,
): AsyncGenerator<Buffer, void, undefined> {
  const most = CHUNK_BYTES / queue.namespace.blockSize;
  const readFrom = (at: number) => {
    const chunk = queue.read(lba + at, Math.min(most, count - at));
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
