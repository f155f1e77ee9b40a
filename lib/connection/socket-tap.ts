/**
 * Tells a tap of the messages of one socket. The channel asks for one when somebody listens, at any time: a subscriber of the
 * diagnostics channel may come while the device is open. While nobody does a message costs the question, and nothing stands
 * between the channel and its transport.
 */
import type { VfioUserError } from '../errors.js';
import { headerSize } from '../protocol/header.js';
import {
  LANDING_PREFIX,
  sizeOf,
  wholeMessage,
  type Landing,
  type MessageTap,
  type OutgoingMessage,
  type Transport,
} from '../transport/index.js';

export class SocketTap {
  readonly #tap: MessageTap;
  /** Its name. */
  readonly #socket: string;
  /** The message that is being handed to the socket, until the tap has heard of it. */
  #message: OutgoingMessage | undefined;

  constructor(tap: MessageTap, socket: string) {
    this.#tap = tap;
    this.#socket = socket;
  }

  /** `transport.trySend`. */
  trySend(transport: Transport, message: OutgoingMessage, sent: number): number {
    this.#message = message;
    const took = transport.trySend(message, sent);
    // Told when all of it has gone, and not before: who listens may send, and the rest of this one comes first.
    if (sent + took === sizeOf(message)) this.#tellSent();
    else this.#message = undefined;
    return took;
  }

  onMessage(bytes: Buffer, start: number, end: number, fds: number[] | undefined): void {
    this.#tellSent();
    this.#tap.received(this.#socket, bytes, start, end, fds, undefined);
  }

  onLanded(bytes: Buffer, start: number, landing: Landing, fds: number[] | undefined): void {
    this.#tellSent();
    this.#tap.received(this.#socket, bytes, start, start + LANDING_PREFIX, fds, landing.target);
  }

  onEnd(reason: VfioUserError): void {
    this.#tap.ended(this.#socket, reason);
  }

  /**
   * Tells of what is going out, once. A stream may bring the answer while it takes the question, within `trySend`: the tap
   * still hears of the question first.
   */
  #tellSent(): void {
    const message = this.#message;
    if (message === undefined) return;
    this.#message = undefined;
    if (message.body === null) this.#tellEach(message);
    else this.#tap.sent(this.#socket, message);
  }

  /** It may be several messages, which were gathered before anybody listened. */
  #tellEach({ head, headLength, fds }: OutgoingMessage): void {
    const bytes = Buffer.from(head.buffer, head.byteOffset, headLength);
    for (let at = 0; at < headLength;) {
      const size = headerSize(bytes, at);
      this.#tap.sent(this.#socket, wholeMessage(bytes.subarray(at, at + size), at === 0 ? fds : null));
      at += size;
    }
  }
}
