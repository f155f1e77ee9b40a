/**
 * A client that has come and not got a place yet: its first message is kept until it has. Only then there is a connection
 * to the server, so that one who says nothing, or never ends its first message, is no trouble to the server.
 */
import { ClosedError, TransportError, type VfioUserError } from '../errors.js';
import { closeFds } from '../native.js';
import { HEADER_SIZE } from '../protocol/constants.js';
import { headerSize } from '../protocol/header.js';
import type { WaitingClient } from '../admission-queue.js';
import type { Peer, PeerHandler, OpenPeer } from './peer.js';
import { EMFILE, ETIMEDOUT } from '../system-numbers.js';

/** VERSION is shorter. Who says more than that without an end is taken for one who has spoken. */
const LONGEST_FIRST = 16 << 10;
/** No message that comes before the answer to VERSION has any, and there may be as many clients as wait and have places. */
const MOST_FDS = 4;
/** While it waits it is not read, and looked at so often: nobody tells that it has gone. */
const LOOK_MS = 500;

export interface PendingClientOptions {
  /** How long it may take to say something, in milliseconds. */
  readonly versionTimeoutMs: number;
  readonly maxMessageBytes: number;
}

export interface PendingClientHost {
  onSpoken(): void;
  /** It has a place. Settles when it has left it. */
  onPlace(): Promise<void>;
  /** It has gone before it had a place. */
  onGone(reason: VfioUserError): void;
}

export class PendingClient implements PeerHandler, WaitingClient {
  readonly since = performance.now();
  readonly #peer: Peer;
  readonly #host: PendingClientHost;
  readonly #maxBytes: number;
  #timer: NodeJS.Timeout;
  /** The first message, as far as it is there, and what came in one go with its end. */
  #first: Buffer = Buffer.alloc(0);
  /** Of `#first`, the bytes that were there before the last ones came, and their fds. */
  #before = 0;
  #fdsBefore: readonly number[] = [];
  #fds: readonly number[] = [];
  #state: 'silent' | 'waiting' | 'inside' | 'gone' = 'silent';
  #hasEnded = false;
  #failure: VfioUserError | undefined;
  #handler: PeerHandler | undefined;

  constructor(
    open: OpenPeer,
    { versionTimeoutMs, maxMessageBytes }: PendingClientOptions,
    host: PendingClientHost,
  ) {
    this.#host = host;
    this.#maxBytes = maxMessageBytes;
    this.#peer = open(this);
    this.#timer = setTimeout(() => {
      const what = `the client sent no VERSION within ${versionTimeoutMs} ms`;
      this.end(new TransportError('recvmsg', ETIMEDOUT, what));
    }, versionTimeoutMs).unref();
  }

  /** It may say something; once whoever is told of it knows this client. */
  listen(): void {
    this.#peer.setReading(true);
  }

  get isSilent(): boolean {
    return this.#state === 'silent';
  }

  get isInside(): boolean {
    return this.#state === 'inside';
  }

  async enter(): Promise<void> {
    this.#state = 'inside';
    clearTimeout(this.#timer);
    await this.#host.onPlace();
    // Where there was no session for it after all.
    this.#dropFirst();
    if (this.#handler === undefined) this.#peer.close();
  }

  end(reason: VfioUserError): void {
    if (this.#state === 'inside' || this.#state === 'gone') return;
    this.#state = 'gone';
    clearTimeout(this.#timer);
    this.#dropFirst();
    this.#peer.close();
    this.#host.onGone(reason);
  }

  /** Its peer for the session that has it; what it said meanwhile comes with `replay`. */
  readonly open: OpenPeer = (handler) => {
    this.#handler = handler;
    return this.#peer;
  };

  /** Hands over what was kept, once the session has started. */
  replay(): void {
    const [first, handler] = [this.#first, this.#handler];
    if (handler === undefined) return;
    const [before, fdsBefore, fds] = [this.#before, this.#fdsBefore, this.#fds];
    this.#first = Buffer.alloc(0);
    this.#fdsBefore = this.#fds = [];
    if (before > 0) handler.onChunk(first, 0, before, fdsBefore);
    if (first.length > before) handler.onChunk(first, before, first.length, fds);
    if (this.#failure !== undefined) handler.onFailure(this.#failure);
    else if (this.#hasEnded) handler.onEnd();
  }

  onChunk(bytes: Buffer, start: number, end: number, fds: readonly number[]): void {
    if (this.#handler !== undefined) this.#handler.onChunk(bytes, start, end, fds);
    else if (this.#state === 'gone') closeFds(fds);
    else this.#keep(bytes.subarray(start, end), fds);
  }

  onTurn(): void {
    this.#handler?.onTurn();
  }

  onWritable(): void {
    this.#handler?.onWritable();
  }

  onEnd(): void {
    if (this.#handler !== undefined) this.#handler.onEnd();
    else if (this.#state === 'silent' && this.#first.length === 0) {
      this.end(new ClosedError('the client closed its end'));
    } else {
      // What it has said is passed on, and the end with it.
      this.#hasEnded = true;
      this.#speak();
    }
  }

  onFailure(error: VfioUserError): void {
    if (this.#handler !== undefined) this.#handler.onFailure(error);
    else if (this.#state === 'inside') this.#failure = error;
    else this.end(error);
  }

  #keep(bytes: Buffer, fds: readonly number[]): void {
    this.#fdsBefore = [...this.#fdsBefore, ...this.#fds];
    this.#fds = fds;
    const held = this.#fdsBefore.length + fds.length;
    if (held > MOST_FDS && this.#state !== 'inside') {
      const what = `the client sent ${held} file descriptors before it had an answer to VERSION, at most ${MOST_FDS} are kept`;
      this.end(new TransportError('recvmsg', EMFILE, what));
      return;
    }
    this.#before = this.#first.length;
    this.#first = Buffer.concat([this.#first, bytes]);
    if (this.#isSpoken()) this.#speak();
  }

  #isSpoken(): boolean {
    const { length } = this.#first;
    if (length >= LONGEST_FIRST) return true;
    if (length < HEADER_SIZE) return false;
    const size = headerSize(this.#first, 0);
    // What makes no sense is for the session to say so.
    return size < HEADER_SIZE || size > this.#maxBytes || length >= size;
  }

  #speak(): void {
    if (this.#state !== 'silent') return;
    this.#state = 'waiting';
    clearTimeout(this.#timer);
    this.#peer.setReading(false);
    this.#timer = setInterval(() => {
      if (this.#peer.isGone()) this.end(new ClosedError('the client closed its end'));
    }, LOOK_MS).unref();
    this.#host.onSpoken();
  }

  #dropFirst(): void {
    closeFds([...this.#fdsBefore, ...this.#fds]);
    this.#fdsBefore = this.#fds = [];
    this.#first = Buffer.alloc(0);
  }
}
