/** Where clients come in: a Unix socket or a TCP port. */
import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { constants } from 'node:os';
import { TransportError } from '../errors.js';
import { EAGAIN, native, type NativeListener } from '../native.js';
import { integer } from '../fields.js';
import { listenAt, parseAddress, shownPath, type ListeningSocket } from '../transport/index.js';
import type { OpenLeg } from './leg.js';
import type { ListenAddress } from './proxy-options.js';
import { streamLeg } from './stream-leg.js';
import { clientLeg } from './unix-leg.js';

/** A client that has come, and what becomes of it where it is not wanted. */
export interface Arrival {
  open: OpenLeg;
  discard(): void;
}

export interface EntranceHandler {
  /** Asked before each client: those that there is no room for wait. */
  hasRoom(): boolean;
  onArrival(arrival: Arrival): void;
  onTrouble(error: Error): void;
}

export interface Entrance {
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
/** After accept(2) failed for want of fds or memory, in milliseconds. */
const ACCEPT_PAUSE_MS = 100;

/**
 * @throws TypeError and RangeError for what is no address; TransportError where it cannot be had: EADDRINUSE where
 * somebody listens or the file is no socket.
 */
export async function openEntrance(listen: ListenAddress, handler: EntranceHandler): Promise<Entrance> {
  if (typeof listen === 'object' && listen !== null && 'port' in listen) return openTcp(listen, handler);
  if (typeof listen === 'string') {
    const address = parseAddress('proxy: listen', listen);
    if (address.kind === 'tcp') return openTcp(address, handler);
  }
  const { path, mode = MODE } = typeof listen === 'string' ? { path: listen } : (listen ?? {});
  if (typeof path !== 'string') throw new TypeError('listen is a path, or an object with path or port');
  return new UnixEntrance(path, await listenAt(path, BACKLOG, mode), handler);
}

class UnixEntrance implements Entrance {
  readonly address: string;
  readonly #socket: ListeningSocket;
  readonly #listener: NativeListener;
  readonly #handler: EntranceHandler;
  #resume: NodeJS.Timeout | undefined;

  constructor(path: string, socket: ListeningSocket, handler: EntranceHandler) {
    this.address = shownPath(path);
    this.#socket = socket;
    this.#handler = handler;
    this.#listener = new (native().Listener)(socket.fd, () => this.#accept());
    this.#listener.watch(true);
  }

  resume(): void {
    if (this.#resume === undefined) this.#listener.watch(true);
  }

  ref(): void {
    this.#listener.ref();
  }

  unref(): void {
    this.#listener.unref();
  }

  close(): void {
    clearTimeout(this.#resume);
    // Before the socket is closed: until then nobody takes the file for a stale one.
    this.#socket.removeFile();
    this.#listener.close();
  }

  #accept(): void {
    while (this.#handler.hasRoom()) {
      const fd = this.#listener.accept();
      if (fd < 0) {
        if (fd !== -EAGAIN) this.#pause(-fd);
        return;
      }
      this.#handler.onArrival({
        open: clientLeg(fd, 'the client'),
        discard: () => void native().closeFd(fd),
      });
    }
    // The next one waits in the backlog.
    this.#listener.watch(false);
  }

  /** What accept(2) cannot do now stays ready: without a pause the loop would do nothing else. */
  #pause(errno: number): void {
    this.#listener.watch(false);
    this.#resume = setTimeout(() => {
      this.#resume = undefined;
      this.#listener.watch(true);
    }, ACCEPT_PAUSE_MS);
    this.#handler.onTrouble(new TransportError('accept', errno, this.address));
  }
}

async function openTcp(
  { port, host = LOOPBACK }: { port: number; host?: string },
  handler: EntranceHandler,
): Promise<Entrance> {
  integer('port', port, 0, 0xffff);
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) =>
    arrive(socket, handler),
  );
  server.listen({ host, port, backlog: BACKLOG });
  try {
    await once(server, 'listening');
  } catch (error) {
    throw listenError(error as NodeJS.ErrnoException, `${host}:${port}`);
  }
  server.on('error', (error) => handler.onTrouble(error));
  return new TcpEntrance(server);
}

function listenError(error: NodeJS.ErrnoException, address: string): Error {
  const errno = constants.errno[error.code as keyof typeof constants.errno] as number | undefined;
  return errno === undefined ? error : new TransportError('bind', errno, address, { cause: error });
}

/** TCP clients are accepted by Node: one that there is no room for cannot be left waiting. */
function arrive(socket: Socket, handler: EntranceHandler): void {
  if (!handler.hasRoom()) {
    socket.destroy();
    return;
  }
  socket.on('error', () => undefined);
  const { remoteAddress = 'somebody', remotePort = 0 } = socket;
  handler.onArrival({
    open: streamLeg(socket, `the client ${remoteAddress}:${remotePort}`),
    discard: () => socket.destroy(),
  });
}

class TcpEntrance implements Entrance {
  readonly address: string;
  readonly #server: Server;

  constructor(server: Server) {
    const { address, port, family } = server.address() as AddressInfo;
    this.address = family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`;
    this.#server = server;
  }

  /** It never stopped. */
  resume(): void {}

  ref(): void {
    this.#server.ref();
  }

  unref(): void {
    this.#server.unref();
  }

  close(): void {
    this.#server.close();
  }
}
