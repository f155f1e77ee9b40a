/** `vfio-user emulate`: a device to try things on. */
import { Argument, type Command } from 'commander';
import { EduDevice, RamDevice, serve, type DeviceModel } from '../../emulator/index.js';
import { unixAddress } from '../endpoint.js';
import { print } from '../output.js';

const DEVICES: Readonly<Record<string, () => DeviceModel>> = {
  edu: () => new EduDevice(),
  ram: () => new RamDevice(),
};

const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

const HELP = `
Devices:
  edu   QEMU's educational device, 1234:11e8: identification, liveness, factorial, interrupts, a DMA engine
  ram   1234:5241: memory by message and by mapping, MSI-X, a DMA engine

Runs until it is interrupted, and removes the socket file then.

Examples:
  $ vfio-user emulate edu --socket /tmp/edu.sock
  $ vfio-user emulate edu --socket @edu`;

export function registerEmulate(program: Command): void {
  program
    .command('emulate')
    .description('serve an emulated device, to try things on')
    .addArgument(new Argument('<DEVICE>', 'which one').choices(Object.keys(DEVICES)))
    .requiredOption('--socket <path>', 'where to listen: a path, or @name for an abstract socket')
    .addHelpText('after', HELP)
    .action(emulate);
}

async function emulate(name: string, { socket }: { socket: string }): Promise<void> {
  const stopped = untilStopped();
  await using server = await serve(DEVICES[name]!(), { path: unixAddress(socket) });
  await print(`listening on ${socket}\n`);
  await Promise.race([stopped, server.closed]);
}

/** Resolves at the first of the signals; at a second one the process ends as it would have. */
function untilStopped(): Promise<void> {
  return new Promise((resolve) => {
    const stop = () => {
      for (const signal of STOP_SIGNALS) process.off(signal, stop);
      resolve();
    };
    for (const signal of STOP_SIGNALS) process.on(signal, stop);
  });
}
