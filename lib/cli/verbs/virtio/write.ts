/** `vfio-user virtio write`: blocks from a file, or from stdin. */
import type { Command } from 'commander';
import { size } from '../../numbers.js';
import { writeBlocks, type WriteOptions } from '../block/write-blocks.js';
import { addRingOption, targetOf, withDisk } from './with-disk.js';

const HELP = `
The data has to be whole blocks; --pad fills the last one with zeroes. Where not all of it is written, a line on stderr says
how much was.

Examples:
  $ vfio-user virtio write /run/blk.sock --lba 2048 --input image.bin
  $ zcat image.gz | vfio-user virtio write /run/blk.sock --pad`;

export function registerVirtioWrite(virtio: Command): void {
  addRingOption(
    virtio
      .command('write')
      .description('write blocks from a file, or from stdin')
      .argument('<SOCKET>', 'where the server listens')
      .option('--lba <n>', 'the first block', size, 0)
      .option('--input <file>', 'read from a file; - is stdin, as is nothing')
      .option('--pad', 'fill the last block with zeroes', false)
      .option('--no-flush', 'do not wait until the data is durable'),
  )
    .addHelpText('after', HELP)
    .action(write);
}

async function write(
  socket: string,
  options: WriteOptions & { ring: 'split' | 'packed' },
  command: Command,
): Promise<void> {
  const { ring } = options;
  await writeBlocks(options, (work) => withDisk(command, socket, { ring }, (disk) => work(targetOf(disk))));
}
