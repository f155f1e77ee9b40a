/** What a function does for the machine at this moment: what would be lost with its driver. */
import { closeSync, constants, openSync } from 'node:fs';
import path from 'node:path';
import type { Machine } from './machine.js';
import { DEVICES } from './pci-functions.js';

const BLOCK = '/sys/class/block';
const NETWORK = '/sys/class/net';
const NVME_SUBSYSTEMS = '/sys/class/nvme-subsystem';
/** Of /sys/class/net/NAME/flags: IFF_UP. */
const UP = 1;

export interface Use {
  kind: 'mount' | 'swap' | 'holder' | 'open' | 'network' | 'virtual functions';
  /** For people: `nvme0n1p1 is mounted at /`. */
  what: string;
}

/** A disk or partition that the function brings. */
interface BlockDevice {
  name: string;
  /** major:minor. */
  number: string;
  directory: string;
}

/** Mounted file systems, swap, device mapper and md, network interfaces that are up, virtual functions. */
export function usesOf(machine: Machine, address: string): Use[] {
  const device = machine.real(DEVICES, address);
  if (device === undefined) return [];
  const disks = blockDevices(machine, device);
  const uses = [...mounts(machine, disks), ...swaps(machine, disks), ...holders(machine, disks)];
  if (uses.length === 0) uses.push(...exclusive(machine, disks));
  return [...uses, ...networks(machine, device), ...virtualFunctions(machine, address)];
}

/** Processes that have the function's group, or its own file of vfio's, open; as far as this user may see it. */
export function openersOf(machine: Machine, group: string, address: string): number[] {
  const own = machine.list(DEVICES, address, 'vfio-dev').map((name) => `/dev/vfio/devices/${name}`);
  const files = new Set([`/dev/vfio/${group}`, ...own]);
  return machine
    .list('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) =>
      machine.list('/proc', pid, 'fd').some((fd) => files.has(machine.target('/proc', pid, 'fd', fd) ?? '')),
    )
    .map(Number);
}

function isWithin(file: string | undefined, directory: string): boolean {
  return file?.startsWith(`${directory}${path.sep}`) === true;
}

/** A namespace of NVMe is below its subsystem, where it may have more ways than this one. */
function blockDevices(machine: Machine, device: string): BlockDevice[] {
  const places = [device];
  for (const name of machine.list(NVME_SUBSYSTEMS)) {
    const directory = machine.real(NVME_SUBSYSTEMS, name);
    const controllers = machine
      .list(NVME_SUBSYSTEMS, name)
      .map((one) => machine.real(NVME_SUBSYSTEMS, name, one));
    if (directory !== undefined && controllers.some((one) => isWithin(one, device))) places.push(directory);
  }
  return machine.list(BLOCK).flatMap((name) => {
    const directory = machine.real(BLOCK, name);
    if (directory === undefined || !places.some((place) => isWithin(directory, place))) return [];
    return { name, number: machine.text(BLOCK, name, 'dev') ?? '', directory };
  });
}

/** By number; file systems with a number of their own (btrfs) by the name of what was mounted. In init's view, too. */
function mounts(machine: Machine, disks: readonly BlockDevice[]): Use[] {
  const lines = ['self', '1'].flatMap((process) =>
    (machine.text('/proc', process, 'mountinfo') ?? '').split('\n'),
  );
  const uses = new Map<string, Use>();
  for (const line of new Set(lines)) {
    const [before = '', after = ''] = line.split(' - ');
    const [, , number, , point = ''] = before.split(' ');
    const source = nameOfFile(machine, unescaped(after.split(' ')[1] ?? ''));
    const disk = disks.find((one) => one.number === number || one.name === source);
    if (disk === undefined) continue;
    const what = `${disk.name} is mounted at ${unescaped(point)}`;
    uses.set(what, { kind: 'mount', what });
  }
  return [...uses.values()];
}

function swaps(machine: Machine, disks: readonly BlockDevice[]): Use[] {
  const names = (machine.text('/proc/swaps') ?? '')
    .split('\n')
    .map((line) => nameOfFile(machine, unescaped(line.split(/\s+/)[0] ?? '')));
  return disks
    .filter(({ name }) => names.includes(name))
    .map(({ name }) => ({ kind: 'swap', what: `${name} is swap` }));
}

/** Device mapper (LVM, LUKS, multipath), md, bcache. */
function holders(machine: Machine, disks: readonly BlockDevice[]): Use[] {
  return disks.flatMap(({ name }) =>
    machine.list(BLOCK, name, 'holders').map((holder) => {
      const called = machine.text(BLOCK, holder, 'dm', 'name');
      return {
        kind: 'holder' as const,
        what: `${name} is part of ${holder}${called === undefined ? '' : ` (${called})`}`,
      };
    }),
  );
}

/** What none of these says: ZFS, a mount in another container. The kernel gives a disk to one such owner. */
function exclusive(machine: Machine, disks: readonly BlockDevice[]): Use[] {
  return disks.flatMap(({ name }) => {
    try {
      closeSync(
        openSync(
          machine.path('/dev', name.replaceAll('!', '/')),
          constants.O_RDONLY | constants.O_EXCL | constants.O_NONBLOCK,
        ),
      );
      return [];
    } catch (error) {
      const isBusy = (error as NodeJS.ErrnoException).code === 'EBUSY';
      return isBusy ? { kind: 'open' as const, what: `${name} is in use` } : [];
    }
  });
}

function networks(machine: Machine, device: string): Use[] {
  return machine
    .list(NETWORK)
    .filter((name) => isWithin(machine.real(NETWORK, name), device))
    .filter((name) => ((machine.number(NETWORK, name, 'flags') ?? 0) & UP) !== 0)
    .map((name) => ({ kind: 'network', what: `network interface ${name} is up` }));
}

function virtualFunctions(machine: Machine, address: string): Use[] {
  const count = machine.number(DEVICES, address, 'sriov_numvfs') ?? 0;
  if (count === 0) return [];
  return [
    {
      kind: 'virtual functions',
      what: `${count} virtual function${count === 1 ? '' : 's'} would go with its driver`,
    },
  ];
}

/** `/dev/mapper/x` is a link to `../dm-0`: what the kernel calls it. */
function nameOfFile(machine: Machine, file: string): string {
  if (!file.startsWith('/dev/')) return '';
  return path.basename(machine.real(file) ?? file);
}

/** Spaces and the like are `\040` in these files. */
function unescaped(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
