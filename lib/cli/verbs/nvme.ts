/** `vfio-user nvme`: an NVMe controller, driven. */
import type { Command } from 'commander';
import { registerNvmeBench } from './nvme/bench.js';
import { registerNvmeIdentify } from './nvme/identify.js';
import { registerNvmeRead } from './nvme/read.js';
import { registerNvmeSmart } from './nvme/smart.js';
import { registerNvmeWrite } from './nvme/write.js';

const HELP = `
SOCKET may be the directory that SPDK was told to listen in.

Try it without a controller of your own:
  $ vfio-user emulate nvme --socket /tmp/nvme.sock --size 1G &
  $ vfio-user nvme identify /tmp/nvme.sock
  $ vfio-user nvme bench /tmp/nvme.sock --rw randread --qd 32 --seconds 3`;

export function registerNvme(program: Command): void {
  const nvme = program.command('nvme').description('drive an NVMe controller').addHelpText('after', HELP);
  registerNvmeIdentify(nvme);
  registerNvmeSmart(nvme);
  registerNvmeRead(nvme);
  registerNvmeWrite(nvme);
  registerNvmeBench(nvme);
}
