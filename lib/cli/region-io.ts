/** A range of a region in accesses of the wanted width, as many at once as a chunk has. */
import { RemoteError, VfioUserError, type Device, type Region } from '../index.js';
import { PciCommand, barOffset } from '../pci/index.js';
import { PciRegion } from '../protocol/index.js';
import { UsageError } from './errors.js';
import { size, uint64, type AccessWidth } from './numbers.js';
import { regionIndex, regionName } from './region-names.js';
import { hex } from './format-text.js';
import { InvalidArgumentError } from 'commander';

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

/** The bytes of the range, a chunk at a time. */
export async function* readRange(range: RegionRange): AsyncGenerator<Buffer, void, undefined> {
  for (let at = 0; at < range.length; at += CHUNK_BYTES) {
    const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, range.length - at));
    // In the order of the offsets: calls go out in the order in which they are made.
    await Promise.all(
      accesses(range, range.offset + at, chunk.length).map(([from, count]) =>
        noted(range, range.region.readInto(range.offset + at + from, chunk.subarray(from, from + count))),
      ),
    );
    yield chunk;
  }
}

/** Writes `data` at `at` bytes into the range. */
export async function writeRange(range: RegionRange, at: number, data: Buffer): Promise<void> {
  const offset = range.offset + at;
  for (let done = 0; done < data.length; done += CHUNK_BYTES) {
    const chunk = data.subarray(done, done + CHUNK_BYTES);
    await Promise.all(
      accesses(range, offset + done, chunk.length).map(([from, count]) =>
        noted(range, range.region.write(offset + done + from, chunk.subarray(from, from + count))),
      ),
    );
  }
}

async function noted(range: RegionRange, access: Promise<void>): Promise<void> {
  await access;
  range.hasAnswered = true;
}

/**
 * Runs `work` on the range, and says in its error what a newcomer will ask: a BAR whose kind of space is off in the
 * command register refuses its accesses, as hardware does. One that has carried out an access has another reason.
 */
export async function withEnableHint(
  device: Device,
  range: RegionRange,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    const space = error instanceof RemoteError && !range.hasAnswered ? spaceThatIsOff(device, range) : '';
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

export interface RegisterWrite {
  region: number;
  offset: number;
  bytes: Buffer;
}

const FORM = /^(?<region>[^:]+):(?<offset>[^=.]+)(?:\.(?<width>[bwlq]))?=(?<value>.+)$/i;
const WIDTHS: Readonly<Record<string, AccessWidth>> = { b: 1, w: 2, l: 4, q: 8 };

export function registerWrite(text: string): RegisterWrite {
  const { region, offset, width: letter = 'l', value: digits } = FORM.exec(text)?.groups ?? {};
  const width = WIDTHS[letter.toLowerCase()];
  if (region === undefined || offset === undefined || digits === undefined || width === undefined)
    throw new InvalidArgumentError('A write is REGION:OFFSET=VALUE.');
  const value = uint64(digits);
  if (value >> BigInt(8 * width) !== 0n) {
    throw new InvalidArgumentError(`The value does not fit ${width} bytes.`);
  }
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return {
    region: regionIndex(region),
    offset: size(offset),
    bytes: bytes.subarray(0, width),
  };
}

export async function performWrite(device: Device, { region, offset, bytes }: RegisterWrite): Promise<void> {
  const range = regionRange(device, region, offset, bytes.length, undefined);
  await withEnableHint(device, range, () => writeRange(range, 0, bytes));
}
