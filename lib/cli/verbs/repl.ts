/** `vfio-user repl`: JavaScript with an open device in it. */
import type { Command } from 'commander';
import { colorsOf, withDevice } from '../global-options.js';
import { runRepl } from '../repl.js';

interface ReplOptions {
  enable: boolean;
}

const HELP = `
A Node REPL in which these are there, with await at the top level:
  device              the open Device: region(n), irqs, dma, reset(), negotiated, …
  config              its config space, where it has one
  bar0 to bar5, rom   its regions, those that it has
  irqs, dma           device.irqs and device.dma
  hex(value)          a number or bigint as 0x…

On a terminal lines are remembered in $XDG_STATE_HOME/vfio-user/repl_history (~/.local/state/… where it is not set).
Through a pipe the lines are a script: the first error ends it, with exit status 1.

Examples:
  $ vfio-user repl /tmp/edu.sock --enable
  1234:11e8> await bar0.readUInt32(0)
  $ echo 'hex(await bar0.readUInt32(0))' | vfio-user repl /tmp/edu.sock --enable`;

export function registerRepl(program: Command): void {
  program
    .command('repl')
    .description('drive a device from a JavaScript prompt, or a script')
    .argument('<SOCKET>', 'where the server listens')
    .option('--enable', 'first do what a host does: assign BARs, set memory, I/O and bus-master bits', false)
    .addHelpText('after', HELP)
    .action(async (socket: string, { enable }: ReplOptions, command: Command) => {
      await withDevice(command, socket, async (device) => {
        if (enable) await device.enable();
        await runRepl(device, colorsOf(command).isColorSupported);
      });
    });
}
