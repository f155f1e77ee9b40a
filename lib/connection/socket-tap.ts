/**
 * Tells a tap of the messages of one socket. The channel asks for one when somebody listens, at any time: a subscriber of the
 * diagnostics channel may come while the device is open. While nobody does a message costs the question, and nothing stands
 * between the channel and its transport.
 */
import type { VfioUserError } from '../errors.js';
import { headerSize } from '../protocol/header.js';
import { LANDING_PREFIX, type Landing, type MessageTap, type Transport } from '../transport/index.js';

export class SocketTap {
  readonly #tap: MessageTap;
  /** Its name. */
  readonly #socket: string;
  /** The message that is being handed to the socket, until the tap has heard of it. */
  #head: Uint8Array | undefined;
  #headLength = 0;
  #body: Uint8Array | null = null;
  #fds: readonly number[] | null = null;

  constructor(tap: MessageTap, socket: string) {
    this.#tap = tap;
    this.#socket = socket;
  }

  /** `transport.trySend`. */
  trySend(
    transport: Transport,
    head: Uint8Array,
    headLength: number,
    body: Uint8Array | null,
    sent: number,
    fds: readonly number[] | null,
  ): number {
    this.#head = head;
    this.#headLength = headLength;
    this.#body = body;
    this.#fds = fds;
    const took = transport.trySend(head, headLength, body, sent, fds);
    // Told when all of it has gone, and not before: who listens may send, and the rest of this one comes first.
    if (sent + took === headLength + (body === null ? 0 : body.length)) this.#tellSent();
    else this.#head = undefined;
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
    const head = this.#head;
    if (head === undefined) return;
    const body = this.#body;
    const fds = this.#fds;
    this.#head = undefined;
    this.#body = null;
    this.#fds = null;
    if (body !== null) {
      this.#tap.sent(this.#socket, head, this.#headLength, body, fds);
      return;
    }
    // They may be several, which were gathered before anybody listened.
    for (let at = 0; at < this.#headLength;) {
      const bytes = Buffer.from(head.buffer, head.byteOffset + at, this.#headLength - at);
      const size = headerSize(bytes, 0);
      this.#tap.sent(this.#socket, bytes, size, null, at === 0 ? fds : null);
      at += size;
    }
  }
}
