/** Where clients come in: a Unix socket or a TCP port. */
import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { constants } from 'node:os';
import { Acceptor } from '../acceptor.js';
import { TransportError } from '../errors.js';
import { integer } from '../fields.js';
import { listenAt, parseAddress, shownPath, type ListeningSocket } from '../transport/index.js';
import { EVICTED_AFTER_MS } from '../admission-queue.js';
import type { OpenPeer } from './peer.js';
import type { ListenAddress } from './proxy-options.js';
import { streamPeer } from './stream-peer.js';
import { clientPeer } from './unix-peer.js';

export interface ListenerHandler {
  /** Asked before each client: those that there is no room for wait. */
  hasRoom(): boolean;
  onArrival(open: OpenPeer): void;
  onTrouble(error: Error): void;
}

export interface Listener {
  /** As people write it: a path, `@name`, `127.0.0.1:4420`. */
  readonly address: string;
  /** There is room again. */
  resume(): void;
  ref(): void;
  unref(): void;
  close(): void;
}

const BACKLOG = 64;
const MODE = 0o600;
const LOOPBACK = '127.0.0.1';

/**
 * @throws TypeError and RangeError for what is no address; TransportError where it cannot be had: EADDRINUSE where
 * somebody listens or the file is no socket.
 */
export async function openListener(listen: ListenAddress, handler: ListenerHandler): Promise<Listener> {
  if (typeof listen === 'object' && listen !== null && 'port' in listen) return openTcp(listen, handler);
  if (typeof listen === 'string') {
    const address = parseAddress('proxy: listen', listen);
    if (address.kind === 'tcp') return openTcp(address, handler);
    if (address.kind !== 'unix') {
      throw new TypeError(
        `proxy: listen must be a path, @name or tcp:HOST:PORT, got ${JSON.stringify(listen)}`,
      );
    }
    return openUnix(address.path, MODE, handler);
  }
  const { path, mode = MODE } = listen ?? {};
  if (typeof path !== 'string') throw new TypeError('listen is a path, or an object with path or port');
  return openUnix(path, mode, handler);
}

async function openUnix(path: string, mode: number, handler: ListenerHandler): Promise<Listener> {
  return new UnixListener(path, await listenAt(path, BACKLOG, mode), handler);
}

class UnixListener implements Listener {
  readonly address: string;
  readonly #socket: ListeningSocket;
  readonly #acceptor: Acceptor;

  constructor(path: string, socket: ListeningSocket, handler: ListenerHandler) {
    this.address = shownPath(path);
    this.#socket = socket;
    this.#acceptor = new Acceptor(socket.fd, this.address, {
      hasRoom: () => handler.hasRoom(),
      onConnection: (fd) => handler.onArrival(clientPeer(fd, 'the client')),
      onError: (error) => handler.onTrouble(error),
    });
  }

  resume(): void {
    this.#acceptor.resume();
  }

  ref(): void {
    this.#acceptor.ref();
  }

  unref(): void {
    this.#acceptor.unref();
  }

  close(): void {
    // Before the socket is closed: until then nobody takes the file for a stale one.
    this.#socket.removeFile();
    this.#acceptor.close();
  }
}

async function openTcp(
  { port, host = LOOPBACK }: { port: number; host?: string },
  handler: ListenerHandler,
): Promise<Listener> {
  integer('port', port, 0, 0xffff);
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true });
  server.listen({ host, port, backlog: BACKLOG });
  try {
    await once(server, 'listening');
  } catch (error) {
    throw listenError(error as NodeJS.ErrnoException, `${host}:${port}`);
  }
  return new TcpListener(server, handler);
}

function listenError(error: NodeJS.ErrnoException, address: string): Error {
  const errno = constants.errno[error.code as keyof typeof constants.errno] as number | undefined;
  return errno === undefined ? error : new TransportError('bind', errno, address, { cause: error });
}

/** TCP clients are accepted by Node, which cannot be told to leave them in the backlog: they wait here as they would there. */
class TcpListener implements Listener {
  readonly address: string;
  readonly #server: Server;
  readonly #handler: ListenerHandler;
  /** Accepted, and neither read nor written. */
  readonly #held = new Set<Socket>();
  #timer: NodeJS.Timeout | undefined;
  #saidFull = false;
  #isClosed = false;

  constructor(server: Server, handler: ListenerHandler) {
    const { address, port, family } = server.address() as AddressInfo;
    this.address = family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`;
    this.#server = server;
    this.#handler = handler;
    server.on('connection', (socket) => this.#arrive(socket));
    server.on('error', (error) => handler.onTrouble(error));
  }

  resume(): void {
    for (const socket of this.#held) {
      if (!this.#handler.hasRoom()) break;
      this.#held.delete(socket);
      this.#letIn(socket);
    }
    this.#waitForRoom();
  }

  ref(): void {
    this.#server.ref();
  }

  unref(): void {
    this.#server.unref();
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#server.close();
    for (const socket of this.#held) socket.destroy();
  }

  #arrive(socket: Socket): void {
    // Nobody else would hear of a late one.
    socket.on('error', () => undefined);
    const hasRoom = this.#held.size === 0 && this.#handler.hasRoom();
    if (hasRoom) this.#letIn(socket);
    else if (this.#held.size < BACKLOG && !this.#isClosed) {
      this.#held.add(socket);
      socket.once('close', () => this.#held.delete(socket));
      this.#waitForRoom();
    } else {
      socket.destroy();
      if (!this.#saidFull && !this.#isClosed)
        this.#handler.onTrouble(new Error(`${this.address}: too many clients are waiting`));
      this.#saidFull = true;
    }
  }

  #letIn(socket: Socket): void {
    const { remoteAddress = 'somebody', remotePort = 0 } = socket;
    this.#handler.onArrival(streamPeer(socket, `the client ${remoteAddress}:${remotePort}`));
  }

  #waitForRoom(): void {
    clearTimeout(this.#timer);
    if (this.#isClosed) return;
    if (this.#held.size === 0) this.#saidFull = false;
    else this.#timer = setTimeout(() => this.resume(), EVICTED_AFTER_MS).unref();
  }
}
