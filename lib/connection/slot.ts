/**
 * A slot is one call that waits for its reply. Slots are reused, so that a call allocates nothing but its promise.
 *
 * ```
 *            room in flight        reply, error, close
 *   queued ────────────────▶ sent ─────────────────────▶ free
 *     │ deadline, abort       │ deadline, abort
 *     ▼                       ▼                late reply
 *   free                  tombstone ────────────────────▶ free
 * ```
 * A tombstone keeps its id reserved until the late reply has been drained: the next call with that id would be given
 * somebody else's answer.
 */
import { TimeoutError } from '../errors.js';
import { commandName } from '../protocol/constants.js';
import type { Landing } from '../transport/index.js';

/** Makes the call's result of a reply's payload. What it does not take out of `fds` (set to -1) is closed. */
export type Decoder<T> = (slot: Slot, bytes: Buffer, start: number, end: number, fds: number[]) => T;

/** A message that waits for room in flight. */
export interface QueuedMessage {
  /** Undefined once its caller has given up. */
  slot: Slot | undefined;
  /** No reply will come, so it needs no room: it waits for its turn alone. */
  posted: boolean;
  head: Buffer;
  body: Uint8Array | null;
  fds: readonly number[] | null;
}

/** Writes that went as one message. A write of which `slot.batch` is another, or none, has been answered. */
export interface WriteBatch {
  readonly slots: readonly Slot[];
  /** The call of the message. */
  readonly carrier: Slot;
  /** How many of the writes somebody waits for. */
  waiting: number;
}

export type SlotState = 'free' | 'queued' | 'batched' | 'sent' | 'tombstone';

export class Slot implements Landing {
  state: SlotState = 'free';
  /** The message id, from the time that it is sent. */
  id = -1;
  command = 0;
  decode: Decoder<unknown> = decodeNothing;
  /** A synchronous call looks into the slot: `settled`, then `value` or `error`. */
  synchronous = false;

  /** What was asked, for the decoders of region accesses; a field that a command does not have is 0. */
  region = 0;
  offset = 0;
  count = 0;
  /** Memory of the caller's that the reply's data goes to. Taken back when the caller gives up. */
  target: Uint8Array | undefined;
  /** The reply's bytes were seen to echo the access and to be as many as it wants: a decoder need not look again. */
  isPlain = false;
  /** The reply's data went to `target` while it was received. */
  landed = false;

  resolve: (value: never) => void = ignore;
  reject: (reason: unknown) => void = ignore;

  /** When the call is given up, on `performance.now()`'s clock, rounded up; 0 for never. */
  deadline = 0;
  /** How long that is, rounded up. */
  timeoutMs = 0;

  /** Neighbours in the list of calls that somebody waits for, in the order of the calls. */
  previous: Slot | undefined;
  next: Slot | undefined;

  /** The message, while it waits for room in flight. */
  message: QueuedMessage | undefined;
  /** The message that carries this write with others, while it is `batched`: the id is the carrier's. */
  batch: WriteBatch | undefined;
  settled = false;
  value: unknown;
  error: unknown;
  signal: AbortSignal | undefined;
  onAbort: (() => void) | undefined;
  /** See `TrackedCallOptions`. */
  onAbandoned: (() => void) | undefined;
}

/** Makes a slot ready to be used by another call; nothing of the last one may stay reachable. */
export function clearSlot(slot: Slot): void {
  slot.state = 'free';
  slot.id = -1;
  slot.decode = decodeNothing;
  slot.target = undefined;
  slot.landed = false;
  slot.message = undefined;
  slot.batch = undefined;
  forgetCaller(slot);
  slot.deadline = 0;
  slot.synchronous = false;
  slot.settled = false;
  slot.value = undefined;
  slot.error = undefined;
}

/** Says what was asked, for the decoders of region accesses. */
export function aim(
  slot: Slot,
  region: number,
  offset: number,
  count: number,
  target: Uint8Array | undefined,
): void {
  slot.region = region;
  slot.offset = offset;
  slot.count = count;
  slot.target = target;
}

/** Why a call is given up whose time is over. */
export function timeoutError(slot: Slot): TimeoutError {
  return new TimeoutError(commandName(slot.command), slot.timeoutMs);
}

/** The caller is answered, or has gone. */
export function forgetCaller(slot: Slot): void {
  slot.resolve = ignore;
  slot.reject = ignore;
  if (slot.onAbort !== undefined) slot.signal!.removeEventListener('abort', slot.onAbort);
  slot.signal = undefined;
  slot.onAbort = undefined;
  slot.onAbandoned = undefined;
}

function ignore(): void {}

function decodeNothing(): undefined {
  return undefined;
}
