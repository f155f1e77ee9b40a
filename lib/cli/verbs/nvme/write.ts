/** `vfio-user nvme write`: blocks from a file, or from stdin. */
import type { Command } from 'commander';
import { size } from '../../numbers.js';
import { writeBlocks, type WriteOptions } from '../block/write-blocks.js';
import { openTarget } from './target.js';
import { namespaceId, withController } from './with-controller.js';

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

async function write(
  socket: string,
  options: WriteOptions & { nsid?: number },
  command: Command,
): Promise<void> {
  await writeBlocks(options, (work) =>
    withController(command, socket, async (controller) => work(await openTarget(controller, options.nsid))),
  );
}
