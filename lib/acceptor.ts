/**
 * Accepts connections on a listening socket: some in each turn of the event loop, none while the server has no room for
 * them, and none for a moment after accept(2) has failed.
 */
import { EVICTED_AFTER_MS } from './admission-queue.js';
import { TransportError } from './errors.js';
import { EAGAIN, native, type NativeListener } from './native.js';

/** accept(2) calls in one turn of the loop. */
const ACCEPTS_A_TURN = 16;
/** After accept(2) failed for want of fds or memory, in milliseconds. */
const RETRY_MS = 100;

export interface AcceptorHandler {
  /** Asked before each accept(2): without room the next connection waits in the backlog. */
  hasRoom(): boolean;
  /** The fd is the handler's. */
  onConnection(fd: number): void;
  /** accept(2) has failed; it is tried again in a moment. */
  onError(error: TransportError): void;
}

export class Acceptor {
  readonly #listener: NativeListener;
  readonly #address: string;
  readonly #handler: AcceptorHandler;
  #timer: NodeJS.Timeout | undefined;
  #waitsForRoom = false;
  #isReferenced = true;
  #isClosed = false;

  /** The listening socket `fd` is the acceptor's from here on; errors name `address`. */
  constructor(fd: number, address: string, handler: AcceptorHandler) {
    this.#address = address;
    this.#handler = handler;
    this.#listener = new (native().Listener)(fd, () => this.#accept());
    this.#listener.watch(true);
  }

  /** There is room again. */
  resume(): void {
    if (this.#waitsForRoom) this.#watch();
  }

  ref(): void {
    this.#isReferenced = true;
    this.#listener.ref();
    this.#timer?.ref();
  }

  unref(): void {
    this.#isReferenced = false;
    this.#listener.unref();
    this.#timer?.unref();
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#listener.close();
  }

  #accept(): void {
    for (let i = 0; i < ACCEPTS_A_TURN && !this.#isClosed; i++) {
      const hasRoom = this.#handler.hasRoom();
      // Making room tells the server's owner, who may close it.
      if (this.#isClosed) return;
      if (!hasRoom) {
        this.#waitsForRoom = true;
        this.#pause(EVICTED_AFTER_MS);
        return;
      }
      const fd = this.#listener.accept();
      if (fd === -EAGAIN) return;
      if (fd < 0) {
        // The socket stays readable: without a pause the loop would do nothing else.
        this.#pause(RETRY_MS);
        this.#handler.onError(new TransportError('accept', -fd, this.#address));
        return;
      }
      this.#handler.onConnection(fd);
    }
  }

  #pause(ms: number): void {
    this.#listener.watch(false);
    // While the socket is not watched, the timer keeps the process.
    this.#timer ??= setTimeout(() => this.#watch(), ms);
    if (!this.#isReferenced) this.#timer.unref();
  }

  #watch(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#waitsForRoom = false;
    if (!this.#isClosed) this.#listener.watch(true);
  }
}
