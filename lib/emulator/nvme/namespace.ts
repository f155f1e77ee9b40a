/** A namespace of the emulated controller. */
import type { BlockStore } from './block-store.js';

export interface EmulatedNamespaceOptions {
  store: BlockStore;
  /** 512, by default, to 4,096, a power of two. */
  blockSize?: number;
}

export class EmulatedNamespace {
  readonly id: number;
  readonly store: BlockStore;
  readonly blockSize: number;
  readonly blocks: number;

  /** @throws RangeError. */
  constructor(id: number, { store, blockSize = 512 }: EmulatedNamespaceOptions) {
    const isPower = Number.isInteger(Math.log2(blockSize));
    if (!isPower || blockSize < 512 || blockSize > 4096) {
      throw new RangeError(`blocks have 512, 1,024, 2,048 or 4,096 bytes, not ${blockSize}`);
    }
    const blocks = Math.floor(store.size / blockSize);
    if (blocks === 0) throw new RangeError(`namespace ${id} has no room for a block of ${blockSize} bytes`);
    this.id = id;
    this.store = store;
    this.blockSize = blockSize;
    this.blocks = blocks;
  }
}
