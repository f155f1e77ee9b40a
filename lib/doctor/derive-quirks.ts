/** Derives the `quirks` option of `connect` from what was found. */
import { PciRegion } from '../protocol/constants.js';
import type { OmissibleCommand, Quirks } from '../index.js';
import type { ServerFacts } from './server-facts.js';

/** By index, as the `quirks` option names regions. */
const REGION_NAMES = ['bar0', 'bar1', 'bar2', 'bar3', 'bar4', 'bar5', 'rom', 'config', 'vga'];
const ALL_WIDTHS = 4;
/** Commands that probes try and that a device can be driven without. */
const OMISSIBLE: readonly OmissibleCommand[] = [
  'DEVICE_GET_REGION_IO_FDS',
  'DIRTY_PAGES',
  'REGION_WRITE_MULTI',
  'DEVICE_FEATURE',
  'MIG_DATA_READ',
];
/** What the library does where nothing is said. */
const DEFAULT_WRITE_CHUNK = 32 << 10;
const DEFAULT_IN_FLIGHT = 128;

type Writable<T> = { -readonly [K in keyof T]: T[K] };

export function deriveQuirks(facts: ServerFacts): { quirks: Quirks; reasons: Record<string, string> } {
  const quirks: Writable<Quirks> = {};
  const reasons: Record<string, string> = {};
  const doNotSend = OMISSIBLE.filter((command) => facts.breakingCommands.has(command));
  // What is asked one way is not written the other way either.
  if (doNotSend.includes('MIG_DATA_READ')) doNotSend.push('MIG_DATA_WRITE');
  if (doNotSend.length > 0) {
    quirks.doNotSend = doNotSend;
    reasons['doNotSend'] = 'after each of these the server was out of sync, or gone';
  }
  const widths = accessWidths(facts);
  if (Object.keys(widths).length > 0) {
    quirks.accessWidths = widths;
    reasons['accessWidths'] = 'other widths were refused, or ended the server';
  }
  if (facts.writeChunkBytes !== undefined && facts.writeChunkBytes < DEFAULT_WRITE_CHUNK) {
    quirks.writeChunkBytes = facts.writeChunkBytes;
    reasons['writeChunkBytes'] = 'longer writes did not arrive as one message';
  }
  const inFlight = facts.inFlight ?? (facts.unreadLimit === undefined ? Infinity : facts.unreadLimit / 2);
  if (inFlight < DEFAULT_IN_FLIGHT) {
    quirks.inFlight = Math.max(1, Math.floor(inFlight));
    reasons['inFlight'] = 'more commands at once were not answered';
  }
  return { quirks, reasons };
}

/** Regions in which some widths were taken and some not, and config space where it takes nothing odd. */
function accessWidths(facts: ServerFacts): Record<string, (1 | 2 | 4 | 8)[]> {
  const found: Record<string, (1 | 2 | 4 | 8)[]> = {};
  for (const [index, taken] of facts.widths) {
    if (index === PciRegion.CONFIG) continue;
    const { size } = facts.regions[index]!.info;
    const possible = Math.min(ALL_WIDTHS, Math.floor(Math.log2(size)) + 1);
    if (taken.length > 0 && taken.length < possible) found[nameOf(index)] = taken as (1 | 2 | 4 | 8)[];
  }
  const config = facts.widths.get(PciRegion.CONFIG);
  const isPicky =
    facts.broken.has('robust.config-odd') ||
    facts.broken.has('read.config-whole') ||
    facts.broken.has('read.config-bytes');
  if (config !== undefined && config.length > 0 && isPicky) found['config'] = config as (1 | 2 | 4 | 8)[];
  return found;
}

function nameOf(index: number): string {
  return REGION_NAMES[index] ?? `${index}`;
}
