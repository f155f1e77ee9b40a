/** `vfio-user nvme format`, as nvme-cli has it. */
import type { Command } from 'commander';
import { ALL_NAMESPACES, type NvmeController } from '../../../nvme/index.js';
import { confirm } from '../../confirm.js';
import { printable, UsageError } from '../../errors.js';
import type { GlobalOptions } from '../../global-options.js';
import { bits, byteSize } from '../../numbers.js';
import { startClock } from '../../progress.js';
import { namespaceIdOrAll } from '../../nvme-cli/output.js';
import { hexC } from '../../nvme-cli/text.js';
import { NAMESPACE_TEXT, printSuccess } from './block-options.js';
import { withController } from './with-controller.js';

interface FormatVerbOptions {
  namespaceId?: number;
  lbaf?: number;
  ses: number;
  pi: number;
  pil: number;
  ms: number;
  reset: boolean;
  force: boolean;
  blockSize?: number;
  json: boolean;
}

/** FNA bit 0: a format is one of all namespaces. */
const FORMATS_ALL = 1;
const MOST_FORMAT = 63;

const HELP = `
All data of the namespace is lost. It asks first, and without a terminal wants --force. --timeout is ten minutes where it is
not given.

Examples:
  $ vfio-user nvme format /run/nvme.sock -n 1 -b 4096
  $ vfio-user nvme format /run/nvme.sock -n 1 -l 0 -s 1 --force`;

export function registerNvmeFormat(nvme: Command): void {
  nvme
    .command('format')
    .description('erase a namespace, or give it other blocks')
    .argument('<SOCKET>', 'where the server listens')
    .option('-n, --namespace-id <id>', `${NAMESPACE_TEXT}; 0xffffffff for all`, namespaceIdOrAll)
    .option('-l, --lbaf <n>', 'the LBA format; that which it has where nothing is said', bits(6))
    .option('-s, --ses <n>', 'secure erase: 0 none, 1 user data, 2 cryptographic', bits(3), 0)
    .option('-i, --pi <n>', 'protection information: 0 none, types 1 to 3', bits(3), 0)
    .option('-p, --pil <n>', 'where it is: 0 last, 1 first bytes of the metadata', bits(1), 0)
    .option('-m, --ms <n>', 'metadata: 0 in a buffer of its own, 1 with the data', bits(1), 0)
    .option('-r, --reset', 'reset the controller afterwards', false)
    .option('-b, --block-size <bytes>', 'the format with such blocks, and no metadata', byteSize)
    .option('--force', 'do not ask', false)
    .option('--json', 'print JSON', false)
    .addHelpText('after', HELP)
    .action(format);
}

async function format(socket: string, options: FormatVerbOptions, command: Command): Promise<void> {
  check(options);
  const { timeout } = command.optsWithGlobals<GlobalOptions>();
  const isGiven = command.parent?.parent?.getOptionValueSource('timeout') === 'cli';
  await withController(command, socket, async (controller) => {
    const namespace = await targetOf(controller, options.namespaceId);
    const lbaFormat = await formatIndex(controller, namespace, options);
    const all = namespace === ALL_NAMESPACES ? ' (ALL namespaces)' : '';
    const what = `You are about to format ${printable(socket)}, namespace ${hexC(namespace)}${all}: its data is lost.`;
    if (!options.force) await confirm(what, '--force');
    const clock = startClock('formatting');
    try {
      await controller.format({
        ...{ namespace, lbaFormat },
        secureErase: options.ses as 0 | 1 | 2,
        protection: options.pi as 0 | 1 | 2 | 3,
        protectionFirst: options.pil === 1,
        extendedMetadata: options.ms === 1,
        ...(isGiven && { timeoutMs: timeout }),
      });
    } finally {
      clock.stop();
    }
    if (options.reset) await controller.reset();
    await printSuccess(options.json, namespace, `Success formatting namespace:${namespace.toString(16)}`);
  });
}

function check({ lbaf, blockSize, ses, pi }: FormatVerbOptions): void {
  if (lbaf !== undefined && blockSize !== undefined)
    throw new UsageError('--lbaf and --block-size exclude each other');
  if (blockSize !== undefined && !Number.isInteger(Math.log2(blockSize)))
    throw new UsageError(`--block-size is a power of two, got ${blockSize}`);
  if (ses > 2) throw new UsageError(`--ses is 0, 1 or 2, got ${ses}`);
  if (pi > 3) throw new UsageError(`--pi is 0 to 3, got ${pi}`);
}

/** Where formats are of all namespaces, that of one is. */
async function targetOf(controller: NvmeController, id: number | undefined): Promise<number> {
  if ((controller.identity.formatAttributes & FORMATS_ALL) !== 0) return ALL_NAMESPACES;
  return id ?? (await controller.namespace()).id;
}

async function formatIndex(
  controller: NvmeController,
  nsid: number,
  options: FormatVerbOptions,
): Promise<number> {
  const { lbaf, blockSize } = options;
  if (lbaf !== undefined) return lbaf;
  if (nsid === ALL_NAMESPACES) {
    if (blockSize === undefined) return 0;
    throw new UsageError('--block-size is of one namespace: all take --lbaf');
  }
  const { identity } = await controller.namespace(nsid);
  if (blockSize === undefined) return identity.formatIndex;
  const index = identity.formats.findIndex((one) => one.dataSize === blockSize && one.metadataSize === 0);
  if (index >= 0 && index <= MOST_FORMAT) return index;
  throw new UsageError(
    `namespace ${nsid} has no format with blocks of ${blockSize} bytes and no metadata: see id-ns`,
  );
}
