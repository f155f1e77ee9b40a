/** A peer over a Unix socket (or a vsock, which passes no fds): one `recvmsg`, one `sendmsg`. */
import { ProtocolError, TransportError, type VfioUserError } from '../errors.js';
import {
  EAGAIN,
  ECTRUNC,
  ENOTCONN,
  NO_SOCKET,
  READABLE,
  WITH_FDS,
  WRITABLE,
  native,
  socketCalls,
  type NativeSocket,
  type SocketCalls,
} from '../native.js';
import { borrowSlab, returnSlab, serveHere } from '../transport/index.js';
import type { Peer, PeerHandler, OpenPeer } from './peer.js';

/** `recvmsg` calls in one turn of the loop: a side that floods gets its share and no more. */
const RECEIVES_PER_TURN = 16;
const NO_BYTES = new Uint8Array(0);
const NO_FDS: readonly number[] = [];

/** `fd` is a connected non-blocking stream socket. */
export function unixPeer(fd: number, name: string, passesFds = true): OpenPeer {
  return (handler) => new UnixPeer(fd, name, passesFds, handler);
}

/** The peer to a client: what it asks is answered by way of this thread's loop. */
export function clientPeer(fd: number, name: string): OpenPeer {
  return (handler) => new UnixPeer(fd, name, true, handler, serveHere(fd));
}

class UnixPeer implements Peer {
  readonly name: string;
  readonly passesFds: boolean;
  readonly canLook = true;
  turn = 0;
  readonly #handler: PeerHandler;
  readonly #calls: SocketCalls = socketCalls();
  readonly #socket: NativeSocket;
  /** Of `#socket`, for `#calls`. */
  readonly #handle: number;
  #interest = 0;
  #ended = false;
  #closed = false;

  readonly #onClose: (() => void) | undefined;

  constructor(fd: number, name: string, passesFds: boolean, handler: PeerHandler, onClose?: () => void) {
    this.name = name;
    this.passesFds = passesFds;
    this.#handler = handler;
    this.#onClose = onClose;
    this.#socket = new (native().Socket)(fd, (events) => this.#onEvent(events));
    this.#handle = this.#socket.handle;
  }

  trySend(bytes: Buffer, start: number, end: number, fds: readonly number[]): number {
    if (this.#closed) return 0;
    const length = end - start;
    const took = this.#calls.send(
      this.#handle,
      NO_BYTES,
      0,
      bytes,
      start,
      length,
      0,
      fds.length === 0 ? null : fds,
    );
    if (took < 0 && took !== -EAGAIN) return took;
    if (took < length) this.#watch(this.#interest | WRITABLE);
    return Math.max(took, 0);
  }

  setReading(on: boolean): void {
    if (this.#ended) return;
    this.#watch(on ? this.#interest | READABLE : this.#interest & ~READABLE);
  }

  receiveNow(): boolean {
    return this.#isReading && this.#receive();
  }

  endSending(): void {
    if (this.#closed) return;
    const result = this.#socket.endSending();
    // The other side may be gone already.
    if (result < 0 && result !== -ENOTCONN) this.#fail(new TransportError('shutdown', -result, this.name));
  }

  /** A hang-up is reported whatever is asked for; READABLE is not asked for here. */
  isGone(): boolean {
    return this.#closed || (this.#calls.wait(this.#handle, WRITABLE, 0, NO_SOCKET) & READABLE) !== 0;
  }

  close(): void {
    this.#closed = true;
    this.#interest = 0;
    this.#onClose?.();
    this.#socket.close();
  }

  #onEvent(events: number): void {
    this.turn++;
    if ((events & READABLE) !== 0 && this.receiveNow()) this.#handler.onTurn();
    if ((events & WRITABLE) !== 0 && (this.#interest & WRITABLE) !== 0) {
      this.#watch(this.#interest & ~WRITABLE);
      this.#handler.onWritable();
    }
  }

  #watch(interest: number): void {
    if (interest === this.#interest || this.#closed) return;
    this.#interest = interest;
    const result = this.#socket.watch(interest);
    if (result < 0) this.#fail(new TransportError('epoll_ctl', -result, this.name));
  }

  /** Whether anything came. */
  #receive(): boolean {
    const slab = borrowSlab();
    try {
      let count = 0;
      while (count < RECEIVES_PER_TURN && this.#isReading) {
        const length = this.#calls.recv(this.#handle, slab, 0, slab.byteLength);
        if (length === -EAGAIN) break;
        count++;
        if (!this.#take(slab, length)) break;
      }
      return count > 0;
    } finally {
      returnSlab(slab);
    }
  }

  get #isReading(): boolean {
    return (this.#interest & READABLE) !== 0;
  }

  /** What a `recvmsg` brought, `slab[0, came)`. False when the socket is likely to be empty. */
  #take(slab: Buffer, came: number): boolean {
    if (came === 0) {
      this.#ended = true;
      this.#watch(this.#interest & ~READABLE);
      this.#handler.onEnd();
      return false;
    }
    if (came < 0) {
      this.#fail(receiveError(-came, this.name));
      return false;
    }
    const fds = came < WITH_FDS ? NO_FDS : this.#socket.takeFds();
    const count = fds === NO_FDS ? came : came - WITH_FDS;
    this.#handler.onChunk(slab, 0, count, fds);
    // recvmsg stops after a buffer that carries fds, however much is behind it.
    return count === slab.byteLength || fds !== NO_FDS;
  }

  #fail(error: VfioUserError): void {
    if (this.#closed) return;
    this.close();
    this.#handler.onFailure(error);
  }
}

function receiveError(errno: number, name: string): VfioUserError {
  if (errno !== ECTRUNC) return new TransportError('recvmsg', errno, name);
  return new ProtocolError(
    `the kernel dropped file descriptors of a message of ${name} (MSG_CTRUNC): too many, or this process has none left`,
  );
}
