/** One socket of a connection: a transport, what leaves through it, and what is counted of both. */
import type { VfioUserError } from '../errors.js';
import { headerSize } from '../protocol/header.js';
import type { Landing, MessageTap, Transport, TransportHandler } from '../transport/index.js';
import { countReceived, countSent, type Counters } from './counters.js';
import { Outbox, type MessageSender, type OutboxOwner } from './send-queue.js';
import { SocketTap } from './socket-tap.js';

/** Answers that wait in the outbox beyond this stop us reading: a server that asks and does not listen gets no more. */
const OUTBOX_HIGH_WATER = 4 << 20;

/** What handling a message that nobody asked for weighs: the answer to a request takes a system call. */
export const REQUEST_WEIGHT = 8;
export const STRAY_WEIGHT = 1;
/** Once so much was handled the loop turns before more is: a server that floods gets its share, and others theirs. */
const UNASKED_A_TURN = 16;
/** Messages that waited for room and leave in one turn of the loop. */
const FLUSHED_A_TURN = 32;

/** What a channel hands to its connection. */
export interface ChannelHandler {
  onMessage(channel: Channel, bytes: Buffer, start: number, end: number, fds: number[] | undefined): void;
  findLanding(channel: Channel, bytes: Buffer, start: number): Landing | undefined;
  onLanded(channel: Channel, bytes: Buffer, start: number, landing: Landing, fds: number[] | undefined): void;
  /** All of a message has gone that had to wait for room in the socket. */
  onSent(owner: OutboxOwner): void;
  onEnd(channel: Channel, reason: VfioUserError): void;
}

export interface ChannelOptions {
  /** Opens the transport with the handler that it will talk to. */
  open: (handler: TransportHandler) => Transport;
  handler: ChannelHandler;
  counters: Counters;
  /** Hears of the messages while it is active. */
  tap: MessageTap | undefined;
  /** What the tap calls the socket; the transport's peer where nothing is said. */
  socket?: string;
}

export class Channel implements TransportHandler, MessageSender {
  readonly transport: Transport;
  /** Replies to the server's requests are encoded here: a header and up to 48 bytes. Sent, or copied, before the next. */
  readonly replyHead = Buffer.alloc(64);
  #outbox: Outbox | undefined;
  readonly #counters: Counters;
  readonly #handler: ChannelHandler;
  readonly #tap: MessageTap | undefined;
  readonly #socket: string | undefined;
  /** Made when somebody listens for the first time. */
  #socketTap: SocketTap | undefined;
  /** False while more answers wait than is good. */
  #reading = true;
  #looks: NodeJS.Immediate | undefined;
  #referenced = true;
  /** Reading, or flushing, goes on when the loop has turned. */
  #readsAgain: NodeJS.Immediate | undefined;
  #flushesAgain: NodeJS.Immediate | undefined;
  #unasked = 0;
  /** The transport's turn that this is for. */
  #turn = 0;

  constructor({ open, handler, counters, tap, socket }: ChannelOptions) {
    this.#handler = handler;
    this.#counters = counters;
    this.#tap = tap;
    this.#socket = socket;
    this.transport = open(this);
  }

  /**
   * What waits to be sent. Made for the first message that does not go at once, and undefined before: so a process with a
   * thousand connections fetches less for each.
   */
  get outbox(): Outbox | undefined {
    return this.#outbox;
  }

