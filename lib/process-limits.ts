/**
 * What the kernel lets a process have. Servers give half of it to their clients, in equal shares: the other half is the
 * process's own, which does not survive without (V8 ends the process when it gets no mapping).
 */
import { readFileSync } from 'node:fs';

/** The kernel's default. */
const USUAL_MAX_MAP_COUNT = 65_530;
const USUAL_MAX_FILES = 1_024;
/** Two messages with as many as one may bring (`maxMsgFds`). */
const LEAST_QUEUED_FDS = 128;
const MOST_QUEUED_FDS = 256;

/** Mappings that clients may have together: half of vm.max_map_count. The addon makes no more than those. */
export function mappingsForClients(): number {
  return Math.floor(numberIn('/proc/sys/vm/max_map_count', /(\d+)/, USUAL_MAX_MAP_COUNT) / 2);
}

/** File descriptors that clients may have together: half of RLIMIT_NOFILE. */
export function fdsForClients(): number {
  return Math.floor(numberIn('/proc/self/limits', /^Max open files\s+(\d+)/m, USUAL_MAX_FILES) / 2);
}

/**
 * File descriptors that may wait with the commands of one of so many clients, beside those that are kept for it: half as
 * many, but as many as two commands bring, whatever the limits are.
 */
export function queuedFdsFor(clients: number): number {
  const share = Math.floor(fdsForClients() / 2 / clients);
  return Math.max(LEAST_QUEUED_FDS, Math.min(share, MOST_QUEUED_FDS));
}

function numberIn(path: string, pattern: RegExp, otherwise: number): number {
  try {
    return Number(pattern.exec(readFileSync(path, 'latin1'))?.[1] ?? otherwise);
  } catch {
    return otherwise;
  }
}
