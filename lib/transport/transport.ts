/**
 * A transport carries whole messages, with the fds that belong to them, over one stream. It knows the header's
 * size field and nothing else of the protocol.
 */
import { ClosedError, VfioUserError } from '../errors.js';
import type { FastPathMemory } from '../native.js';

/**
 * Memory that the rest of a long message goes to directly. Whoever lends it may take it back (`target = undefined`), and so
 * does the transport where the array has lost its memory.
 */
export interface Landing {
  target: Uint8Array | undefined;
}

/** The first bytes of a message that are always delivered in the message's own memory: header and access structure. */
export const LANDING_PREFIX = 32;

/** The most bytes that one incoming message may have: 1 MiB of data and what stands before it. */
export const MAX_MESSAGE_SIZE = (1 << 20) + 4096;

/** The most fds that one incoming message may bring; also what we advertise as max_msg_fds. */
export const MAX_MESSAGE_FDS = 64;

/** What a transport tells its owner. None of these may throw but with a VfioUserError, which ends the transport. */
export interface TransportHandler {
  /** A whole message in `bytes[start, end)`, valid until this returns. `fds` are the handler's from here on. */
  onMessage(bytes: Buffer, start: number, end: number, fds: number[] | undefined): void;
  /**
   * A message is longer than what has come; its first `LANDING_PREFIX` bytes stand at `start`. Memory for exactly the
   * bytes behind them, or undefined to have the message assembled.
   */
  findLanding(bytes: Buffer, start: number): Landing | undefined;
  /** The bytes behind the prefix went to the landing (or nowhere, where it was taken back meanwhile). */
  onLanded(bytes: Buffer, start: number, landing: Landing, fds: number[] | undefined): void;
  /** The beginning of a message has come, and the rest has not: `Transport.begun` is `begun` until it has. */
  onBegun?(begun: number): void;
  /** There is room again after `trySend` took less than all. */
  onWritable(): void;
  /** The stream has ended, with the reason; said once, and never after `close()`. */
  onEnd(reason: VfioUserError): void;
}

/** Why the transport ends whose handler has thrown this. A mistake of ours ends the connection, not the process. */
export function endOf(thrown: unknown): VfioUserError {
  if (thrown instanceof VfioUserError) return thrown;
  return new ClosedError(`the connection failed: ${String(thrown)}`, { cause: thrown });
}

/**
 * The fast path of a small synchronous call: one native call sends a message from memory that the thread's connections
 * share, and receives what comes next into it. Usable only while the connection is idle; it bypasses taps.
 */
export interface FastPathSocket {
  readonly memory: FastPathMemory;
  /**
   * The user of the fast path has found the connection idle, and since then nothing but round trips with the expected reply
   * has gone through this transport. The user sets it, the transport clears it.
   */
  isKnownIdle: boolean;
  /** Whether what comes next is the beginning of a message, and may be received. */
  readonly canRoundTrip: boolean;
  /**
   * Sends `memory[0, length)`, a message without fds, and waits up to `timeoutMs` (one slice) for bytes on this transport or
   * the `other`. Returns how many bytes were received to `memory[FAST_PATH_REPLY_AT)`; they have not been looked at. Where
   * that is not what was expected, `afterRoundTrip` follows.
   */
  roundTrip(length: number, timeoutMs: number, other: FastPathSocket | undefined): number;
  /**
   * Interprets an unexpected `result` of `roundTrip` of `length` bytes. Positive: that many bytes were received, which the
   * caller parses or has `handOver` treat as any others; fds that came with them are closed. 0: nothing came, the other
   * transport had something first, or the transport has ended. -n: the last n bytes could not be sent.
   *
   * Unless the answer is negative, the double at `memory[FAST_PATH_WAITED_AT)` is how long that took, in milliseconds; where
   * it is positive, the word at `memory[FAST_PATH_OTHER_AT)` is not 0 when the other transport has something to receive.
   */
  afterRoundTrip(result: number, length: number): number;
  /** Treats `count` bytes that `roundTrip` has received as any others. */
  handOver(count: number): void;
}

