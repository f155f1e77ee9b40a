/**
 * A Unix socket to listen on, and its file.
 *
 * A socket file stays when its server dies, and must then be replaced: found to be stale, removed, bound again. Nothing
 * of that is atomic, and a server that has bound its socket does not listen yet. So whoever begins to listen has a lock
 * on the directory, flock(2) of it, from before it looks until it listens: of two that begin at the same moment the
 * second finds a socket that is listened on. The lock goes with its process, and leaves no file.
 */
import { closeSync, constants, lstatSync, openSync, readFileSync, unlinkSync, type Stats } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { TransportError } from '../errors.js';
import { check, EAGAIN, ECONNREFUSED, native } from '../native.js';
import { listeningPath, shownPath } from './address.js';
import { EADDRINUSE, ENOENT } from '../system-numbers.js';

const { O_DIRECTORY, O_NONBLOCK, O_RDONLY } = constants;
/** Flags of /proc/net/unix: __SO_ACCEPTCON. */
const LISTENING = '00010000';
/** Others have the lock for a moment each. Milliseconds. */
const LOCK_PATIENCE_MS = 2_000;
const LOCK_PAUSE_MS = 1;

export interface ListeningSocket {
  /** The caller's. */
  fd: number;
  /** Removes the socket file, unless another has taken its place. */
  removeFile(): void;
}

/**
 * Listens at `path`, an abstract name where it begins with `@` or NUL. A socket file that nobody listens on is replaced; of
 * several that do so at the same moment one listens. Where the directory cannot be locked, no file is replaced.
 *
 * @throws TransportError EADDRINUSE where somebody listens or the file is not to be replaced, EAGAIN where the directory stays
 * locked, and whatever bind(2) says.
 */
export async function listenAt(path: string, backlog: number, mode: number): Promise<ListeningSocket> {
  const address = listeningPath('path', path);
  if (address.startsWith('\0')) {
    const fd = check(native().listenUnix(address, backlog, mode), 'bind', shownPath(address));
    return { fd, removeFile: () => undefined };
  }
  const lock = await lockDirectory(dirname(address));
  try {
    // Nothing in here waits: others that wait for the lock may be of this thread.
    return listenLocked(address, backlog, mode, lock !== undefined);
  } finally {
    lock?.release();
  }
}

function listenLocked(path: string, backlog: number, mode: number, isLocked: boolean): ListeningSocket {
  let fd = native().listenUnix(path, backlog, mode);
  if (fd === -EADDRINUSE) {
    removeStale(path, isLocked);
    fd = native().listenUnix(path, backlog, mode);
  }
  check(fd, 'bind', path);
  return { fd, removeFile: remover(path) };
}

interface DirectoryLock {
  release(): void;
}

/** Undefined where there is no lock: the directory cannot be read, or its file system has none. */
async function lockDirectory(directory: string): Promise<DirectoryLock | undefined> {
  const deadline = performance.now() + LOCK_PATIENCE_MS;
  for (;;) {
    const lock = tryToLock(directory);
    if (lock !== 'taken') return lock;
    if (performance.now() > deadline) {
      throw new TransportError('flock', EAGAIN, `another process keeps ${directory} locked`);
    }
    await sleep(LOCK_PAUSE_MS);
  }
}

function tryToLock(directory: string): DirectoryLock | 'taken' | undefined {
  let fd: number;
  try {
    // Not of a FIFO, which would block until somebody writes to it.
    fd = openSync(directory, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
  } catch {
    return undefined;
  }
  const result = native().lockFile(fd);
  if (result === 0) return { release: () => closeSync(fd) };
  closeSync(fd);
  return result === -EAGAIN ? 'taken' : undefined;
}

function removeStale(path: string, isLocked: boolean): void {
  const stats = statOf(path);
  if (stats === undefined) return;
  if (!stats.isSocket()) throw new TransportError('bind', EADDRINUSE, `${path} is not a socket`);
  if (isListenedOn(path)) throw new TransportError('bind', EADDRINUSE, `somebody listens at ${path}`);
  if (!isLocked) {
    const why = 'its directory cannot be locked against others who begin to listen there';
    throw new TransportError('bind', EADDRINUSE, `nobody listens at ${path}, but ${why}: remove it yourself`);
  }
  unlink(path);
}

/** Asks the kernel's list first: some servers do not survive a connection that is closed at once. */
function isListenedOn(path: string): boolean {
  for (const line of listOfSockets().split('\n')) {
    const [, , , flags, , , , ...name] = line.split(' ').filter((field) => field !== '');
    const bound = name.join(' ');
    if (flags === LISTENING && (bound === path || bound === resolve(path))) return true;
  }
  const fd = native().connectUnix(path);
  if (fd >= 0) native().closeFd(fd);
  // Whoever listened may have removed it just now.
  return fd !== -ECONNREFUSED && fd !== -ENOENT;
}

function listOfSockets(): string {
  try {
    return readFileSync('/proc/net/unix', 'latin1');
  } catch {
    return '';
  }
}

/**
 * What is there is ours where it is our inode, whose number nobody else gets while the socket is open: so the file goes
 * before the socket is closed. The lock keeps others from putting theirs there between the look and the removal.
 */
function remover(path: string): () => void {
  const ours = statOf(path);
  return () => {
    const lock = tryToLock(dirname(path));
    try {
      const there = statOf(path);
      if (ours !== undefined && there?.ino === ours.ino && there.dev === ours.dev) unlink(path);
    } catch {
      // The directory cannot be searched any more: the file stays, and whatever closes goes on.
    } finally {
      // Whoever has it sees that we still listen.
      if (lock !== 'taken') lock?.release();
    }
  };
}

/** Somebody may be faster. */
function unlink(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // bind(2) says so where it matters.
  }
}

function statOf(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}
