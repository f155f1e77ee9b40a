/** SOCKET on the command line: where a server is. */
import { connect as connectTcp, type Socket } from 'node:net';
import { constants } from 'node:os';
import { TimeoutError, TransportError } from '../errors.js';
import type { Endpoint } from '../index.js';
import { UsageError } from './errors.js';

const LOOPBACK = '127.0.0.1';
/** `tcp:PORT`, `tcp:HOST:PORT`, `tcp:[IPV6]:PORT`. */
const TCP = /^tcp:(?:(?:\[(?<ipv6>[^\]]+)\]|(?<host>[^:]+)):)?(?<port>\d{1,5})$/;
const MAX_PORT = 65535;

/** A Unix socket's address: `@name` is an abstract one, which the system writes with a NUL. */
export function unixAddress(text: string): string {
  if (text === '' || text === '@') throw new UsageError('the socket has no name');
  return text.startsWith('@') ? `\0${text.slice(1)}` : text;
}

/**
 * Where to listen, of a server that passes file descriptors: no TCP port, nor a file that is called like one.
 * @throws UsageError
 */
export function listeningAddress(text: string): string {
  if (!/^(?:tcp|fd|vsock):/.test(text)) return unixAddress(text);
  const forTcp = text.startsWith('tcp:') ? '; `vfio-user proxy` listens on TCP in front of it' : '';
  throw new UsageError(
    `--socket is a path or @name, not '${text}'${forTcp}. A file of that name is './${text}'`,
  );
}

/**
 * What `connect` takes. TCP is connected here, within the timeout.
 * @throws UsageError for what is no address, TransportError and TimeoutError for TCP.
 */
export async function endpointOf(text: string, timeoutMs: number): Promise<Endpoint> {
  if (text.startsWith('fd:')) return { fd: inheritedFd(text) };
  if (!text.startsWith('tcp:')) return unixAddress(text);
  const { host, port } = tcpAddress(text);
  if (port === 0) throw notTcp(text);
  return { stream: await openTcp(host, port, text, timeoutMs), name: text };
}

/** Of `tcp:…`. Port 0 is any that is free. @throws UsageError for what is no address. */
export function tcpAddress(text: string): { host: string; port: number } {
  const groups = TCP.exec(text)?.groups;
  const port = Number(groups?.['port']);
  if (groups === undefined || port > MAX_PORT) throw notTcp(text);
  return { host: groups['ipv6'] ?? groups['host'] ?? LOOPBACK, port };
}

function notTcp(text: string): UsageError {
  return new UsageError(
    `'${text}' is no address: tcp:HOST:PORT, tcp:[IPV6]:PORT, or tcp:PORT on this machine`,
  );
}

/** 0 to 2 are the terminal's, or the caller's pipes. */
function inheritedFd(text: string): number {
  const digits = text.slice('fd:'.length);
  const fd = Number(digits);
  if (!/^\d{1,9}$/.test(digits) || fd < 3)
    throw new UsageError(`'${text}' is no inherited socket: fd:3 and up`);
  return fd;
}

/** @throws TransportError and TimeoutError. */
export function openTcp(host: string, port: number, name: string, timeoutMs: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    // Commands are small and wait for their replies: nothing is gained by holding them back.
    const socket = connectTcp({ host, port, noDelay: true });
    const fail = (error: Error) => {
      clearTimeout(timer);
      socket.destroy();
      reject(error);
    };
    const timer = setTimeout(() => fail(new TimeoutError(`connect to ${name}`, timeoutMs)), timeoutMs);
    const onError = (error: NodeJS.ErrnoException) => fail(tcpError(error, name));
    socket.once('error', onError);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.off('error', onError);
      resolve(socket);
    });
  });
}

/** A name that does not resolve has a code without number: then Node's own words are the best there are. */
function tcpError(error: NodeJS.ErrnoException, name: string): Error {
  const errno = constants.errno[error.code as keyof typeof constants.errno] as number | undefined;
  return errno === undefined ? error : new TransportError('connect', errno, name, { cause: error });
}
