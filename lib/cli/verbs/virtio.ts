/** `vfio-user virtio`: a virtio device, driven. */
import type { Command } from 'commander';
import { registerVirtioInfo } from './virtio/info.js';

const HELP = `
Try it without a device of your own:
  $ vfio-user emulate virtio-blk --socket /tmp/blk.sock --size 1G &
  $ vfio-user virtio info /tmp/blk.sock`;

export function registerVirtio(program: Command): void {
  const virtio = program.command('virtio').description('look at a virtio device').addHelpText('after', HELP);
  registerVirtioInfo(virtio);
}
