/** `vfio-user nvme identify`: what a controller and its namespaces are. */
import type { Command } from 'commander';
import type {
  ControllerCapabilities,
  ControllerIdentity,
  NamespaceIdentity,
  NvmeController,
} from '../../../nvme/index.js';
import { ClosedError, TimeoutError } from '../../../index.js';
import { colorsOf } from '../../global-options.js';
import { toJson } from '../../json.js';
import { print } from '../../output.js';
import { renderIdentify } from '../../render-nvme.js';
import { incompleteError } from './incomplete.js';
import { activeNamespace, namespaceId, withController } from './with-controller.js';

const HELP = `
Examples:
  $ vfio-user nvme identify /run/nvme.sock
  $ vfio-user nvme identify /run/nvme.sock --json | jq .controller.serialNumber`;

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
        await print(options.json ? `${toJson(report)}\n` : renderIdentify(report, colorsOf(command)));
        if (report.unreadable.length > 0)
          throw incompleteError(
            report.unreadable.map(({ id, error }) => ({ what: `namespace ${id}`, error })),
          );
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
