/** What is wrong with a range of blocks that a caller gives. */
import { notInteger, outOfRange } from '../fields.js';
import type { NvmeNamespace } from './namespace.js';

/** Why `[lba, lba + blocks)` are no blocks of the namespace: a TypeError or RangeError. */
export function lbaRangeError(namespace: NvmeNamespace, lba: number, blocks: number): Error {
  const { id, blocks: size } = namespace;
  if (!Number.isSafeInteger(lba)) return notInteger('lba', lba, 0, size);
  if (!Number.isSafeInteger(blocks) || blocks < 1) return notInteger('blocks', blocks, 1, size);
  return outOfRange(
    `LBA range [${lba}, ${lba + blocks}) is out of range (namespace ${id} has ${size} blocks)`,
  );
}
