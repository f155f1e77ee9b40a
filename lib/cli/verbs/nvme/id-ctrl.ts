/** `vfio-user nvme id-ctrl`, as nvme-cli has it. */
import type { Command } from 'commander';
import { controllerJson, controllerText } from '../../nvme-cli/id-ctrl.js';
import { printAs, withOutputFormat, type OutputOptions } from '../../nvme-cli/output.js';
import { withController } from './with-controller.js';

const HELP = `
Keys, types and the text are those of nvme-cli 2.3.

Examples:
  $ vfio-user nvme id-ctrl /run/nvme.sock
  $ vfio-user nvme id-ctrl /run/nvme.sock -o json | jq .sn`;

export function registerNvmeIdCtrl(nvme: Command): void {
  withOutputFormat(
    nvme
      .command('id-ctrl')
      .description('Identify Controller, as nvme-cli prints it')
      .argument('<SOCKET>', 'where the server listens'),
  )
    .addHelpText('after', HELP)
    .action(async (socket: string, options: OutputOptions, command: Command) => {
      await withController(command, socket, async (controller) => {
        const bytes = controller.identityBytes;
        await printAs(options, {
          json: () => controllerJson(bytes),
          normal: () => controllerText(bytes),
          binary: () => bytes,
        });
      });
    });
}
