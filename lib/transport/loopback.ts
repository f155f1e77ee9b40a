/**
 * Two transports whose messages reach each other by a call: client and device in one thread, and no socket.
 *
 * ```
 *   client's end ── trySend ──▶ onMessage ── the device's handler ── trySend ──▶ onMessage ──▶ the caller is answered
 *                └──────────────────────── all of it before trySend returns ──────────────────────┘
 * ```
 * An end gets one command at a time: one that is sent while it is at work waits for it. Replies never wait, as what is at
 * work may be waiting for them. Fds are duplicated for their receiver, as the kernel does it, and leave the process nowhere.
 */
import { ClosedError, TransportError, UnsupportedError, type VfioUserError } from '../errors.js';
import {
  FAST_PATH_CALL_AT,
  FAST_PATH_REPLY_AT,
  FAST_PATH_WAITED_AT,
  closeFds,
  native,
  type FastPathMemory,
} from '../native.js';
import { MAX_TIMER_MS } from '../system-numbers.js';
import {
  LANDING_PREFIX,
  NO_SPIN,
  endOf,
  sizeOf,
  type FastPathSocket,
  type InProcessPeer,
  type OutgoingMessage,
  type Transport,
  type TransportHandler,
} from './transport.js';

/** Where the header has its flags, and which of their bits say what a message is. */
const FLAGS_AT = 8;
const TYPE_MASK = 0xf;
const REPLY = 1;
/** Data from this size on goes to its receiver's memory directly. In bytes. */
const LANDED_FROM = 4096;

type Open = (handler: TransportHandler) => Transport;

/** What the device's end must say of itself. */
export interface LoopbackDevice extends TransportHandler {
  /** A command waits for a promise of the device's. */
  readonly isBusy: boolean;
  /** See `InProcessPeer.refusalOf`. */
  refusalOf(id: number): unknown;
}

/**
 * Opens the client's end of a new pair. `begin` makes the device's side, on the transport that it is given the way to.
 */
export function openLoopback(peer: string, begin: (open: Open) => LoopbackDevice): Open {
  return (handler) => {
    const client = new LoopbackTransport(peer, handler);
    const device = begin((serving) => {
      const end = new LoopbackTransport('the client', serving);
      client.join(end);
      return end;
    });
    client.inProcess = {
      get isBusy() {
        return client.isPeerAtWork || device.isBusy;
      },
      refusalOf: (id) => device.refusalOf(id),
    };
    return client;
  };
}

interface Delivery {
  bytes: Buffer;
  fds: number[] | undefined;
}

class LoopbackTransport implements Transport, FastPathSocket {
  readonly passesFds = true;
  readonly canBlock = true;
  readonly canSpin = false;
  readonly spin = NO_SPIN;
  readonly takesMany = false;
  readonly begun = 0;
  readonly isServedHere = false;
  readonly peer: string;
  inProcess: InProcessPeer = { isBusy: false };
  turn = 0;
  isKnownIdle = false;
  /** A round trip is under way, and this many bytes of its reply have come. */
  #isRoundTrip = false;
  #received = 0;
  #memory: FastPathMemory | undefined;
  readonly #handler: TransportHandler;
  #other: LoopbackTransport | undefined;
  #isReading = true;
  /** The other end has something for us, and was told to wait. */
  #isWanted = false;
  /** A command is being carried out here. */
  #isAtWork = false;
  /** Commands that came meanwhile. */
  readonly #waiting: Delivery[] = [];
  #ended = false;
  /** The loop stays alive for an open device, as for a socket. */
  #keepAlive: NodeJS.Timeout | undefined;

  constructor(peer: string, handler: TransportHandler) {
    this.peer = peer;
    this.#handler = handler;
  }

  /** The other end, which is joined to this one. */
  join(other: LoopbackTransport): void {
    this.#other = other;
    other.#other = this;
    this.ref();
  }

  get isPeerAtWork(): boolean {
    return this.#other !== undefined && this.#other.#isAtWork;
  }

  get isReading(): boolean {
    return !this.#ended && this.#isReading;
  }

