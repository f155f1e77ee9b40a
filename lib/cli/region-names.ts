/** Regions by name. */
import { InvalidArgumentError } from 'commander';
import { REGION_NAMES } from '../device/region-names.js';
import { UsageError } from './errors.js';
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

/** A region's index, or what may be the name of a register. */
export type RegionOrName = number | { readonly name: string };

/** `regionIndex`; what is no region is the name of a register, for verbs that have a map. */
export function regionOrName(text: string): RegionOrName {
  const isRegion = /^\d/.test(text) || REGION_NAMES.some((name) => name === text.toLowerCase());
  return isRegion ? regionIndex(text) : { name: text };
}

/** Without a map only regions have names. */
export function unknownRegion(name: string): UsageError {
  return new UsageError(
    `'${name}' is invalid for argument 'REGION': it must be an index, or one of ${REGION_NAMES.join(', ')}; a register's name needs --map`,
  );
}
