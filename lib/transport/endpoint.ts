/** Where a server is, and the way to a transport from there. */
import { stat } from 'node:fs/promises';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { TimeoutError, TransportError } from '../errors.js';
import { UINT32_MAX, wrongType } from '../fields.js';
import { EAGAIN, ECONNREFUSED, ENOENT, closeFds, native } from '../native.js';
import * as option from '../options.js';
import { openTcp, parseAddress, shownPath, unixPath, type Address } from './address.js';
import { openDialled, type Dial } from './open-stream.js';
import { openSsh } from './ssh.js';
import { openTls, type TlsSettings } from './tls.js';
import { DuplexTransport } from './duplex.js';
import { checkSocketPermissions, type PermissionOptions } from './socket-permissions.js';
import type { Transport, TransportHandler } from './transport.js';
import { UnixTransport } from './unix.js';
import { connectVsock, type VsockAddress } from './vsock.js';
import { MAX_FD } from '../system-numbers.js';

export type { VsockAddress } from './vsock.js';

/**
 * Where a server is. As a string what the command line takes: a Unix socket's path (also after `unix:`), `@name` for an abstract one
 * (or the name with NUL before it), `tcp:HOST:PORT`, `tcp://HOST:PORT`, `tcp:PORT`, `tls://HOST:PORT`,
 * `ssh://USER@HOST:PORT/PATH` of a Unix socket there, `vsock://CID:PORT`, `fd:N`. As an object a Unix socket's path or `@name`, a connected
 * socket's fd that was inherited, a vsock port, any Duplex that carries bytes (TLS, a child's stdio), or a function that
 * opens one, which may be called again. The fd and the stream are ours from here on.
 */
export type Endpoint =
  | string
  | { path: string }
  | { fd: number }
  | { vsock: VsockAddress }
  | { stream: Duplex; name?: string }
  | { dial: Dial; name?: string };

export interface OpenOptions extends PermissionOptions {
  /** How long to try, in milliseconds. */
  timeoutMs: number;
  /** Waits for the socket (Unix or TCP) to appear and to be listened on, within the time. */
  waitForSocket: boolean;
  signal: AbortSignal | undefined;
  /** For `tls://`. */
  tls?: TlsSettings | undefined;
}

const ADDRESS = new option.OptionTable<VsockAddress>(
  { cid: option.wholeNumber(0, UINT32_MAX), port: option.wholeNumber(0, UINT32_MAX) },
  ['cid', 'port'],
);
/** By what an endpoint has: all that it may have. */
const ENDPOINTS = {
  path: new option.OptionTable<{ path: string }>({ path: option.string }, ['path']),
  fd: new option.OptionTable<{ fd: number }>({ fd: option.wholeNumber(0, MAX_FD) }, ['fd']),
  vsock: new option.OptionTable<{ vsock: VsockAddress }>({ vsock: option.options(ADDRESS) }, ['vsock']),
  stream: new option.OptionTable<{ stream: Duplex; name?: string }>(
    { stream: option.duplex, name: option.string },
    ['stream'],
  ),
  dial: new option.OptionTable<{ dial: Dial; name?: string }>(
    { dial: option.callback, name: option.string },
    ['dial'],
  ),
};

/** Between tries to connect: short at first. */
const FIRST_PAUSE_MS = 1;
const LONGEST_PAUSE_MS = 50;

/**
 * Checks an endpoint before anything is done: what fails is still its caller's.
 * @throws TypeError and RangeError, which say what it must be.
 */
export function checkEndpoint(caller: string, endpoint: Endpoint): void {
  if (typeof endpoint === 'string') {
    const address = parseAddress(`${caller}: endpoint`, endpoint);
    if ((address.kind === 'tcp' || address.kind === 'tls') && address.port === 0) {
      throw new TypeError(
        `${caller}: endpoint must have a port to connect to, got ${JSON.stringify(endpoint)}`,
      );
    }
    return;
  }
  if (typeof endpoint !== 'object' || endpoint === null) {
    const what = 'a path, @name, tcp:HOST:PORT or fd:N, or an object with path, fd, vsock, stream or dial';
    throw wrongType(`${caller}: endpoint`, what, endpoint);
  }
  const kind = (Object.keys(ENDPOINTS) as (keyof typeof ENDPOINTS)[]).find((name) => name in endpoint);
  if (kind === undefined) {
    const given = Object.keys(endpoint).join(', ') || 'nothing';
    throw new TypeError(
      `${caller}: an endpoint has one of path, fd, vsock, stream and dial; this one has ${given}`,
    );
  }
  const table: option.OptionTable<object> = ENDPOINTS[kind];
  const problem = table.find(caller, 'endpoint.', endpoint);
  if (problem !== undefined) throw problem;
  if ('path' in endpoint) unixPath(`${caller}: endpoint.path`, endpoint.path);
}

