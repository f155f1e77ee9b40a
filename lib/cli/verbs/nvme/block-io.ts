/** What `read` and `write` of `vfio-user nvme` have in common. */
import type { NvmeController, NvmeQueue } from '../../../nvme/index.js';
import { UsageError } from '../../errors.js';
import { STANDARD_STREAM } from '../../output-file.js';
import { activeNamespace } from './with-controller.js';

/** Read ahead of what is written out, and gathered before it is written: a multiple of every block size. */
export const CHUNK_BYTES = 1 << 20;

export async function openQueue(controller: NvmeController, nsid: number | undefined): Promise<NvmeQueue> {
  return controller.createQueue({ namespace: await activeNamespace(controller, nsid) });
}

/** @throws UsageError for blocks that the namespace does not have. */
export function checkRange(queue: NvmeQueue, lba: number, count: number): void {
  const { blocks, id } = queue.namespace;
  if (count >= 1 && lba + count <= blocks) return;
  throw new UsageError(
    count < 1
      ? `LBA ${lba} is out of range (namespace ${id} has ${blocks} blocks)`
      : `LBA range [${lba}, ${lba + count}) is out of range (namespace ${id} has ${blocks} blocks)`,
  );
}

/** undefined for a standard stream. */
export function fileName(text: string | undefined): string | undefined {
  return text === STANDARD_STREAM ? undefined : text;
}
