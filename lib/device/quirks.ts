/**
 * What a server does not do as the specification says, so that the library can respect it: `connect(path, { quirks })`,
 * and `--quirks FILE` on the command line. Plain data, as `vfio-user doctor` finds it.
 */
import { Command } from '../protocol/constants.js';
import type { Width } from './region-access.js';

/** Commands that a device can be driven without. */
export const OMISSIBLE_COMMANDS = [
  'DMA_MAP',
  'DMA_UNMAP',
  'DEVICE_GET_REGION_IO_FDS',
  'DEVICE_GET_IRQ_INFO',
  'DEVICE_SET_IRQS',
  'DEVICE_RESET',
  'DIRTY_PAGES',
  'REGION_WRITE_MULTI',
  'DEVICE_FEATURE',
  'MIG_DATA_READ',
  'MIG_DATA_WRITE',
] as const;

/** The name of a command that a device can be driven without: one of `OMISSIBLE_COMMANDS`. */
export type OmissibleCommand = (typeof OMISSIBLE_COMMANDS)[number];

/**
 * What a server does not do as the specification says: an option of `connect`, as `vfio-user doctor` finds it.
 */
export interface Quirks {
  /** As the option of `connect`, which goes before it. */
  readonly writeChunkBytes?: number | undefined;
  /** As the option of `connect`, which goes before it. */
  readonly inFlight?: number | undefined;
  /** As the option of `connect`, which goes before it. */
  readonly twinSocket?: boolean | undefined;
  /**
   * By region, `bar0` to `bar5`, `rom`, `config`, `vga` or an index: the widths in bytes that its accesses may have. Longer
   * ones are cut into the widest pieces that are aligned, in rising order; what cannot be cut is a RangeError, and
   * nothing is sent.
   */
  readonly accessWidths?: Readonly<Record<string, readonly Width[]>> | undefined;
  /**
   * Commands that are never sent, by the specification's name. What needs one is an UnsupportedError; interrupts of which
   * nothing may be asked are of count 0.
   */
  readonly doNotSend?: readonly OmissibleCommand[] | undefined;
}

/** By index. */
const REGION_NAMES = ['bar0', 'bar1', 'bar2', 'bar3', 'bar4', 'bar5', 'rom', 'config', 'vga'];
const WIDTHS: readonly unknown[] = [1, 2, 4, 8];
const KNOWN = ['writeChunkBytes', 'inFlight', 'twinSocket', 'accessWidths', 'doNotSend'];

/** Quirks as the library uses them. */
export interface CheckedQuirks {
  readonly writeChunkBytes: number | undefined;
  readonly inFlight: number | undefined;
  readonly twinSocket: boolean | undefined;
  /** By region index: the widths, the widest first. */
  readonly accessWidths: ReadonlyMap<number, readonly Width[]>;
  readonly doNotSend: ReadonlySet<number>;
}

/** @throws TypeError or RangeError for quirks that make no sense: they may come from a file. */
export function checkQuirks(quirks: Quirks = {}): CheckedQuirks {
  if (!isPlain(quirks)) throw new TypeError('quirks is an object');
  const unknown = Object.keys(quirks).find((name) => !KNOWN.includes(name));
  if (unknown !== undefined)
    throw new TypeError(`no quirk is called ${unknown}: there are ${KNOWN.join(', ')}`);
  const { writeChunkBytes, inFlight, twinSocket, accessWidths = {}, doNotSend = [] } = quirks;
  for (const [name, value] of Object.entries({ writeChunkBytes, inFlight })) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value > 0))
      throw new RangeError(`quirks.${name} is a positive integer, not ${String(value)}`);
  }
  if (twinSocket !== undefined && typeof twinSocket !== 'boolean')
    throw new TypeError('quirks.twinSocket is true or false');
  if (!isPlain(accessWidths))
    throw new TypeError('quirks.accessWidths is an object with a list for each region');
  if (!Array.isArray(doNotSend)) throw new TypeError('quirks.doNotSend is a list of commands');
  return {
    writeChunkBytes,
    inFlight,
    twinSocket,
    accessWidths: new Map(
      Object.entries(accessWidths).map(([region, widths]) => [indexOf(region), widthsOf(region, widths)]),
    ),
    doNotSend: new Set(doNotSend.map(commandOf)),
  };
}

function indexOf(region: string): number {
  const index = REGION_NAMES.indexOf(region);
  if (index !== -1) return index;
  if (/^\d{1,4}$/.test(region)) return Number(region);
  throw new RangeError(
    `quirks.accessWidths: ${region} is no region: ${REGION_NAMES.join(', ')}, or an index`,
  );
}

function widthsOf(region: string, widths: unknown): Width[] {
  const isList =
    Array.isArray(widths) && widths.length > 0 && widths.every((width) => WIDTHS.includes(width));
  if (isList) return [...new Set(widths as Width[])].sort((a, b) => b - a);
  throw new RangeError(`quirks.accessWidths.${region} is a list of 1, 2, 4 and 8`);
}

function commandOf(name: unknown): number {
  const known = OMISSIBLE_COMMANDS.find((command) => command === name);
  if (known !== undefined) return Command[known];
  throw new RangeError(`quirks.doNotSend: ${String(name)} is none of ${OMISSIBLE_COMMANDS.join(', ')}`);
}

function isPlain(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
