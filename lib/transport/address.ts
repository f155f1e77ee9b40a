/**
 * Addresses as people write them, on the command line and in programs: a Unix socket's path, `@name` for an abstract one
 * (or a name that begins with NUL, as the system has it), `tcp:PORT`, `tcp:HOST:PORT`, `tcp:[IPV6]:PORT`, `fd:N`. A file
 * whose name begins so is meant by its directory: `./@name`.
 */
import { connect as connectSocket, type Socket } from 'node:net';
import { constants } from 'node:os';
import { TimeoutError, TransportError } from '../errors.js';
import { wrongType } from '../fields.js';
import { MAX_FD, MAX_TIMER_MS } from '../system-numbers.js';

export type Address =
  { kind: 'unix'; path: string } | { kind: 'tcp'; host: string; port: number } | { kind: 'fd'; fd: number };

const LOOPBACK = '127.0.0.1';
const TCP = /^tcp:(?:(?:\[(?<ipv6>[^\]]+)\]|(?<host>[^:]+)):)?(?<port>\d{1,5})$/;
const MAX_PORT = 65535;
/** 0 to 2 are the terminal's, or the caller's pipes. */
const FIRST_INHERITED_FD = 3;
/** sun_path of unix(7), without the NUL at its end. */
const MAX_PATH_BYTES = 107;

/**
 * What a text means; `name` says whose it is.
 * @throws TypeError and RangeError for what is no address.
 */
export function parseAddress(name: string, text: string): Address {
  if (typeof text !== 'string') throw wrongType(name, "a socket's path", text);
  if (text.startsWith('tcp:')) return parseTcp(name, text);
  if (text.startsWith('fd:')) return parseFd(name, text);
  return { kind: 'unix', path: unixPath(name, text) };
}

/**
 * A Unix socket's path as the system has it: `@name` begins with NUL.
 * @throws TypeError and RangeError for what cannot be one.
 */
export function unixPath(name: string, text: string): string {
  if (typeof text !== 'string') throw wrongType(name, "a socket's path", text);
  if (text === '' || text === '@' || text === '\0') {
    throw new TypeError(`${name} must be a socket's path, got an empty string`);
  }
  if (text.includes('\0', 1)) {
    throw new TypeError(`${name} must have no NUL but at its beginning, where an abstract name has it`);
  }
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_PATH_BYTES) {
    throw new RangeError(`${name} must have at most ${MAX_PATH_BYTES} bytes (sun_path), got ${bytes}`);
  }
  return text.startsWith('@') ? `\0${text.slice(1)}` : text;
}

/** A Unix socket's path, of a server's: other addresses cannot be listened at, and no file shall have their name. */
export function listeningPath(name: string, text: string): string {
  if (typeof text !== 'string' || !/^(?:tcp|fd|vsock):/.test(text)) return unixPath(name, text);
  throw new TypeError(`${name} must be a Unix socket's path or @name, got ${JSON.stringify(text)}`);
}

/** As people write it. */
export function shownPath(path: string): string {
  return path.startsWith('\0') ? `@${path.slice(1)}` : path;
}

function parseTcp(name: string, text: string): Address {
  const groups = TCP.exec(text)?.groups;
  const port = Number(groups?.['port']);
  if (groups === undefined || port > MAX_PORT) {
    throw new TypeError(
      `${name} must be tcp:HOST:PORT, tcp:[IPV6]:PORT, or tcp:PORT on this machine, got ${JSON.stringify(text)}`,
    );
  }
  return { kind: 'tcp', host: groups['ipv6'] ?? groups['host'] ?? LOOPBACK, port };
}

function parseFd(name: string, text: string): Address {
  const digits = text.slice('fd:'.length);
  const fd = Number(digits);
  if (!/^\d{1,10}$/.test(digits) || fd < FIRST_INHERITED_FD || fd > MAX_FD) {
    throw new TypeError(`${name} must be an inherited socket, fd:3 and up, got ${JSON.stringify(text)}`);
  }
  return { kind: 'fd', fd };
}

/** @throws TransportError, TimeoutError, the signal's reason. */
export function openTcp(
  { host, port }: { host: string; port: number },
  name: string,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    // Commands are small and wait for their replies: nothing is gained by holding them back.
    const socket = connectSocket({ host, port, noDelay: true });
    const settle = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      socket.off('error', onError);
    };
    const fail = (error: Error): void => {
      settle();
      socket.on('error', () => undefined);
      socket.destroy();
      reject(error);
    };
    const onAbort = (): void => fail(signal?.reason as Error);
    const onError = (error: NodeJS.ErrnoException): void => fail(tcpError(error, name));
    const onTime = (): void => fail(new TimeoutError(`connect to ${name}`, timeoutMs));
    const timer = setTimeout(onTime, Math.min(timeoutMs, MAX_TIMER_MS));
    signal?.addEventListener('abort', onAbort, { once: true });
    socket.once('error', onError);
    socket.once('connect', () => {
      settle();
      resolve(socket);
    });
  });
}

/** A name that does not resolve has a code without number: then Node's own words are the best there are. */
function tcpError(error: NodeJS.ErrnoException, name: string): Error {
  const errno = constants.errno[error.code as keyof typeof constants.errno] as number | undefined;
  return errno === undefined ? error : new TransportError('connect', errno, name, { cause: error });
}