/**
 * Opens an endpoint.
 * @throws TypeError or RangeError for what is no endpoint; TransportError when the connection is refused;
 * TimeoutError; the signal's reason.
 */
export async function openEndpoint(
  endpoint: Endpoint,
  options: OpenOptions,
): Promise<(handler: TransportHandler) => Transport> {
  if (typeof endpoint === 'string') return openAddress(endpoint, options);
  if (options.signal?.aborted === true) {
    discard(endpoint);
    throw options.signal.reason;
  }
  if ('path' in endpoint) return openPath(endpoint.path, options);
  if ('fd' in endpoint) return openFd(endpoint.fd);
  if ('vsock' in endpoint) return openVsock(endpoint.vsock, options);
  if ('stream' in endpoint) {
    const { stream, name = 'the stream' } = endpoint;
    return (handler) => new DuplexTransport(stream, name, handler);
  }
  if ('dial' in endpoint) {
    const { dial, name = 'the stream' } = endpoint;
    const stream = await openDialled(dial, name, options.timeoutMs, options.signal);
    return (handler) => new DuplexTransport(stream, name, handler);
  }
  throw new TypeError('an endpoint needs one of path, fd, vsock, stream and dial');
}

async function openAddress(
  text: string,
  options: OpenOptions,
): Promise<(handler: TransportHandler) => Transport> {
  const address = parseAddress('endpoint', text);
  if (address.kind === 'unix') return openPath(address.path, options);
  if (address.kind === 'fd') return openEndpoint({ fd: address.fd }, options);
  if (address.kind === 'vsock') return openVsock(address, options);
  const stream = await connectStream(address, text, options);
  return (handler) => new DuplexTransport(stream, text, handler);
}

/** Whether it can be opened again when its server comes back. */
export function canOpenAgain(endpoint: Endpoint): boolean {
  if (typeof endpoint === 'string') return parseAddress('endpoint', endpoint).kind !== 'fd';
  return 'path' in endpoint || 'vsock' in endpoint || 'dial' in endpoint;
}

/** What was handed to us and will not be used. */
function discard(endpoint: Exclude<Endpoint, string>): void {
  if ('fd' in endpoint && Number.isInteger(endpoint.fd)) closeFds([endpoint.fd]);
  else if ('stream' in endpoint) endpoint.stream.destroy();
}

/** A connected socket that we were handed: the twin socket, an inherited fd. Owned from here on, also on failure. */
export function openFd(fd: number, name = `fd ${fd}`): (handler: TransportHandler) => Transport {
  if (!Number.isInteger(fd) || fd < 0) throw new RangeError(`an fd is a non-negative integer, not ${fd}`);
  const result = native().adoptSocket(fd);
  if (result < 0) {
    native().closeFd(fd);
    throw new TransportError('getsockopt', -result, `${name} is not a connected stream socket`);
  }
  return (handler) => new UnixTransport(fd, name, handler);
}

async function openVsock(
  address: VsockAddress,
  options: OpenOptions,
): Promise<(handler: TransportHandler) => Transport> {
  const fd = await connectVsock(address, options.timeoutMs, options.signal);
  const name = `vsock ${address.cid}:${address.port}`;
  return (handler) => new UnixTransport(fd, name, handler, false);
}

async function openPath(
  path: string,
  options: OpenOptions,
): Promise<(handler: TransportHandler) => Transport> {
  const { fd, name } = await connectPath(path, options);
  return (handler) => new UnixTransport(fd, name, handler);
}

/**
 * A connected Unix socket, the caller's, and what people call it.
 * @throws TypeError or RangeError for what is no path; TransportError, TimeoutError, the signal's reason; VfioUserError
 * where `socketPermissions` refuses the socket.
 */
