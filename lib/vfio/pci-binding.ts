/**
 * Giving a function to vfio-pci, and back to the driver that it had.
 *
 * ```
 *   bind:    nothing needs it ─ remember its driver ─ driver_override ─ unbind ─ drivers_probe ─ is it vfio-pci's?
 *   unbind:  nobody has it open ─ driver_override as before ─ unbind ─ drivers_probe ─ is it the old driver's?
 * ```
 * What is remembered lies in /run, and so lasts as long as a binding does: until the machine is started again.
 */
import { VfioUserError } from '../errors.js';
import type { Machine } from './machine.js';
import {
  DEVICES,
  DRIVERS,
  driverOf,
  isVfioDriver,
  requireFunction,
  VFIO_PCI,
  type PciFunction,
} from './pci-functions.js';
import { openersOf, usesOf } from './pci-use.js';

const RECORDS = '/run/vfio-user/pci';
/** Names of drivers are those of directories. */
const DRIVER = /^[\w.-]{1,64}$/;
/** What driver_override says where there is none, and what takes it away. */
const NO_OVERRIDE = '(null)';
const CLEAR = '\n';

/** Which driver had it, and which one has it now; null where none. */
export interface Rebound {
  from: string | null;
  to: string | null;
}

/** What `bind` leaves behind for `unbind`. */
interface Binding {
  driver: string | null;
  override: string | null;
}

/**
 * Why vfio-pci cannot have it as things are, and what mends that; `forced` where the function may be in use. In the order in
 * which it is to be mended.
 */
export function hindrances(machine: Machine, one: PciFunction, forced = false): string[] {
  if (one.isBridge) return ['it is a bridge, and vfio-pci takes none'];
  const found: string[] = [];
  if (one.iommuGroup === null) found.push(`it has no IOMMU group: ${iommuRemedy(machine)}`);
  if (!machine.has(DRIVERS, VFIO_PCI)) found.push('vfio-pci is not loaded: `modprobe vfio-pci`');
  if (!forced && !isVfioDriver(one.driver))
    found.push(...usesOf(machine, one.address).map(({ what }) => what));
  return found;
}

/** What turns an IOMMU on, of this machine's maker. */
export function iommuRemedy(machine: Machine): string {
  const cpu = machine.text('/proc/cpuinfo') ?? '';
  if (cpu.includes('GenuineIntel')) {
    return 'enable VT-d in the firmware, and start the kernel with intel_iommu=on';
  }
  if (cpu.includes('AuthenticAMD'))
    return 'enable the IOMMU (AMD-Vi) in the firmware; in a guest, with its hypervisor';
  return 'enable the IOMMU in the firmware, and on the command line of the kernel (intel_iommu=on)';
}

/**
 * Binds a function to vfio-pci.
 * @throws VfioUserError EBUSY where something needs it and `force` is not set, EPERM where the kernel lets only root do it,
 * ENODEV where it cannot be bound, EIO where the kernel did not: the old driver has it again then.
 */
export function bindToVfio(machine: Machine, one: PciFunction, force: boolean): Rebound {
  const { address, driver } = one;
  if (isVfioDriver(driver)) return { from: driver, to: driver };
  const uses = usesOf(machine, address);
  const hindering = hindrances(machine, one, true);
  if (hindering.length > 0)
    throw new VfioUserError('ENODEV', `${address} cannot be bound to vfio-pci: ${hindering.join('; ')}`);
  if (uses.length > 0 && !force) {
    const what = uses.map((use) => use.what).join('; ');
    throw new VfioUserError('EBUSY', `${address} is in use: ${what}. --force takes it away all the same`);
  }
  const before = readBinding(machine, address);
  const binding: Binding = {
    // One that was bound before, and whose driver could not be had back, has none now.
    driver: driver ?? before?.driver ?? null,
    override: overrideOf(machine, address, before),
  };
  asRoot(`${address} cannot be bound`, () => machine.keep(`${JSON.stringify(binding)}\n`, recordOf(address)));
  try {
    asRoot(`${address} cannot be bound`, () => machine.tell(VFIO_PCI, DEVICES, address, 'driver_override'));
    if (driver !== null) machine.tell(address, DRIVERS, driver, 'unbind');
    probe(machine, address);
    const now = driverOf(machine, address);
    if (now === VFIO_PCI) return { from: driver, to: now };
    throw new VfioUserError('EIO', `vfio-pci did not take ${address}, which ${had(now)}: \`dmesg\` says why`);
  } catch (error) {
    ignoring(() => restore(machine, address, binding));
    if (driverOf(machine, address) === binding.driver) machine.forget(recordOf(address));
    throw error;
  }
}

