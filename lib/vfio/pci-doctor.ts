/**
 * Whether a function can be driven from here, step by step as opening it goes, and what mends it where it cannot. Only the last
 * step touches the function: it opens it, where nothing else is in the way.
 */
import { accessSync, constants } from 'node:fs';
import type { Machine } from './machine.js';
import { iommuRemedy } from './pci-binding.js';
import {
  DEVICES,
  DRIVERS,
  hinderingMembers,
  isVfioDriver,
  VFIO_PCI,
  type PciFunction,
} from './pci-functions.js';
import { openersOf, usesOf } from './pci-use.js';

/** `broken` keeps it from being driven, `note` is worth knowing. */
export type PciVerdict = 'ok' | 'note' | 'broken' | 'not run';

export interface PciCheck {
  id: string;
  verdict: PciVerdict;
  detail: string;
  /** What mends it: a command, most of the time. */
  remedy: string | null;
}

/** Opens the function and closes it: says what it found, or throws why not. */
export type TryToOpen = (address: string) => string;

type Answer = Omit<PciCheck, 'id' | 'remedy'> & { remedy?: string };

const CONTAINER = '/dev/vfio/vfio';
const MODULE = '/sys/module/vfio_iommu_type1';
/** /proc/self/status, CapEff: CAP_IPC_LOCK, which no limit of locked memory is for. */
const IPC_LOCK = 1n << 14n;
/** DMA memory is cut from arenas of this size. In bytes. */
const ARENA = 4 << 20;
/** What a driver with some queues takes. In bytes. */
const ENOUGH = 64 << 20;
const BARS = 6;
/** Flags of a line of `resource`: IORESOURCE_UNSET, which stands where no address was found. */
const UNSET = 0x2000_0000n;
const MAPPABLE_FROM = 4096n;

/** All checks, in the order in which what they find is to be mended. Without `tryToOpen` the function is not opened. */
export function diagnoseFunction(machine: Machine, one: PciFunction, tryToOpen?: TryToOpen): PciCheck[] {
  const checks: PciCheck[] = [];
  const add = (id: string, { remedy, ...answer }: Answer): void => {
    checks.push({ id, ...answer, remedy: remedy ?? null });
  };
  add('function', kind(one));
  add('iommu', iommu(machine, one));
  add('modules', modules(machine));
  add('driver', driver(machine, one));
  add('group', group(one));
  add('permission', permission(machine, one));
  add('in-use', inUse(machine, one));
  add('interrupt-remapping', remapping(machine));
  add('locked-memory', lockedMemory(machine));
  add('reset', reset(machine, one));
  add('bars', bars(machine, one));
  const isBroken = checks.some(({ verdict }) => verdict === 'broken');
  if (isBroken) add('open', { verdict: 'not run', detail: 'something is in its way' });
  else
    add(
      'open',
      tryToOpen === undefined ? { verdict: 'not run', detail: 'it was not asked for' } : open(one, tryToOpen),
    );
  return checks;
}

function kind({ isBridge, className }: PciFunction): Answer {
  if (!isBridge) return { verdict: 'ok', detail: className };
  return { verdict: 'broken', detail: `it is a bridge (${className}), and vfio-pci takes none` };
}

function iommu(machine: Machine, { iommuGroup }: PciFunction): Answer {
  if (iommuGroup !== null) return { verdict: 'ok', detail: `IOMMU group ${iommuGroup}` };
  const units = machine.list('/sys/class/iommu');
  const detail = units.length === 0 ? 'no IOMMU is on' : `no IOMMU has it (${units.join(', ')})`;
  return { verdict: 'broken', detail, remedy: iommuRemedy(machine) };
}

