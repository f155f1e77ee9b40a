/**
 * The caller's memory in a call that waits: its ArrayBuffer may be transferred away, or resized, at any time. What is
 * sent and received is checked against what was asked for, so that it ends that one call and nothing else.
 */
import { commandName } from '../protocol/constants.js';
import { headerSize } from '../protocol/header.js';
import { sizeOf } from '../transport/index.js';
import type { EncodedMessage } from './send-queue.js';

/** Whether the message's body still has the bytes that its header promises. */
export function isWhole(message: EncodedMessage): boolean {
  return headerSize(message.head, 0) === sizeOf(message);
}

/** Why a call fails whose memory is not what it was. */
export function lostMemory(command: number): TypeError {
  return new TypeError(
    `${commandName(command)}: the array was detached or resized while the call was under way`,
  );
}

/**
 * A part of an array that had `length` bytes when the call of the command was made.
 * @throws TypeError where it has another length now.
 */
export function partOf(
  bytes: Uint8Array,
  length: number,
  at: number,
  count: number,
  command: number,
): Uint8Array {
  if (bytes.length !== length) throw lostMemory(command);
  return bytes.subarray(at, at + count);
}

/**
 * Refuses an array that has lost its memory: it looks like an empty one.
 * @throws TypeError.
 */
export function checkAttached(name: string, bytes: Uint8Array): void {
  if (bytes.length > 0) return;
  try {
    // Every method of the prototype looks at the memory first; Buffer has its own of some.
    Uint8Array.prototype.at.call(bytes, 0);
  } catch (cause) {
    throw new TypeError(`${name} has no memory: its ArrayBuffer was detached, or is shorter now`, { cause });
  }
}
