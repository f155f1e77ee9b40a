/** `vfio-user virtio read`: blocks into a file, or to stdout. */
import type { Command } from 'commander';
import { length, size } from '../../numbers.js';
import { outputOf, readBlocks, type ReadOptions } from '../block/read-blocks.js';
import { addRingOption, targetOf, withDisk } from './with-disk.js';

const HELP = `
A file gets its name when it is whole: a failure leaves what was there, and what was read as FILE.partial where
--keep-partial is given.

Examples:
  $ vfio-user virtio read /run/blk.sock --lba 0 --blocks 8 | xxd
  $ vfio-user virtio read /run/blk.sock --output disk.img        all of it`;

export function registerVirtioRead(virtio: Command): void {
  addRingOption(
    virtio
      .command('read')
      .description('read blocks into a file, or to stdout')
      .argument('<SOCKET>', 'where the server listens')
      .option('--lba <n>', 'the first block', size, 0)
      .option('--blocks <n>', 'how many; all that follow where nothing is said', length)
      .option('--output <file>', 'write to a file; - is stdout, as is nothing')
      .option('--keep-partial', 'after a failure, keep what was read', false),
  )
    .addHelpText('after', HELP)
    .action(read);
}

async function read(
  socket: string,
  options: ReadOptions & { ring: 'split' | 'packed' },
  command: Command,
): Promise<void> {
  outputOf(options);
  const { ring } = options;
  await withDisk(command, socket, { ring }, (disk) => readBlocks(targetOf(disk), options));
}
