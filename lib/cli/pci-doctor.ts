/** `doctor pci:ADDRESS`: whether a function of this machine can be driven from here. */
import { VfioUserError } from '../errors.js';
import { pciId } from '../pci/index.js';
import { KernelDevice } from '../vfio/index.js';
import { diagnoseFunction, type PciCheck, type PciVerdict } from '../vfio/pci-doctor.js';
import { pciFunction, type PciFunction } from '../vfio/pci-functions.js';
import { PciNames } from '../vfio/pci-names.js';
import { printable, UsageError } from './errors.js';
import { columns, counted } from './format-text.js';
import type { Colors } from './global-options.js';
import { toJson } from './json.js';
import { thisMachine } from './machine.js';
import { print } from './output.js';
import { titleOf } from './render-pci.js';

export interface PciDoctorOptions {
  json: boolean;
  /** It is not opened. */
  gentle: boolean;
  only: readonly string[];
}

/** @throws VfioUserError where something is broken, UsageError where nothing is called as in `only`. */
export async function doctorPci(address: string, options: PciDoctorOptions, colors: Colors): Promise<void> {
  const { json, gentle, only } = options;
  const machine = thisMachine();
  const one = pciFunction(machine, new PciNames(machine), address);
  const all = diagnoseFunction(machine, one, gentle ? undefined : tryToOpen);
  const unknown = only.find((name) => !all.some(({ id }) => id.startsWith(name)));
  if (unknown !== undefined) {
    throw new UsageError(
      `no check of a PCI function is called ${unknown}: there are ${all.map(({ id }) => id).join(', ')}`,
    );
  }
  const checks = all.filter(({ id }) => only.length === 0 || only.some((name) => id.startsWith(name)));
  await print(json ? `${toJson({ function: one, checks })}\n` : rendered(one, checks, colors));
  const broken = checks.filter(({ verdict }) => verdict === 'broken').map(({ id }) => id);
  if (broken.length === 0) return;
  const text = `${counted(broken.length, 'thing')} in the way of driving ${address}: ${broken.join(', ')}`;
  throw new VfioUserError('ERR_VFIO_USER_NOT_READY', text);
}

/** Where nobody has it, and vfio-pci does: nothing is lost by that. */
function tryToOpen(address: string): string {
  const device = new KernelDevice(address);
  try {
    const ranges = device.iommu.ranges?.map(
      ({ first, last }) => `0x${first.toString(16)} to 0x${last.toString(16)}`,
    );
    const where = ranges === undefined ? '' : `, DMA at ${ranges.join(' and ')}`;
    return `it opens: ${counted(device.regions.length, 'region')}${where}`;
  } finally {
    device.close();
  }
}

function rendered(one: PciFunction, checks: readonly PciCheck[], colors: Colors): string {
  const rows = checks.flatMap(({ id, verdict, detail, remedy }) => [
    [painted(verdict, colors), id, printable(detail)],
    ...(remedy === null ? [] : [['', '', colors.bold(printable(remedy))]]),
  ]);
  return `${colors.bold(one.address)}  ${pciId(one.vendorId, one.deviceId)}  ${titleOf(one)}\n${columns(rows)}\n`;
}

function painted(verdict: PciVerdict, colors: Colors): string {
  if (verdict === 'broken') return colors.red(verdict);
  if (verdict === 'ok') return colors.green(verdict);
  return verdict === 'note' ? colors.yellow(verdict) : colors.dim(verdict);
}
