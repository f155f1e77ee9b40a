/** `vfio-user nvme`: an NVMe controller, driven. */
import type { Command } from 'commander';
import { registerNvmeBench } from './nvme/bench.js';
import { registerNvmeBlockVerbs } from './nvme/block-verbs.js';
import { registerNvmeCompare } from './nvme/compare.js';
import { registerNvmeFeatures } from './nvme/features.js';
import { registerNvmeFormat } from './nvme/format.js';
import { registerNvmeGetLog } from './nvme/get-log.js';
import { registerNvmeIdCtrl } from './nvme/id-ctrl.js';
import { registerNvmeIdNs } from './nvme/id-ns.js';
import { registerNvmeIdentify } from './nvme/identify.js';
import { registerNvmeList } from './nvme/list.js';
import { registerNvmeLogs } from './nvme/logs.js';
import { registerNvmePassthru } from './nvme/passthru.js';
import { registerNvmeRead } from './nvme/read.js';
import { registerNvmeReset } from './nvme/reset.js';
import { registerNvmeShowRegs } from './nvme/show-regs.js';
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
  nvme.commandsGroup('Look at a controller:');
  registerNvmeIdentify(nvme);
  registerNvmeSmart(nvme);
  nvme.commandsGroup('Blocks:');
  registerNvmeRead(nvme);
  registerNvmeWrite(nvme);
  registerNvmeBench(nvme);
  nvme.commandsGroup('As nvme-cli has them:');
  registerNvmeList(nvme);
  registerNvmeIdCtrl(nvme);
  registerNvmeIdNs(nvme);
  registerNvmeLogs(nvme);
  registerNvmeGetLog(nvme);
  registerNvmeFeatures(nvme);
  registerNvmeShowRegs(nvme);
  registerNvmeBlockVerbs(nvme);
  registerNvmeCompare(nvme);
  registerNvmeReset(nvme);
  registerNvmeFormat(nvme);
  registerNvmePassthru(nvme);
}
