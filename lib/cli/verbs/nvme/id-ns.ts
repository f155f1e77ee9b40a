/** `vfio-user nvme id-ns`, as nvme-cli has it. */
import type { Command } from 'commander';
import { IdentifyCns } from '../../../nvme/index.js';
import { namespaceJson, namespaceText } from '../../nvme-cli/id-ns.js';
import { namespaceIdOrAll, printAs, withOutputFormat, type OutputOptions } from '../../nvme-cli/output.js';
import { withController } from './with-controller.js';

interface IdNsOptions extends OutputOptions {
  namespaceId?: number;
  force: boolean;
}

const CNS_ALLOCATED_NAMESPACE = 0x11;

const HELP = `
Keys, types and the text are those of nvme-cli 2.3.

Examples:
  $ vfio-user nvme id-ns /run/nvme.sock
  $ vfio-user nvme id-ns /run/nvme.sock -n 2 -o json | jq .lbafs`;

export function registerNvmeIdNs(nvme: Command): void {
  withOutputFormat(
    nvme
      .command('id-ns')
      .description('Identify Namespace, as nvme-cli prints it')
      .argument('<SOCKET>', 'where the server listens')
      .option(
        '-n, --namespace-id <id>',
        'the namespace; the first active one where nothing is said',
        namespaceIdOrAll,
      )
      .option('--force', 'also one that is not attached', false),
  )
    .addHelpText('after', HELP)
    .action(async (socket: string, options: IdNsOptions, command: Command) => {
      await withController(command, socket, async (controller) => {
        const nsid = options.namespaceId ?? (await controller.namespace()).id;
        const bytes = await controller.identify(
          options.force ? CNS_ALLOCATED_NAMESPACE : IdentifyCns.NAMESPACE,
          nsid,
        );
        await printAs(options, {
          json: () => namespaceJson(bytes),
          normal: () => namespaceText(bytes, nsid),
          binary: () => bytes,
        });
      });
    });
}
