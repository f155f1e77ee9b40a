/** A namespace of the emulated controller. */
import { outOfRange, wrongType } from '../../fields.js';
import * as option from '../../options.js';
import { MemoryStore, type BlockStore } from '../block-store.js';

/** A format that a namespace can be given by Format NVM. */
export interface EmulatedLbaFormat {
  /** Bytes of a block. */
  readonly blockSize: number;
  /** Bytes of metadata with each block, which are transferred in a buffer of their own. */
  readonly metadataSize: number;
}

/** Every namespace can be given these; one that is made with another has it at the end. */
const FORMATS: readonly EmulatedLbaFormat[] = [
  { blockSize: 512, metadataSize: 0 },
  { blockSize: 4096, metadataSize: 0 },
  { blockSize: 512, metadataSize: 8 },
  { blockSize: 4096, metadataSize: 8 },
  { blockSize: 4096, metadataSize: 64 },
];
const MOST_METADATA = 4096;

/** A namespace of an `NvmeDevice`. */
export interface EmulatedNamespaceOptions {
  /** Where its blocks are. The device closes it when it is closed. */
  store: BlockStore;
  /** 512, by default, to 4,096, a power of two. */
  blockSize?: number;
  /** Bytes of metadata with each block, transferred in a buffer of its own (MPTR), and kept in memory. Default 0. */
  metadataSize?: number;
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
    metadataSize: option.wholeNumber(0, MOST_METADATA),
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
  /** Bytes of metadata with each block; 0 for none. */
  readonly metadataSize: number;
  /** The formats that Format NVM can give it. */
  readonly formats: readonly EmulatedLbaFormat[];
  /** Which of them it has. */
  readonly formatIndex: number;
  /** NSZE: how many blocks there are. */
  readonly blocks: number;
  /** @internal Where the metadata is. */
  readonly metadata: MemoryStore | undefined;
  /** IEEE Extended Unique Identifier, 8 bytes (NVMe base specification, Identify Namespace). */
  readonly eui64: Buffer;
  /** Namespace Globally Unique Identifier, 16 bytes; all zeros where there is none. */
  readonly nguid: Buffer;

  /** @throws TypeError and RangeError for options that make no sense. */
  constructor(id: number, options: EmulatedNamespaceOptions) {
    NAMESPACE_OPTIONS.check('EmulatedNamespace', options);
    const { store, blockSize = 512, metadataSize = 0, eui64, nguid } = options;
    const isPower = Number.isInteger(Math.log2(blockSize));
    if (!isPower || blockSize < 512 || blockSize > 4096) {
      throw outOfRange(`EmulatedNamespace: blockSize must be 512, 1024, 2048 or 4096, got ${blockSize}`);
    }
    const blocks = Math.floor(store.size / blockSize);
    if (blocks === 0) throw new RangeError(`namespace ${id} has no room for a block of ${blockSize} bytes`);
    this.id = id;
    this.store = store;
    this.blockSize = blockSize;
    this.metadataSize = metadataSize;
    this.formats = FORMATS.some((format) => isFormat(format, blockSize, metadataSize))
      ? FORMATS
      : [...FORMATS, { blockSize, metadataSize }];
    this.formatIndex = this.formats.findIndex((format) => isFormat(format, blockSize, metadataSize));
    this.metadata = metadataSize === 0 ? undefined : new MemoryStore(blocks * metadataSize);
    this.blocks = blocks;
    this.eui64 = identifier('eui64', eui64 ?? LOCAL_EUI64 + id.toString(16).padStart(8, '0'), 8);
    this.nguid = identifier('nguid', nguid ?? '', 16);
  }

  /** @internal The same namespace in another of its formats, with nothing in its blocks yet. */
  formatted(format: EmulatedLbaFormat): EmulatedNamespace {
    const { store, eui64, nguid } = this;
    return new EmulatedNamespace(this.id, {
      ...{ store, blockSize: format.blockSize, metadataSize: format.metadataSize },
      ...{ eui64: eui64.toString('hex'), nguid: nguid.toString('hex') },
    });
  }
}

function isFormat(format: EmulatedLbaFormat, blockSize: number, metadataSize: number): boolean {
  return format.blockSize === blockSize && format.metadataSize === metadataSize;
}

/** @throws RangeError. */
function identifier(name: string, digits: string, bytes: number): Buffer {
  if (digits === '') return Buffer.alloc(bytes);
  if (/^[0-9a-f]+$/i.test(digits) && digits.length === 2 * bytes) return Buffer.from(digits, 'hex');
  throw new RangeError(`${name} must be ${2 * bytes} hexadecimal digits, got ${JSON.stringify(digits)}`);
}
