/** A namespace as the driver uses it. */
import { notInteger, outOfRange } from '../fields.js';
import { ProtocolError, UnsupportedError } from '../index.js';
import { NvmeNamespaceError } from './errors.js';
import type { NamespaceIdentity } from './identify.js';

const LEAST_BLOCK = 512;
const MOST_BLOCK = 4096;

/**
 * A namespace (NVM Express Base 2.0, section 3.2.1), as it was when the controller was asked for it: get one by
 * `NvmeController.namespace`.
 * @example
 * ```ts
 * const namespace = await controller.namespace(1);
 * console.log(`${namespace.blocks} blocks of ${namespace.blockSize} bytes`);
 * const queue = await controller.createQueue({ namespace });
 * ```
 */
export class NvmeNamespace {
  /** NSID. */
  readonly id: number;
  /** What Identify Namespace said. */
  readonly identity: NamespaceIdentity;
  /** The length of a logical block, bytes. */
  readonly blockSize: number;
  /** NSZE: how many blocks there are, numbered from 0. */
  readonly blocks: number;

  /** @internal The controller that it is of. */
  readonly owner: object | undefined;
  /** Bytes of metadata with each block. */
  readonly #metadataSize: number;
  /** Why it is not to be used any more. */
  #change: string | undefined;

  /** @internal */
  constructor(id: number, identity: NamespaceIdentity, owner?: object) {
    const format = identity.formats[identity.formatIndex];
    if (format === undefined) {
      throw new ProtocolError(
        `namespace ${id}: LBA format ${identity.formatIndex} is out of range (${identity.formats.length} formats)`,
      );
    }
    if (identity.size > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new ProtocolError(
        `namespace ${id}: NSZE is ${identity.size} blocks, more than ${Number.MAX_SAFE_INTEGER}`,
      );
    }
    this.id = id;
    this.owner = owner;
    this.identity = identity;
    this.blockSize = format.dataSize;
    this.#metadataSize = format.metadataSize;
    this.blocks = Number(identity.size);
  }

  /** `blocks` times `blockSize`, bytes. */
  get sizeBytes(): number {
    return this.blocks * this.blockSize;
  }

  /** @internal The controller has another namespace by that number now. */
  invalidate(change: string): void {
    this.#change ??= change;
  }

  /** @internal @throws NvmeNamespaceError after `invalidate`. */
  requireCurrent(): void {
    if (this.#change !== undefined) throw new NvmeNamespaceError(this.id, this.#change);
  }

  /**
   * @internal In what `now`, of the same number, is another namespace, or one that commands for this do not fit;
   * undefined where it is neither. One that is known to be the same may have grown.
   */
  whatDiffers(now: NvmeNamespace): string | undefined {
    const was = this.identity;
    const is = now.identity;
    const pairs: [what: string, was: unknown, is: unknown][] = [
      ['NGUID', was.nguid, is.nguid],
      ['EUI-64', was.eui64, is.eui64],
      ['block size', this.blockSize, now.blockSize],
      ['metadata size', this.#metadataSize, now.#metadataSize],
    ];
    const other = pairs.find(([, a, b]) => a !== b);
    if (other !== undefined) return `its ${other[0]} was ${String(other[1])} and is ${String(other[2])}`;
    const isKnown = !isZero(was.nguid) || !isZero(was.eui64);
    if (now.blocks === this.blocks || (isKnown && now.blocks > this.blocks)) return undefined;
    return `it had ${this.blocks} blocks and has ${now.blocks}`;
  }

  /** @internal Whether commands with data can be made for it. @throws UnsupportedError. */
  requireUsable(): void {
    const metadataSize = this.#metadataSize;
    if (this.blockSize < LEAST_BLOCK || this.blockSize > MOST_BLOCK || metadataSize > 0) {
      throw new UnsupportedError(
        `namespace ${this.id} has blocks of ${this.blockSize} bytes with ${metadataSize} bytes of metadata; ` +
          `the driver supports ${LEAST_BLOCK} to ${MOST_BLOCK} bytes without metadata`,
      );
    }
  }
}

/** Of an identifier in hexadecimal digits: the controller gives none. */
function isZero(identifier: string): boolean {
  return /^0*$/.test(identifier);
}

/** Why `[lba, lba + blocks)` are no blocks of the namespace: a TypeError or RangeError. */
export function lbaRangeError(namespace: NvmeNamespace, lba: number, blocks: number): Error {
  const { id, blocks: size } = namespace;
  if (!Number.isSafeInteger(lba)) return notInteger('lba', lba, 0, size);
  if (!Number.isSafeInteger(blocks) || blocks < 1) return notInteger('blocks', blocks, 1, size);
  return outOfRange(
    `LBA range [${lba}, ${lba + blocks}) is out of range (namespace ${id} has ${size} blocks)`,
  );
}
