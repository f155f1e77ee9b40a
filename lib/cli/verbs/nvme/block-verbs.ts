/** `vfio-user nvme flush`, `write-zeroes` and `dsm`, as nvme-cli has them. */
import type { Command } from 'commander';
import { NvmOpcode } from '../../../nvme/index.js';
import { UsageError } from '../../errors.js';
import { bits, uint64 } from '../../numbers.js';
import { namespaceIdOrAll } from '../../nvme-cli/output.js';
import {
  blockDwords,
  DEALLOCATE,
  NAMESPACE_TEXT,
  namespaceOf,
  printSuccess,
  withBlocks,
  type BlockOptions,
} from './block-options.js';
import { withController } from './with-controller.js';

const RANGE_BYTES = 16;
const MOST_RANGES = 256;
const MOST_DWORD = 2 ** 32 - 1;

const FLUSH_HELP = `
Examples:
  $ vfio-user nvme flush /run/nvme.sock
  $ vfio-user nvme flush /run/nvme.sock -n 0xffffffff`;

const ZEROES_HELP = `
--block-count is less one, as the command has it: 0 is one block.

Examples:
  $ vfio-user nvme write-zeroes /run/nvme.sock -s 2048 -c 7
  $ vfio-user nvme write-zeroes /run/nvme.sock -n 1 -s 0 -c 0xffff --deac`;

const DSM_HELP = `
Lists have a number for each range, with commas between.

Examples:
  $ vfio-user nvme dsm /run/nvme.sock -s 0,4096 -b 8,16 --ad
  $ vfio-user nvme dsm /run/nvme.sock -n 1 -s 0 -b 1024 --idr`;

export function registerNvmeBlockVerbs(nvme: Command): void {
  registerFlush(nvme);
  registerWriteZeroes(nvme);
  registerDsm(nvme);
}

function registerFlush(nvme: Command): void {
  nvme
    .command('flush')
    .description('what was written is durable then')
    .argument('<SOCKET>', 'where the server listens')
    .option('-n, --namespace-id <id>', NAMESPACE_TEXT, namespaceIdOrAll)
    .option('--json', 'print JSON', false)
    .addHelpText('after', FLUSH_HELP)
    .action(async (socket: string, options: { namespaceId?: number; json: boolean }, command: Command) => {
      await withController(command, socket, async (controller) => {
        const namespace = await namespaceOf(controller, options.namespaceId);
        await controller.ioCommand({ opcode: NvmOpcode.FLUSH, namespace });
        await printSuccess(options.json, namespace, 'NVMe Flush: success');
      });
    });
}

function registerWriteZeroes(nvme: Command): void {
  withBlocks(
    nvme.command('write-zeroes').description('write zeroes').argument('<SOCKET>', 'where the server listens'),
  )
    .option('-d, --deac', 'the controller may deallocate the blocks', false)
    .option('--json', 'print JSON', false)
    .addHelpText('after', ZEROES_HELP)
    .action(
      async (socket: string, options: BlockOptions & { deac: boolean; json: boolean }, command: Command) => {
        const dwords = blockDwords(options);
        const cdw12 = (dwords.cdw12 | (options.deac ? DEALLOCATE : 0)) >>> 0;
        await withController(command, socket, async (controller) => {
          const namespace = await namespaceOf(controller, options.namespaceId);
          await controller.ioCommand({ opcode: NvmOpcode.WRITE_ZEROES, namespace, ...dwords, cdw12 });
          await printSuccess(options.json, namespace, 'NVME Write Zeroes Success');
        });
      },
    );
}

interface DsmOptions {
  namespaceId?: number;
  ctxAttrs?: bigint[];
  blocks?: bigint[];
  slbs?: bigint[];
  ad: boolean;
  idw: boolean;
  idr: boolean;
  cdw11: number;
  json: boolean;
}

function registerDsm(nvme: Command): void {
  nvme
    .command('dsm')
    .description('Dataset Management: what ranges of blocks are for, or that they are not needed')
    .argument('<SOCKET>', 'where the server listens')
    .option('-n, --namespace-id <id>', NAMESPACE_TEXT, namespaceIdOrAll)
    .option('-a, --ctx-attrs <list>', 'context attributes of each range', numbers)
    .option('-b, --blocks <list>', 'how many blocks each range has', numbers)
    .option('-s, --slbs <list>', 'the first block of each range', numbers)
    .option('-d, --ad', 'deallocate', false)
    .option('-w, --idw', 'integral dataset for write', false)
    .option('-r, --idr', 'integral dataset for read', false)
    .option('-c, --cdw11 <dword>', 'dword 11, instead of these', bits(32), 0)
    .option('--json', 'print JSON', false)
    .addHelpText('after', DSM_HELP)
    .action(dsm);
}

async function dsm(socket: string, options: DsmOptions, command: Command): Promise<void> {
  const send = rangesOf(options);
  const attributes = (Number(options.ad) << 2) | (Number(options.idw) << 1) | Number(options.idr);
  const cdw11 = options.cdw11 === 0 ? attributes : options.cdw11;
  await withController(command, socket, async (controller) => {
    const namespace = await namespaceOf(controller, options.namespaceId);
    const cdw10 = send.length / RANGE_BYTES - 1;
    await controller.ioCommand({ opcode: NvmOpcode.DATASET_MANAGEMENT, namespace, cdw10, cdw11, send });
    await printSuccess(options.json, namespace, 'NVMe DSM: success');
  });
}

/** Of the list that is longest; what the others lack is 0. @throws UsageError. */
function rangesOf({ ctxAttrs = [], blocks = [], slbs = [] }: DsmOptions): Buffer {
  const count = Math.max(ctxAttrs.length, blocks.length, slbs.length);
  if (count === 0) throw new UsageError('--slbs and --blocks say which ranges');
  if (count > MOST_RANGES) throw new UsageError(`a command has at most ${MOST_RANGES} ranges, got ${count}`);
  const bytes = Buffer.alloc(count * RANGE_BYTES);
  for (let i = 0; i < count; i++) {
    bytes.writeUInt32LE(dword('--ctx-attrs', ctxAttrs[i]), i * RANGE_BYTES);
    bytes.writeUInt32LE(dword('--blocks', blocks[i]), i * RANGE_BYTES + 4);
    bytes.writeBigUInt64LE(slbs[i] ?? 0n, i * RANGE_BYTES + 8);
  }
  return bytes;
}

function dword(option: string, value = 0n): number {
  if (value > BigInt(MOST_DWORD)) throw new UsageError(`${option}: a number has 32 bits, got ${value}`);
  return Number(value);
}

function numbers(text: string): bigint[] {
  return text.split(',').map((part) => uint64(part.trim()));
}
