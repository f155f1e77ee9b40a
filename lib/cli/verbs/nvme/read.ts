/** `vfio-user nvme read`: blocks into a file, or to stdout. */
import type { Command } from 'commander';
import { length, size } from '../../numbers.js';
import { outputOf, readBlocks, type ReadOptions } from '../block/read-blocks.js';
import { openTarget } from './target.js';
import { namespaceId, withController } from './with-controller.js';

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

async function read(
  socket: string,
  options: ReadOptions & { nsid?: number },
  command: Command,
): Promise<void> {
  outputOf(options);
  await withController(command, socket, async (controller) => {
    await readBlocks(await openTarget(controller, options.nsid), options);
  });
}
