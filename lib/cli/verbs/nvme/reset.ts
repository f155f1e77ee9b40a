/** `vfio-user nvme reset`: a controller reset, as nvme-cli has it. */
import type { Command } from 'commander';
import { printSuccess } from './block-options.js';
import { withController } from './with-controller.js';

const HELP = `
Resets the controller (CC.EN to 0 and back), and brings it up again. vfio-user reset resets the device.

Examples:
  $ vfio-user nvme reset /run/nvme.sock
  $ vfio-user nvme reset /run/nvme.sock --json`;

export function registerNvmeReset(nvme: Command): void {
  nvme
    .command('reset')
    .description('reset the controller')
    .argument('<SOCKET>', 'where the server listens')
    .option('--json', 'print JSON', false)
    .addHelpText('after', HELP)
    .action(async (socket: string, options: { json: boolean }, command: Command) => {
      await withController(command, socket, async (controller) => {
        await controller.reset();
        await printSuccess(options.json, undefined, 'the controller was reset');
      });
    });
}
