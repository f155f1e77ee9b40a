/** `vfio-user lspci`: config space for pciutils. */
import { InvalidArgumentError, type Command } from 'commander';
import { lspciDump } from '../../pci/index.js';
import { withDevice } from '../global-options.js';
import { configOf, localFunction, SYSFS_DESCRIPTION, SYSFS_FLAGS } from '../local-function.js';
import { print } from '../output.js';

const DEFAULT_SLOT = '00:00.0';

const HELP = `
A PCI function of this machine that vfio-pci does not have is not opened: sysfs has its config space, all of it for root, the
first 64 bytes for everybody.

Examples:
  $ vfio-user lspci /run/dev.sock > dev.txt; lspci -F dev.txt -vv
  # vfio-user lspci pci:0000:01:00.0 > dev.txt`;

interface LspciOptions {
  slot?: string;
  sysfs: boolean;
}

export function registerLspci(program: Command): void {
  program
    .command('lspci')
    .description("dump config space as 'lspci -F' reads it")
    .argument('<SOCKET>', 'where the server listens')
    .option(
      '--slot <slot>',
      `the slot that the dump shows, [domain:]bus:device.function; ${DEFAULT_SLOT}, or a PCI function's own, where nothing is said`,
      slot,
    )
    .option(SYSFS_FLAGS, SYSFS_DESCRIPTION, false)
    .addHelpText('after', HELP)
    .action(lspci);
}

async function lspci(socket: string, options: LspciOptions, command: Command): Promise<void> {
  const pci = localFunction(socket, options.sysfs);
  const at = options.slot ?? pci?.one.address ?? DEFAULT_SLOT;
  if (pci !== undefined && !pci.isToBeOpened) return print(lspciDump(configOf(pci), at));
  await withDevice(command, socket, (device) => print(lspciDump(device.config.bytes(), at)));
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
