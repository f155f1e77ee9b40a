/** A Unix socket to listen on, and its file. */
import { lstat, readFile, unlink } from 'node:fs/promises';
import { lstatSync, unlinkSync, type Stats } from 'node:fs';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import { TransportError } from '../errors.js';
import { check, ECONNREFUSED, native } from '../native.js';

const { EADDRINUSE } = constants.errno;
/** Flags of /proc/net/unix: __SO_ACCEPTCON. */
const LISTENING = '00010000';

export interface ListeningSocket {
  /** The caller's. */
  fd: number;
  /** Removes the socket file, unless another has taken its place. */
  removeFile(): void;
}

/**
 * Listens at `path`, an abstract name where it begins with NUL. A socket file that nobody listens on is replaced.
 *
 * @throws TransportError EADDRINUSE where somebody listens or the file is no socket, and whatever bind(2) says.
 */
export async function listenAt(path: string, backlog: number, mode: number): Promise<ListeningSocket> {
  if (typeof path !== 'string' || path === '' || path.includes('\0', 1)) {
    throw new TypeError('a socket path is a string, not empty and without NUL inside');
  }
  let fd = native().listenUnix(path, backlog, mode);
  if (fd === -EADDRINUSE && !isAbstract(path)) {
    await removeStale(path);
    fd = native().listenUnix(path, backlog, mode);
  }
  check(fd, 'bind', shown(path));
  return { fd, removeFile: isAbstract(path) ? () => {} : remover(path) };
}

function isAbstract(path: string): boolean {
  return path.startsWith('\0');
}

function shown(path: string): string {
  return isAbstract(path) ? `@${path.slice(1)}` : path;
}

async function removeStale(path: string): Promise<void> {
  const stats = await lstat(path).catch(() => undefined);
  if (stats === undefined) return;
  if (!stats.isSocket()) throw new TransportError('bind', EADDRINUSE, `${path} is not a socket`);
  if (await isListenedOn(path)) throw new TransportError('bind', EADDRINUSE, `somebody listens at ${path}`);
  await unlink(path).catch(() => {});
}

/** Asks the kernel's list first: some servers do not survive a connection that is closed at once. */
async function isListenedOn(path: string): Promise<boolean> {
  const sockets = await readFile('/proc/net/unix', 'latin1').catch(() => '');
  for (const line of sockets.split('\n')) {
    const [, , , flags, , , , ...name] = line.split(' ').filter((field) => field !== '');
    const bound = name.join(' ');
    if (flags === LISTENING && (bound === path || bound === resolve(path))) return true;
  }
  const fd = native().connectUnix(path);
  if (fd >= 0) native().closeFd(fd);
  return fd !== -ECONNREFUSED;
}

function remover(path: string): () => void {
  const ours = statOf(path);
  return () => {
    const there = statOf(path);
    if (ours === undefined || there?.ino !== ours.ino || there.dev !== ours.dev) return;
    try {
      unlinkSync(path);
    } catch {
      // Somebody was faster.
    }
  };
}

function statOf(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}
