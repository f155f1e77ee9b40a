/** A write of one register as an option has it: `bar0:0x60=1`, `bar0:0x80.q=0x1000`. */
import { InvalidArgumentError } from 'commander';
import type { Device } from '../index.js';
import { regionRange, withEnableHint, writeRange } from './region-io.js';
import { size, uint64, type AccessWidth } from './numbers.js';
import { regionIndex } from './region-names.js';

export interface RegisterWrite {
  region: number;
  offset: number;
  bytes: Buffer;
}

const FORM = /^(?<region>[^:]+):(?<offset>[^=.]+)(?:\.(?<width>[bwlq]))?=(?<value>.+)$/i;
const WIDTHS: Readonly<Record<string, AccessWidth>> = { b: 1, w: 2, l: 4, q: 8 };

export function registerWrite(text: string): RegisterWrite {
  const groups = FORM.exec(text)?.groups;
  if (groups === undefined) throw new InvalidArgumentError('A write is REGION:OFFSET=VALUE.');
  const width = WIDTHS[(groups['width'] ?? 'l').toLowerCase()]!;
  const value = uint64(groups['value']!);
  if (value >> BigInt(8 * width) !== 0n) {
    throw new InvalidArgumentError(`The value does not fit ${width} bytes.`);
  }
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return {
    region: regionIndex(groups['region']!),
    offset: size(groups['offset']!),
    bytes: bytes.subarray(0, width),
  };
}

export async function performWrite(device: Device, { region, offset, bytes }: RegisterWrite): Promise<void> {
  const stretch = regionRange(device, region, offset, bytes.length, undefined);
  await withEnableHint(device, stretch, () => writeRange(stretch, 0, bytes));
}
