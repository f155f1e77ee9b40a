/**
 * The transport over a Unix socket: fds travel with messages, and calls may block.
 *
 * The kernel is asked by the environment's loop (uv_poll, level-triggered): what is left in the socket when a turn ends
 * calls again. Complete messages are never held back, so nothing waits for bytes that do not come.
 */
import { ClosedError, ProtocolError, TransportError, VfioUserError } from '../errors.js';
import {
  EAGAIN,
  EPIPE,
  ECTRUNC,
  NO_SOCKET,
  FAST_PATH_CALL_AT,
  FAST_PATH_REPLY_AT,
  FAST_PATH_WITH_FDS,
  READABLE,
  UNSENT,
  WITH_FDS,
  WRITABLE,
  check,
  closeFds,
  native,
  fastPathMemory,
  socketCalls,
  type NativeSocket,
  type FastPathMemory,
  type SocketCalls,
} from '../native.js';
import { Framer } from './framer.js';
import { isServedHere, serveHere } from './served-here.js';
import { borrowSlab, returnSlab } from './slab-pool.js';
import {
  endOf,
  sizeOf,
  type FastPathSocket,
  type OutgoingMessage,
  type SpinState,
  type Transport,
  type TransportHandler,
} from './transport.js';

/** `recvmsg` calls in one turn of the loop: a peer that floods gets its share and no more. */
const RECEIVES_PER_TURN = 16;

/** Of a message that has at least this much to come the rest is on its way: it is waited for without leaving. */
const EAGER_FROM = 16 * 1024;
/** A peer that was answered within a turn may send its next request at once: how often a turn spins for that. */
const SPINS_PER_TURN = 4;

/** The longest message that we send leaves without waiting for the peer to read, where the system lets it. */
const SEND_BUFFER_SIZE = 1 << 20;

/** A blocking wait is cut into slices of at most this, or a worker thread could not be terminated. */
export const SLICE_MS = 50;

/** Of `FastPathMemory.words`: see `FAST_PATH_CALL_AT`. */
const CALL_SOCKET = FAST_PATH_CALL_AT >>> 2;
const CALL_LENGTH = CALL_SOCKET + 1;
const CALL_TIMEOUT = CALL_SOCKET + 2;
const CALL_OTHER = CALL_SOCKET + 3;
const CALL_RESULT = CALL_SOCKET + 4;

export class UnixTransport implements Transport, FastPathSocket {
  #ended = false;
  /** `receiveSync` is at work. */
  #isBlocking = false;
  /** Something went out in this turn. */
  #hasSent = false;
  /** See `FastPathSocket`. */
  isKnownIdle = false;
  readonly #memory = fastPathMemory();
  readonly #calls: SocketCalls = socketCalls();
  /** Of `#socket`, for `#calls`. */
  readonly #handle: number;
  readonly #framer: Framer;
  #interest = READABLE;
  turn = 0;
  /** The peer has let us wait for the rest of the message that is coming. */
  #restIsLate = false;
  /** The peer takes nothing any more, and may still have something to say. */
  #isPeerDeaf = false;
  /** The last receive stopped before the socket was empty. */
  #hasMore = false;
  readonly fastPath: FastPathSocket | undefined;
  readonly passesFds: boolean;
  readonly canBlock = true;
  readonly canSpin = true;
  readonly takesMany = true;
  readonly peer: string;
  readonly #handler: TransportHandler;
  readonly #socket: NativeSocket;
  #stopServing: (() => void) | undefined;

