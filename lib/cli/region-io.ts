/** A stretch of a region in accesses of the wanted width, as many at once as a chunk has. */
import { RemoteError, VfioUserError, type Device, type Region } from '../index.js';
import { PciCommand, barOffset } from '../pci/index.js';
import { PciRegion } from '../protocol/index.js';
import { UsageError } from './errors.js';
import type { AccessWidth } from './numbers.js';
import { regionName } from './region-names.js';
import { hex } from './format-text.js';

/** How much is read or written before it is handed on. A multiple of every width and of a dump's line. */
export const CHUNK_BYTES = 1 << 16;

/** Bit 0 of a BAR. */
const BAR_IO = 0x1;

export interface RegionRange {
  region: Region;
  offset: number;
  length: number;
  /** Every access has this width. Without: as few accesses as can be. */
  width: AccessWidth | undefined;
  /** Config space: at most a dword at a time, none across its boundary, since some servers stop at anything else. */
  byDword: boolean;
  /** The device has carried out an access to it. */
  hasAnswered: boolean;
}

/** @throws UsageError for a length that is no multiple of the width. */
export function checkWidth(length: number, width: AccessWidth | undefined): void {
  if (width !== undefined && length % width !== 0) {
    throw new UsageError(`length ${length} is not a multiple of --width ${width}`);
  }
}

/** @throws RangeError for what is not in the region: said here rather than at the chunk that comes to its end. */
export function regionRange(
  device: Device,
  index: number,
  offset: number,
  length: number,
  width: AccessWidth | undefined,
): RegionRange {
  const region = device.region(index);
  const name = regionName(index, device.isPci);
  if (region.size === 0) throw new RangeError(`the device has no ${name}`);
  if (offset + length > region.size) {
    throw new RangeError(
      `${name}: [${hex(offset)}, ${hex(offset + length)}) is out of bounds (size ${hex(region.size)})`,
    );
  }
  return {
    region,
    offset,
    length,
    width,
    byDword: device.isPci && index === PciRegion.CONFIG,
    hasAnswered: false,
  };
}

/** The bytes of the stretch, a chunk at a time. */
export async function* readRange(stretch: RegionRange): AsyncGenerator<Buffer, void, undefined> {
  for (let at = 0; at < stretch.length; at += CHUNK_BYTES) {
    const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, stretch.length - at));
    // In the order of the offsets: calls go out in the order in which they are made.
    await Promise.all(
      accesses(stretch, stretch.offset + at, chunk.length).map(([from, count]) =>
        noted(
          stretch,
          stretch.region.readInto(stretch.offset + at + from, chunk.subarray(from, from + count)),
        ),
      ),
    );
    yield chunk;
  }
}

/** Writes `data` at `at` bytes into the stretch. */
export async function writeRange(stretch: RegionRange, at: number, data: Buffer): Promise<void> {
  const offset = stretch.offset + at;
  for (let done = 0; done < data.length; done += CHUNK_BYTES) {
    const chunk = data.subarray(done, done + CHUNK_BYTES);
    await Promise.all(
      accesses(stretch, offset + done, chunk.length).map(([from, count]) =>
        noted(stretch, stretch.region.write(offset + done + from, chunk.subarray(from, from + count))),
      ),
    );
  }
}

async function noted(stretch: RegionRange, access: Promise<void>): Promise<void> {
  await access;
  stretch.hasAnswered = true;
}

/**
 * Runs `work` on the stretch, and says in its error what a newcomer will ask: a BAR whose kind of space is off in the
 * command register refuses its accesses, as hardware does. One that has carried out an access has another reason.
 */
export async function withEnableHint(
  device: Device,
  stretch: RegionRange,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    const space = error instanceof RemoteError && !stretch.hasAnswered ? spaceThatIsOff(device, stretch) : '';
    if (space === '') throw error;
    const { code, message } = error as RemoteError;
    const hint = `${space} space is off in its command register, and --enable turns it on`;
    throw new VfioUserError(code, `${message}; ${hint}`, { cause: error });
  }
}

/** What the region would answer in, where the command register turns that off; empty where it is no BAR, or on. */
function spaceThatIsOff(device: Device, { region: { index } }: RegionRange): 'I/O' | 'memory' | '' {
  if (!device.hasConfig || index > PciRegion.BAR5) return '';
  const isIo = (device.config.getUInt32(barOffset(index)) & BAR_IO) !== 0;
  if ((device.config.command & (isIo ? PciCommand.IO : PciCommand.MEMORY)) !== 0) return '';
  return isIo ? 'I/O' : 'memory';
}

/** `[from, count]` of each access to `[offset, offset + length)`, `from` counted from `offset`. */
function accesses(
  { width, byDword }: RegionRange,
  offset: number,
  length: number,
): [from: number, count: number][] {
  if (width === undefined && !byDword) return [[0, length]];
  const list: [number, number][] = [];
  for (let from = 0; from < length;) {
    const count = width ?? naturalWidth(offset + from, length - from);
    list.push([from, count]);
    from += count;
  }
  return list;
}

/** The widest of 4, 2 and 1 bytes that is aligned at `offset` and does not go past what is left. */
function naturalWidth(offset: number, left: number): number {
  if (offset % 4 === 0 && left >= 4) return 4;
  return offset % 2 === 0 && left >= 2 ? 2 : 1;
}
