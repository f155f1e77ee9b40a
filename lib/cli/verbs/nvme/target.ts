/** A namespace as the verbs that read and write blocks have it. */
import type { NvmeController } from '../../../nvme/index.js';
import type { BlockTarget } from '../block/block-io.js';
import { activeNamespace } from './with-controller.js';

export async function openTarget(controller: NvmeController, nsid: number | undefined): Promise<BlockTarget> {
  const namespace = await activeNamespace(controller, nsid);
  const queue = await controller.createQueue({ namespace });
  const { id, blocks, blockSize } = namespace;
  return {
    name: `namespace ${id}`,
    blocks,
    blockSize,
    read: (lba, count) => queue.read(lba, count),
    write: (lba, data) => queue.write(lba, data),
    flush: () => queue.flush(),
  };
}
