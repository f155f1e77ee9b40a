/**
 * Small writes that wait for room in flight leave as one REGION_WRITE_MULTI, where the server takes it (specification:
 * VFIO_USER_REGION_WRITE_MULTI): consecutive ones only, so that the order of all commands is the caller's.
 *
 * Each write keeps its own call: its promise, deadline and signal. The message has a call of its own, the carrier, that
 * holds the id; when its reply comes, the first so many writes are done and the others have failed.
 */
import { RemoteError } from '../errors.js';
import { Command, HEADER_SIZE } from '../protocol/constants.js';
import { REGION_ACCESS_SIZE } from '../protocol/region-access.js';
import {
  MAX_MULTI_WRITES,
  decodeRegionWriteMultiReply,
  encodeRegionWriteMulti,
} from '../protocol/region-write-multi.js';
import { isWhole } from './memory.js';
import type { LinkedList } from './linked-list.js';
import type { QueuedMessage, Slot } from './slot.js';

/** The most bytes of one write that a message may carry. */
const MAX_WRITE_BYTES = 8;
/** Header, wr_cnt, and what each write takes. */
const HEAD_BYTES = HEADER_SIZE + 8;
const WRITE_BYTES = 24;

/** The most writes in one message to a server that takes messages with `maxDataXferSize` bytes of data. */
export function mostWrites(maxDataXferSize: number): number {
  const room = HEADER_SIZE + REGION_ACCESS_SIZE + maxDataXferSize - HEAD_BYTES;
  return Math.min(MAX_MULTI_WRITES, Math.floor(room / WRITE_BYTES));
}

/** Takes the writes out of the front of the queue that can go as one message; none where there are not two. */
export function takeWrites(queue: LinkedList<QueuedMessage>, most: number): QueuedMessage[] {
  const writes: QueuedMessage[] = [];
  for (let message = queue.first; message !== undefined; message = message.next) {
    if (!isSmallWrite(message) || writes.length === most) break;
    writes.push(message);
  }
  if (writes.length < 2) return [];
  for (const write of writes) queue.remove(write);
  return writes;
}

/** The payload of the message. */
export function encodeWrites(writes: readonly QueuedMessage[]): Buffer {
  return encodeRegionWriteMulti(
    writes.map(({ slot, body }) => ({ offset: slot!.offset, region: slot!.region, data: body! })),
  );
}

/** How many of `sent` writes were done. */
export function decodeDone(sent: number, bytes: Buffer, start: number, end: number): number {
  return Math.min(sent, decodeRegionWriteMultiReply(bytes, start, end).count);
}

/** Why a write that the reply does not count has failed: the server does not say. */
export function notDone(): RemoteError {
  return new RemoteError('REGION_WRITE_MULTI', 0);
}

function isSmallWrite({ slot, head, body, fds }: QueuedMessage): boolean {
  return (
    slot !== undefined &&
    isPlainWrite(slot) &&
    fds === null &&
    body !== null &&
    body.length <= MAX_WRITE_BYTES &&
    isWhole(head, body)
  );
}

function isPlainWrite(slot: Slot): boolean {
  return slot.command === Command.REGION_WRITE && !slot.synchronous;
}