  /** Owns `fd`, a connected non-blocking stream socket, from here on; `passesFds` is false for a vsock. */
  constructor(fd: number, peer: string, handler: TransportHandler, passesFds = true) {
    this.passesFds = passesFds;
    this.peer = peer;
    this.#handler = handler;
    const { Socket } = native();
    this.fastPath = this.#memory === undefined ? undefined : this;
    this.#socket = new Socket(fd, (events) => this.#onEvent(events));
    this.#handle = this.#socket.handle;
    this.#socket.growSendBuffer(SEND_BUFFER_SIZE);
    this.#framer = new Framer(handler);
    check(this.#socket.watch(this.#interest), 'epoll_ctl');
  }

  /** The most that a wait may spin, in microseconds: a synchronous call before it blocks, the loop before it sleeps. */
  setSpinCeiling(microseconds: number): void {
    this.#socket.setSpinCeiling(microseconds);
  }

  get spin(): SpinState {
    const [blocking, awaiting] = this.#socket.spin();
    return { blocking, awaiting };
  }

  trySend(message: OutgoingMessage, sent: number): number {
    if (this.#ended) return 0;
    this.#hasSent = true;
    this.isKnownIdle = false;
    const { head, headLength, body, fds } = message;
    const bodyLength = body === null ? 0 : body.length;
    const result = this.#calls.send(this.#handle, head, headLength, body, 0, bodyLength, sent, fds);
    if (result < 0) {
      if (result === -EAGAIN) this.#watch(this.#interest | WRITABLE);
      // Reading finds a dead peer too, and what it said before it died is still to be read; but while reading waits for
      // the send queue to empty nothing would ever find it.
      else if (result === -EPIPE && this.#framer.isPaused) this.#fail(endOfStream(false));
      // Nor does the socket become writable again: it always is. See `setReading`.
      else if (result === -EPIPE) this.#isPeerDeaf = true;
      else this.#fail(new TransportError('sendmsg', -result, this.peer));
      return 0;
    }
    if (sent + result < sizeOf(message)) this.#watch(this.#interest | WRITABLE);
    return result;
  }

  get memory(): FastPathMemory {
    return this.#memory!;
  }

  get canRoundTrip(): boolean {
    return this.#isReading() && !this.#framer.inMessage && !this.#framer.isPaused;
  }

  roundTrip(length: number, timeoutMs: number, other: UnixTransport | undefined): number {
    const { words } = this.memory;
    words[CALL_SOCKET] = this.#handle;
    words[CALL_LENGTH] = length;
    // A store cuts a fraction off: who has less than a millisecond left asks for an answer that is there.
    words[CALL_TIMEOUT] = timeoutMs;
    words[CALL_OTHER] = other === undefined ? NO_SOCKET : other.#handle;
    this.#calls.roundTrip();
    return words[CALL_RESULT]!;
  }

  afterRoundTrip(result: number, length: number): number {
    this.isKnownIdle = false;
    this.turn++;
    if (result >= FAST_PATH_WITH_FDS) {
      // Nobody waits for any, and the kernel closes them as well where they come early.
      closeFds(this.#socket.takeFds());
      return result - FAST_PATH_WITH_FDS;
    }
    if (result > 0) return result;
    if (result > UNSENT) {
      this.#onNothing(result);
      return 0;
    }
    const sent = UNSENT - result;
    if (sent > 0) this.#watch(this.#interest | WRITABLE);
    return sent - length;
  }

  receiveSpinning(): void {
    if (!this.#isReading() || this.#framer.isPaused) return;
    this.turn++;
    if (this.#receiveOnce(0, NO_SOCKET, true) > 0 && this.#hasMore) this.#receive(RECEIVES_PER_TURN);
  }

  handOver(count: number): void {
    // Who handles these messages may call on another connection, whose fast path uses the same memory.
    const slab = borrowSlab();
    try {
      this.memory.bytes.copy(slab, 0, FAST_PATH_REPLY_AT, FAST_PATH_REPLY_AT + count);
      this.#framer.push(slab, 0, count, undefined);
    } catch (error) {
      this.#onThrown(error);
    } finally {
      returnSlab(slab);
    }
  }

  flushSync(timeoutMs: number, other: Transport | undefined): void {
    if (this.#ended) return;
    const twin = UnixTransport.#socketOf(other);
    const events = this.#calls.wait(
      this.#handle,
      (this.#interest & READABLE) | WRITABLE,
      Math.min(timeoutMs, SLICE_MS),
      twin,
    );
    if (twin !== NO_SOCKET) (other as UnixTransport).#receive(RECEIVES_PER_TURN);
    if (events > 0) this.#onEvent(events);
  }

  receiveSync(timeoutMs: number, other: Transport | undefined): void {
    if (this.#ended) return;
    const twin = UnixTransport.#socketOf(other);
    this.turn++;
    this.#isBlocking = true;
    try {
      this.#receiveOnce(Math.min(timeoutMs, SLICE_MS), twin, false);
    } finally {
      this.#isBlocking = false;
    }
    if (twin !== NO_SOCKET) (other as UnixTransport).#receive(RECEIVES_PER_TURN);
  }

  setReading(on: boolean): void {
    this.isKnownIdle = false;
    this.#watch(on ? this.#interest | READABLE : this.#interest & ~READABLE);
    if (!on) {
      this.#framer.pause();
      // The next attempt to send ends the connection.
      if (this.#isPeerDeaf) this.#watch(this.#interest | WRITABLE);
      return;
    }
    try {
      this.#framer.resume();
    } catch (error) {
      this.#onThrown(error);
    }
  }

  get isServedHere(): boolean {
    return !this.#ended && isServedHere(this.#socket.fd);
  }

  serveHere(): void {
    if (!this.#ended) this.#stopServing ??= serveHere(this.#socket.fd);
  }

  get begun(): number {
    return this.#framer.begun;
  }

  get isReading(): boolean {
    return this.#isReading();
  }

  ref(): void {
    this.#socket.ref();
  }

  unref(): void {
    this.#socket.unref();
  }

  close(): void {
    this.#ended = true;
    this.isKnownIdle = false;
    this.#framer.stop();
    this.#stopServing?.();
    this.#socket.close();
  }

  static #socketOf(other: Transport | undefined): number {
    return other instanceof UnixTransport && other.#isReading() ? other.#handle : NO_SOCKET;
  }

  #isReading(): boolean {
    return !this.#ended && (this.#interest & READABLE) !== 0;
  }

  #onEvent(events: number): void {
    if ((events & READABLE) !== 0) {
      this.turn++;
      this.#receive(RECEIVES_PER_TURN);
    }
    if ((events & WRITABLE) !== 0 && !this.#ended) {
      this.#watch(this.#interest & ~WRITABLE);
      this.#handler.onWritable();
    }
  }

  #watch(interest: number): void {
    if (interest === this.#interest || this.#ended) return;
    this.#interest = interest;
    const result = this.#socket.watch(interest);
    if (result < 0) this.#fail(new TransportError('epoll_ctl', -result, this.peer));
  }

  /** Receives until the socket is empty and no answer is about to come, or the turn's share is used up. */
  #receive(times: number): void {
    let spins = SPINS_PER_TURN;
    this.#hasSent = false;
    for (let i = 0; i < times && this.#isReading(); i++) {
      if (this.#receiveOnce(0, NO_SOCKET, false) > 0 && this.#hasMore) continue;
      if (!this.#hasSent || spins === 0 || this.#framer.inMessage || !this.#isReading()) return;
      this.#hasSent = false;
      spins--;
      // What comes now waited for us before it went on: that is no flood, and is weighed as another turn's.
      this.turn++;
      if (this.#receiveOnce(0, NO_SOCKET, true) === 0) return;
    }
  }

  /** One receive, which waits up to `waitMs`, or `spins` a moment, where there is nothing. Returns how many bytes came. */
  #receiveOnce(waitMs: number, other: number, spins: boolean): number {
    if (this.#framer.isPaused) return 0;
    const direct = this.#framer.direct();
    const slab = direct === undefined ? borrowSlab() : undefined;
    try {
      const into = direct ?? slab!;
      const offset = direct === undefined ? 0 : this.#framer.directOffset;
      const wanted = direct === undefined ? slab!.length : this.#framer.missing;
      const isRest = direct !== undefined && wanted >= EAGER_FROM && !this.#restIsLate;
      const came =
        waitMs > 0
          ? this.#calls.recvWait(this.#handle, into, offset, wanted, waitMs, other)
          : isRest || spins
            ? this.#calls.recvSpin(this.#handle, into, offset, wanted, isRest)
            : this.#calls.recv(this.#handle, into, offset, wanted);
      if (came <= 0) {
        this.#restIsLate ||= isRest;
        this.#onNothing(came);
        return 0;
      }
      this.isKnownIdle = false;
      const fds = came < WITH_FDS ? undefined : this.#socket.takeFds();
      const count = fds === undefined ? came : came - WITH_FDS;
      // recvmsg stops after a buffer that carries fds, however much is behind it.
      this.#hasMore = count === wanted || fds !== undefined;
      if (slab === undefined) this.#framer.advance(count, fds);
      else this.#framer.push(slab, 0, count, fds);
      // Waited for once a message: a peer that lets it come in drops must not hold up the loop with each.
      this.#restIsLate = direct !== undefined && this.#framer.inMessage && (isRest || this.#restIsLate);
      return count;
    } catch (error) {
      this.#onThrown(error);
      return 0;
    } finally {
      if (slab !== undefined) returnSlab(slab);
    }
  }

  /** What a receive answered that brought no bytes. */
  #onNothing(result: number): void {
    if (result === -EAGAIN) return;
    if (result === 0) this.#fail(endOfStream(this.#framer.inMessage));
    else if (result === -ECTRUNC) {
      this.#fail(
        new ProtocolError(
          'the kernel dropped file descriptors of a message (MSG_CTRUNC): too many, or none left',
        ),
      );
    } else this.#fail(new TransportError('recvmsg', -result, this.peer));
  }

  #onThrown(error: unknown): void {
    this.#fail(endOf(error));
    // Whoever blocks can be told; from the loop it would end the process.
    if (this.#isBlocking && !(error instanceof VfioUserError)) throw error;
  }

  #fail(reason: VfioUserError): void {
    if (this.#ended) return;
    this.close();
    this.#handler.onEnd(reason);
  }
}

/** Opens a transport whose waits spin no longer than that; undefined leaves it as it is. Others than this one do not spin. */
export function withSpin(
  open: (handler: TransportHandler) => Transport,
  spinUs: number | undefined,
): (handler: TransportHandler) => Transport {
  if (spinUs === undefined) return open;
  return (handler) => {
    const transport = open(handler);
    if (transport instanceof UnixTransport) transport.setSpinCeiling(spinUs);
    return transport;
  };
}

function endOfStream(inMessage: boolean): VfioUserError {
  return inMessage
    ? new ProtocolError('the server closed the connection in the middle of a message')
    : new ClosedError('the server closed the connection');
}
