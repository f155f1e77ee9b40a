/** `vfio-user pci`: the PCI functions of this machine, and whose they are. */
import type { Command } from 'commander';
import { pciAddress } from '../../vfio/pci-address.js';
import { bindToVfio, hindrances, unbindFromVfio } from '../../vfio/pci-binding.js';
import { hinderingMembers, pciFunction, pciFunctions, type PciFunction } from '../../vfio/pci-functions.js';
import { PciNames } from '../../vfio/pci-names.js';
import { UsageError } from '../errors.js';
import { colorsOf } from '../global-options.js';
import { toJson } from '../json.js';
import { thisMachine } from '../machine.js';
import { print } from '../output.js';
import { renderFunctions, type ListedFunction } from '../render-pci.js';

const LIST_HELP = `
Nothing is opened or bound, and no right is needed. Functions of one IOMMU group belong to one owner: vfio-pci, or no driver, must
have all of them. What hinders vfio-pci is listed with what mends it; a function that is in use can be bound by force.

Examples:
  $ vfio-user pci list
  $ vfio-user pci list --json | jq '.[] | select(.driver == "vfio-pci").address'`;

const BIND_HELP = `
The driver that the function has is remembered, and has it again after vfio-user pci unbind. Refused while something needs it: a
file system of its disk is mounted, or swap, device mapper or md have it; a network interface is up; it has virtual
functions. --force takes it away from them.

Examples:
  $ sudo vfio-user pci bind 0000:01:00.0
  $ vfio-user pci bind 01:00.0                   as root`;

const UNBIND_HELP = `
Gives the function back to the driver that it had when it was bound, or to the one that the kernel finds for it where that
is not known. Refused while a process has it, or another function of its group, open.

Examples:
  $ sudo vfio-user pci unbind 0000:01:00.0
  $ vfio-user pci unbind 01:00.0                 as root`;

interface ForceOption {
  force: boolean;
}

export function registerPci(program: Command): void {
  const pci = program.command('pci').description('the PCI functions of this machine, and their drivers');
  pci
    .command('list')
    .description('list the functions: ids, class, driver, IOMMU group, and what hinders vfio-pci')
    .option('--json', 'print JSON', false)
    .addHelpText('after', LIST_HELP)
    .action(list);
  pci
    .command('bind')
    .description('give a function to vfio-pci')
    .argument('<ADDRESS>', 'such as 0000:01:00.0')
    .option('--force', 'although it is in use', false)
    .addHelpText('after', BIND_HELP)
    .action(bind);
  pci
    .command('unbind')
    .description('give a function back to the driver that it had')
    .argument('<ADDRESS>', 'such as 0000:01:00.0')
    .option('--force', 'although a process has it open: the kernel waits for it', false)
    .addHelpText('after', UNBIND_HELP)
    .action(unbind);
}

async function list({ json }: { json: boolean }, command: Command): Promise<void> {
  const machine = thisMachine();
  const functions = pciFunctions(machine, new PciNames(machine)).map((one): ListedFunction => ({
    ...one,
    hindrances: [...hindrances(machine, one), ...others(one)],
  }));
  await print(json ? `${toJson(functions)}\n` : renderFunctions(functions, colorsOf(command)));
}

/** Of the group, those that keep it from vfio; a function's own driver does not hinder it from being bound. */
function others(one: PciFunction): string[] {
  if (one.isBridge) return [];
  return hinderingMembers(one)
    .filter(({ address }) => address !== one.address)
    .map(
      ({ address, driver }) =>
        `${address} of its group is bound to ${driver}: \`vfio-user pci bind ${address}\``,
    );
}

async function bind(text: string, { force }: ForceOption): Promise<void> {
  const machine = thisMachine();
  const one = pciFunction(machine, new PciNames(machine), addressOf(text));
  const { from, to } = bindToVfio(machine, one, force);
  const { address } = one;
  if (from === to) return print(`${address} is bound to ${to} already\n`);
  await print(`${address} is bound to ${to}; ${from === null ? 'it had no driver' : `${from} had it`}\n`);
  for (const hindrance of others(one)) process.stderr.write(`vfio-user: ${hindrance}\n`);
}

async function unbind(text: string, { force }: ForceOption): Promise<void> {
  const address = addressOf(text);
  const { to } = unbindFromVfio(thisMachine(), address, force);
  await print(`${address} ${to === null ? 'has no driver' : `is bound to ${to}`}\n`);
}

/** Also as a SOCKET is written. */
function addressOf(text: string): string {
  try {
    return pciAddress(`'${text}' is no PCI function: it`, text.replace(/^pci:/, ''));
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}
