/** `vfio-user info`: what a device is. */
import type { Command } from 'commander';
import { describeDevice } from '../describe-device.js';
import { colorsOf, withDevice } from '../global-options.js';
import { toJson } from '../json.js';
import { print } from '../output.js';
import { renderDevice } from '../render-device.js';

const HELP = `
Examples:
  $ vfio-user info /run/dev.sock
  $ vfio-user info /run/dev.sock --json | jq .regions`;

export function registerInfo(program: Command): void {
  program
    .command('info')
    .description('show what a device is: protocol, regions, interrupts, config space')
    .argument('<SOCKET>', 'where the server listens')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action(async (socket: string, { json }: { json?: boolean }, command: Command) => {
      await withDevice(command, socket, async (device) => {
        const report = describeDevice(device, socket);
        await print(json === true ? `${toJson(report)}\n` : renderDevice(report, colorsOf(command)));
      });
    });
}
