/** Keeps the MSI-X table out of what clients map: the kernel sets the interrupts up, and owns the table. */
import { readSync } from 'node:fs';
import { MSIX_ENTRY_SIZE, configReader, decodeConfigSpace, findCapability } from '../pci/index.js';
import { PciRegion } from '../protocol/constants.js';
import type { MmapArea, RegionInfo } from '../protocol/region-info.js';

const PAGE = 4096;
const MOST_CONFIG = 4096;

type Area = Pick<MmapArea, 'offset' | 'size'>;

/** Bytes of a BAR. */
export interface BarRange extends Area {
  /** The BAR. */
  readonly bir: number;
}

/** Where the device's MSI-X table is; undefined where it has none, or its config space cannot be read. */
export function msixTable(device: number, regions: readonly RegionInfo[]): BarRange | undefined {
  const config = regions.find(({ index }) => index === (PciRegion.CONFIG as number));
  if (config === undefined) return undefined;
  const bytes = Buffer.alloc(Math.min(config.size, MOST_CONFIG));
  try {
    const read = readSync(device, bytes, 0, bytes.length, config.offset);
    const { capabilities } = decodeConfigSpace(configReader(bytes.subarray(0, read)));
    const msix = findCapability(capabilities, 'msix');
    if (msix === undefined) return undefined;
    const { bir, offset } = msix.table;
    return { bir, offset, size: msix.tableSize * MSIX_ENTRY_SIZE };
  } catch {
    return undefined;
  }
}

/** What is left of the areas without the pages that have something of `range`. */
export function withoutPages(areas: readonly Area[], range: Area): Area[] {
  const from = range.offset - (range.offset % PAGE);
  const to = pageEnd(range.offset + range.size);
  return areas.flatMap(({ offset, size }) => {
    const before = { offset, size: Math.min(from, offset + size) - offset };
    const begin = Math.max(to, offset);
    const after = { offset: begin, size: offset + size - begin };
    return [before, after].filter((area) => area.size > 0);
  });
}

/** The end of the page that `end` lies in. */
function pageEnd(end: number): number {
  return Math.ceil(end / PAGE) * PAGE;
}
