/** `vfio-user nvme admin-passthru` and `io-passthru`, as nvme-cli has them. */
import { Option, type Command } from 'commander';
import type { NvmeController, RawCommand } from '../../../nvme/index.js';
import { UsageError } from '../../errors.js';
import { bits, byteSize } from '../../numbers.js';
import { print } from '../../output.js';
import { toJsonC } from '../../nvme-cli/json-c.js';
import { commandName } from '../../nvme-cli/command-names.js';
import { namespaceIdOrAll, type OutputFormat } from '../../nvme-cli/output.js';
import { hexDump } from '../../nvme-cli/text.js';
import { readInput, writeData } from './file-data.js';
import { withController } from './with-controller.js';

type Dwords = Record<`cdw${2 | 3 | 10 | 11 | 12 | 13 | 14 | 15}`, number>;

interface PassthruOptions extends Dwords {
  opcode: number;
  flags: number;
  namespaceId: number;
  dataLen: number;
  metadataLen: number;
  inputFile?: string;
  metadata?: string;
  rawBinary: boolean;
  showCommand: boolean;
  dryRun: boolean;
  read: boolean;
  write: boolean;
  latency: boolean;
  outputFormat: OutputFormat;
  json: boolean;
}

const NUMBERS = [2, 3, 10, 11, 12, 13, 14, 15] as const;
/** 16 MiB: more than a command of any controller transfers. */
const MOST_BYTES = 1 << 24;

function help(verb: string, options: string): string {
  return `
Data goes the way that the opcode's bits 1:0 say; --read and --write may repeat that. The driver sets FUSE, PSDT and the
command identifier, so --flags is 0. Where a command says how much it transfers, --data-len is checked against it. Only
what was asked for goes to the controller: --dry-run shows it, and does not even connect.

Examples:
  $ vfio-user nvme ${verb} /run/nvme.sock ${options} --show-command
  $ vfio-user nvme ${verb} /run/nvme.sock ${options} --raw-binary > data.bin`;
}

export function registerNvmePassthru(nvme: Command): void {
  register(nvme, 'admin-passthru', 'any admin command', true, '-o 6 --cdw10 1 -l 4096 -r');
  register(nvme, 'io-passthru', 'any I/O command', false, '-o 2 -n 1 -l 512 -r');
}

function register(nvme: Command, name: string, description: string, isAdmin: boolean, example: string): void {
  const command = nvme
    .command(name)
    .description(description)
    .argument('<SOCKET>', 'where the server listens')
    .requiredOption('-o, --opcode <n>', 'the opcode', bits(8))
    .option('-f, --flags <n>', 'command flags: 0', bits(8), 0)
    .option('-n, --namespace-id <id>', 'NSID', nsid, 0)
    .option('-l, --data-len <bytes>', 'how much data there is', byteSize, 0)
    .option('-m, --metadata-len <bytes>', 'how much metadata there is', byteSize, 0);
  for (const [i, number] of NUMBERS.entries())
    command.option(`-${i + 2}, --cdw${number} <dword>`, `dword ${number}`, bits(32), 0);
  command
    .option('-i, --input-file <file>', 'where data comes from, or goes to')
    .option('-M, --metadata <file>', 'where metadata comes from, or goes to')
    .option('-b, --raw-binary', 'print the data as it came', false)
    .option('-s, --show-command', 'print the command first', false)
    .option('-d, --dry-run', 'print the command, and do not send it', false)
    .option('-r, --read', 'data comes from the controller', false)
    .option('-w, --write', 'data goes to the controller', false)
    .option('-T, --latency', 'print how long it took', false)
    .addOption(
      new Option('--output-format <format>', 'how to print it')
        .choices(['normal', 'json', 'binary'])
        .default('normal'),
    )
    .option('--json', 'print JSON', false)
    .addHelpText('after', help(name, example))
    .action((socket: string, options: PassthruOptions, self: Command) =>
      passthru(socket, options, self, isAdmin),
    );
}

function nsid(text: string): number {
  return text === '0' ? 0 : namespaceIdOrAll(text);
}

