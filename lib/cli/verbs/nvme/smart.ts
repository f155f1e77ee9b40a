/** `vfio-user nvme smart`: how a controller is. */
import type { Command } from 'commander';
import { toJson } from '../../json.js';
import { print } from '../../output.js';
import { renderSmart } from '../../render-nvme.js';
import { namespaceId, withController } from './with-controller.js';

const HELP = `
Examples:
  $ vfio-user nvme smart /run/nvme.sock
  $ vfio-user nvme smart /run/nvme.sock --json | jq .hostReadCommands`;

export function registerNvmeSmart(nvme: Command): void {
  nvme
    .command('smart')
    .description('show the SMART / health log')
    .argument('<SOCKET>', 'where the server listens')
    .option('--nsid <n>', "a namespace's own log, where the controller has such", namespaceId)
    .option('--json', 'print JSON', false)
    .addHelpText('after', HELP)
    .action(async (socket: string, options: { nsid?: number; json: boolean }, command: Command) => {
      await withController(command, socket, async (controller) => {
        const log = await controller.smartLog({ namespace: options.nsid });
        await print(options.json ? `${toJson(log)}\n` : renderSmart(log));
      });
    });
}
