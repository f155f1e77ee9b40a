/**
 * What is on its way to a peer, in order. Nearly always nothing: a message goes out in the call that brings it. Only what
 * the socket does not take, and what a fault holds back, is kept; its source is not read meanwhile, so that what is kept
 * stays bounded by a chunk and a message, whatever the sides do.
 */
import { Fifo } from '../fifo.js';
import { closeFds } from '../native.js';
import { TurnShare } from '../turn-share.js';
import type { Peer } from './peer.js';

/** What is told of a message as its first bytes leave. */
export type Told = (bytes: Buffer, start: number, end: number, fds: readonly number[], note?: string) => void;

export interface QueuedMessage {
  bytes: Buffer;
  start: number;
  end: number;
  /** Ours until they are sent. */
  fds: readonly number[];
  /** Held back for this long first, in milliseconds. */
  pauseMs?: number;
  note?: string;
  /** Undefined for the later pieces of a message. */
  told: Told | undefined;
}

export interface ForwardQueueHandler {
  /** Everything has gone out. */
  onDrained(): void;
  /** The other side takes nothing any more; what was left is dropped. */
  onBroken(errno: number): void;
}

const NO_FDS: readonly number[] = [];
/** What waited leaves so many at a time: the loop turns in between. */
const FLUSHED_A_TURN = 64;

export class ForwardQueue {
  readonly #peer: Peer;
  readonly #handler: ForwardQueueHandler;
  readonly #queue = new Fifo<QueuedMessage>();
  #timer: NodeJS.Timeout | undefined;
  readonly #share = new TurnShare(() => this.flush());
  #broken = false;

  constructor(peer: Peer, handler: ForwardQueueHandler) {
    this.#peer = peer;
    this.#handler = handler;
  }

  get isEmpty(): boolean {
    return this.#queue.length === 0;
  }

  /** Sends, or keeps: a copy, unless the bytes are the delivery's to keep. The fds are ours from here on. */
  send(delivery: QueuedMessage, isKept: boolean): void {
    if (this.#broken) {
      closeFds(delivery.fds);
      return;
    }
    if (this.#queue.length === 0 && delivery.pauseMs === undefined && this.#deliver(delivery)) return;
    if (this.#broken) return;
    if (!isKept) {
      const { start, end } = delivery;
      delivery.bytes = Buffer.from(delivery.bytes.subarray(start, end));
      delivery.start = 0;
      delivery.end = end - start;
    }
    this.#queue.push(delivery);
    if (this.#queue.length === 1) this.#begin();
  }

  /** The peer takes bytes again. */
  flush(): void {
    if (this.#timer !== undefined || this.#share.isUsedUp || this.#queue.length === 0) return;
    for (let i = 0; this.#queue.length > 0; i++) {
      if (i === FLUSHED_A_TURN) {
        this.#share.useUp();
        return;
      }
      const next = this.#queue.peek()!;
      if (next.pauseMs !== undefined) {
        this.#begin();
        return;
      }
      if (!this.#deliver(next)) return;
      this.#queue.shift();
    }
    this.#handler.onDrained();
  }

  /** Drops what is left and takes no more. */
  clear(): void {
    this.#broken = true;
    this.#share.stop();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const { fds } of this.#queue.drain()) closeFds(fds);
  }

  /** What holds the head of the queue back begins when it has become the head. */
  #begin(): void {
    const head = this.#queue.peek()!;
    const { pauseMs } = head;
    if (pauseMs === undefined) return;
    delete head.pauseMs;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.flush();
    }, pauseMs);
  }

  /** True when all of it has gone out. */
  #deliver(delivery: QueuedMessage): boolean {
    const { bytes, start, end, fds } = delivery;
    const took = this.#peer.trySend(bytes, start, end, fds);
    if (took < 0) {
      closeFds(fds);
      delivery.fds = NO_FDS;
      this.clear();
      this.#handler.onBroken(-took);
      return false;
    }
    if (took === 0) return false;
    // Told after it has left, so that telling delays nobody; what answers it cannot have been read yet.
    delivery.told?.(bytes, start, end, fds, delivery.note);
    delivery.told = undefined;
    closeFds(fds);
    delivery.fds = NO_FDS;
    delivery.start = start + took;
    return delivery.start === end;
  }
}