async function passthru(
  socket: string,
  options: PassthruOptions,
  command: Command,
  isAdmin: boolean,
): Promise<void> {
  const way = wayOf(options, isAdmin);
  if (options.showCommand || options.dryRun) await print(commandText(options));
  if (options.dryRun) return;
  const { dataLen, metadataLen } = options;
  const isInput = way === 'write';
  const send =
    isInput && dataLen > 0 ? await readInput('--input-file', options.inputFile, dataLen) : undefined;
  const sendMetadata =
    isInput && metadataLen > 0 ? await readInput('--metadata', options.metadata, metadataLen) : undefined;
  await withController(command, socket, async (controller) => {
    const begin = performance.now();
    const gone = {
      send,
      sendMetadata,
      receive: way === 'read' ? dataLen : 0,
      receiveMetadata: way === 'read' ? metadataLen : 0,
    };
    const answer = await sent(controller, isAdmin, options, gone);
    const us = Math.round((performance.now() - begin) * 1000);
    const name = commandName(isAdmin, options.opcode);
    const kind = isAdmin ? 'Admin' : 'IO';
    if (options.latency) process.stderr.write(`${kind} Command ${name} latency: ${us} us\n`);
    if (!options.json && options.outputFormat !== 'json')
      process.stderr.write(`${kind} Command ${name} is Success and result: 0x${digits(answer.result, 8)}\n`);
    await deliver(options, answer);
  });
}

interface Answer {
  result: number;
  data: Buffer;
  metadata: Buffer;
}

interface Transfers {
  send: Buffer | undefined;
  sendMetadata: Buffer | undefined;
  receive: number;
  receiveMetadata: number;
}

/** @throws UsageError for what the library refuses as no command. */
async function sent(
  controller: NvmeController,
  isAdmin: boolean,
  options: PassthruOptions,
  transfers: Transfers,
): Promise<Answer> {
  const request: RawCommand = { opcode: options.opcode, namespace: options.namespaceId };
  for (const number of NUMBERS) request[`cdw${number}`] = options[`cdw${number}`];
  const { send, receive } = transfers;
  try {
    if (isAdmin)
      return { ...(await controller.adminCommand({ ...request, send, receive })), metadata: Buffer.alloc(0) };
    return await controller.ioCommand({ ...request, ...transfers });
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(error.message) : error;
  }
}

async function deliver(options: PassthruOptions, { result, data, metadata }: Answer): Promise<void> {
  if (metadata.length > 0) await writeData(options.metadata, metadata);
  if (options.json || options.outputFormat === 'json') {
    await print(
      toJsonC({ result: `0x${digits(result, 8)}`, ...(data.length > 0 && { data: data.toString('hex') }) }),
    );
    return;
  }
  if (data.length === 0) return;
  if (options.inputFile !== undefined) await writeData(options.inputFile, data);
  else if (options.rawBinary || options.outputFormat === 'binary') await print(data);
  else await print(hexDump(data));
}

/** @throws UsageError. */
function wayOf(options: PassthruOptions, isAdmin: boolean): 'read' | 'write' | undefined {
  const { opcode, dataLen, metadataLen, flags } = options;
  if (flags !== 0) throw new UsageError(`--flags is 0: FUSE and PSDT are the driver's, got ${flags}`);
  if (dataLen > MOST_BYTES || metadataLen > MOST_BYTES)
    throw new UsageError(`--data-len and --metadata-len are at most ${MOST_BYTES}`);
  if (isAdmin && metadataLen > 0)
    throw new UsageError('--metadata-len is for io-passthru: no admin command has metadata');
  if (metadataLen > 0 && options.metadata === undefined)
    throw new UsageError('--metadata says where the metadata comes from, or goes to');
  const ways = { write: (opcode & 1) !== 0, read: (opcode & 2) !== 0 };
  for (const way of ['read', 'write'] as const)
    if (options[way] && !ways[way])
      throw new UsageError(`--${way}: opcode 0x${digits(opcode, 2)} transfers nothing that way`);
  if (dataLen + metadataLen === 0) return undefined;
  if (!ways.read && !ways.write)
    throw new UsageError(`--data-len: opcode 0x${digits(opcode, 2)} transfers no data`);
  if (ways.read && ways.write && options.read === options.write)
    throw new UsageError(`opcode 0x${digits(opcode, 2)} goes both ways: --read or --write says which`);
  return ways.read && !options.write ? 'read' : 'write';
}

function commandText(options: PassthruOptions): string {
  const line = (name: string, value: string) => `${name.padEnd(12)} : ${value}\n`;
  const dword = (value: number) => digits(value, 8);
  return [
    line('opcode', digits(options.opcode, 2)),
    line('flags', digits(options.flags, 2)),
    line('nsid', dword(options.namespaceId)),
    line('cdw2', dword(options.cdw2)),
    line('cdw3', dword(options.cdw3)),
    line('data_len', dword(options.dataLen)),
    line('metadata_len', dword(options.metadataLen)),
    ...NUMBERS.slice(2).map((number) => line(`cdw${number}`, dword(options[`cdw${number}`]))),
  ].join('');
}

function digits(value: number, count: number): string {
  return value.toString(16).padStart(count, '0');
}
