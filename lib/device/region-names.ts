/** Regions by name. */
import { wrongType } from '../fields.js';

/** By index, for PCI devices (`PciRegion`). */
export const REGION_NAMES: readonly RegionName[] = [
  'bar0',
  'bar1',
  'bar2',
  'bar3',
  'bar4',
  'bar5',
  'rom',
  'config',
  'vga',
  'migration',
];

/** What a PCI device calls its regions. */
export type RegionName =
  'bar0' | 'bar1' | 'bar2' | 'bar3' | 'bar4' | 'bar5' | 'rom' | 'config' | 'vga' | 'migration';

/** The index of a PCI device's region; upper and lower case are one. @throws TypeError for what is no name. */
export function indexOfRegion(caller: string, name: string): number {
  const index = REGION_NAMES.findIndex((one) => one === String(name).toLowerCase());
  if (index === -1) throw wrongType(caller, `an index, or one of ${REGION_NAMES.join(', ')}`, name);
  return index;
}
