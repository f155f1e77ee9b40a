/**
 * Where clients come in, before there is a session for them (`lib/admission-queue.ts` says who is served when). A client
 * takes a place when it has sent VERSION, whole; but a message that has begun must end in time.
 */
import { Acceptor } from '../acceptor.js';
import { ClosedError, TransportError, type VfioUserError } from '../errors.js';
import { closeFds } from '../native.js';
import { UnixTransport, type Landing, type Transport, type TransportHandler } from '../transport/index.js';
import { AdmissionQueue, type WaitingClient } from '../admission-queue.js';
import { MessageDeadline } from './message-deadline.js';
import { ETIMEDOUT } from '../system-numbers.js';

export type OpenTransport = (handler: TransportHandler) => Transport;

export interface ClientListenerOptions {
  /** Clients that are served at the same time. */
  readonly places: number;
  /** How long a client may take to send VERSION, in milliseconds. */
  readonly versionTimeoutMs: number;
  /** How long a message may take that has begun, in milliseconds. */
  readonly messageTimeoutMs: number;
  /** Begins a session for a client that has got a place. */
  admit(open: OpenTransport): { readonly closed: Promise<VfioUserError> };
  /** Accepting has failed; it goes on in a moment. */
  onTrouble(error: TransportError): void;
}

export class ClientListener {
  readonly #options: ClientListenerOptions;
  readonly #room: AdmissionQueue<PendingConnection>;
  #acceptor: Acceptor | undefined;
  #isReferenced = true;

  constructor(options: ClientListenerOptions) {
    this.#options = options;
    this.#room = new AdmissionQueue(options.places, () => this.#acceptor?.resume());
  }

  /** Clients that are served, or would be if they said anything. */
  get count(): number {
    return Math.min(this.#room.size, this.#options.places);
  }

  /** Accepts who comes to the listening socket `fd`, which is ours from here on. */
  listen(fd: number, path: string): void {
    this.#acceptor = new Acceptor(fd, path, {
      hasRoom: () => this.#room.hasRoom(),
      onConnection: (socket) => this.admit((handler) => new UnixTransport(socket, path, handler)),
      onError: (error) => this.#options.onTrouble(error),
    });
  }

  /** Somebody has come. @throws what opening throws. */
  admit(open: OpenTransport): PendingConnection {
    const pending = new PendingConnection(open, this.#options, {
      onVersion: () => this.#room.onSpoken(pending),
      onGone: () => this.#room.forget(pending),
    });
    this.#room.add(pending);
    if (!this.#isReferenced) pending.transport.unref();
    return pending;
  }

  ref(): void {
    this.#isReferenced = true;
    this.#acceptor?.ref();
    for (const { transport, isInside } of this.#room) if (!isInside) transport.ref();
  }

  /** Sessions are their owner's. */
  unref(): void {
    this.#isReferenced = false;
    this.#acceptor?.unref();
    for (const { transport, isInside } of this.#room) if (!isInside) transport.unref();
  }

  /** Accepts no more clients, and closes those without a session. */
  close(): void {
    this.#acceptor?.close();
    this.#room.close(new ClosedError('the server was closed'));
  }
}

interface Host {
  onVersion(): void;
  onGone(): void;
}

/** A connection: at first what comes is kept here, then handed to the session that has it. */
export class PendingConnection implements TransportHandler, WaitingClient {
  readonly transport: Transport;
  readonly since = performance.now();
  /** The reason, when it has ended. */
  readonly ended: Promise<VfioUserError>;
  readonly #options: ClientListenerOptions;
  readonly #host: Host;
  readonly #watch: MessageDeadline;
  #session: TransportHandler | undefined;
  /** VERSION, while the client waits for a place. */
  #first: { bytes: Buffer; start: number; end: number; fds: number[] | undefined } | undefined;
  #isGone = false;
  #timer: NodeJS.Timeout | undefined;
  #settle!: (reason: VfioUserError) => void;

  constructor(open: OpenTransport, options: ClientListenerOptions, host: Host) {
    this.#options = options;
    this.#host = host;
    this.ended = new Promise((resolve) => (this.#settle = resolve));
    this.#watch = new MessageDeadline(options.messageTimeoutMs, (reason) => this.end(reason));
    this.transport = open(this);
    this.transport.serveHere();
    this.#timer = setTimeout(() => {
      const what = `the client sent no VERSION within ${options.versionTimeoutMs} ms`;
      this.end(new TransportError('recvmsg', ETIMEDOUT, what));
    }, options.versionTimeoutMs).unref();
  }

  get isSilent(): boolean {
    return this.#timer !== undefined;
  }

  get isInside(): boolean {
    return this.#session !== undefined;
  }

  /** The session begins; settles when it has ended. */
  async enter(): Promise<void> {
    const first = this.#first;
    if (first === undefined) return;
    this.#first = undefined;
    const session = this.#options.admit((handler) => {
      this.#session = handler;
      return this.transport;
    });
    try {
      // Reading, which was stopped for as long as the client waited, goes on when the session says so.
      this.#session?.onMessage(first.bytes, first.start, first.end, first.fds);
    } catch (error) {
      // As a transport does it with what its handler throws.
      this.transport.close();
      this.#session?.onEnd(error as VfioUserError);
    }
    this.#settle(await session.closed);
    this.#watch.stop();
  }

  /** Ends it, without a word to the client. */
  end(reason: VfioUserError): void {
    this.transport.close();
    this.onEnd(reason);
  }

  onMessage(bytes: Buffer, start: number, end: number, fds: number[] | undefined): void {
    if (this.#session !== undefined) {
      this.#session.onMessage(bytes, start, end, fds);
      return;
    }
    this.#stopTimer();
    // No place may be free for a long time: what comes after this is left where it is.
    this.transport.setReading(false);
    this.#first = { bytes: Buffer.from(bytes.subarray(start, end)), start: 0, end: end - start, fds };
    this.#host.onVersion();
  }

  onBegun(begun: number): void {
    this.#watch.onBegun(begun, this.transport);
  }

  findLanding(bytes: Buffer, start: number): Landing | undefined {
    return this.#session?.findLanding(bytes, start);
  }

  onLanded(bytes: Buffer, start: number, landing: Landing, fds: number[] | undefined): void {
    this.#session?.onLanded(bytes, start, landing, fds);
  }

  onWritable(): void {
    this.#session?.onWritable();
  }

  onEnd(reason: VfioUserError): void {
    if (this.#session === undefined) this.#leave(reason);
    else this.#session.onEnd(reason);
  }

  #leave(reason: VfioUserError): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#stopTimer();
    this.#watch.stop();
    if (this.#first?.fds !== undefined) closeFds(this.#first.fds);
    this.#first = undefined;
    this.transport.close();
    this.#settle(reason);
    this.#host.onGone();
  }

  #stopTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
