/** `vfio-user serve`: hardware for other processes. */
import type { Command } from 'commander';
import { serve, type ConnectedClient } from '../../emulator/index.js';
import { KernelDevice } from '../../vfio/index.js';
import { pciFunctionOf } from '../endpoint.js';
import { printable, UsageError } from '../errors.js';
import type { GlobalOptions } from '../global-options.js';
import { print } from '../output.js';
import { addServerOptions, runServer, type ServerOptions } from '../server-options.js';

const HELP = `
Serves a PCI function that vfio-pci has (vfio-user pci bind) to programs that have no right to it but the socket's: one
client at a time, the others wait. When a client goes, in whatever way, bus mastering and interrupts are turned off, its
memory is taken out of the IOMMU, and the function is reset where it can be, before the next one is let in. Runs until it is
interrupted, and gives the function back to the kernel then.

Whoever can connect drives the hardware. With mapped BARs a client also has the device's own fd, and keeps it when it has
gone: --mmap never has all accesses come as messages. SECURITY.md says what either can do, and has a unit for systemd.

Examples:
  $ vfio-user serve pci:0000:01:00.0 --socket /run/dev.sock --mode 660 --group rig
  $ vfio-user serve pci:01:00.0 --socket /run/dev.sock --mmap never
  $ vfio-user info /run/dev.sock`;

export function registerServe(program: Command): void {
  const command = program
    .command('serve')
    .description('serve a PCI function of this machine to other processes')
    .argument('<DEVICE>', 'pci:ADDRESS of a function that vfio-pci has');
  addServerOptions(command).addHelpText('after', HELP).action(serveHardware);
}

async function serveHardware(name: string, options: ServerOptions, command: Command): Promise<void> {
  const address = pciFunctionOf(name);
  if (address === undefined) throw new UsageError(`serve takes pci:ADDRESS, not '${name}'`);
  const { mmap } = command.optsWithGlobals<GlobalOptions>();
  if (mmap === 'sealed') throw new UsageError('serve: --mmap is always or never');
  let device: KernelDevice | undefined;
  try {
    await runServer(options, (where) => {
      device = new KernelDevice(address);
      return serve(device, { ...where, mmap, onClient: clientTeller(), onError: tell });
    });
  } finally {
    device?.close();
  }
}

/** Who comes and goes, for a log. */
function clientTeller(): (client: ConnectedClient) => void {
  let count = 0;
  return ({ closed }) => {
    const client = `client ${++count}`;
    say(`${client} has come`);
    void closed.then((reason) => say(`${client} has gone: ${reason.message}`));
  };
}

/** Where nobody reads it any more, the device is served all the same. */
function say(text: string): void {
  print(`${printable(text)}\n`).catch(() => undefined);
}

function tell(error: unknown): void {
  process.stderr.write(`vfio-user: ${printable(error instanceof Error ? error.message : String(error))}\n`);
}
