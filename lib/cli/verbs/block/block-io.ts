/** What verbs that read and write blocks have in common. */
import { UsageError } from '../../errors.js';
import { STANDARD_STREAM } from '../../output-file.js';

/** Read ahead of what is written out, and gathered before it is written: a multiple of every block size. */
export const CHUNK_BYTES = 1 << 20;

/** A disk, of whichever driver. */
export interface BlockTarget {
  /** For errors: `namespace 1`. */
  readonly name: string;
  readonly blocks: number;
  readonly blockSize: number;
  read(lba: number, blocks: number): Promise<Buffer>;
  write(lba: number, data: Buffer): Promise<void>;
  flush(): Promise<void>;
}

/** @throws UsageError for blocks that the disk does not have. */
export function checkRange(target: BlockTarget, lba: number, count: number): void {
  const { blocks, name } = target;
  if (count >= 1 && lba + count <= blocks) return;
  throw new UsageError(
    count < 1
      ? `LBA ${lba} is out of range (${name} has ${blocks} blocks)`
      : `LBA range [${lba}, ${lba + count}) is out of range (${name} has ${blocks} blocks)`,
  );
}

/** undefined for a standard stream. */
export function fileName(text: string | undefined): string | undefined {
  return text === STANDARD_STREAM ? undefined : text;
}
