/** Where a server is, and the way to a transport from there. */
import { stat } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { TimeoutError, TransportError } from '../errors.js';
import { UINT32_MAX, wrongType } from '../fields.js';
import { EAGAIN, ECONNREFUSED, ENOENT, closeFds, native } from '../native.js';
import * as option from '../options.js';
import { openDialled, type Dial } from './dial.js';
import { DuplexTransport } from './duplex.js';
import { checkSocketPermissions, type PermissionOptions } from './socket-permissions.js';
import type { Transport, TransportHandler } from './transport.js';
import { UnixTransport } from './unix.js';
import { connectVsock, type VsockAddress } from './vsock.js';

export type { VsockAddress } from './vsock.js';

/**
 * Where a server is: a Unix socket's path (an abstract name begins with NUL), a connected socket's fd that was
 * inherited, a vsock port, any Duplex that carries bytes (TCP, TLS, a child's stdio), or a function that opens one, which
 * may be called again. The fd and the stream are ours from here on.
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
  /** Waits for the socket to appear and to be listened on, within the time. */
  waitForSocket: boolean;
  signal: AbortSignal | undefined;
}

const ADDRESS = new option.OptionTable<VsockAddress>(
  { cid: option.wholeNumber(0, UINT32_MAX), port: option.wholeNumber(0, UINT32_MAX) },
  ['cid', 'port'],
);
/** By what an endpoint has: all that it may have. */
const ENDPOINTS = {
  path: new option.OptionTable<{ path: string }>({ path: option.string }, ['path']),
  fd: new option.OptionTable<{ fd: number }>({ fd: option.wholeNumber(0, 0x7fff_ffff) }, ['fd']),
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

/** sun_path of unix(7), without the NUL at its end. */
const MAX_PATH_BYTES = 107;
/** Between tries to connect: short at first. */
const FIRST_PAUSE_MS = 1;
const LONGEST_PAUSE_MS = 50;

/**
 * Checks an endpoint before anything is done: what fails is still its caller's.
 * @throws TypeError and RangeError, which say what it must be.
 */
export function checkEndpoint(caller: string, endpoint: Endpoint): void {
  if (typeof endpoint === 'string') {
    checkPath(`${caller}: endpoint`, endpoint);
    return;
  }
  if (typeof endpoint !== 'object' || endpoint === null) {
    const what = 'a path, or an object with path, fd, vsock, stream or dial';
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
  if ('path' in endpoint) checkPath(`${caller}: endpoint.path`, endpoint.path);
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
  if (typeof endpoint === 'string') return openPath(endpoint, options);
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
  checkPath('a socket path', path);
  options.signal?.throwIfAborted();
  const name = path.startsWith('\0') ? `@${path.slice(1)}` : path;
  const fd = await connectUnix(path, name, options);
  try {
    checkSocketPermissions(path, name, fd, options);
    return { fd, name };
  } catch (error) {
    closeFds([fd]);
    throw error;
  }
}

function checkPath(name: string, path: string): void {
  if (typeof path !== 'string') throw wrongType(name, "a socket's path", path);
  if (path === '') throw new TypeError(`${name} must be a socket's path, not empty`);
  if (path.includes('\0', 1)) {
    throw new TypeError(`${name} must have no NUL but at its beginning, where an abstract name has it`);
  }
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_PATH_BYTES) {
    throw new RangeError(`${name} must have at most ${MAX_PATH_BYTES} bytes (sun_path), not ${bytes}`);
  }
}

async function connectUnix(path: string, name: string, options: OpenOptions): Promise<number> {
  const deadline = performance.now() + options.timeoutMs;
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(LONGEST_PAUSE_MS, pause * 2)) {
    const fd = native().connectUnix(path);
    if (fd >= 0) return fd;
    if (!mayPass(-fd, options.waitForSocket)) throw await connectError(path, name, -fd);
    if (performance.now() + pause > deadline) {
      const cause = await connectError(path, name, -fd);
      throw new TimeoutError(`connect to ${name}`, options.timeoutMs, { cause });
    }
    await sleep(pause, undefined, { signal: options.signal }).catch(() => options.signal?.throwIfAborted());
  }
}

/** A full backlog empties; a socket that is not there yet may appear, if the caller says so. */
function mayPass(errno: number, waitForSocket: boolean): boolean {
  return errno === EAGAIN || (waitForSocket && (errno === ENOENT || errno === ECONNREFUSED));
}

async function connectError(path: string, name: string, errno: number): Promise<TransportError> {
  let detail = name;
  if (errno === ECONNREFUSED && !path.startsWith('\0')) {
    // The kernel says the same of a file that is no socket and of a socket that nobody listens on.
    const isSocket = await stat(path).then(
      (stats) => stats.isSocket(),
      () => true,
    );
    detail = isSocket ? `${name}: nobody listens there` : `${name} is not a socket`;
  }
  return new TransportError('connect', errno, detail);
}
