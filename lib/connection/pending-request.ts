/**
 * A slot is one call that waits for its reply. Slots are reused, so that a call allocates nothing but its promise.
 *
 * ```
 *            room in flight        reply, error, close
 *   queued ────────────────▶ sent ─────────────────────▶ free
 *     │ deadline, abort,      │ deadline, abort
 *     │ stall                 │
 *     ▼                       ▼                late reply
 *   free                  tombstone ────────────────────▶ free
 * ```
 * A tombstone keeps its id reserved until the late reply has been drained: the next call with that id would be given
 * somebody else's answer.
 */
import type { Landing } from '../transport/index.js';
import type { AbortListener } from './abort-listeners.js';
import type { Timed } from './deadlines.js';
import type { Linked } from './linked-list.js';
import type { OutboxEntry, OutboxOwner } from './send-queue.js';
import type { RegionAccess } from './region-access-codec.js';

/** Makes the call's result of a reply's payload. What it does not take out of `fds` (set to -1) is closed. */
export type Decoder<T> = (bytes: Buffer, start: number, end: number, fds: number[]) => T;

/** A message that waits for room in flight. */
export interface QueuedMessage extends Linked<QueuedMessage> {
  /** Undefined for a posted message: no reply will come, so it needs no room, and waits for its turn alone. */
  readonly slot: Slot | undefined;
  readonly head: Buffer;
  readonly body: Uint8Array | null;
  readonly fds: readonly number[] | null;
}

export type SlotState = 'free' | 'queued' | 'sent' | 'tombstone';

export class Slot implements Landing, Linked<Slot>, Timed, OutboxOwner {
  state: SlotState = 'free';
  /** The message id, from the time that it is sent. */
  id = -1;
  command = 0;
  decode: Decoder<unknown> = decodeNothing;
  /** A synchronous call looks into the slot: `settled`, then `value` or `error`. */
  synchronous = false;

  /** What was asked, where that is an access to a region: its reply is decoded by that, and not by `decode`. */
  access: RegionAccess<unknown> | undefined;
  /** Memory of the caller's that the reply's data goes to. Taken back when the caller gives up. */
  target: Uint8Array | undefined;

  resolve: (value: never) => void = ignore;
  reject: (reason: unknown) => void = ignore;

  /** When the call is given up, on `performance.now()`'s clock, rounded up; 0 for never, or not yet. */
  deadline = 0;
  heapIndex = -1;
  /** How long the call, or its message, may take. In milliseconds, rounded up. */
  timeoutMs = 0;
  /** The deadline is the default one: it begins when the message is sent. */
  startsWhenSent = false;
  /** The message waits to be sent. */
  isHeld = false;

  /** Neighbours in the list of calls that somebody waits for, in the order of the calls. */
  previous: Slot | undefined;
  next: Slot | undefined;

  /** The message, while it waits for room in flight. */
  message: QueuedMessage | undefined;
  /** The message, while it waits for room in the socket. */
  entry: OutboxEntry | undefined;
  settled = false;
  value: unknown;
  error: unknown;
  /** Of the caller's signal. */
  abortListener: AbortListener | undefined;
  /** See `TrackedCallOptions`. */
  onAbandoned: (() => void) | undefined;

  /** The call is this access. */
  aim(access: RegionAccess<unknown>): void {
    this.access = access;
    this.target = access.target;
  }
}

/** Makes a slot ready to be used by another call; nothing of the last one may stay reachable. */
export function clearSlot(slot: Slot): void {
  slot.state = 'free';
  slot.id = -1;
  slot.decode = decodeNothing;
  slot.access = undefined;
  slot.target = undefined;
  slot.message = undefined;
  slot.entry = undefined;
  forgetCaller(slot);
  slot.startsWhenSent = false;
  slot.synchronous = false;
  slot.settled = false;
  slot.value = undefined;
  slot.error = undefined;
}

/** The caller is answered, or has gone. */
export function forgetCaller(slot: Slot): void {
  slot.resolve = ignore;
  slot.reject = ignore;
  slot.abortListener?.remove();
  slot.abortListener = undefined;
  slot.onAbandoned = undefined;
}

function ignore(): void {}

function decodeNothing(): undefined {
  return undefined;
}
