/** `vfio-user virtio`: a virtio device, driven. */
import type { Command } from 'commander';
import { registerVirtioBench } from './virtio/bench.js';
import { registerVirtioInfo } from './virtio/info.js';
import { registerVirtioRead } from './virtio/read.js';
import { registerVirtioWrite } from './virtio/write.js';

const HELP = `
info takes any virtio device; read, write and bench take a block device.

Try it without a device of your own:
  $ vfio-user emulate virtio-blk --socket /tmp/blk.sock --size 1G &
  $ vfio-user virtio info /tmp/blk.sock`;

export function registerVirtio(program: Command): void {
  const virtio = program.command('virtio').description('drive a virtio device').addHelpText('after', HELP);
  registerVirtioInfo(virtio);
  registerVirtioRead(virtio);
  registerVirtioWrite(virtio);
  registerVirtioBench(virtio);
}
