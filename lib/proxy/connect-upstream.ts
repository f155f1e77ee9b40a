/** The way to the server: one connection for each client. */
import { TimeoutError, TransportError } from '../errors.js';
import { native } from '../native.js';
import { connectPath, connectStream, parseAddress, shownPath, unixPath } from '../transport/index.js';
import { connectVsock } from '../transport/vsock.js';
import type { OpenPeer } from './peer.js';
import type { ServerAddress, Settings } from './proxy-options.js';
import { streamPeer } from './stream-peer.js';
import { unixPeer } from './unix-peer.js';

/**
 * What people call the server; also the name of its sockets in traces and captures.
 * @throws TypeError for what is no address.
 */
export function serverName(address: ServerAddress): string {
  if (typeof address === 'string') {
    const parsed = parseAddress('proxy: connect', address);
    if (parsed.kind === 'unix') return shownPath(parsed.path);
    if (parsed.kind === 'ssh' || parsed.kind === 'vsock') return address;
    if (parsed.kind !== 'fd' && parsed.port > 0) return address;
    const what = 'an address that can be connected to again and again';
    throw new TypeError(`proxy: connect must be ${what}, got ${JSON.stringify(address)}`);
  }
  if (typeof address === 'object' && address !== null) {
    if ('path' in address) return shownPath(unixPath('proxy: connect.path', address.path));
    if ('vsock' in address) return `vsock ${address.vsock.cid}:${address.vsock.port}`;
    if ('dial' in address && typeof address.dial === 'function') return address.name ?? 'the server';
  }
  throw new TypeError('connect is a path, or an object with path, vsock or dial');
}

/** @throws TransportError, TimeoutError, what `dial` throws, the signal's reason. */
export async function connectUpstream(
  address: ServerAddress,
  { timeoutMs, waitForSocket, tls }: Settings,
  signal: AbortSignal,
): Promise<OpenPeer> {
  const name = serverName(address);
  if (typeof address === 'string') {
    const parsed = parseAddress('proxy: connect', address);
    if (parsed.kind === 'vsock') return unixPeer(await connectVsock(parsed, timeoutMs, signal), name, false);
    if (parsed.kind !== 'unix' && parsed.kind !== 'fd') {
      return streamPeer(await connectStream(parsed, name, { timeoutMs, waitForSocket, signal, tls }), name);
    }
  }
  if (typeof address === 'string' || 'path' in address) {
    const { fd } = await connectPath(pathOf(address), { timeoutMs, waitForSocket, signal });
    return unixPeer(fd, name);
  }
  if ('vsock' in address) return unixPeer(await connectVsock(address.vsock, timeoutMs, signal), name, false);
  return openDialled(address, name, timeoutMs, signal);
}

function pathOf(address: string | { path: string }): string {
  if (typeof address !== 'string') return address.path;
  const parsed = parseAddress('proxy: connect', address);
  return parsed.kind === 'unix' ? parsed.path : address;
}

async function openDialled(
  { dial }: Extract<ServerAddress, { dial: unknown }>,
  name: string,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<OpenPeer> {
  const giveUp = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  const dialling = (async () => dial(giveUp))();
  const aborted = new Promise<never>((_, reject) => {
    const onAbort = (): void =>
      reject(signal.aborted ? (signal.reason as Error) : new TimeoutError(`connect to ${name}`, timeoutMs));
    giveUp.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return peerOf(await Promise.race([dialling, aborted]), name);
  } catch (error) {
    // One that comes too late is nobody's.
    dialling.then(discard, () => undefined);
    throw error;
  }
}

type Dialled = Awaited<ReturnType<Extract<ServerAddress, { dial: unknown }>['dial']>>;

function peerOf(dialled: Dialled, name: string): OpenPeer {
  if (typeof dialled !== 'number') return streamPeer(dialled, name);
  const result = native().adoptSocket(dialled);
  if (result < 0) throw new TransportError('getsockopt', -result, `${name} is not a connected stream socket`);
  return unixPeer(dialled, name);
}

function discard(dialled: Dialled): void {
  if (typeof dialled === 'number') native().closeFd(dialled);
  else dialled.destroy();
}
