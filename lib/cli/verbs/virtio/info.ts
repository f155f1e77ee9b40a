/** `vfio-user virtio info`: what a virtio device is, without driving it. */
import type { Command } from 'commander';
import { describeVirtio, type VirtioDescription } from '../../../virtio/index.js';
import { colorsOf, withDevice, type GlobalOptions } from '../../global-options.js';
import { toJson } from '../../json.js';
import { print } from '../../output.js';
import { renderVirtioInfo } from '../../render-virtio.js';

const HELP = `
The device is reset, and left so: no other driver may have it.

Examples:
  $ vfio-user virtio info /run/blk.sock
  $ vfio-user virtio info /run/blk.sock --json | jq .offered`;

export interface VirtioInfoReport extends VirtioDescription {
  socket: string;
}

export function registerVirtioInfo(virtio: Command): void {
  virtio
    .command('info')
    .description('show what the device offers: features, queues, configuration')
    .argument('<SOCKET>', 'where the server listens')
    .option('--json', 'print JSON', false)
    .addHelpText('after', HELP)
    .action(async (socket: string, options: { json: boolean }, command: Command) => {
      const { timeout } = command.optsWithGlobals<GlobalOptions>();
      await withDevice(command, socket, async (device) => {
        const report = { socket, ...(await describeVirtio(device, { timeoutMs: timeout })) };
        await print(options.json ? `${toJson(report)}\n` : renderVirtioInfo(report, colorsOf(command)));
      });
    });
}
