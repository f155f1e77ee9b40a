/** Regions by name. */
import { InvalidArgumentError } from 'commander';
import { REGION_NAMES } from '../device/region-names.js';
import { size } from './numbers.js';

export { REGION_NAMES };

/** `bar0`, `config`, …; `region 12` where an index has no name, and for devices that are not on PCI. */
export function regionName(index: number, isPci: boolean): string {
  return (isPci ? REGION_NAMES[index] : undefined) ?? `region ${index}`;
}

/** The index that a name or a number stands for. */
export function regionIndex(text: string): number {
  const index = REGION_NAMES.findIndex((name) => name === text.toLowerCase());
  if (index !== -1) return index;
  if (!/^\d/.test(text)) {
    throw new InvalidArgumentError(`A region is an index, or one of ${REGION_NAMES.join(', ')}.`);
  }
  return size(text);
}
