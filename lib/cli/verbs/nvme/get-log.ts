/** `vfio-user nvme get-log`: any log page, as nvme-cli has it. */
import { Option, type Command } from 'commander';
import { ALL_NAMESPACES } from '../../../nvme/index.js';
import { UsageError } from '../../errors.js';
import { bits, byteSize, length, size } from '../../numbers.js';
import { print } from '../../output.js';
import { toJsonC } from '../../nvme-cli/json-c.js';
import { deviceName, namespaceIdOrAll, type OutputFormat } from '../../nvme-cli/output.js';
import { hexC, hexDump } from '../../nvme-cli/text.js';
import { withController } from './with-controller.js';

interface GetLogOptions {
  namespaceId: number;
  logId?: number;
  logLen?: number;
  aen?: number;
  lpo: number;
  lsp: number;
  lsi: number;
  rae: boolean;
  uuidIndex: number;
  csi: number;
  ot: boolean;
  rawBinary: boolean;
  outputFormat: OutputFormat;
  json: boolean;
}

const AEN_BYTES = 4096;
const MOST_BYTES = 64 << 20;
/** Where the offset is an index the page comes in one piece. */
const MOST_INDEXED_BYTES = 64 << 10;

const HELP = `
nvme-cli 2.3 has no JSON for it; here JSON has the bytes in hexadecimal digits.

Examples:
  $ vfio-user nvme get-log /run/nvme.sock -i 2 -l 512
  $ vfio-user nvme get-log /run/nvme.sock --log-id 1 --log-len 64 --raw-binary | xxd`;

export function registerNvmeGetLog(nvme: Command): void {
  nvme
    .command('get-log')
    .description('any log page, as bytes')
    .argument('<SOCKET>', 'where the server listens')
    .option('-n, --namespace-id <id>', 'NSID', namespaceIdOrAll, ALL_NAMESPACES)
    .option('-i, --log-id <id>', 'which page', bits(8))
    .option('-l, --log-len <bytes>', 'how many bytes, a multiple of 4', byteSize)
    .option('-a, --aen <dword>', "an event's dword: the page that it names, 4096 bytes", bits(32))
    .option('-o, --lpo <bytes>', 'where to begin in the page', size, 0)
    .option('-s, --lsp <n>', 'log specific field', bits(7), 0)
    .option('-S, --lsi <n>', 'log specific identifier', bits(16), 0)
    .option('-r, --rae', 'the event that the page is about stays as it is', false)
    .option('-U, --uuid-index <n>', 'UUID index', bits(7), 0)
    .option('-y, --csi <n>', 'command set identifier', bits(8), 0)
    .option('-O, --ot', 'the offset is the index of a structure', false)
    .option('-b, --raw-binary', 'print the bytes as they came', false)
    .addOption(
      new Option('--output-format <format>', 'how to print it')
        .choices(['normal', 'json', 'binary'])
        .default('normal'),
    )
    .option('--json', 'print JSON', false)
    .addHelpText('after', HELP)
    .action(getLog);
}

async function getLog(socket: string, options: GetLogOptions, command: Command): Promise<void> {
  const { aen, namespaceId } = options;
  const page = aen === undefined ? options.logId : (aen >>> 16) & 0xff;
  const bytes = aen === undefined ? options.logLen : AEN_BYTES;
  if (page === undefined) throw new UsageError('--log-id says which page');
  if (bytes === undefined) throw new UsageError('--log-len says how many bytes');
  if (bytes % 4 !== 0 || bytes > MOST_BYTES)
    throw new UsageError(`--log-len is a multiple of 4, at most ${MOST_BYTES}, got ${bytes}`);
  if (options.ot && bytes > MOST_INDEXED_BYTES)
    throw new UsageError(`--log-len is at most ${MOST_INDEXED_BYTES} with --ot, got ${bytes}`);
  if (!options.ot && options.lpo % 4 !== 0)
    throw new UsageError(`--lpo is a multiple of 4, got ${options.lpo}`);
  await withController(command, socket, async (controller) => {
    const log = await controller.logPage(page, length(String(bytes)), {
      ...{
        namespace: namespaceId,
        offset: options.lpo,
        specific: options.lsp,
        specificIdentifier: options.lsi,
      },
      ...{ retainEvent: options.rae, uuidIndex: options.uuidIndex, commandSet: options.csi },
      isIndexOffset: options.ot,
    });
    if (options.rawBinary || options.outputFormat === 'binary') await print(log);
    else if (options.json || options.outputFormat === 'json')
      await print(toJsonC({ 'log-id': page, 'namespace-id': namespaceId, data: log.toString('hex') }));
    else {
      const head = `Device:${deviceName(socket)} log-id:${page} namespace-id:${hexC(namespaceId)}\n`;
      await print(head + hexDump(log));
    }
  });
}
