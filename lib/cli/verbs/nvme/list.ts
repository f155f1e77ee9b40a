/** `vfio-user nvme list`: the namespaces of some controllers. */
import type { Command } from 'commander';
import type { NvmeController, NvmeNamespace } from '../../../nvme/index.js';
import { printable } from '../../errors.js';
import { int, type JsonC } from '../../nvme-cli/json-c.js';
import { printAs, withTextFormat, type OutputOptions } from '../../nvme-cli/output.js';
import { binarySize, siSize } from '../../nvme-cli/text.js';
import { withController } from './with-controller.js';

interface Item {
  socket: string;
  controller: NvmeController['identity'];
  namespace: NvmeNamespace;
}

const HELP = `
Keys and types are those of nvme-cli 2.3. DevicePath is SOCKET.

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
      const items: Item[] = [];
      for (const socket of sockets)
        await withController(command, socket, async (controller) => {
          for (const id of await controller.namespaceIds())
            items.push({
              socket,
              controller: controller.identity,
              namespace: await controller.namespace(id),
            });
        });
      await printAs(options, {
        json: () => ({ Devices: items.map(itemJson) }),
        normal: () => listText(items),
        binary: () => Buffer.alloc(0),
      });
    });
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
