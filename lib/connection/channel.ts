/** One socket of a connection: a transport, what waits to leave through it, and what is counted of both. */
import type { VfioUserError } from '../errors.js';
import { headerSize } from '../protocol/header.js';
import {
  sizeOf,
  type FastPathSocket,
  type InProcessPeer,
  type Landing,
  type MessageTap,
  type OutgoingMessage,
  type SpinState,
  type Transport,
  type TransportHandler,
} from '../transport/index.js';
import type { Statistics } from './counters.js';
import { SendQueue, type EncodedMessage, type MessageSender, type SendQueueOwner } from './send-queue.js';
import { SocketTap } from './socket-tap.js';

/** Replies that wait to be sent beyond this stop reading: a server that asks and does not listen gets no more. In bytes. */
const REPLIES_HIGH_WATER = 4 << 20;

/** What handling a message costs that no call waits for: the reply to a request takes a system call. */
export const REQUEST_COST = 8;
export const STRAY_COST = 1;
/** Once handling cost so much the loop turns before more is read: a server that floods gets its share, and others theirs. */
const UNSOLICITED_PER_TURN = 16;
/** Messages that waited for room and leave in one turn of the loop. */
const FLUSHED_PER_TURN = 32;

/** What a channel hands to its connection. */
export interface ChannelHandler {
  onMessage(channel: Channel, bytes: Buffer, start: number, end: number, fds: number[] | undefined): void;
  findLanding(channel: Channel, bytes: Buffer, start: number): Landing | undefined;
  onLanded(channel: Channel, bytes: Buffer, start: number, landing: Landing, fds: number[] | undefined): void;
  /** All of a message has gone that had to wait for room in the socket. */
  onSent(owner: SendQueueOwner): void;
  onEnd(channel: Channel, reason: VfioUserError): void;
}

export interface ChannelOptions {
  /** Opens the transport with the handler that it will talk to. */
  open: (handler: TransportHandler) => Transport;
  handler: ChannelHandler;
  statistics: Statistics;
  /** Hears of the messages while it is active. */
  tap: MessageTap | undefined;
  /** What the tap calls the socket; the transport's peer where nothing is said. */
  socket?: string | undefined;
}

export class Channel implements TransportHandler, MessageSender {
  readonly #transport: Transport;
  /** Replies to the server's requests are encoded here: a header and up to 48 bytes. Sent, or copied, before the next. */
  readonly replyHead: Buffer = Buffer.alloc(64);
  /** Made for the first message that does not go at once: a process with a thousand connections fetches less for each. */
  #sendQueue: SendQueue | undefined;
  readonly #statistics: Statistics;
  readonly #handler: ChannelHandler;
  readonly #tap: MessageTap | undefined;
  readonly #socket: string | undefined;
  /** Made when somebody listens for the first time. */
  #socketTap: SocketTap | undefined;
  /** More replies wait than `REPLIES_HIGH_WATER`. */
  #isBackedUp = false;
  #referenced = true;
  #isServedHere: boolean | undefined;
  /** What goes on when the loop has turned: spinning for a reply, reading, flushing. */
  #spin: NodeJS.Immediate | undefined;
  #resume: NodeJS.Immediate | undefined;
  #flush: NodeJS.Immediate | undefined;
  /** What unsolicited messages have cost in this turn of the transport. */
  #unsolicited = 0;
  #turn = 0;

  constructor({ open, handler, statistics, tap, socket }: ChannelOptions) {
    this.#handler = handler;
    this.#statistics = statistics;
    this.#tap = tap;
    this.#socket = socket;
    this.#transport = open(this);
  }

  get passesFds(): boolean {
    return this.#transport.passesFds;
  }

  /** Whether `flushSync` and `receiveSync` work. */
  get canBlock(): boolean {
    return this.#transport.canBlock;
  }

  /** See `Transport.inProcess`. */
  get inProcess(): InProcessPeer | undefined {
    return this.#transport.inProcess;
  }

  get peer(): string {
    return this.#transport.peer;
  }

  /** How long waits spin now. */
  get spin(): SpinState {
    return this.#transport.spin;
  }

  get fastPath(): FastPathSocket | undefined {
    return this.#transport.fastPath;
  }

