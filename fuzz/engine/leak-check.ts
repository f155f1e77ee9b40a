/** What a run has left behind in the process. */
import { readdirSync, readlinkSync } from 'node:fs';
import { promise } from './target.js';

/** Turns of the loop in which what was closed may go. */
const TURNS = 50;

export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export function openFds(): number {
  return readdirSync('/proc/self/fd').length;
}

export function openEventFds(): number {
  return readdirSync('/proc/self/fd').filter((fd) => isEventFd(fd)).length;
}

function isEventFd(fd: string): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventfd]';
  } catch {
    return false;
  }
}

/** Timers that keep the process. */
function timers(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
}

/** @throws Error where fds or timers are left that were not there before. */
export async function nothingLeft(fdsBefore: number | undefined): Promise<void> {
  for (let i = 0; i < TURNS; i++) {
    await turn();
    if (timers() === 0 && (fdsBefore === undefined || openFds() <= fdsBefore)) return;
  }
  promise(timers() === 0, 'no timer is left');
  promise(fdsBefore === undefined || openFds() <= fdsBefore, 'no file descriptor is left');
}
