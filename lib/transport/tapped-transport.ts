/**
 * A tap hears of every message that goes through a transport, in the order on the wire, and changes nothing. It sits
 * around the transport, so that a transport without a tap pays nothing, and neither side knows of it.
 *
 * ```
 *   channel ── trySend ──▶ TappedTransport ── trySend ──▶ UnixTransport
 *           ◀─ onMessage ─        │        ◀─ onMessage ─
 *                                 ▼ sent, received, ended
 *                             MessageTap
 * ```
 */
import type { VfioUserError } from '../errors.js';
import type { Landing, QuickFace, SpinState, Transport, TransportHandler } from './transport.js';
import { LANDING_PREFIX } from './transport.js';

/**
 * What hears of messages. `socket` is the name of the socket that they go through. Memory is lent until the function
 * returns, and fds stay their owner's. None of these throws.
 */
export interface MessageTap {
  /** Asked before each message: while it is false no other function is called, and none is running. */
  readonly active: boolean;
  /** One of the functions below is running: what is called from there must not block for a message. */
  readonly telling: boolean;
  /** `head[0, headLength) + body` has gone out, all of it. */
  sent(
    socket: string,
    head: Uint8Array,
    headLength: number,
    body: Uint8Array | null,
    fds: readonly number[] | null,
  ): void;
  /**
   * A message has come and is about to be handled: `bytes[start, end)`, followed by `rest` where its data went to
   * memory of its own. It is shorter than its header says where that memory was taken back meanwhile.
   */
  received(
    socket: string,
    bytes: Buffer,
    start: number,
    end: number,
    fds: readonly number[] | undefined,
    rest: Uint8Array | undefined,
  ): void;
  /** An interrupt's eventfd had a count: no message shows it. Said by whoever reads the eventfd. */
  interrupt(socket: string, index: number, subindex: number, count: number): void;
  /** The stream has ended, other than by our closing it. */
  ended(socket: string, reason: VfioUserError): void;
}

/** Opens a transport with the handler that it will talk to. */
type Open = (handler: TransportHandler) => Transport;

/** `open`, with `tap` around what it opens. The socket's name is the transport's peer unless it is given. */
export function tapped(open: Open, tap: MessageTap | undefined, socket?: string): Open {
  return tap === undefined ? open : (handler) => new TappedTransport(open, handler, tap, socket);
}

class TappedTransport implements Transport, TransportHandler {
  readonly #tap: MessageTap;
  readonly #inner: Transport;
  readonly #handler: TransportHandler;
  /** Only while nobody listens: what is sent and received there is not told. */
  readonly quick: QuickFace | undefined;
  readonly passesFds: boolean;
  readonly canBlock: boolean;
  readonly canLook: boolean;
  readonly peer: string;
  readonly #socket: string;
  /** The message that is being handed to the socket, until the tap has heard of it. */
  #head: Uint8Array | undefined;
  #headLength = 0;
  #body: Uint8Array | null = null;
  #fds: readonly number[] | null = null;

  constructor(open: Open, handler: TransportHandler, tap: MessageTap, socket: string | undefined) {
    this.#handler = handler;
    this.#tap = tap;
    this.#inner = open(this);
    this.passesFds = this.#inner.passesFds;
    this.canBlock = this.#inner.canBlock;
    this.canLook = this.#inner.canLook;
    this.quick = this.#inner.quick;
    this.peer = this.#inner.peer;
    this.#socket = socket ?? this.peer;
  }

  get isServedHere(): boolean {
    return this.#inner.isServedHere;
  }

  serveHere(): void {
    this.#inner.serveHere();
  }

  get turn(): number {
    return this.#inner.turn;
  }

  get begun(): number {
    return this.#inner.begun;
  }

  get isReading(): boolean {
    return this.#inner.isReading;
  }

  /** Whoever listens hears of one message at a time. */
  get takesMany(): boolean {
    return this.#inner.takesMany && !this.#tap.active;
  }

  trySend(
    head: Uint8Array,
    headLength: number,
    body: Uint8Array | null,
    sent: number,
    fds: readonly number[] | null,
  ): number {
    if (!this.#tap.active) return this.#inner.trySend(head, headLength, body, sent, fds);
    this.#head = head;
    this.#headLength = headLength;
    this.#body = body;
    this.#fds = fds;
    const took = this.#inner.trySend(head, headLength, body, sent, fds);
    // Told when all of it has gone, and not before: who listens may send, and the rest of this one comes first.
    if (sent + took === headLength + (body === null ? 0 : body.length)) this.#tellSent();
    else this.#head = undefined;
    return took;
  }

  look(): void {
    this.#inner.look();
  }

  get spin(): SpinState {
    return this.#inner.spin;
  }

  onMessage(bytes: Buffer, start: number, end: number, fds: number[] | undefined): void {
    if (this.#tap.active) {
      this.#tellSent();
      this.#tap.received(this.#socket, bytes, start, end, fds, undefined);
    }
    this.#handler.onMessage(bytes, start, end, fds);
  }

  findLanding(bytes: Buffer, start: number): Landing | undefined {
    return this.#handler.findLanding(bytes, start);
  }

  onLanded(bytes: Buffer, start: number, landing: Landing, fds: number[] | undefined): void {
    if (this.#tap.active) {
      this.#tellSent();
      this.#tap.received(this.#socket, bytes, start, start + LANDING_PREFIX, fds, landing.target);
    }
    this.#handler.onLanded(bytes, start, landing, fds);
  }

  onBegun(begun: number): void {
    this.#handler.onBegun?.(begun);
  }

  onWritable(): void {
    this.#handler.onWritable();
  }

  onEnd(reason: VfioUserError): void {
    if (this.#tap.active) this.#tap.ended(this.#socket, reason);
    this.#handler.onEnd(reason);
  }

  flushSync(timeoutMs: number, other: Transport | undefined): void {
    this.#inner.flushSync(timeoutMs, unwrap(other));
  }

  receiveSync(timeoutMs: number, other: Transport | undefined): void {
    this.#inner.receiveSync(timeoutMs, unwrap(other));
  }

  setReading(on: boolean): void {
    this.#inner.setReading(on);
  }

  ref(): void {
    this.#inner.ref();
  }

  unref(): void {
    this.#inner.unref();
  }

  close(): void {
    this.#inner.close();
  }

  static inner(transport: Transport): Transport {
    return transport instanceof TappedTransport ? transport.#inner : transport;
  }

  /**
   * Tells of the message that is going out, once. A stream may bring the answer while it takes the question, within
   * `trySend`: the tap still hears of the question first.
   */
  #tellSent(): void {
    const head = this.#head;
    if (head === undefined) return;
    this.#head = undefined;
    this.#tap.sent(this.#socket, head, this.#headLength, this.#body, this.#fds);
    this.#body = null;
    this.#fds = null;
  }
}

/** Transports of one kind wait together, and must know each other for it. */
function unwrap(transport: Transport | undefined): Transport | undefined {
  return transport === undefined ? undefined : TappedTransport.inner(transport);
}