/**
 * Takes a function from vfio-pci, and gives it to the driver that it had when it was bound, or to the one that the kernel
 * finds for it where that is not known.
 * @throws VfioUserError EBUSY where a process has it open and `force` is not set; EINVAL where vfio-pci does not have it; EPERM
 * where the kernel lets only root do it; EIO where the old driver did not take it.
 */
export function unbindFromVfio(machine: Machine, address: string, force: boolean): Rebound {
  requireFunction(machine, address);
  const from = driverOf(machine, address);
  const binding = readBinding(machine, address);
  // One that has no driver may be what an earlier attempt left.
  if (!isVfioDriver(from) && (from !== null || binding === undefined)) {
    throw new VfioUserError('EINVAL', `${address} ${had(from)}, and is not vfio-pci's`);
  }
  const group = machine.link(DEVICES, address, 'iommu_group');
  const openers = group === undefined ? [] : openersOf(machine, group, address);
  if (openers.length > 0 && !force) {
    throw new VfioUserError(
      'EBUSY',
      `${address}, or another function of its IOMMU group, is open in process ${openers.join(', ')}; with --force the kernel waits until it is not`,
    );
  }
  asRoot(`${address} cannot be unbound`, () => restore(machine, address, binding));
  const to = driverOf(machine, address);
  if (binding?.driver != null && to !== binding.driver) {
    throw new VfioUserError(
      'EIO',
      `${address} ${had(to)} now: ${binding.driver}, which had it, did not take it; \`modprobe ${binding.driver}\`, \`dmesg\``,
    );
  }
  machine.forget(recordOf(address));
  return { from, to };
}

/**
 * What is to be there again. An override that is vfio's own is none of the old driver's: it would keep the function from it. The
 * machine's own lasts over an attempt that failed.
 */
function overrideOf(machine: Machine, address: string, before: Binding | undefined): string | null {
  const override = machine.text(DEVICES, address, 'driver_override') ?? '';
  if (override === '' || override === NO_OVERRIDE) return null;
  return isVfioDriver(override) ? (before?.override ?? null) : override;
}

/** As it was before `bind`. */
function restore(machine: Machine, address: string, binding: Binding | undefined): void {
  machine.tell(binding?.override ?? CLEAR, DEVICES, address, 'driver_override');
  const now = driverOf(machine, address);
  if (now !== null && now !== binding?.driver) machine.tell(address, DRIVERS, now, 'unbind');
  // It had none: it gets none.
  if (binding?.driver === null) return;
  probe(machine, address);
  const wanted = binding?.driver;
  if (wanted == null || driverOf(machine, address) === wanted || !machine.has(DRIVERS, wanted)) return;
  if (driverOf(machine, address) === null) ignoring(() => machine.tell(address, DRIVERS, wanted, 'bind'));
}

/** Whether a driver took it is seen by its link: the kernel may say success of one that did not. */
function probe(machine: Machine, address: string): void {
  ignoring(() => machine.tell(address, '/sys/bus/pci/drivers_probe'));
}

function ignoring(work: () => void): void {
  try {
    work();
  } catch {
    // What came of it is looked at.
  }
}

/** Undefined where `bind` did not bind it, and where what lies there is nothing of its. */
function readBinding(machine: Machine, address: string): Binding | undefined {
  try {
    const { driver, override } = JSON.parse(machine.text(recordOf(address)) ?? '') as Record<string, unknown>;
    return isName(driver) && isName(override) ? { driver, override } : undefined;
  } catch {
    return undefined;
  }
}

function isName(value: unknown): value is string | null {
  return value === null || (typeof value === 'string' && DRIVER.test(value) && !/^\.+$/.test(value));
}

function recordOf(address: string): string {
  return `${RECORDS}/${address}.json`;
}

function had(driver: string | null): string {
  return driver === null ? 'has no driver' : `is bound to ${driver}`;
}

function asRoot(what: string, work: () => void): void {
  try {
    work();
  } catch (cause) {
    const { code = 'EIO', message } = cause as NodeJS.ErrnoException;
    const isRight = code === 'EACCES' || code === 'EPERM';
    throw new VfioUserError(code, `${what}: ${isRight ? 'only root may do that (sudo)' : message}`, {
      cause,
    });
  }
}