  /** Takes a message whole, or not at all: `sent` is 0. */
  trySend(message: OutgoingMessage): number {
    const other = this.#other;
    this.isKnownIdle = false;
    if (this.#ended || other === undefined) return 0;
    if (!other.#isReading) {
      other.#isWanted = true;
      return 0;
    }
    other.#receive(message);
    return sizeOf(message);
  }

  get fastPath(): FastPathSocket {
    return this;
  }

  /** Of its own: a device's handler may call another device, while ours is read. */
  get memory(): FastPathMemory {
    if (this.#memory !== undefined) return this.#memory;
    const bytes = Buffer.from(new ArrayBuffer(FAST_PATH_CALL_AT));
    return (this.#memory = { bytes, words: new Int32Array(bytes.buffer) });
  }

  get canRoundTrip(): boolean {
    const other = this.#other;
    return this.isReading && other !== undefined && other.#isReading && !this.inProcess.isBusy;
  }

  roundTrip(length: number): number {
    const other = this.#other;
    if (this.#ended || other === undefined) return 0;
    this.isKnownIdle = false;
    this.#isRoundTrip = true;
    this.#received = 0;
    try {
      other.turn++;
      other.#work(this.memory.bytes, length, undefined);
    } catch (error) {
      other.#failHere(endOf(error));
    }
    this.#isRoundTrip = false;
    this.isKnownIdle = this.#received > 0 && this.canRoundTrip;
    return this.#received;
  }

  afterRoundTrip(result: number): number {
    this.isKnownIdle = false;
    this.memory.bytes.writeDoubleLE(0, FAST_PATH_WAITED_AT);
    return result;
  }

  handOver(count: number): void {
    const bytes = Buffer.from(this.memory.bytes.subarray(FAST_PATH_REPLY_AT, FAST_PATH_REPLY_AT + count));
    try {
      this.#handler.onMessage(bytes, 0, count, undefined);
    } catch (error) {
      this.#failHere(endOf(error));
    }
  }

  receiveSpinning(): void {}

  flushSync(): void {
    throw new UnsupportedError(`${this.peer} does not take another message before the event loop turns`);
  }

  receiveSync(): void {
    throw new UnsupportedError(`${this.peer} does not answer before the event loop turns`);
  }

  setReading(on: boolean): void {
    this.#isReading = on;
    if (!on || !this.#isWanted) return;
    this.#isWanted = false;
    const other = this.#other;
    queueMicrotask(() => {
      if (other !== undefined && !other.#ended) other.#handler.onWritable();
    });
  }

  serveHere(): void {}

  ref(): void {
    if (this.#ended) return;
    this.#keepAlive ??= setInterval(() => undefined, MAX_TIMER_MS);
    this.#keepAlive.ref();
  }

  unref(): void {
    this.#keepAlive?.unref();
  }

  close(): void {
    this.#end();
    const reason = new ClosedError('the server closed the connection');
    if (this.#other !== undefined) this.#other.#fail(reason);
  }

  #receive(message: OutgoingMessage): void {
    const { head } = message;
    const isReply = (head[FLAGS_AT]! & TYPE_MASK) === REPLY;
    if (isReply && this.#isRoundTrip && this.#takeRoundTrip(message)) return;
    this.isKnownIdle = false;
    this.turn++;
    try {
      const fds = message.fds === null || message.fds.length === 0 ? undefined : duplicates(message.fds);
      if (isReply) this.#takeReply(message, fds);
      else if (this.#isAtWork) this.#waiting.push({ bytes: Buffer.from(inOnePiece(message)), fds });
      else {
        const bytes = inOnePiece(message);
        this.#work(bytes, bytes.length, fds);
      }
    } catch (error) {
      this.#failHere(endOf(error));
    }
  }

  /** Takes the reply that a round trip is about; false where it is too long, or brings fds. */
  #takeRoundTrip({ head, headLength, body, fds }: OutgoingMessage): boolean {
    const size = body === null ? headLength : headLength + body.length;
    if (this.#received > 0 || fds !== null || size > FAST_PATH_WAITED_AT - FAST_PATH_REPLY_AT) return false;
    const { bytes } = this.memory;
    for (let i = 0; i < headLength; i++) bytes[FAST_PATH_REPLY_AT + i] = head[i]!;
    if (body !== null) bytes.set(body, FAST_PATH_REPLY_AT + headLength);
    this.#received = size;
    return true;
  }

  #takeReply(message: OutgoingMessage, fds: number[] | undefined): void {
    const { head, headLength, body } = message;
    if (body !== null && body.length >= LANDED_FROM && headLength === LANDING_PREFIX) {
      const bytes = asBuffer(head, headLength);
      const landing = this.#handler.findLanding(bytes, 0);
      if (landing?.target?.length === body.length) {
        landing.target.set(body);
        this.#handler.onLanded(bytes, 0, landing, fds);
        return;
      }
    }
    const bytes = inOnePiece(message);
    this.#handler.onMessage(bytes, 0, bytes.length, fds);
  }

  /** One command after the other. */
  #work(first: Buffer, firstLength: number, firstFds: number[] | undefined): void {
    this.#isAtWork = true;
    try {
      this.#handler.onMessage(first, 0, firstLength, firstFds);
      for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
        this.turn++;
        this.#handler.onMessage(next.bytes, 0, next.bytes.length, next.fds);
      }
    } finally {
      this.#isAtWork = false;
    }
  }

  #failHere(reason: VfioUserError): void {
    this.#fail(reason);
    const told = new ClosedError('the server closed the connection', { cause: reason });
    if (this.#other !== undefined) this.#other.#fail(told);
  }

  #fail(reason: VfioUserError): void {
    if (this.#ended) return;
    this.#end();
    this.#handler.onEnd(reason);
  }

  #end(): void {
    this.#ended = true;
    clearInterval(this.#keepAlive);
    for (const { fds } of this.#waiting.splice(0)) if (fds !== undefined) closeFds(fds);
  }
}

function asBuffer(bytes: Uint8Array, length: number): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, length);
}

/** The message's own memory where it is in one piece. */
function inOnePiece({ head, headLength, body }: OutgoingMessage): Buffer {
  if (body === null) return asBuffer(head, headLength);
  const bytes = Buffer.allocUnsafe(headLength + body.length);
  bytes.set(headLength === head.length ? head : head.subarray(0, headLength));
  bytes.set(body, headLength);
  return bytes;
}

/** @throws TransportError where the process has as many as it may have. */
function duplicates(fds: readonly number[]): number[] {
  const copies: number[] = [];
  for (const fd of fds) {
    const copy = native().dupFd(fd);
    if (copy >= 0) copies.push(copy);
    else {
      closeFds(copies);
      throw new TransportError('dup', -copy);
    }
  }
  return copies;
}
