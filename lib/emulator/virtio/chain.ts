/** A chain of descriptors that a driver made available: what the device reads, then what it writes. */
import type { ClientMemory } from '../device-model.js';
import { DESCRIPTOR, F_INDIRECT, F_NEXT, F_WRITE } from './constants.js';

/** What a driver did wrong in a queue: the device needs a reset then. */
export class QueueFault extends Error {}

export interface Segment {
  readonly address: bigint;
  readonly length: number;
}

export interface Descriptor extends Segment {
  readonly flags: number;
  /** Of a split queue the next descriptor; of a packed one the buffer's id. */
  readonly link: number;
}

/** Much more than a driver has in one request. */
const MOST_BYTES = 256 << 20;
/** Of a chain, and of an indirect table: without a limit a driver's table decides how much memory is taken. */
const MOST_DESCRIPTORS = 4096;

export class Chain {
  /** By which the driver knows it. */
  readonly id: number;
  /** How many entries of a packed ring it takes. */
  readonly entries: number;
  readonly readable: Segment[] = [];
  readonly writable: Segment[] = [];
  readonly #memory: ClientMemory;
  #readableBytes = 0;
  #writableBytes = 0;

  constructor(memory: ClientMemory, id: number, entries: number) {
    this.#memory = memory;
    this.id = id;
    this.entries = entries;
  }

  /** @throws QueueFault where something to be read stands behind something to be written, and for a chain without end. */
  append({ address, length, flags }: Descriptor): void {
    if (this.readable.length + this.writable.length >= MOST_DESCRIPTORS)
      throw new QueueFault(`a chain of more than ${MOST_DESCRIPTORS} descriptors`);
    if ((flags & F_WRITE) !== 0) {
      this.writable.push({ address, length });
      this.#writableBytes += length;
    } else if (this.writable.length > 0) throw new QueueFault('a readable descriptor behind a writable one');
    else {
      this.readable.push({ address, length });
      this.#readableBytes += length;
    }
    if (this.readableBytes + this.writableBytes > MOST_BYTES)
      throw new QueueFault(`a chain of more than ${MOST_BYTES} bytes`);
  }

  get readableBytes(): number {
    return this.#readableBytes;
  }

  get writableBytes(): number {
    return this.#writableBytes;
  }

  /** `length` bytes of what is to be read, from `offset` on. */
  async read(offset: number, length: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (const { address, length: bytes } of within(this.readable, offset, length))
      parts.push(await this.#memory.read(address, bytes));
    return Buffer.concat(parts);
  }

  /** Writes `bytes` from `offset` on of what is to be written. */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    let done = 0;
    for (const { address, length } of within(this.writable, offset, bytes.byteLength)) {
      await this.#memory.write(address, bytes.subarray(done, done + length));
      done += length;
    }
  }
}

/** Those of a table in the driver's memory. @throws QueueFault where it is none. */
export async function readTable(memory: ClientMemory, { address, length }: Segment): Promise<Descriptor[]> {
  if (length === 0 || length % DESCRIPTOR !== 0 || length > MOST_DESCRIPTORS * DESCRIPTOR)
    throw new QueueFault(`an indirect table of ${length} bytes`);
  const bytes = await memory.read(address, length);
  return Array.from({ length: length / DESCRIPTOR }, (_, i) => splitDescriptor(bytes, i * DESCRIPTOR));
}

/** Address, length, flags, next. */
export function splitDescriptor(bytes: Buffer, at: number): Descriptor {
  return {
    address: bytes.readBigUInt64LE(at),
    length: bytes.readUInt32LE(at + 8),
    flags: bytes.readUInt16LE(at + 12),
    link: bytes.readUInt16LE(at + 14),
  };
}

/** Address, length, id, flags. */
export function packedDescriptor(bytes: Buffer, at: number): Descriptor {
  return {
    address: bytes.readBigUInt64LE(at),
    length: bytes.readUInt32LE(at + 8),
    link: bytes.readUInt16LE(at + 12),
    flags: bytes.readUInt16LE(at + 14),
  };
}

export function hasNext({ flags }: Descriptor): boolean {
  return (flags & F_NEXT) !== 0;
}

export function isIndirect({ flags }: Descriptor): boolean {
  return (flags & F_INDIRECT) !== 0;
}

/** The parts of `segments` that are `length` bytes from `offset` on. */
function* within(segments: readonly Segment[], offset: number, length: number): Generator<Segment, void> {
  let skip = offset;
  let left = length;
  for (const segment of segments) {
    if (left === 0) return;
    if (skip >= segment.length) {
      skip -= segment.length;
      continue;
    }
    const bytes = Math.min(left, segment.length - skip);
    yield { address: segment.address + BigInt(skip), length: bytes };
    skip = 0;
    left -= bytes;
  }
  if (left > 0) throw new QueueFault(`a chain that is ${left} bytes too short`);
}
