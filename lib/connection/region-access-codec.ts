/** REGION_READ and REGION_WRITE, the hot path: encoded in place, and checked against what was asked for. */
import { Command, HEADER_FLAG_COMMAND, HEADER_FLAG_NO_REPLY, HEADER_SIZE } from '../protocol/constants.js';
import { writeHeader } from '../protocol/header.js';
import {
  REGION_ACCESS_SIZE,
  checkRegionReadReply,
  checkRegionWriteReply,
  writeRegionAccess,
} from '../protocol/region-access.js';
import { lostMemory } from './callers-memory.js';
import type { EncodedMessage } from './send-queue.js';

/** Header flags of a command, and of one whose reply is not wanted. */
export const FLAGS_COMMAND = HEADER_FLAG_COMMAND;
export const FLAGS_POSTED = HEADER_FLAG_COMMAND | HEADER_FLAG_NO_REPLY;

/** What is accessed. The arrays stay the connection's until the call settles. */
export interface Access {
  /** REGION_READ or REGION_WRITE. */
  readonly command: number;
  readonly region: number;
  readonly offset: number;
  readonly count: number;
  /** What is written: `count` bytes; null for a read. */
  readonly body: Uint8Array | null;
  /** Where a read's data goes: `count` bytes; undefined where the result is made of it. */
  readonly target: Uint8Array | undefined;
}

/** One access, as its caller wants it. */
export interface RegionAccess<T> extends Access {
  /** Makes the result; a read's data stands at `at`. */
  readonly take: (bytes: Buffer, at: number, access: Access) => T;
}

/** The header and the access structure. */
export const ACCESS_HEAD_SIZE = HEADER_SIZE + REGION_ACCESS_SIZE;

/** @throws TypeError where the caller's array has lost its memory, or is shorter now. */
export function checkMemory({ command, count, body, target }: Access): void {
  const memory = body ?? target;
  if (memory !== undefined && memory.length !== count) throw lostMemory(command);
}

/**
 * Encodes accesses into memory of its own, one at a time: each message is sent, or copied, before the next is encoded. The
 * message is a new object each time: a stream may bring a reply while it takes one, and whoever hears of that may send.
 */
export class AccessEncoder {
  readonly #head = Buffer.alloc(ACCESS_HEAD_SIZE);

  /** The message, with id 0. @throws TypeError, RangeError for what a field cannot hold. */
  encode({ command, region, offset, count, body }: Access, flags: number): EncodedMessage {
    const head = this.#head;
    const size = ACCESS_HEAD_SIZE + (body === null ? 0 : body.length);
    writeHeader(head, 0, 0, command, size, flags, 0);
    writeRegionAccess(head, HEADER_SIZE, offset, region, count);
    return { head, headLength: ACCESS_HEAD_SIZE, body, fds: null };
  }
}

/**
 * The result of a reply whose payload is `bytes[start, end)`; where `landed`, its data went to the target. `target` is
 * that of the access, unless the transport has found its memory gone.
 * @throws ProtocolError for a reply to something else; TypeError where the target's memory is gone.
 */
export function decodeAccess<T>(
  access: RegionAccess<T>,
  target: Uint8Array | undefined,
  landed: boolean,
  bytes: Buffer,
  start: number,
  end: number,
): T {
  const { command, offset, region, count } = access;
  // What was written has gone from the caller's memory.
  if (access.target !== target || (target !== undefined && target.length !== count))
    throw lostMemory(command);
  // Of one that has landed only the access structure stands here; the data is in the target, and exactly as long (Framer).
  const hasData = command === Command.REGION_READ && !landed;
  if (hasData) checkRegionReadReply(bytes, start, end, offset, region, count);
  else checkRegionWriteReply(bytes, start, end, offset, region, count);
  return landed ? (undefined as T) : access.take(bytes, start + REGION_ACCESS_SIZE, access);
}
