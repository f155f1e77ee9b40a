/** Cuts a pcapng file into blocks: their lengths are checked here, what they say elsewhere. */
import type { FileHandle } from 'node:fs/promises';
import { MAX_MESSAGE_SIZE } from '../transport/transport.js';
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
const MAX_BLOCK = MAX_MESSAGE_SIZE + (1 << 20);
const CHUNK = 1 << 16;
/** A section header's byte-order magic stands behind its length. */
const MAGIC_AT = 8;

export class BlockSource {
  readonly #file: FileHandle;
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;
  /** Where `#at` is in the file. */
  #offset = 0;
  #littleEndian: boolean | undefined;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  /** Bytes that are left over at the end: they are no whole block. */
  get left(): number {
    return this.#bytes.length - this.#at;
  }

  /** The next block, undefined where no whole one follows. @throws CaptureError, and what `fs.read` throws. */
  async next(): Promise<Block | undefined> {
    if (!(await this.#fill(BLOCK_OVERHEAD))) return undefined;
    const offset = this.#offset;
    const littleEndian = this.#byteOrder();
    const type = readUInt32(this.#bytes, this.#at, littleEndian);
    const length = readUInt32(this.#bytes, this.#at + 4, littleEndian);
    if (length < BLOCK_OVERHEAD || length > MAX_BLOCK || length % 4 !== 0) {
      throw new CaptureError(
        `a block of ${length} bytes; blocks have ${BLOCK_OVERHEAD} to ${MAX_BLOCK}, in fours`,
        offset,
      );
    }
    if (!(await this.#fill(length))) return undefined;
    const end = this.#at + length;
    const again = readUInt32(this.#bytes, end - 4, littleEndian);
    if (again !== length) {
      throw new CaptureError(`the block's length is ${length} in front and ${again} behind`, offset);
    }
    const body = this.#bytes.subarray(this.#at + 8, end - 4);
    this.#at = end;
    this.#offset += length;
    return { type, offset, body, littleEndian };
  }

  /** A section header says it for all that follow. Its own type reads the same in both orders. */
  #byteOrder(): boolean {
    if (this.#bytes.readUInt32LE(this.#at) !== BLOCK_SECTION) {
      if (this.#littleEndian !== undefined) return this.#littleEndian;
      throw new CaptureError(
        'this is not a pcapng file: it does not begin with a section header',
        this.#offset,
      );
    }
    const little = this.#bytes.readUInt32LE(this.#at + MAGIC_AT) === BYTE_ORDER_MAGIC;
    if (!little && this.#bytes.readUInt32BE(this.#at + MAGIC_AT) !== BYTE_ORDER_MAGIC) {
      throw new CaptureError('the section header has no byte-order magic', this.#offset);
    }
    this.#littleEndian = little;
    return little;
  }

  /** Reads until `count` bytes are here; false at the end of the file. What was handed out stays as it is. */
  async #fill(count: number): Promise<boolean> {
    while (this.left < count) {
      const have = this.left;
      const bytes = Buffer.allocUnsafeSlow(Math.max(count, have + CHUNK));
      this.#bytes.copy(bytes, 0, this.#at);
      const { bytesRead } = await this.#file.read(bytes, have, bytes.length - have);
      if (bytesRead === 0) return false;
      this.#bytes = bytes.subarray(0, have + bytesRead);
      this.#at = 0;
    }
    return true;
  }
}

export function readUInt32(bytes: Buffer, at: number, littleEndian: boolean): number {
  return littleEndian ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at);
}

export function readUInt16(bytes: Buffer, at: number, littleEndian: boolean): number {
  return littleEndian ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at);
}
