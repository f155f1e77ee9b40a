/** Connecting to AF_VSOCK, between a virtual machine and its host (vsock(7)). It carries bytes, no fds. */
import { TimeoutError, TransportError } from '../errors.js';
import { WRITABLE, check, native } from '../native.js';

/** A port of AF_VSOCK (vsock(7)). */
export interface VsockAddress {
  /** The context id, 0 to 2^32-1: 2 is the host, 1 this machine itself where the kernel has vsock loopback. */
  cid: number;
  /** The port, 0 to 2^32-1. */
  port: number;
}

const UINT32_MAX = 0xffff_ffff;

/**
 * A connected socket; the caller's.
 * @throws RangeError for what is no address; TransportError when the connection is refused or there is no vsock;
 * TimeoutError; the signal's reason.
 */
export async function connectVsock(
  { cid, port }: VsockAddress,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  for (const [name, value] of Object.entries({ cid, port })) {
    if (!Number.isInteger(value) || value < 0 || value > UINT32_MAX) {
      throw new RangeError(`vsock: ${name} is an unsigned integer of 32 bits, not ${String(value)}`);
    }
  }
  const name = `vsock ${cid}:${port}`;
  const fd = check(native().connectVsock(cid, port), 'connect', name);
  try {
    await connected(fd, name, timeoutMs, signal);
    check(native().socketError(fd), 'connect', name);
    return fd;
  } catch (error) {
    native().closeFd(fd);
    throw error;
  }
}

/** Settles when connecting has ended, either way. */
async function connected(
  fd: number,
  name: string,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  signal?.throwIfAborted();
  // The watcher owns what it watches: a duplicate, so that the socket itself stays ours.
  const watched = check(native().dupFd(fd), 'dup', name);
  let cleanUp = (): void => undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      const socket = new (native().Socket)(watched, () => resolve());
      const onAbort = () => reject(signal?.reason as Error);
      const timer = setTimeout(() => reject(new TimeoutError(`connect to ${name}`, timeoutMs)), timeoutMs);
      cleanUp = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        socket.close();
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      const result = socket.watch(WRITABLE);
      if (result < 0) reject(new TransportError('epoll_ctl', -result, name));
    });
  } finally {
    cleanUp();
  }
}
