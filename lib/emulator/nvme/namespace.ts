/** A namespace of the emulated controller. */
import type { BlockStore } from './block-store.js';

export interface EmulatedNamespaceOptions {
  store: BlockStore;
  /** 512, by default, to 4,096, a power of two. */
  blockSize?: number;
  /** 16 hexadecimal digits. Default: a locally administered one of the namespace's number. */
  eui64?: string;
  /** 32 hexadecimal digits. Default: none. */
  nguid?: string;
}

/** The upper half of a locally administered EUI-64. */
const LOCAL_EUI64 = '02ffffff';

export class EmulatedNamespace {
  readonly id: number;
  readonly store: BlockStore;
  readonly blockSize: number;
  readonly blocks: number;
  readonly eui64: Buffer;
  readonly nguid: Buffer;

  /** @throws RangeError. */
  constructor(id: number, { store, blockSize = 512, eui64, nguid }: EmulatedNamespaceOptions) {
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
    this.eui64 = identifier('eui64', eui64 ?? LOCAL_EUI64 + id.toString(16).padStart(8, '0'), 8);
    this.nguid = identifier('nguid', nguid ?? '', 16);
  }
}

/** @throws RangeError. */
function identifier(name: string, digits: string, bytes: number): Buffer {
  if (digits === '') return Buffer.alloc(bytes);
  if (/^[0-9a-f]+$/i.test(digits) && digits.length === 2 * bytes) return Buffer.from(digits, 'hex');
  throw new RangeError(`${name} must be ${2 * bytes} hexadecimal digits, not ${JSON.stringify(digits)}`);
}
