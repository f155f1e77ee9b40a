/**
 * Addresses as people write them, on the command line and in programs: a Unix socket's path, `@name` for an abstract one
 * (or a name that begins with NUL, as the system has it), `unix:PATH`, `tcp:PORT`, `tcp:HOST:PORT`, `tcp:[IPV6]:PORT`,
 * `tcp://HOST:PORT`, `tls://HOST:PORT`, `ssh://USER@HOST:PORT/PATH`, `vsock://CID:PORT`, `fd:N`. A file whose name begins so is meant
 * by its directory: `./@name`.
 */
import { connect as connectSocket, type Socket } from 'node:net';
import { constants } from 'node:os';
import { TimeoutError, TransportError } from '../errors.js';
import { UINT32_MAX, wrongType } from '../fields.js';
import { MAX_FD, MAX_TIMER_MS } from '../system-numbers.js';

export type Address =
  | { kind: 'unix'; path: string }
  | { kind: 'tcp' | 'tls'; host: string; port: number }
  | ({ kind: 'ssh' } & SshAddress)
  | { kind: 'vsock'; cid: number; port: number }
  | { kind: 'fd'; fd: number };

/** A Unix socket of another machine, that ssh reaches. */
export interface SshAddress {
  /** Where none is said, ssh's own configuration does. */
  readonly user: string | undefined;
  readonly host: string;
  readonly port: number | undefined;
  /** On the other machine. */
  readonly path: string;
}

const LOOPBACK = '127.0.0.1';
const TCP = /^tcp:(?:(?:\[(?<ipv6>[^\]]+)\]|(?<host>[^:]+)):)?(?<port>\d{1,5})$/;
const WITH_AUTHORITY = /^(?:tcp|tls):\/\/(?:\[(?<ipv6>[^\]]+)\]|(?<host>[^:/]+)):(?<port>\d{1,5})$/;
const VSOCK = /^vsock:\/\/(?<cid>\d{1,10}):(?<port>\d{1,10})$/;
const SSH =
  /^ssh:\/\/(?:(?<user>[^@/]*)@)?(?:\[(?<ipv6>[^\]/]+)\]|(?<host>[^:/[\]]*))(?::(?<port>\d{1,5}))?(?<path>\/.+)$/;
/** Nothing of it may be an option of ssh's, nor mean something to a shell or to ssh's own `%` and `${}`. */
const SSH_NAME = /^[A-Za-z0-9_][\w.+-]*$/;
const SSH_IPV6 = /^[\da-f:.]+(?:%\w+)?$/i;
const SSH_PATH = /^[\w./@+,=~-]+$/;
const SCHEME = /^[a-z][a-z\d+.-]*:\/\//i;
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
  if (text.startsWith('unix:')) return { kind: 'unix', path: unixPath(name, pathOfUnix(text)) };
  if (text.startsWith('ssh://')) return parseSsh(name, text);
  if (text.startsWith('vsock://')) return parseVsock(name, text);
  if (text.startsWith('tls://')) return parseAuthority(name, text, 'tls');
  if (text.startsWith('tcp://')) return parseAuthority(name, text, 'tcp');
  if (text.startsWith('tcp:')) return parseTcp(name, text);
  if (text.startsWith('fd:')) return parseFd(name, text);
  if (SCHEME.test(text)) {
    const known = 'unix:, tcp:, tls://, ssh://, vsock:// or fd:';
    throw new TypeError(`${name} must be a path, or begin with ${known}, got ${shownText(text)}`);
  }
  return { kind: 'unix', path: unixPath(name, text) };
}

/** `unix:/run/dev.sock`, `unix:///run/dev.sock`, `unix:@name`: what follows, as a path. */
function pathOfUnix(text: string): string {
  const rest = text.slice('unix:'.length);
  return rest.startsWith('///') ? rest.slice(2) : rest;
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

/** What cannot be listened at as a Unix socket. */
const OTHER_SCHEME = /^(?:tcp|tls|ssh|fd|vsock|pci):/;

/** A Unix socket's path, of a server's: other addresses cannot be listened at, and no file shall have their name. */
export function listeningPath(name: string, text: string): string {
  if (typeof text !== 'string' || !OTHER_SCHEME.test(text)) {
    return unixPath(name, typeof text === 'string' && text.startsWith('unix:') ? pathOfUnix(text) : text);
  }
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

function shownText(text: string): string {
  return JSON.stringify(text.length > 120 ? `${text.slice(0, 120)}…` : text);
}

function parseAuthority(name: string, text: string, kind: 'tcp' | 'tls'): Address {
  const { ipv6, host, port } = WITH_AUTHORITY.exec(text)?.groups ?? {};
  const where = ipv6 ?? host;
  if (where !== undefined && Number(port) <= MAX_PORT) return { kind, host: where, port: Number(port) };
  throw new TypeError(`${name} must be ${kind}://HOST:PORT or ${kind}://[IPV6]:PORT, got ${shownText(text)}`);
}

function parseVsock(name: string, text: string): Address {
  const { cid = '', port = '' } = VSOCK.exec(text)?.groups ?? {};
  if (cid !== '' && Number(cid) <= UINT32_MAX && Number(port) <= UINT32_MAX) {
    return { kind: 'vsock', cid: Number(cid), port: Number(port) };
  }
  throw new TypeError(`${name} must be vsock://CID:PORT, two numbers of 32 bits, got ${shownText(text)}`);
}

function parseSsh(name: string, text: string): Address {
  const { user, ipv6, host, port, path = '' } = SSH.exec(text)?.groups ?? {};
  const where = ipv6 ?? host ?? '';
  if (path === '' || where === '' || Number(port ?? 0) > MAX_PORT) {
    throw new TypeError(`${name} must be ssh://[USER@]HOST[:PORT]/PATH, got ${shownText(text)}`);
  }
  const isHost = ipv6 === undefined ? SSH_NAME.test(where) : SSH_IPV6.test(where);
  const wrong = !isHost ? 'host' : user !== undefined && !SSH_NAME.test(user) ? 'user' : undefined;
  if (wrong !== undefined) {
    const allowed = 'begins with a letter or digit, and has letters, digits, _ . + -';
    throw new TypeError(`${name}: the ${wrong} of ssh:// ${allowed}, got ${shownText(text)}`);
  }
  if (!SSH_PATH.test(path)) {
    throw new TypeError(
      `${name}: the path of ssh:// has letters, digits and / . _ - @ + , = ~, got ${shownText(text)}`,
    );
  }
  return { kind: 'ssh', user, host: where, port: port === undefined ? undefined : Number(port), path };
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
