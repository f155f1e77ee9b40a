/** `vfio-user info`: what a device is. */
import type { Command } from 'commander';
import { describeDevice, type DeviceReport } from '../describe-device.js';
import { describeFunction, localFunction, SYSFS_DESCRIPTION, SYSFS_FLAGS } from '../local-function.js';
import { colorsOf, withDevice } from '../global-options.js';
import { toJson } from '../json.js';
import { print } from '../output.js';
import { renderDevice } from '../render-device.js';

const HELP = `
A PCI function of this machine (pci:ADDRESS) that vfio-pci does not have is not opened, and nothing is changed: sysfs says what
it is. With --sysfs so it is of one that vfio-pci has, in whatever process it is open.

Examples:
  $ vfio-user info /run/dev.sock
  $ vfio-user info /run/dev.sock --json | jq .regions
  $ vfio-user info pci:0000:01:00.0`;

interface InfoOptions {
  json: boolean;
  sysfs: boolean;
}

export function registerInfo(program: Command): void {
  program
    .command('info')
    .description('show what a device is: protocol, regions, interrupts, config space')
    .argument('<SOCKET>', 'where the server listens')
    .option('--json', 'print JSON', false)
    .option(SYSFS_FLAGS, SYSFS_DESCRIPTION, false)
    .addHelpText('after', HELP)
    .action(info);
}

async function info(socket: string, { json, sysfs }: InfoOptions, command: Command): Promise<void> {
  const tell = (report: DeviceReport): Promise<void> =>
    print(json ? `${toJson(report)}\n` : renderDevice(report, colorsOf(command)));
  const pci = localFunction(socket, sysfs);
  if (pci !== undefined && !pci.isToBeOpened) return tell(describeFunction(pci));
  await withDevice(command, socket, (device) => tell(describeDevice(device, socket, pci?.one)));
}
