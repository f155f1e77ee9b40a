/** Cuts pcapng into blocks: their lengths are checked here, what they say elsewhere. */
import { MAX_MESSAGE_SIZE } from '../transport/transport.js';
import type { ByteSource } from './byte-source.js';
import { CaptureError } from './capture-error.js';
import { BLOCK_OVERHEAD, BLOCK_SECTION, BYTE_ORDER_MAGIC } from './pcapng.js';

export interface Block {
  type: number;
  /** Where it begins in the file. */
  offset: number;
  /** Without type and lengths. */
  body: Buffer;
  /** The byte order of the section that it is in. */
  littleEndian: boolean;
}

/** The largest message, and room for what stands around it. */
export const MAX_PACKET = MAX_MESSAGE_SIZE + (1 << 20);
/** A section header's byte-order magic stands behind its length. */
const MAGIC_AT = 8;

export class BlockSource {
  readonly #bytes: ByteSource;
  #littleEndian = true;

  /** @param bytes from the first section header on */
  constructor(bytes: ByteSource) {
    this.#bytes = bytes;
  }

  /** The next block, undefined where no whole one follows. @throws CaptureError, and what reading throws. */
  async next(): Promise<Block | undefined> {
    const head = await this.#bytes.peek(BLOCK_OVERHEAD);
    if (head === undefined) return undefined;
    const { offset } = this.#bytes;
    const littleEndian = this.#byteOrder(head);
    const type = readUInt32(head, 0, littleEndian);
    const length = readUInt32(head, 4, littleEndian);
    if (length < BLOCK_OVERHEAD || length > MAX_PACKET || length % 4 !== 0) {
      throw new CaptureError(
        `a block of ${length} bytes; blocks have ${BLOCK_OVERHEAD} to ${MAX_PACKET}, in fours`,
        offset,
      );
    }
    if ((await this.#bytes.peek(length)) === undefined) return undefined;
    const block = this.#bytes.take(length);
    const again = readUInt32(block, length - 4, littleEndian);
    if (again !== length) {
      throw new CaptureError(`the block's length is ${length} in front and ${again} behind`, offset);
    }
    return { type, offset, body: block.subarray(8, length - 4), littleEndian };
  }

  /** A section header says it for all that follow. Its own type reads the same in both orders. */
  #byteOrder(head: Buffer): boolean {
    if (head.readUInt32LE(0) !== BLOCK_SECTION) return this.#littleEndian;
    const little = head.readUInt32LE(MAGIC_AT) === BYTE_ORDER_MAGIC;
    if (!little && head.readUInt32BE(MAGIC_AT) !== BYTE_ORDER_MAGIC) {
      throw new CaptureError('the section header has no byte-order magic', this.#bytes.offset);
    }
    this.#littleEndian = little;
    return little;
  }
}

export function readUInt32(bytes: Buffer, at: number, littleEndian: boolean): number {
  return littleEndian ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at);
}

export function readUInt16(bytes: Buffer, at: number, littleEndian: boolean): number {
  return littleEndian ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at);
}