export async function connectPath(path: string, options: OpenOptions): Promise<{ fd: number; name: string }> {
  const address = unixPath('a socket path', path);
  options.signal?.throwIfAborted();
  const name = shownPath(address);
  const fd = await connectUnix(address, name, options);
  try {
    checkSocketPermissions(address, name, fd, options);
    return { fd, name };
  } catch (error) {
    closeFds([fd]);
    throw error;
  }
}

/** Tries until it succeeds, fails for good, or the time is over. `name` is what people call the server. */
async function trying<T>(
  name: string,
  { timeoutMs, waitForSocket, signal }: OpenOptions,
  attempt: (leftMs: number) => Promise<T> | T,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(LONGEST_PAUSE_MS, pause * 2)) {
    try {
      return await attempt(Math.max(1, deadline - performance.now()));
    } catch (cause) {
      if (!(cause instanceof TransportError) || !mayPass(cause.errno, waitForSocket)) throw cause;
      if (performance.now() + pause > deadline) {
        throw new TimeoutError(`connect to ${name}`, timeoutMs, { cause });
      }
    }
    await sleep(pause, undefined, { signal }).catch(() => signal?.throwIfAborted());
  }
}

function connectUnix(path: string, name: string, options: OpenOptions): Promise<number> {
  return trying(name, options, async () => {
    const fd = native().connectUnix(path);
    if (fd < 0) throw await connectError(path, name, -fd, options.waitForSocket);
    return fd;
  });
}

/**
 * A connected stream; the caller's.
 * @throws TransportError, TimeoutError, the signal's reason.
 */
export function connectTcp(
  address: { host: string; port: number },
  name: string,
  options: OpenOptions,
): Promise<Socket> {
  return trying(name, options, async (leftMs) => {
    try {
      return await openTcp(address, name, leftMs, options.signal);
    } catch (error) {
      if (error instanceof TimeoutError) throw new TimeoutError(`connect to ${name}`, options.timeoutMs);
      if (!(error instanceof TransportError) || error.errno !== ECONNREFUSED) throw error;
      throw notThere(error.errno, `${name}: nobody listens there`, options.waitForSocket, { cause: error });
    }
  });
}

/** What is reached over a stream of bytes. */
export type StreamAddress = Extract<Address, { kind: 'tcp' | 'tls' | 'ssh' }>;

/**
 * A connected stream to one of the addresses that have no file descriptors; the caller's.
 * @throws TransportError, TimeoutError, VfioUserError of TLS and ssh, the signal's reason.
 */
export async function connectStream(
  address: StreamAddress,
  name: string,
  options: OpenOptions,
): Promise<Duplex> {
  if (address.kind === 'tcp') return connectTcp(address, name, options);
  if (address.kind === 'ssh') return openSsh(address, name, options.timeoutMs, options.signal);
  const deadline = performance.now() + options.timeoutMs;
  const socket = await connectTcp(address, name, options);
  const leftMs = Math.max(1, deadline - performance.now());
  return openTls(
    socket,
    address.host,
    name,
    { leftMs, timeoutMs: options.timeoutMs },
    options.signal,
    options.tls,
  );
}

/** A full backlog empties; a socket that is not there yet may appear, if the caller says so. */
function mayPass(errno: number, waitForSocket: boolean): boolean {
  return errno === EAGAIN || (waitForSocket && (errno === ENOENT || errno === ECONNREFUSED));
}

async function connectError(
  path: string,
  name: string,
  errno: number,
  waits: boolean,
): Promise<TransportError> {
  if (errno === ENOENT) return notThere(errno, `${name} does not exist`, waits);
  if (errno !== ECONNREFUSED) return new TransportError('connect', errno, name);
  // The kernel says the same of a file that is no socket and of a socket that nobody listens on.
  const isSocket =
    path.startsWith('\0') ||
    (await stat(path).then(
      (stats) => stats.isSocket(),
      () => true,
    ));
  if (!isSocket) return new TransportError('connect', errno, `${name} is not a socket`);
  return notThere(errno, `${name}: nobody listens there`, waits);
}

/** What a newcomer will ask. Whoever has waited knows. */
function notThere(errno: number, what: string, waits: boolean, options?: ErrorOptions): TransportError {
  const hint = waits
    ? ''
    : '; is the server running? waitForSocket, on the command line --wait, waits for it';
  return new TransportError('connect', errno, what + hint, options);
}
