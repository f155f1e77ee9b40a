/** Functions of a machine in words: what `pci list` prints. */
import { pciId } from '../pci/index.js';
import type { PciFunction } from '../vfio/pci-functions.js';
import { printable } from './errors.js';
import { columns } from './format-text.js';
import type { Colors } from './global-options.js';

export interface ListedFunction extends PciFunction {
  /** What keeps it from vfio-pci. */
  hindrances: string[];
}

export function renderFunctions(functions: readonly ListedFunction[], colors: Colors): string {
  if (functions.length === 0) return 'this machine has no PCI functions\n';
  const heading = ['address', 'ids', 'driver', 'group', 'what it is'].map((name) => colors.dim(name));
  const rows = functions.flatMap((one) => [
    [one.address, pciId(one.vendorId, one.deviceId), one.driver ?? '-', one.iommuGroup ?? '-', titleOf(one)],
    ...one.hindrances.map((text) => ['', '', '', '', colors.yellow(printable(text))]),
  ]);
  return `${columns([heading, ...rows])}\n`;
}

/** Class, vendor and device, as far as they have names. */
export function titleOf({ className, vendorName, deviceName }: PciFunction): string {
  const name = [vendorName, deviceName].filter((part) => part !== null).join(' ');
  return printable(name === '' ? className : `${className}: ${name}`);
}
