/** A peer over any Node Duplex, TCP for one: bytes, no fds. Its own high-water mark says when to wait. */
import type { Duplex } from 'node:stream';
import { TransportError, VfioUserError } from '../errors.js';
import { EPIPE } from '../native.js';
import type { Peer, PeerHandler, OpenPeer } from './peer.js';

const NO_FDS: readonly number[] = [];

/** @throws TypeError for a stream that does not carry bytes. */
export function streamPeer(stream: Duplex, name: string): OpenPeer {
  if (stream.readableEncoding !== null || stream.readableObjectMode || stream.writableObjectMode) {
    throw new TypeError('the stream must carry bytes: no encoding, no object mode');
  }
  return (handler) => new StreamPeer(stream, name, handler);
}

class StreamPeer implements Peer {
  readonly name: string;
  readonly passesFds = false;
  readonly canLook = false;
  turn = 0;
  readonly #handler: PeerHandler;
  readonly #stream: Duplex;
  #full = false;
  #ended = false;
  #closed = false;

  constructor(stream: Duplex, name: string, handler: PeerHandler) {
    this.name = name;
    this.#handler = handler;
    this.#stream = stream;
    stream.pause();
    stream.on('data', this.#onData);
    stream.on('drain', this.#onDrain);
    stream.on('end', this.#onEnd);
    stream.on('error', this.#onError);
    stream.on('close', this.#onClose);
    // 'data' makes a stream flow that nobody paused before.
    stream.pause();
  }

  trySend(bytes: Buffer, start: number, end: number): number {
    if (this.#closed || this.#full) return 0;
    if (this.#stream.destroyed || this.#stream.writableEnded) return -EPIPE;
    // The stream keeps what it is given until it is written: a copy, in one piece so that one write is one message.
    this.#full = !this.#stream.write(Buffer.from(bytes.subarray(start, end)));
    return end - start;
  }

  setReading(on: boolean): void {
    if (this.#closed || this.#ended) return;
    if (on) this.#stream.resume();
    else this.#stream.pause();
  }

  /** The stream hands over what it has by itself. */
  receiveNow(): boolean {
    return false;
  }

  endSending(): void {
    if (!this.#closed) this.#stream.end();
  }

  isGone(): boolean {
    return this.#closed || this.#stream.destroyed;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stream.off('data', this.#onData);
    this.#stream.off('drain', this.#onDrain);
    this.#stream.off('end', this.#onEnd);
    this.#stream.off('close', this.#onClose);
    // What was written still goes out. The error listener stays: nobody else would hear of a late one.
    if (this.#stream.destroyed) return;
    this.#stream.resume();
    this.#stream.end(() => this.#stream.destroy());
    const timer = setTimeout(() => this.#stream.destroy(), FLUSH_MS);
    timer.unref();
    this.#stream.once('close', () => clearTimeout(timer));
  }

  readonly #onData = (chunk: Buffer): void => {
    this.turn++;
    if (!this.#closed) this.#handler.onChunk(chunk, 0, chunk.byteLength, NO_FDS);
  };

  readonly #onDrain = (): void => {
    this.#full = false;
    if (!this.#closed) this.#handler.onWritable();
  };

  readonly #onEnd = (): void => {
    this.#ended = true;
    if (!this.#closed) this.#handler.onEnd();
  };

  readonly #onError = (error: NodeJS.ErrnoException): void => {
    if (this.#closed) return;
    const cause =
      error.errno === undefined ? undefined : new TransportError('stream', -error.errno, this.name);
    const code = error.code ?? 'ERR_VFIO_USER_CLOSED';
    this.#fail(cause ?? new VfioUserError(code, `${this.name}: ${error.message}`, { cause: error }));
  };

  readonly #onClose = (): void => {
    this.#fail(new VfioUserError('ERR_VFIO_USER_CLOSED', `${this.name} was closed`));
  };

  #fail(error: VfioUserError): void {
    if (this.#closed) return;
    this.close();
    this.#handler.onFailure(error);
  }
}

/** How long a closed stream may take to write what it was given. */
const FLUSH_MS = 2_000;
