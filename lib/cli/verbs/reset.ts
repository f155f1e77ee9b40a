/** `vfio-user reset`: DEVICE_RESET. */
import type { Command } from 'commander';
import { withDevice } from '../global-options.js';
import { print } from '../output.js';

const HELP = `
The device forgets what it was told: registers and config space are as at first, enabled interrupts are gone. It is also
the way out of the migration state ERROR.

Examples:
  $ vfio-user reset /run/dev.sock`;

export function registerReset(program: Command): void {
  program
    .command('reset')
    .description('reset a device')
    .argument('<SOCKET>', 'where the server listens')
    .addHelpText('after', HELP)
    .action(async (socket: string, _options: object, command: Command) => {
      await withDevice(command, socket, async (device) => {
        await device.reset();
        await print('the device was reset\n');
      });
    });
}
