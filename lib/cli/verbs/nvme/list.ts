/** `vfio-user nvme list`: the namespaces of some controllers. */
import type { Command } from 'commander';
import type { NvmeController, NvmeNamespace } from '../../../nvme/index.js';
import { ClosedError, TimeoutError } from '../../../index.js';
import { printable, UsageError } from '../../errors.js';
import { int, type JsonC } from '../../nvme-cli/json-c.js';
import { printAs, withTextFormat, type OutputOptions } from '../../nvme-cli/output.js';
import { binarySize, siSize } from '../../nvme-cli/text.js';
import { incompleteError, type Missing } from './incomplete.js';
import { withController } from './with-controller.js';

interface Item {
  socket: string;
  controller: NvmeController['identity'];
  namespace: NvmeNamespace;
}

const HELP = `
Keys and types are those of nvme-cli 2.3. DevicePath is SOCKET. What cannot be had does not keep the rest from being listed; the
exit status is 1 then.

Examples:
  $ vfio-user nvme list /run/nvme.sock
  $ vfio-user nvme list /run/a.sock /run/b.sock -o json | jq '.Devices[].PhysicalSize'`;

const WIDTHS = [21, 21, 20, 40, 9, 26, 16, 8] as const;
const TITLES = ['Node', 'Generic', 'SN', 'Model', 'Namespace', 'Usage', 'Format', 'FW Rev'];

export function registerNvmeList(nvme: Command): void {
  withTextFormat(
    nvme
      .command('list')
      .description('list namespaces, as nvme-cli does')
      .argument('<SOCKET...>', 'where the servers listen'),
  )
    .addHelpText('after', HELP)
    .action(async (sockets: string[], options: OutputOptions, command: Command) => {
      const { items, missing, first } = await itemsOf(sockets, command);
      if (items.length === 0 && first !== undefined) throw first;
      await printAs(options, {
        json: () => ({ Devices: items.map(itemJson) }),
        normal: () => listText(items),
        binary: () => Buffer.alloc(0),
      });
      if (missing.length > 0) throw incompleteError(missing);
    });
}

interface Found {
  items: Item[];
  missing: Missing[];
  /** What failed first. */
  first: unknown;
}

/** All that can be had: neither a controller nor a namespace that fails keeps the others from being listed. */
async function itemsOf(sockets: readonly string[], command: Command): Promise<Found> {
  const found: Found = { items: [], missing: [], first: undefined };
  const failed = (what: string, error: unknown): void => {
    // A mistake of the caller's is not one of a controller's.
    if (error instanceof UsageError || !(error instanceof Error)) throw error;
    found.first ??= error;
    found.missing.push({ what, error: error.message });
  };
  for (const socket of sockets)
    await withController(command, socket, async (controller) => {
      for (const id of await controller.namespaceIds())
        try {
          const namespace = await controller.namespace(id);
          found.items.push({ socket, controller: controller.identity, namespace });
        } catch (error) {
          if (isOver(error)) throw error;
          failed(`${socket}: namespace ${id}`, error);
        }
    }).catch((error: unknown) => failed(socket, error));
  return found;
}

/** Its other namespaces cannot be asked for either. */
function isOver(error: unknown): boolean {
  return error instanceof ClosedError || error instanceof TimeoutError;
}

function itemJson({ socket, controller, namespace }: Item): JsonC {
  const { id, blockSize, identity } = namespace;
  return {
    NameSpace: int(id),
    DevicePath: socket,
    Firmware: controller.firmwareRevision,
    ModelNumber: controller.modelNumber,
    SerialNumber: controller.serialNumber,
    UsedBytes: identity.utilization * BigInt(blockSize),
    MaximumLBA: identity.size,
    PhysicalSize: identity.size * BigInt(blockSize),
    SectorSize: blockSize,
  };
}

function listText(items: readonly Item[]): string {
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, i) => cell.padEnd(WIDTHS[i]!))
      .join(' ')
      .trimEnd();
  const rules = WIDTHS.map((width) => '-'.repeat(width));
  return `${[TITLES, rules, ...items.map(cellsOf)].map(line).join('\n')}\n`;
}

function cellsOf({ socket, controller, namespace }: Item): string[] {
  const { id, blockSize, identity } = namespace;
  const metadataSize = identity.formats[identity.formatIndex]?.metadataSize ?? 0;
  const [block, suffix] = binarySize(blockSize);
  return [
    ...[
      printable(socket),
      '-',
      printable(controller.serialNumber),
      printable(controller.modelNumber),
      String(id),
    ],
    `${decimals(Number(identity.utilization) * blockSize)} / ${decimals(Number(identity.size) * blockSize)}`,
    `${String(block).padStart(3)} ${suffix.padStart(2)}B + ${String(metadataSize).padStart(2)} B`,
    printable(controller.firmwareRevision),
  ];
}

function decimals(bytes: number): string {
  const [value, suffix] = siSize(bytes);
  return `${value.toFixed(2).padStart(6)} ${suffix.padStart(2)}B`;
}
