/** `vfio-user nvme compare`, as nvme-cli has it. */
import type { Command } from 'commander';
import { NvmOpcode } from '../../../nvme/index.js';
import { UsageError } from '../../errors.js';
import { byteSize } from '../../numbers.js';
import { blockDwords, namespaceOf, printSuccess, withBlocks, type BlockOptions } from './block-options.js';
import { readInput } from './file-data.js';
import { withController } from './with-controller.js';

interface CompareOptions extends BlockOptions {
  dataSize?: number;
  metadataSize?: number;
  data?: string;
  metadata?: string;
  json: boolean;
}

const HELP = `
Compares blocks with a file, or with stdin. --block-count is less one, as the command has it. The exit status is 1 where they
differ.

Examples:
  $ vfio-user nvme compare /run/nvme.sock -s 0 -c 7 -d expected.bin
  $ head -c 512 expected.bin | vfio-user nvme compare /run/nvme.sock -s 0`;

export function registerNvmeCompare(nvme: Command): void {
  withBlocks(
    nvme
      .command('compare')
      .description('compare blocks with a file, or with stdin')
      .argument('<SOCKET>', 'where the server listens'),
  )
    .option('-z, --data-size <bytes>', 'bytes of data; those of the blocks where nothing is said', byteSize)
    .option('-y, --metadata-size <bytes>', 'bytes of metadata', byteSize)
    .option('-d, --data <file>', 'read the data from a file; - is stdin, as is nothing')
    .option('-M, --metadata <file>', 'read the metadata from a file')
    .option('--json', 'print JSON', false)
    .addHelpText('after', HELP)
    .action(compare);
}

async function compare(socket: string, options: CompareOptions, command: Command): Promise<void> {
  const { metadata, metadataSize } = options;
  const dwords = blockDwords(options);
  if ((metadata === undefined) !== (metadataSize === undefined))
    throw new UsageError('--metadata and --metadata-size go together');
  await withController(command, socket, async (controller) => {
    const nsid = await namespaceOf(controller, options.namespaceId);
    const namespace = await controller.namespace(nsid);
    const blocks = options.blockCount + 1;
    const { identity, blockSize } = namespace;
    const format = identity.formats[identity.formatIndex];
    const each = blockSize + (identity.extendedMetadata ? (format?.metadataSize ?? 0) : 0);
    if (options.dataSize !== undefined && options.dataSize !== blocks * each)
      throw new UsageError(
        `--data-size: ${blocks} blocks have ${blocks * each} bytes, got ${options.dataSize}`,
      );
    const sendMetadata =
      metadataSize === undefined ? undefined : await readInput('--metadata', metadata, metadataSize);
    const send = await readInput('--data', options.data, blocks * each);
    await controller.ioCommand({ opcode: NvmOpcode.COMPARE, namespace: nsid, ...dwords, send, sendMetadata });
    await printSuccess(options.json, nsid, 'compare: Success');
  });
}
