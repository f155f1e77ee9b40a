/** What a process holds, once it has settled. */
import { readdirSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Bytes, after collections of garbage. */
export async function settledRss(): Promise<number> {
  for (let i = 0; i < 4; i++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  return process.memoryUsage.rss();
}

export function openFds(): number {
  // The directory that is being read has an fd of its own.
  return readdirSync('/proc/self/fd').length - 1;
}
