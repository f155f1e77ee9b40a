/** `vfio-user nvme get-feature` and `set-feature`, as nvme-cli has them. */
import { Option, type Command } from 'commander';
import { ALL_NAMESPACES, NvmeStatusError, type NvmeController } from '../../../nvme/index.js';
import { UsageError } from '../../errors.js';
import { bits, uint64WithSuffix } from '../../numbers.js';
import { print } from '../../output.js';
import { featureBytes, featureName, SELECTIONS } from '../../nvme-cli/features.js';
import { toJsonC, type JsonC } from '../../nvme-cli/json-c.js';
import { formatOf, namespaceIdOrAll, type OutputFormat } from '../../nvme-cli/output.js';
import { hexC, hexDump } from '../../nvme-cli/text.js';
import { readInput } from './file-data.js';
import { withController } from './with-controller.js';

interface GetOptions {
  featureId?: number;
  namespaceId: number;
  sel: number;
  dataLen?: number;
  rawBinary: boolean;
  cdw11: number;
  uuidIndex: number;
  outputFormat: OutputFormat;
  json: boolean;
}

interface SetOptions {
  featureId: number;
  namespaceId: number;
  value?: bigint;
  cdw12: number;
  uuidIndex: number;
  dataLen?: number;
  data?: string;
  save: boolean;
  json: boolean;
}

const CHANGED = 8;
const SUPPORTED = 3;
const CAPABILITIES = ['saveable', 'per-namespace', 'changeable'];
const MOST_FEATURES = 0x100;
const MOST_DATA = 64 * 1024;
const TIMESTAMP = 0x0e;
const TIMESTAMP_BYTES = 6;
const DWORD_MAX = 0xffff_ffffn;

const GET_HELP = `
Without --feature-id all features that the controller has. nvme-cli 2.3 has no JSON for it: keys are those of 2.11, and
"data" has hexadecimal digits.

Examples:
  $ vfio-user nvme get-feature /run/nvme.sock -f 6
  $ vfio-user nvme get-feature /run/nvme.sock -f 0x0e -s 0 -o json`;

const SET_HELP = `
Data is read from --data, or from stdin, where the feature has any; a timestamp can be given as --value.

Examples:
  $ vfio-user nvme set-feature /run/nvme.sock -f 6 -v 0
  $ vfio-user nvme set-feature /run/nvme.sock -f 0x0e -l 8 -d timestamp.bin`;

export function registerNvmeFeatures(nvme: Command): void {
  nvme
    .command('get-feature')
    .description('show features, as nvme-cli does')
    .argument('<SOCKET>', 'where the server listens')
    .option('-f, --feature-id <id>', 'which one', bits(8))
    .option('-n, --namespace-id <id>', 'NSID', namespaceIdOrAll, ALL_NAMESPACES)
    .option(
      '-s, --sel <n>',
      '0 current, 1 default, 2 saved, 3 what is supported, 8 what was changed',
      select,
      0,
    )
    .option('-l, --data-len <bytes>', 'bytes of data of the feature', bits(32))
    .option('-c, --cdw11 <dword>', 'dword 11', bits(32), 0)
    .option('-U, --uuid-index <n>', 'UUID index', bits(7), 0)
    .option('-b, --raw-binary', 'print the data as it came', false)
    .addOption(
      new Option('-o, --output-format <format>', 'how to print it')
        .choices(['normal', 'json', 'binary'])
        .default('normal'),
    )
    .option('--json', 'print JSON: --output-format json', false)
    .addHelpText('after', GET_HELP)
    .action(getFeature);
  nvme
    .command('set-feature')
    .description('change a feature, as nvme-cli does')
    .argument('<SOCKET>', 'where the server listens')
    .requiredOption('-f, --feature-id <id>', 'which one', bits(8))
    .option('-n, --namespace-id <id>', 'NSID', namespaceIdOrAll, ALL_NAMESPACES)
    .option('-v, --value <n>', 'dword 11: the new value', uint64WithSuffix)
    .option('-c, --cdw12 <dword>', 'dword 12', bits(32), 0)
    .option('-U, --uuid-index <n>', 'UUID index', bits(7), 0)
    .option('-l, --data-len <bytes>', 'bytes of data of the feature', bits(32))
    .option('-d, --data <file>', 'read the data from a file; - is stdin, as is nothing')
    .option('-s, --save', 'keep the value over resets', false)
    .option('--json', 'print JSON', false)
    .addHelpText('after', SET_HELP)
    .action(setFeature);
}

function select(text: string): number {
  const value = bits(8)(text);
  if (value <= SUPPORTED || value === CHANGED) return value;
  throw new UsageError(`--sel is 0 to ${SUPPORTED}, or ${CHANGED}`);
}

interface Found {
  id: number;
  result: number;
  data: Buffer;
}

async function getFeature(socket: string, options: GetOptions, command: Command): Promise<void> {
  checkData(options.dataLen);
  await withController(command, socket, async (controller) => {
    const found: Found[] = [];
    const { featureId } = options;
    const ids = featureId === undefined ? Array.from({ length: MOST_FEATURES }, (_, id) => id) : [featureId];
    for (const id of ids) {
      try {
        const one = await readFeature(controller, id, options);
        if (one !== undefined) found.push(one);
      } catch (error) {
        // Those that the controller does not have, where all are asked for.
        if (featureId !== undefined || !isNone(error)) throw error;
      }
    }
    const format = formatOf(options);
    if (format === 'json')
      await print(toJsonC(Object.fromEntries(found.flatMap((one) => featureJson(one, options.sel)))));
    else if (format === 'binary') await print(Buffer.concat(found.map(({ data }) => data)));
    else await print(found.map((one) => featureText(one, options.sel)).join(''));
  });
}

