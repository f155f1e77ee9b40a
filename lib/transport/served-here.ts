/**
 * Which sockets the servers of this thread answer on. A client that blocks the thread waits for itself where its server
 * lives on the same event loop, so it has to know. Another thread has this module, and so the list, for itself.
 *
 * Both ends of a Unix socket are inodes, and the kernel says which two belong together: whether they came of connect(2),
 * of socketpair(2), or were handed over by another process.
 */
import { fstatSync } from 'node:fs';
import { native } from '../native.js';

const served = new Set<number>();

/** What comes on `fd` is answered by this thread's event loop, until what this returns is called. */
export function serveHere(fd: number): () => void {
  const inode = inodeOf(fd);
  if (inode === undefined) return () => undefined;
  served.add(inode);
  return () => void served.delete(inode);
}

/** Whether the other end of `fd` is served by this thread. False where the system does not tell who the other end is. */
export function isServedHere(fd: number): boolean {
  return served.size > 0 && served.has(native().peerInode(fd));
}

/** Undefined for a socket that has been closed. */
function inodeOf(fd: number): number | undefined {
  try {
    return fstatSync(fd).ino;
  } catch {
    return undefined;
  }
}
