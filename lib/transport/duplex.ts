/**
 * The transport over any Node Duplex (TCP, TLS, a child's stdio and so ssh): no fds, no blocking. The stream's own
 * buffer is the queue; its high-water mark says when to wait.
 */
import type { Duplex } from 'node:stream';
import { ClosedError, ProtocolError, UnsupportedError, type VfioUserError } from '../errors.js';
import { Framer } from './framer.js';
import { serveHere } from './served-here.js';
import {
  NO_SPIN,
  endOf,
  sizeOf,
  type OutgoingMessage,
  type Transport,
  type TransportHandler,
} from './transport.js';

/** Streams that hold a handle of the loop (sockets, child processes) can be referenced and not. */
interface Referable {
  ref?(): unknown;
  unref?(): unknown;
}

/** Sockets of Node have their fd here, and nowhere in the documentation. */
interface Handled {
  readonly _handle?: { readonly fd?: unknown } | null;
}

export class DuplexTransport implements Transport {
  readonly passesFds = false;
  readonly canBlock = false;
  readonly canSpin = false;
  readonly spin = NO_SPIN;
  readonly takesMany = false;
  readonly fastPath = undefined;
  /** Nothing can block for it. */
  readonly isServedHere = false;
  readonly peer: string;
  turn = 0;
  readonly #handler: TransportHandler;
  readonly #stream: Duplex;
  readonly #framer: Framer;
  #full = false;
  #ended = false;
  #stopServing: (() => void) | undefined;

  /** Owns `stream` from here on: it is destroyed with the transport. */
  constructor(stream: Duplex, peer: string, handler: TransportHandler) {
    if (stream.readableEncoding !== null || stream.readableObjectMode || stream.writableObjectMode) {
      throw new TypeError('the stream must carry bytes: no encoding, no object mode');
    }
    this.peer = peer;
    this.#handler = handler;
    this.#stream = stream;
    this.#framer = new Framer(handler);
    stream.on('data', this.#onData);
    stream.on('drain', this.#onDrain);
    stream.on('end', this.#onStreamEnd);
    stream.on('error', this.#onError);
    stream.on('close', this.#onClose);
  }

  /** A stream takes a message whole or not at all: `sent` is 0. */
  trySend(outgoing: OutgoingMessage): number {
    if (this.#ended || this.#full) return 0;
    const { head, headLength, body, fds } = outgoing;
    if (fds !== null && fds.length > 0) {
      throw new UnsupportedError(`file descriptors cannot be passed over ${this.peer}`);
    }
    // The stream keeps what it is given until it is written: a copy, in one piece so that one write is one message.
    const message = Buffer.allocUnsafe(sizeOf(outgoing));
    message.set(head.subarray(0, headLength));
    if (body !== null) message.set(body, headLength);
    try {
      this.#full = !this.#stream.write(message);
    } catch (error) {
      this.#onError(error);
      return 0;
    }
    return message.length;
  }

  /** The client of a stream that is a Unix socket may block. */
  serveHere(): void {
    const fd = (this.#stream as Handled)._handle?.fd;
    if (typeof fd === 'number' && fd >= 0) this.#stopServing ??= serveHere(fd);
  }

  /** The stream hands over what it has by itself. */
  receiveSpinning(): void {}

  flushSync(): void {
    throw new UnsupportedError(`synchronous calls need a Unix socket; this is ${this.peer}`);
  }

  receiveSync(): void {
    throw new UnsupportedError(`synchronous calls need a Unix socket; this is ${this.peer}`);
  }

  setReading(on: boolean): void {
    if (!on) {
      this.#framer.pause();
      this.#stream.pause();
      return;
    }
    this.#stream.resume();
    this.#sort(() => this.#framer.resume());
  }

  get begun(): number {
    return this.#framer.begun;
  }

  get isReading(): boolean {
    return !this.#ended && !this.#framer.isPaused;
  }

  ref(): void {
    (this.#stream as Referable).ref?.();
  }

  unref(): void {
    (this.#stream as Referable).unref?.();
  }

  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#framer.stop();
    this.#stopServing?.();
    this.#stream.off('data', this.#onData);
    this.#stream.off('drain', this.#onDrain);
    this.#stream.off('end', this.#onStreamEnd);
    this.#stream.off('close', this.#onClose);
    // The error listener stays: an error of a stream that is being destroyed must not become an uncaught one.
    this.#stream.destroy();
  }

  readonly #onData = (chunk: Buffer): void => {
    this.turn++;
    if (!this.#ended) this.#sort(() => this.#framer.push(chunk, 0, chunk.length, undefined));
  };

  readonly #onDrain = (): void => {
    this.#full = false;
    if (!this.#ended) this.#handler.onWritable();
  };

  readonly #onStreamEnd = (): void => {
    this.#fail(
      this.#framer.inMessage
        ? new ProtocolError('the server closed the connection in the middle of a message')
        : new ClosedError('the server closed the connection'),
    );
  };

  readonly #onError = (error: unknown): void => {
    const why = error instanceof Error ? error.message : String(error);
    this.#fail(new ClosedError(`${this.peer}: ${why}`, { cause: error }));
  };

  readonly #onClose = (): void => {
    this.#fail(new ClosedError(`${this.peer} was closed`));
  };

  #sort(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#fail(endOf(error));
    }
  }

  #fail(reason: VfioUserError): void {
    if (this.#ended) return;
    this.close();
    this.#handler.onEnd(reason);
  }
}
