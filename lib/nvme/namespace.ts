/** A namespace as the driver uses it. */
import { ProtocolError, UnsupportedError } from '../index.js';
import type { NamespaceIdentity } from './identify-namespace.js';

const LEAST_BLOCK = 512;
const MOST_BLOCK = 4096;

export class NvmeNamespace {
  /** NSID. */
  readonly id: number;
  /** What Identify Namespace said. */
  readonly identity: NamespaceIdentity;
  /** Bytes. */
  readonly blockSize: number;
  /** Blocks are numbered 0 to here, exclusive. */
  readonly blocks: number;

  /** @internal */
  constructor(id: number, identity: NamespaceIdentity) {
    const format = identity.formats[identity.formatIndex];
    if (format === undefined) {
      throw new ProtocolError(`namespace ${id} is in format ${identity.formatIndex}, which it does not have`);
    }
    if (identity.size > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new ProtocolError(`namespace ${id} claims to have ${identity.size} blocks`);
    }
    this.id = id;
    this.identity = identity;
    this.blockSize = format.dataSize;
    this.blocks = Number(identity.size);
  }

  get sizeBytes(): number {
    return this.blocks * this.blockSize;
  }

  /** @internal Whether commands with data can be made for it. @throws UnsupportedError. */
  requireUsable(): void {
    const { formats, formatIndex } = this.identity;
    const { metadataSize } = formats[formatIndex]!;
    if (this.blockSize < LEAST_BLOCK || this.blockSize > MOST_BLOCK || metadataSize > 0) {
      throw new UnsupportedError(
        `namespace ${this.id} has blocks of ${this.blockSize} bytes and ${metadataSize} of metadata; ` +
          `the driver knows ${LEAST_BLOCK} to ${MOST_BLOCK} without`,
      );
    }
  }
}
