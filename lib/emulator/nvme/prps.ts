/** The client's memory that a command's PRPs name (section 4.1.1). */
import type { TurnPace } from '../../turn-share.js';
import type { ClientMemory } from '../device-model.js';
import { PAGE, Status } from './constants.js';
import { CommandError } from './sqe.js';

export interface Segment {
  address: bigint;
  length: number;
}

const PAGE_MASK = BigInt(PAGE - 1);
const ENTRY = 8;

/**
 * The segments of `length` bytes of data, adjacent pages joined. `pace` has its rest between the pages of a long list.
 * @throws CommandError for pointers that break the rules; DmaError where a list cannot be read.
 */
export async function dataSegments(
  memory: ClientMemory,
  prp1: bigint,
  prp2: bigint,
  length: number,
  pace?: TurnPace,
): Promise<Segment[]> {
  const segments: Segment[] = [];
  if (length === 0) return segments;
  if ((prp1 & 3n) !== 0n) throw new CommandError(Status.PRP_OFFSET_INVALID);
  const first = Math.min(length, PAGE - Number(prp1 & PAGE_MASK));
  segments.push({ address: prp1, length: first });
  const left = length - first;
  if (left === 0) return segments;
  if (left <= PAGE) addPage(segments, prp2, left);
  else await addList(segments, memory, prp2, left, pace);
  return segments;
}

async function addList(
  segments: Segment[],
  memory: ClientMemory,
  list: bigint,
  length: number,
  pace: TurnPace | undefined,
): Promise<void> {
  let at = list;
  for (let left = length, isFirst = true; left > 0; isFirst = false) {
    if (at % BigInt(ENTRY) !== 0n) throw new CommandError(Status.PRP_OFFSET_INVALID);
    const room = (PAGE - Number(at & PAGE_MASK)) / ENTRY;
    const wanted = Math.ceil(left / PAGE);
    const bytes = await memory.read(at, Math.min(room, wanted) * ENTRY);
    // Where not all fit, the last place has the way to the rest.
    const here = wanted <= room ? wanted : room - 1;
    // The list may begin at the end of a page; another one that has nothing but the way on may lead round in a circle.
    if (here === 0 && !isFirst) throw new CommandError(Status.PRP_OFFSET_INVALID);
    for (let i = 0; i < here; i++, left -= PAGE) {
      addPage(segments, bytes.readBigUInt64LE(i * ENTRY), Math.min(PAGE, left));
    }
    if (left <= 0) return;
    at = bytes.readBigUInt64LE(here * ENTRY);
    await pace?.rest();
  }
}

function addPage(segments: Segment[], address: bigint, length: number): void {
  if ((address & PAGE_MASK) !== 0n) throw new CommandError(Status.PRP_OFFSET_INVALID);
  const last = segments.at(-1);
  if (last !== undefined && last.address + BigInt(last.length) === address) last.length += length;
  else segments.push({ address, length });
}

/** The segments, cut so that each piece has `most` bytes, and the last one the rest. */
export function* pieces(segments: readonly Segment[], most: number): Generator<Segment[], void, undefined> {
  let piece: Segment[] = [];
  let room = most;
  for (const { address, length } of segments) {
    for (let done = 0; done < length;) {
      const part = Math.min(room, length - done);
      piece.push({ address: address + BigInt(done), length: part });
      done += part;
      room -= part;
      if (room > 0) continue;
      yield piece;
      piece = [];
      room = most;
    }
  }
  if (piece.length > 0) yield piece;
}

export function bytesOf(segments: readonly Segment[]): number {
  return segments.reduce((sum, { length }) => sum + length, 0);
}

/** Copies all of `bytes` into the client's memory. */
export async function writeSegments(
  memory: ClientMemory,
  segments: readonly Segment[],
  bytes: Uint8Array,
): Promise<void> {
  let done = 0;
  for (const { address, length } of segments) {
    if (done >= bytes.byteLength) return;
    await memory.write(address, bytes.subarray(done, done + length));
    done += length;
  }
}

/** The bytes of all segments. */
export async function readSegments(memory: ClientMemory, segments: readonly Segment[]): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (const { address, length } of segments) parts.push(await memory.read(address, length));
  const [first] = parts;
  return first !== undefined && parts.length === 1 ? first : Buffer.concat(parts);
}