  /** The server is in this thread, which cannot wait for itself. The kernel is asked once, for the first call that blocks. */
  get isServedHere(): boolean {
    return (this.#isServedHere ??= this.#transport.isServedHere);
  }

  /** Nothing waits to be sent or received: a message that goes now is the next, and what comes is new. */
  get isIdle(): boolean {
    return (
      this.#sendQueue?.isIdle !== false &&
      !this.#isBackedUp &&
      this.#resume === undefined &&
      this.#transport.fastPath?.canRoundTrip === true
    );
  }

  /** A message, or a part of one, waits for room in the socket. */
  get hasUnsent(): boolean {
    return this.#sendQueue?.isEmpty === false;
  }

  /** See `SendQueue.send`. */
  send(owner: SendQueueOwner | undefined, message: EncodedMessage, stable: boolean): void {
    const total = sizeOf(message);
    this.#statistics.countSent(total);
    if (this.#sendQueue === undefined) {
      const sent = this.trySend(message, 0);
      if (sent === total) return;
      this.#ensureSendQueue().keepRest(owner, message, sent, stable);
    } else this.#sendQueue.send(owner, message, stable);
    this.#applyBackpressure();
  }

  /** Sends what is left of a message of which `sent` bytes went out by the fast path; it is counted already. */
  sendRest(owner: SendQueueOwner, message: EncodedMessage, sent: number): void {
    const sendQueue = this.#ensureSendQueue();
    // None of it has gone: it is tried again, so that the transport tells when there is room.
    if (sent === 0) sendQueue.send(owner, message, false);
    else sendQueue.keepRest(owner, message, sent, false);
  }

  /** See `SendQueue.sendSoon`. */
  sendSoon(owner: SendQueueOwner, message: EncodedMessage): void {
    this.#statistics.countSent(sizeOf(message));
    this.#ensureSendQueue().sendSoon(owner, message);
  }

  /** See `SendQueue.sendGathered`. */
  sendGathered(): void {
    this.#sendQueue?.sendGathered();
  }

  /** See `SendQueue.takeBack`. */
  takeBack(owner: SendQueueOwner): boolean {
    return this.#sendQueue?.takeBack(owner) === true;
  }

  /** See `SendQueue.copyBodies`. */
  copyBodies(): void {
    this.#sendQueue?.copyBodies();
  }

  /** `Transport.trySend`, which the tap hears of. */
  trySend(message: OutgoingMessage, sent: number): number {
    return this.#listener?.trySend(this.#transport, message, sent) ?? this.#transport.trySend(message, sent);
  }

  /** Whether one `trySend` may have several messages: who listens hears of one at a time. */
  get takesMany(): boolean {
    return this.#transport.takesMany && this.#tap?.active !== true;
  }

  /** Somebody awaits a reply: the transport spins for it when the code that is running has returned to the loop. */
  scheduleSpin(): void {
    if (!this.#transport.canSpin) return;
    this.#spin ??= this.#afterTurn(this.#onSpin);
  }

  /** See `Transport.flushSync`. */
  flushSync(timeoutMs: number, other: Channel | undefined): void {
    this.#transport.flushSync(timeoutMs, other === undefined ? undefined : other.#transport);
  }

  /** See `Transport.receiveSync`. */
  receiveSync(timeoutMs: number, other: Channel | undefined): void {
    this.#transport.receiveSync(timeoutMs, other === undefined ? undefined : other.#transport);
  }

  onMessage(bytes: Buffer, start: number, end: number, fds: number[] | undefined): void {
    this.#listener?.onMessage(bytes, start, end, fds);
    this.#statistics.countReceived(end - start);
    this.#handler.onMessage(this, bytes, start, end, fds);
  }

  findLanding(bytes: Buffer, start: number): Landing | undefined {
    return this.#handler.findLanding(this, bytes, start);
  }

  onLanded(bytes: Buffer, start: number, landing: Landing, fds: number[] | undefined): void {
    this.#listener?.onLanded(bytes, start, landing, fds);
    this.#statistics.countReceived(headerSize(bytes, start));
    this.#handler.onLanded(this, bytes, start, landing, fds);
  }

  onWritable(): void {
    const sendQueue = this.#sendQueue;
    if (sendQueue === undefined) return;
    if (!sendQueue.flush(FLUSHED_PER_TURN)) this.#flush ??= this.#afterTurn(this.#onFlush);
    this.#applyBackpressure();
  }

  onEnd(reason: VfioUserError): void {
    this.#listener?.onEnd(reason);
    this.#handler.onEnd(this, reason);
  }

  /** A message came that no call waits for: reading stops until the loop has turned once they have cost enough. */
  chargeUnsolicited(cost: number): void {
    const { turn } = this.#transport;
    if (turn !== this.#turn) {
      this.#turn = turn;
      this.#unsolicited = 0;
    }
    this.#unsolicited += cost;
    if (this.#unsolicited < UNSOLICITED_PER_TURN) return;
    this.#unsolicited = 0;
    if (this.#resume !== undefined || this.#isBackedUp) return;
    this.#resume = this.#afterTurn(this.#onResume);
    this.#transport.setReading(false);
  }

  /** Reads on at once: who blocks cannot wait for the loop to turn. */
  resumeReading(): void {
    if (this.#resume === undefined) return;
    clearImmediate(this.#resume);
    this.#onResume();
  }

  /** Whether the loop stays alive for this socket's sake. */
  setReferenced(on: boolean): void {
    this.#referenced = on;
    if (on) this.#transport.ref();
    else this.#transport.unref();
  }

  close(): void {
    clearImmediate(this.#resume);
    clearImmediate(this.#flush);
    clearImmediate(this.#spin);
    this.#ensureSendQueue().close();
    this.#transport.close();
  }

  /** Undefined while nobody listens. */
  get #listener(): SocketTap | undefined {
    const tap = this.#tap;
    if (tap?.active !== true) return undefined;
    return (this.#socketTap ??= new SocketTap(tap, this.#socket ?? this.peer));
  }

  #ensureSendQueue(): SendQueue {
    return (this.#sendQueue ??= new SendQueue(this, (owner) => this.#handler.onSent(owner)));
  }

  /** Reads while the server takes the replies to its requests. */
  #applyBackpressure(): void {
    const isBackedUp = (this.#sendQueue?.replyBytes ?? 0) > REPLIES_HIGH_WATER;
    if (isBackedUp === this.#isBackedUp) return;
    this.#isBackedUp = isBackedUp;
    if (this.#resume === undefined) this.#transport.setReading(!isBackedUp);
  }

  #afterTurn(work: () => void): NodeJS.Immediate {
    const immediate = setImmediate(work);
    return this.#referenced ? immediate : immediate.unref();
  }

  readonly #onSpin = (): void => {
    this.#spin = undefined;
    this.#transport.receiveSpinning();
  };

  readonly #onResume = (): void => {
    this.#resume = undefined;
    if (!this.#isBackedUp) this.#transport.setReading(true);
  };

  readonly #onFlush = (): void => {
    this.#flush = undefined;
    this.onWritable();
  };
}