function modules(machine: Machine): Answer {
  const missing = [
    ...(machine.has(DRIVERS, VFIO_PCI) ? [] : ['vfio-pci']),
    ...(machine.has(MODULE) || machine.has('/dev/iommu') ? [] : ['vfio_iommu_type1']),
  ];
  if (missing.length === 0) return { verdict: 'ok', detail: 'vfio-pci is loaded' };
  return {
    verdict: 'broken',
    detail: `not loaded: ${missing.join(', ')}`,
    remedy: `modprobe -a ${missing.join(' ')}`,
  };
}

function driver(machine: Machine, one: PciFunction): Answer {
  if (isVfioDriver(one.driver)) return { verdict: 'ok', detail: `${one.driver} has it` };
  const remedy = `vfio-user pci bind ${one.address}`;
  const has = one.driver === null ? 'it has no driver' : `${one.driver} has it`;
  const uses = usesOf(machine, one.address);
  if (uses.length === 0) return { verdict: 'broken', detail: has, remedy };
  return {
    verdict: 'broken',
    detail: `${has}, and it is in use: ${uses.map(({ what }) => what).join('; ')}`,
    remedy,
  };
}

function group(one: PciFunction): Answer {
  if (one.iommuGroup === null) return { verdict: 'not run', detail: 'it has no group' };
  const others = hinderingMembers(one).filter(({ address }) => address !== one.address);
  if (others.length > 0) {
    const list = others.map((other) => `${other.address} (${other.driver})`).join(', ');
    const remedy = others.map(({ address }) => `vfio-user pci bind ${address}`).join('; ');
    return { verdict: 'broken', detail: `of its group others have drivers: ${list}`, remedy };
  }
  const count = one.groupMembers.length - 1;
  return {
    verdict: 'ok',
    detail:
      count === 0
        ? 'it is alone in its group'
        : `${count} more in its group, which are vfio-pci's or nobody's`,
  };
}

function permission(machine: Machine, { iommuGroup, driver: bound }: PciFunction): Answer {
  if (iommuGroup === null || !isVfioDriver(bound)) {
    return { verdict: 'not run', detail: 'there is a file for it when vfio-pci has it' };
  }
  const denied = [CONTAINER, `/dev/vfio/${iommuGroup}`].find((file) => !isAllowed(machine, file));
  if (denied === undefined)
    return { verdict: 'ok', detail: `/dev/vfio/${iommuGroup} may be read and written` };
  if (!machine.has(denied))
    return { verdict: 'broken', detail: `there is no ${denied}`, remedy: 'modprobe vfio-pci' };
  return {
    verdict: 'broken',
    detail: `${denied} may not be read and written by user ${process.getuid?.()}`,
    remedy: `chgrp GROUP ${denied}; chmod 660 ${denied}; for good by a udev rule (SECURITY.md)`,
  };
}