function isNone(error: unknown): boolean {
  return (
    error instanceof NvmeStatusError &&
    ['INVALID_FIELD', 'INVALID_NAMESPACE_OR_FORMAT'].includes(error.statusName)
  );
}

/** undefined where only what was changed is asked for, and it was not. */
async function readFeature(
  controller: NvmeController,
  id: number,
  options: GetOptions,
): Promise<Found | undefined> {
  const { namespaceId: namespace, sel, cdw11, uuidIndex } = options;
  const get = async (which: number): Promise<Found> => {
    const receive = which === SUPPORTED ? 0 : (options.dataLen ?? featureBytes(id, cdw11, 'get'));
    const choice = which as 0 | 1 | 2 | 3;
    return {
      id,
      ...(await controller.getFeature(id, { namespace, cdw11, uuidIndex, select: choice, receive })),
    };
  };
  if (sel !== CHANGED) return get(sel);
  const [now, before] = [await get(0), await get(1)];
  return now.result === before.result && now.data.equals(before.data) ? undefined : now;
}

/** `%#0*x`: at least so many characters, the prefix among them, which zero has not. */
function padded(value: number, digits: number): string {
  return hexC(value, value === 0 ? digits - 2 : digits);
}

function idText(id: number): string {
  return id === 0 ? '00' : padded(id, 4);
}

function valueText(result: number): string {
  return result === 0 ? '00000000' : padded(result, 10);
}

function selection(sel: number): string {
  return SELECTIONS[sel] ?? 'Changed';
}

function featureJson({ id, result, data }: Found, sel: number): [string, JsonC][] {
  const value: Record<string, JsonC> = { name: featureName(id), [selection(sel)]: valueText(result) };
  if (data.length > 0) value['data'] = data.toString('hex');
  const members: [string, JsonC][] = [[`feature: ${idText(id)}`, value]];
  if (sel === SUPPORTED) members.push([`Feature: ${idText(id)}: select`, capabilities(result)]);
  return members;
}

function capabilities(result: number): string[] {
  return CAPABILITIES.filter((_, bit) => (result & (1 << bit)) !== 0);
}

function featureText({ id, result, data }: Found, sel: number): string {
  const head = `get-feature:${idText(id)} (${featureName(id)}), ${selection(sel)} value:${valueText(result)}\n`;
  if (sel === SUPPORTED)
    return (
      head +
      capabilities(result)
        .map((name) => `  Feature is ${name}\n`)
        .join('')
    );
  return data.length === 0 ? head : head + hexDump(data);
}

async function setFeature(socket: string, options: SetOptions, command: Command): Promise<void> {
  const { featureId, value, cdw12, save, uuidIndex, namespaceId: namespace } = options;
  checkData(options.dataLen);
  if (featureId === 0) throw new UsageError('--feature-id is 1 to 255');
  const isTimestamp = featureId === TIMESTAMP && value !== undefined && options.data === undefined;
  if (value !== undefined && value > DWORD_MAX && !isTimestamp)
    throw new UsageError(`--value has 32 bits, got ${value}`);
  const bytes = options.dataLen ?? featureBytes(featureId, Number((value ?? 0n) & DWORD_MAX), 'set');
  if (value === undefined && bytes === 0) throw new UsageError('--value says what the feature is to be');
  const send = isTimestamp
    ? timestamp(value)
    : bytes > 0
      ? await readInput('--data', options.data, bytes)
      : undefined;
  await withController(command, socket, async (controller) => {
    const cdw11 = isTimestamp ? 0 : Number(value ?? 0n);
    const result = await controller.setFeature(featureId, { namespace, cdw11, cdw12, uuidIndex, save, send });
    if (options.json) {
      const told = { value: valueText(cdw11), cdw12: valueText(cdw12), save: Number(save), result };
      await print(toJsonC({ [`feature: ${idText(featureId)}`]: { name: featureName(featureId), ...told } }));
      return;
    }
    const head = `set-feature:${idText(featureId)} (${featureName(featureId)}), value:${valueText(cdw11)}`;
    await print(`${head}, cdw12:${valueText(cdw12)}, save:${hexC(Number(save))}\n`);
    if (send !== undefined) await print(hexDump(send));
  });
}

/** Milliseconds in 6 of its 8 bytes. */
function timestamp(value: bigint): Buffer {
  if (value >= 1n << 48n) throw new UsageError(`--value of a timestamp has 48 bits, got ${value}`);
  const bytes = Buffer.alloc(TIMESTAMP_BYTES + 2);
  bytes.writeUIntLE(Number(value), 0, TIMESTAMP_BYTES);
  return bytes;
}

function checkData(bytes: number | undefined): void {
  if (bytes === undefined || (bytes % 4 === 0 && bytes > 0 && bytes <= MOST_DATA)) return;
  throw new UsageError(`--data-len is a multiple of 4, 4 to ${MOST_DATA}, got ${bytes}`);
}
