/** Counts this process's open file descriptors: what a spec opened must be gone when it ends. */
import { readdirSync } from 'node:fs';

export function openFds(): number {
  // The directory that is being read has an fd of its own.
  return readdirSync('/proc/self/fd').length - 1;
}