/**
 * How long waits spin now. The intervals adapt between 0, while spinning does not pay, and `spinUs`
 * (`ConnectOptions.spinUs`).
 */
export interface SpinState {
  /** Before a synchronous call blocks, in microseconds: 0 to `spinUs`. */
  readonly blocking: number;
  /** Before the event loop sleeps while a reply is awaited, in microseconds: 0 to `spinUs`, at most 20. */
  readonly awaiting: number;
}

export const NO_SPIN: SpinState = { blocking: 0, awaiting: 0 };

/** The other end, where it is in this thread and answers from within `trySend`. */
export interface InProcessPeer {
  /** It carries out an earlier message, or has one to answer: another one waits, whatever the caller does. */
  readonly isBusy: boolean;
  /** Why it has just answered the command of that id with an error; undefined where it cannot tell. */
  refusalOf?(id: number): unknown;
}

/** A message to send: `head[0, headLength)`, then `body`. */
export interface OutgoingMessage {
  /** The header, and the fields behind it. */
  readonly head: Uint8Array;
  /** How many bytes of `head` belong to the message. */
  readonly headLength: number;
  /** Data that follows, or null. */
  readonly body: Uint8Array | null;
  /** File descriptors that leave with the first byte. They must stay open until it has been sent. */
  readonly fds: readonly number[] | null;
}

/** A message that stands in one piece of memory. */
export function wholeMessage(bytes: Uint8Array, fds: readonly number[] | null = null): OutgoingMessage {
  return { head: bytes, headLength: bytes.length, body: null, fds };
}

/** How many bytes a message has. */
export function sizeOf({ headLength, body }: OutgoingMessage): number {
  return body === null ? headLength : headLength + body.length;
}

/** One stream of messages. */
export interface Transport {
  /** Whether file descriptors can be passed. */
  readonly passesFds: boolean;
  /** Whether the functions named Sync work. */
  readonly canBlock: boolean;
  /** Whether `receiveSpinning` does anything. */
  readonly canSpin: boolean;
  /** Whether one `trySend` may have several messages; it changes with what listens to them. */
  readonly takesMany: boolean;
  /** What a person would call the other end. */
  readonly peer: string;
  /** Whether the other end is served on this thread's event loop: what blocks that would never be answered. */
  readonly isServedHere: boolean;
  /** What comes is answered on this thread's event loop, as a server does it. */
  serveHere(): void;
  /** Undefined where the other end is not reached by a call: then there is something to wait for. */
  readonly inProcess?: InProcessPeer | undefined;
  /** Undefined where there is none. */
  readonly fastPath: FastPathSocket | undefined;
  /** Another number each time that the loop, or a wait, brings something to receive: what came before had its turn. */
  readonly turn: number;

  /**
   * Sends as much as goes out without waiting of a message whose first `sent` bytes went out before. Takes nothing by
   * reference: `head` and `body` may be reused at once. Returns the bytes taken; less than the rest means that `onWritable`
   * will tell when to go on.
   */
  trySend(message: OutgoingMessage, sent: number): number;

  /** Receives, and spins a moment for it where that has lately paid: to sleep and be woken takes longer. */
  receiveSpinning(): void;
  /** How long waits spin now. */
  readonly spin: SpinState;
  /** Waits up to `timeoutMs` for the socket to take bytes again, receiving what comes meanwhile. */
  flushSync(timeoutMs: number, other: Transport | undefined): void;
  /** Waits up to `timeoutMs` (one slice) for messages, on this or the `other` transport, and hands them to the handlers. */
  receiveSync(timeoutMs: number, other: Transport | undefined): void;

  /** The number of the message that has begun and not ended; 0 where none has. */
  readonly begun: number;
  /** Whether what comes is received. */
  readonly isReading: boolean;
  /** Stops or goes on reading, for back-pressure. */
  setReading(on: boolean): void;
  ref(): void;
  unref(): void;
  /** Ends the transport; idempotent. The handler hears nothing any more. */
  close(): void;
}
