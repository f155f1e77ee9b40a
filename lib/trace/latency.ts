/** How long replies took: requests that wait for one, by socket, direction and id. */
import {
  HEADER_FLAG_COMMAND,
  HEADER_FLAG_NO_REPLY,
  HEADER_FLAG_REPLY,
  HEADER_FLAG_TYPE_MASK,
  HEADER_SIZE,
} from '../protocol/constants.js';
import { headerFlags, headerId } from '../protocol/header.js';
import type { TracedMessage } from './traced-message.js';

/** Requests that are remembered; ids are 16 bits, so no real connection has more. The oldest are forgotten. */
const MAX_PENDING = 65536;

/**
 * Pairs replies with their requests, and measures how long each took.
 *
 * @example
 * ```ts
 * const tracker = new LatencyTracker();
 * for await (const message of new CaptureReader('dev.pcapng')) {
 *   const nanoseconds = tracker.latencyOf(message);
 *   if (nanoseconds !== undefined) console.log(describe(message.bytes).command, nanoseconds);
 * }
 * ```
 */
export class LatencyTracker {
  readonly #pending = new Map<string, bigint>();

  /**
   * The nanoseconds since the request where `message` is its reply; undefined for any other message. To be called once for
   * each message, in order.
   */
  latencyOf(message: TracedMessage): bigint | undefined {
    const { socket, direction, bytes, time } = message;
    if (bytes.length < HEADER_SIZE) return undefined;
    const flags = headerFlags(bytes, 0);
    const type = flags & HEADER_FLAG_TYPE_MASK;
    const isReply = type === HEADER_FLAG_REPLY;
    // Each side numbers its own requests: a reply belongs to the other direction.
    const asked = (direction === 'sent') !== isReply;
    const key = `${headerId(bytes, 0)}${asked ? '>' : '<'}${socket}`;
    if (isReply) return this.#answer(key, time);
    if (type === HEADER_FLAG_COMMAND && (flags & HEADER_FLAG_NO_REPLY) === 0) this.#ask(key, time);
    return undefined;
  }

  #ask(key: string, time: bigint): void {
    this.#pending.set(key, time);
    if (this.#pending.size <= MAX_PENDING) return;
    const oldest = this.#pending.keys().next();
    if (oldest.done !== true) this.#pending.delete(oldest.value);
  }

  #answer(key: string, time: bigint): bigint | undefined {
    const asked = this.#pending.get(key);
    if (asked === undefined) return undefined;
    this.#pending.delete(key);
    return time - asked;
  }
}
