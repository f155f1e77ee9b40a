/** `vfio-user nvme show-regs`, as nvme-cli has it. */
import type { Command } from 'commander';
import { VfioUserError } from '../../../index.js';
import { withDevice } from '../../global-options.js';
import { printAs, withOutputFormat, type OutputOptions } from '../../nvme-cli/output.js';
import {
  isGone,
  readRegisters,
  registerBytes,
  registersJson,
  registersText,
} from '../../nvme-cli/registers.js';
import { controllerSocket } from './with-controller.js';

const HELP = `
The controller is neither reset nor enabled: its registers are shown as they are. The device's memory is enabled, as a BAR
answers nothing otherwise. Keys, types and the text are those of nvme-cli 2.3.

Examples:
  $ vfio-user nvme show-regs /run/nvme.sock
  $ vfio-user nvme show-regs /run/nvme.sock -o json | jq .csts`;

export function registerNvmeShowRegs(nvme: Command): void {
  withOutputFormat(
    nvme
      .command('show-regs')
      .description("the controller's registers, as nvme-cli prints them")
      .argument('<SOCKET>', 'where the server listens'),
  )
    .addHelpText('after', HELP)
    .action(async (socket: string, options: OutputOptions, command: Command) => {
      await withDevice(command, controllerSocket(socket), async (device) => {
        await device.enable();
        const values = await readRegisters(device.bar(0));
        if (isGone(values))
          throw new VfioUserError(
            'ERR_NVME_CONTROLLER',
            'the registers read as ones: the device is gone, or its BAR is off',
          );
        await printAs(options, {
          json: () => registersJson(values),
          normal: () => registersText(values),
          binary: () => registerBytes(values),
        });
      });
    });
}
