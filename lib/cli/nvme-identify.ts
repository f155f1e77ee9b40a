/** `vfio-user nvme identify`: what a controller and its namespaces are. */
import type { Command } from 'commander';
import {
  OptionalAdminCommands,
  OptionalNvmCommands,
  type ControllerCapabilities,
  type ControllerIdentity,
  type NamespaceIdentity,
  type NvmeController,
} from '../nvme/index.js';
import { ClosedError, TimeoutError, VfioUserError } from '../index.js';
import { printable } from './errors.js';
import { colorsOf, type Colors } from './global-options.js';
import { toJson } from './json.js';
import { activeNamespace, namespaceId, withController } from './nvme-options.js';
import { print } from './output.js';
import { byteCount, columns, counted, hex } from './text.js';

const HELP = `
Examples:
  $ vfio-user nvme identify /run/nvme.sock
  $ vfio-user nvme identify /run/nvme.sock --json | jq .controller.serialNumber`;

/** Of namespaces that make no sense. */
const MOST_TOLD = 4;

export interface IdentifyReport {
  socket: string;
  /** VS. */
  version: string;
  capabilities: ControllerCapabilities;
  maxTransferBytes: number;
  /** I/O queue pairs that the controller grants. */
  maxQueues: number;
  controller: ControllerIdentity;
  namespaces: NamespaceReport[];
  /** Namespaces that the controller lists, and that make no sense; empty most of the time. */
  unreadable: UnreadableNamespace[];
}

export interface UnreadableNamespace {
  id: number;
  /** Why. */
  error: string;
}

export interface NamespaceReport extends NamespaceIdentity {
  id: number;
  blockSize: number;
  blocks: number;
  sizeBytes: number;
}

export function registerNvmeIdentify(nvme: Command): void {
  nvme
    .command('identify')
    .description('show what the controller and its namespaces are')
    .argument('<SOCKET>', 'where the server listens')
    .option('--nsid <n>', 'this namespace only', namespaceId)
    .option('--json', 'print JSON', false)
    .addHelpText('after', HELP)
    .action(async (socket: string, options: { nsid?: number; json: boolean }, command: Command) => {
      await withController(command, socket, async (controller) => {
        const report = await identify(controller, socket, options.nsid);
        await print(options.json ? `${toJson(report)}\n` : render(report, colorsOf(command)));
        if (report.unreadable.length > 0) throw unreadableError(report.unreadable);
      });
    });
}

async function identify(
  controller: NvmeController,
  socket: string,
  nsid: number | undefined,
): Promise<IdentifyReport> {
  const { version, capabilities, maxTransferBytes, maxQueues, identity } = controller;
  const namespaces: NamespaceReport[] = [];
  const unreadable: UnreadableNamespace[] = [];
  for (const id of nsid === undefined ? await controller.namespaceIds() : [nsid]) {
    try {
      const { blockSize, blocks, sizeBytes, identity: about } = await activeNamespace(controller, id);
      namespaces.push({ id, blockSize, blocks, sizeBytes, ...about });
    } catch (error) {
      const isLost = error instanceof ClosedError || error instanceof TimeoutError;
      if (nsid !== undefined || isLost || !(error instanceof Error)) throw error;
      unreadable.push({ id, error: error.message });
    }
  }
  const about = { version, capabilities, maxTransferBytes, maxQueues, controller: identity };
  return { socket, ...about, namespaces, unreadable };
}

/** The rest has been shown. */
function unreadableError(unreadable: readonly UnreadableNamespace[]): Error {
  const some = unreadable.slice(0, MOST_TOLD).map(({ id, error }) => {
    const name = `namespace ${id}`;
    return error.startsWith(name) ? error : `${name}: ${error}`;
  });
  const more = unreadable.length - some.length;
  const text = [...some, ...(more > 0 ? [`and ${more} more`] : [])].join('; ');
  return new VfioUserError('ERR_VFIO_USER_INCOMPLETE', text);
}

function render(report: IdentifyReport, colors: Colors): string {
  const { controller } = report;
  const title = `${colors.bold(printable(controller.modelNumber))}  at ${printable(report.socket)}`;
  const sections = [
    title,
    `${colors.bold('Controller')}\n${columns(controllerRows(report))}`,
    ...report.namespaces.map(
      (namespace) => `${colors.bold(`Namespace ${namespace.id}`)}\n${columns(namespaceRows(namespace))}`,
    ),
  ];
  if (report.namespaces.length + report.unreadable.length === 0) sections.push('no active namespaces');
  return `${sections.join('\n\n')}\n`;
}

function controllerRows({
  controller,
  version,
  capabilities,
  maxTransferBytes,
  maxQueues,
}: IdentifyReport): string[][] {
  return [
    ['vendor, subsystem vendor', `${hex(controller.vendorId, 4)}, ${hex(controller.subsystemVendorId, 4)}`],
    ['serial number', printable(controller.serialNumber)],
    ['model number', printable(controller.modelNumber)],
    ['firmware revision', printable(controller.firmwareRevision)],
    ['NVM subsystem', printable(controller.subsystemNqn) || '-'],
    ['IEEE OUI', controller.ieeeOui],
    ['version', version],
    ['controller identifier', `${controller.controllerId}`],
    ['namespaces, at most', `${controller.namespaces}`],
    ['capacity', controller.totalCapacityBytes === 0n ? '-' : `${controller.totalCapacityBytes} bytes`],
    ['longest transfer', byteCount(maxTransferBytes)],
    ['I/O queues', `${counted(maxQueues, 'pair')} of up to ${capabilities.maxQueueEntries} entries`],
    ['doorbells', `${capabilities.doorbellStride} bytes apart`],
    ['ready within', `${capabilities.readyTimeoutMs} ms`],
    ['aborts, event requests', `${controller.abortCommandLimit}, ${controller.asyncEventLimit} at once`],
    ['error log', `${controller.errorLogEntries} entries`],
    [
      'warning, critical temperature',
      `${kelvin(controller.warningTemperatureKelvin)}, ${kelvin(controller.criticalTemperatureKelvin)}`,
    ],
    ['volatile write cache', controller.volatileWriteCache ? 'yes' : 'no'],
    ['optional admin commands', names(OptionalAdminCommands, controller.optionalAdminCommands)],
    ['optional NVM commands', names(OptionalNvmCommands, controller.optionalNvmCommands)],
  ];
}

function namespaceRows(namespace: NamespaceReport): string[][] {
  const formats = namespace.formats.map(({ dataSize, metadataSize }, i) => {
    const inUse = i === namespace.formatIndex ? ' (in use)' : '';
    return `${dataSize}+${metadataSize}${inUse}`;
  });
  return [
    [
      'size',
      `${namespace.blocks} blocks of ${byteCount(namespace.blockSize)}, ${byteCount(namespace.sizeBytes)}`,
    ],
    ['capacity, in use', `${namespace.capacity}, ${namespace.utilization} blocks`],
    ['formats', formats.join(', ')],
    ['write-protected', namespace.writeProtected ? 'yes' : 'no'],
    ['NGUID', namespace.nguid],
    ['EUI-64', namespace.eui64],
  ];
}

function names(bits: Readonly<Record<string, number>>, value: number): string {
  const set = Object.entries(bits).filter(([, bit]) => (value & bit) !== 0);
  return set.map(([name]) => name.toLowerCase().replaceAll('_', ' ')).join(', ') || '-';
}

/** `311 K (38 °C)`; - where nothing is reported. */
export function kelvin(value: number): string {
  return value === 0 ? '-' : `${value} K (${value - 273} °C)`;
}