  /** See `Outbox.send`. */
  send(
    owner: OutboxOwner | undefined,
    head: Buffer,
    headLength: number,
    body: Uint8Array | null,
    fds: readonly number[] | null,
    stable: boolean,
  ): void {
    const total = headLength + (body === null ? 0 : body.length);
    countSent(this.#counters, total);
    if (this.#outbox === undefined) {
      const sent = this.trySend(head, headLength, body, 0, fds);
      if (sent === total) return;
      this.#anOutbox().keepRest(owner, head, headLength, body, sent, fds, stable);
    } else this.#outbox.send(owner, head, headLength, body, fds, stable);
    this.#mindTheOutbox();
  }

  /** `Transport.trySend`. */
  trySend(
    head: Uint8Array,
    headLength: number,
    body: Uint8Array | null,
    sent: number,
    fds: readonly number[] | null,
  ): number {
    return (
      this.#listener?.trySend(this.transport, head, headLength, body, sent, fds) ??
      this.transport.trySend(head, headLength, body, sent, fds)
    );
  }

  /** Whether one `trySend` may have several messages: who listens hears of one at a time. */
  get takesMany(): boolean {
    return this.transport.takesMany && this.#tap?.active !== true;
  }

  /** Sends what is left of a message of which `sent` bytes went out by `QuickFace.roundTrip`; it is counted already. */
  sendRest(owner: OutboxOwner, head: Buffer, headLength: number, sent: number): void {
    const outbox = this.#anOutbox();
    // None of it has gone: it is tried again, so that the transport tells when there is room.
    if (sent === 0) outbox.send(owner, head, headLength, null, null, false);
    else outbox.keepRest(owner, head, headLength, null, sent, null, false);
  }

  /** Nothing waits to be sent or received: a message that goes now, quickly, is the next, and what comes is new. */
  get isQuiet(): boolean {
    const isQuiet = this.#outbox === undefined || this.#outbox.isQuiet;
    return (
      isQuiet &&
      this.#reading &&
      this.#readsAgain === undefined &&
      this.transport.quick?.canRoundTrip === true
    );
  }

  /** Somebody awaits an answer: it is looked for when the code that is running has returned to the loop. */
  lookSoon(): void {
    if (!this.transport.canLook) return;
    this.#looks ??= this.#afterTurn(this.#look);
  }

  /** See `Outbox.sendSoon`. */
  sendSoon(owner: OutboxOwner, head: Buffer): void {
    countSent(this.#counters, head.length);
    this.#anOutbox().sendSoon(owner, head);
  }

  onMessage(bytes: Buffer, start: number, end: number, fds: number[] | undefined): void {
    this.#listener?.onMessage(bytes, start, end, fds);
    countReceived(this.#counters, end - start);
    this.#handler.onMessage(this, bytes, start, end, fds);
  }

  findLanding(bytes: Buffer, start: number): Landing | undefined {
    return this.#handler.findLanding(this, bytes, start);
  }

  onLanded(bytes: Buffer, start: number, landing: Landing, fds: number[] | undefined): void {
    this.#listener?.onLanded(bytes, start, landing, fds);
    countReceived(this.#counters, headerSize(bytes, start));
    this.#handler.onLanded(this, bytes, start, landing, fds);
  }

  onWritable(): void {
    const outbox = this.#outbox;
    if (outbox === undefined) return;
    if (!outbox.flush(FLUSHED_A_TURN)) this.#flushesAgain ??= this.#afterTurn(() => this.#flushAgain());
    if (!this.#reading && outbox.answerBytes <= OUTBOX_HIGH_WATER) this.#setReading(true);
  }

  onEnd(reason: VfioUserError): void {
    this.#listener?.onEnd(reason);
    this.#handler.onEnd(this, reason);
  }

  /** A message came that nobody asked for. */
  weigh(weight: number): void {
    const { turn } = this.transport;
    if (turn !== this.#turn) {
      this.#turn = turn;
      this.#unasked = 0;
    }
    this.#unasked += weight;
    if (this.#unasked < UNASKED_A_TURN) return;
    this.#unasked = 0;
    if (this.#readsAgain !== undefined || !this.#reading) return;
    this.#readsAgain = this.#afterTurn(() => this.#readAgain());
    this.transport.setReading(false);
  }

  /** Whoever blocks cannot wait for the loop to turn: reading goes on at once. */
  hurry(): void {
    if (this.#readsAgain === undefined) return;
    clearImmediate(this.#readsAgain);
    this.#readAgain();
  }

  /** Whether the loop stays alive for this socket's sake. */
  setReferenced(on: boolean): void {
    this.#referenced = on;
    if (on) this.transport.ref();
    else this.transport.unref();
  }

  close(): void {
    clearImmediate(this.#readsAgain);
    clearImmediate(this.#flushesAgain);
    clearImmediate(this.#looks);
    this.#anOutbox().close();
    this.transport.close();
  }

  /** Undefined while nobody listens. */
  get #listener(): SocketTap | undefined {
    const tap = this.#tap;
    if (tap?.active !== true) return undefined;
    return (this.#socketTap ??= new SocketTap(tap, this.#socket ?? this.transport.peer));
  }

  #anOutbox(): Outbox {
    return (this.#outbox ??= new Outbox(this, (owner) => this.#handler.onSent(owner)));
  }

  #mindTheOutbox(): void {
    const waiting = this.#outbox?.answerBytes ?? 0;
    if (this.#reading && waiting > OUTBOX_HIGH_WATER) this.#setReading(false);
  }

  #setReading(on: boolean): void {
    this.#reading = on;
    if (this.#readsAgain === undefined) this.transport.setReading(on);
  }

  #afterTurn(work: () => void): NodeJS.Immediate {
    const immediate = setImmediate(work);
    return this.#referenced ? immediate : immediate.unref();
  }

  readonly #look = (): void => {
    this.#looks = undefined;
    this.transport.look();
  };

  #readAgain(): void {
    this.#readsAgain = undefined;
    if (this.#reading) this.transport.setReading(true);
  }

  #flushAgain(): void {
    this.#flushesAgain = undefined;
    this.onWritable();
  }
}