function isAllowed(machine: Machine, file: string): boolean {
  try {
    accessSync(machine.path(file), constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function inUse(machine: Machine, { iommuGroup, address }: PciFunction): Answer {
  const openers = iommuGroup === null ? [] : openersOf(machine, iommuGroup, address);
  if (openers.length === 0)
    return { verdict: 'ok', detail: 'nobody has it open, as far as this user may see' };
  const commands = openers.map((pid) => `${pid} (${machine.text('/proc', `${pid}`, 'comm') ?? '?'})`);
  return {
    verdict: 'broken',
    detail: `its group is open in process ${commands.join(', ')}`,
    remedy: `kill ${openers.join(' ')}`,
  };
}

/** What the kernel calls the controllers of interrupts that are remapped begins with IR- on x86; others remap always. */
function remapping(machine: Machine): Answer {
  const interrupts = machine.text('/proc/interrupts') ?? '';
  if (/\bIR-/.test(interrupts)) return { verdict: 'ok', detail: 'interrupts are remapped' };
  if (!/\b(?:IO-APIC|PCI-MSI|PCI-MSIX)\b/.test(interrupts)) {
    return { verdict: 'not run', detail: 'it is not seen on this machine; opening says so' };
  }
  if (machine.text(MODULE, 'parameters', 'allow_unsafe_interrupts') === 'Y') {
    return {
      verdict: 'note',
      detail: 'it is off, and allowed to be: a device can raise any interrupt of this machine',
    };
  }
  return {
    verdict: 'broken',
    detail: 'it is off: a device could raise any interrupt of this machine',
    remedy:
      'enable it in the firmware, start the kernel without intremap=off; or, where all devices are trusted, echo Y > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts',
  };
}

function lockedMemory(machine: Machine): Answer {
  const capabilities =
    /^CapEff:\s*([\da-f]{1,16})$/m.exec(machine.text('/proc/self/status') ?? '')?.[1] ?? '0';
  if ((BigInt(`0x${capabilities}`) & IPC_LOCK) !== 0n)
    return { verdict: 'ok', detail: 'no limit is for this process (CAP_IPC_LOCK)' };
  const limit = /^Max locked memory\s+(\S+)/m.exec(machine.text('/proc/self/limits') ?? '')?.[1] ?? '';
  if (limit === 'unlimited') return { verdict: 'ok', detail: 'without limit' };
  if (!/^\d+$/.test(limit)) return { verdict: 'not run', detail: '/proc/self/limits does not say' };
  const detail = `${limit} bytes may be locked, and DMA memory is, all of it`;
  const remedy =
    'ulimit -l unlimited (as root), LimitMEMLOCK= of a systemd unit, memlock in /etc/security/limits.conf';
  if (Number(limit) < ARENA)
    return { verdict: 'broken', detail: `${detail}: it comes in pieces of ${ARENA}`, remedy };
  return Number(limit) < ENOUGH ? { verdict: 'note', detail, remedy } : { verdict: 'ok', detail };
}

function reset(machine: Machine, { address }: PciFunction): Answer {
  const methods = machine.text(DEVICES, address, 'reset_method');
  if (machine.has(DEVICES, address, 'reset')) return { verdict: 'ok', detail: methods ?? 'it can be reset' };
  return {
    verdict: 'note',
    detail: 'it cannot be reset by itself: the next program finds what the last one left',
  };
}

function bars(machine: Machine, { address }: PciFunction): Answer {
  const lines = (machine.text(DEVICES, address, 'resource') ?? '').split('\n').slice(0, BARS);
  const found = lines.flatMap((line, index) => {
    const [first, last, flags] = line
      .split(' ')
      .map((text) => (/^0x[\da-f]{1,16}$/i.test(text) ? BigInt(text) : 0n));
    if (!last || !flags) return [];
    return { index, size: last - (first ?? 0n) + 1n, isUnset: (flags & UNSET) !== 0n };
  });
  const unset = found.filter(({ isUnset }) => isUnset).map(({ index }) => `BAR ${index}`);
  if (unset.length > 0) {
    const remedy = `echo 1 > /sys/bus/pci/devices/${address}/remove; echo 1 > /sys/bus/pci/rescan; or pci=realloc on the command line of the kernel`;
    return { verdict: 'broken', detail: `the kernel found no address for ${unset.join(', ')}`, remedy };
  }
  if (found.length === 0) return { verdict: 'note', detail: 'it has none: only config space can be reached' };
  const sizes = found.map(({ index, size }) => `BAR ${index}: 0x${size.toString(16)}`).join(', ');
  const small = found.filter(({ size }) => size < MAPPABLE_FROM).map(({ index }) => index);
  const rest =
    small.length === 0 ? '' : `; smaller than a page, and perhaps not to be mapped: ${small.join(', ')}`;
  return { verdict: 'ok', detail: `${sizes}${rest}` };
}

function open({ address }: PciFunction, tryToOpen: TryToOpen): Answer {
  try {
    return { verdict: 'ok', detail: tryToOpen(address) };
  } catch (error) {
    return { verdict: 'broken', detail: (error as Error).message };
  }
}
