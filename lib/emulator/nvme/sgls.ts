/** The client's memory that a command's SGL names (section 4.1.2). */
import type { ClientMemory } from '../device-model.js';
import { Status } from './constants.js';
import type { Segment } from './prps.js';
import { CommandError } from './sqe.js';

const DESCRIPTOR = 16;
/** Types, bits 7:4 of a descriptor's last byte; the subtype below, 0, says that the address is one. */
const DATA_BLOCK = 0x00;
const SEGMENT = 0x20;
const LAST_SEGMENT = 0x30;

/** More than any transfer needs: a client whose segments form a loop gets an error. */
const MOST_SEGMENTS = 64;
const MOST_DESCRIPTORS = 4096;

interface Descriptor {
  type: number;
  address: bigint;
  length: number;
}

/**
 * The segments of `length` bytes of data; `first` is the command's own descriptor.
 * @throws CommandError for descriptors that break the rules; DmaError where a segment cannot be read.
 */
export async function sglSegments(memory: ClientMemory, first: Buffer, length: number): Promise<Segment[]> {
  const data: Segment[] = [];
  let next: Descriptor | undefined = decode(first, 0);
  let count = 0;
  if (next.type === DATA_BLOCK) {
    data.push(next);
    next = undefined;
  }
  for (let i = 0; next !== undefined; i++) {
    if (i === MOST_SEGMENTS) throw new CommandError(Status.INVALID_NUMBER_OF_SGL_DESCRIPTORS);
    const isLast: boolean = next.type === LAST_SEGMENT;
    const descriptors = await readSegment(memory, next);
    count += descriptors.length;
    if (count > MOST_DESCRIPTORS) throw new CommandError(Status.INVALID_NUMBER_OF_SGL_DESCRIPTORS);
    // Of a segment that is not the last the last descriptor leads on, and no other does.
    next = isLast ? undefined : descriptors.pop();
    if (next?.type === DATA_BLOCK) throw new CommandError(Status.INVALID_SGL_SEGMENT_DESCRIPTOR);
    for (const descriptor of descriptors) {
      if (descriptor.type !== DATA_BLOCK) throw new CommandError(Status.INVALID_SGL_SEGMENT_DESCRIPTOR);
      if (descriptor.length > 0) data.push(descriptor);
    }
  }
  const total = data.reduce((sum, segment) => sum + segment.length, 0);
  if (total !== length) throw new CommandError(Status.DATA_SGL_LENGTH_INVALID);
  return data;
}

async function readSegment(
  memory: ClientMemory,
  { type, address, length }: Descriptor,
): Promise<Descriptor[]> {
  if (type !== SEGMENT && type !== LAST_SEGMENT) {
    throw new CommandError(Status.INVALID_SGL_SEGMENT_DESCRIPTOR);
  }
  if (length === 0 || length % DESCRIPTOR !== 0) {
    throw new CommandError(Status.INVALID_SGL_SEGMENT_DESCRIPTOR);
  }
  if (length > MOST_DESCRIPTORS * DESCRIPTOR) {
    throw new CommandError(Status.INVALID_NUMBER_OF_SGL_DESCRIPTORS);
  }
  const bytes = await memory.read(address, length);
  return Array.from({ length: length / DESCRIPTOR }, (_, i) => decode(bytes, i * DESCRIPTOR));
}

function decode(bytes: Buffer, at: number): Descriptor {
  const type = bytes[at + 15]!;
  if (type !== DATA_BLOCK && type !== SEGMENT && type !== LAST_SEGMENT) {
    throw new CommandError(Status.SGL_DESCRIPTOR_TYPE_INVALID);
  }
  return { type, address: bytes.readBigUInt64LE(at), length: bytes.readUInt32LE(at + 8) };
}
