/** A namespace of the emulated controller. */
import { outOfRange, wrongType } from '../../fields.js';
import * as option from '../../options.js';
import type { BlockStore } from './block-store.js';

/** A namespace of an `NvmeDevice`. */
export interface EmulatedNamespaceOptions {
  /** Where its blocks are. The device closes it when it is closed. */
  store: BlockStore;
  /** 512, by default, to 4,096, a power of two. */
  blockSize?: number;
  /** 16 hexadecimal digits. Default: a locally administered one of the namespace's number. */
  eui64?: string;
  /** 32 hexadecimal digits. Default: none. */
  nguid?: string;
}

const STORE_METHODS = ['read', 'write', 'clear', 'flush', 'close'] as const;
export const NAMESPACE_OPTIONS = new option.OptionTable<EmulatedNamespaceOptions>(
  {
    store: (value, caller, name) => {
      const store = (typeof value === 'object' && value !== null ? value : {}) as Partial<BlockStore>;
      const isStore =
        typeof store.size === 'number' &&
        STORE_METHODS.every((method) => typeof store[method] === 'function');
      return isStore ? undefined : wrongType(`${caller}: ${name}`, 'a BlockStore', value);
    },
    blockSize: option.wholeNumber(),
    eui64: option.string,
    nguid: option.string,
  },
  ['store'],
);

/** The upper half of a locally administered EUI-64. */
const LOCAL_EUI64 = '02ffffff';

/**
 * A namespace of an `NvmeDevice`; see `NvmeDevice.namespaces`.
 *
 * @example
 * ```ts
 * const namespace = new EmulatedNamespace(1, { store: new MemoryStore(1024 * 1024) });
 * console.log(namespace.blocks); // 2048
 * ```
 */
export class EmulatedNamespace {
  /** NSID. */
  readonly id: number;
  /** Where its blocks are. */
  readonly store: BlockStore;
  /** Bytes of a block. */
  readonly blockSize: number;
  /** NSZE: how many blocks there are. */
  readonly blocks: number;
  /** IEEE Extended Unique Identifier, 8 bytes (NVMe base specification, Identify Namespace). */
  readonly eui64: Buffer;
  /** Namespace Globally Unique Identifier, 16 bytes; all zeros where there is none. */
  readonly nguid: Buffer;

  /** @throws TypeError and RangeError for options that make no sense. */
  constructor(id: number, options: EmulatedNamespaceOptions) {
    NAMESPACE_OPTIONS.check('EmulatedNamespace', options);
    const { store, blockSize = 512, eui64, nguid } = options;
    const isPower = Number.isInteger(Math.log2(blockSize));
    if (!isPower || blockSize < 512 || blockSize > 4096) {
      throw outOfRange(`EmulatedNamespace: blockSize must be 512, 1024, 2048 or 4096, got ${blockSize}`);
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
  throw new RangeError(`${name} must be ${2 * bytes} hexadecimal digits, got ${JSON.stringify(digits)}`);
}
