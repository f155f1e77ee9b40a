/** `vfio-user lspci`: config space for pciutils. */
import { InvalidArgumentError, type Command } from 'commander';
import { lspciDump } from '../../pci/index.js';
import { withDevice } from '../global-options.js';
import { print } from '../output.js';

const DEFAULT_SLOT = '00:00.0';

const HELP = `
Examples:
  $ vfio-user lspci /run/dev.sock > dev.txt; lspci -F dev.txt -vv`;

export function registerLspci(program: Command): void {
  program
    .command('lspci')
    .description("dump config space as 'lspci -F' reads it")
    .argument('<SOCKET>', 'where the server listens')
    .option('--slot <slot>', 'the slot that the dump shows, [domain:]bus:device.function', slot, DEFAULT_SLOT)
    .addHelpText('after', HELP)
    .action(async (socket: string, options: { slot: string }, command: Command) => {
      await withDevice(command, socket, (device) => print(lspciDump(device.config.bytes(), options.slot)));
    });
}

/** Before a server is asked for anything: the dump's own rules, tried on an empty space. */
function slot(text: string): string {
  try {
    lspciDump(Buffer.alloc(1), text);
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : '');
  }
  return text;
}
