/** Huge pages of the machine, as it says in /proc/meminfo. */
import { readFileSync } from 'node:fs';

export const HUGE_PAGE = 2 << 20;

/** How many of 2 MiB are free. */
export function freeHugePages(): number {
  const text = readFileSync('/proc/meminfo', 'utf8');
  const size = Number(/Hugepagesize:\s+(\d+) kB/.exec(text)?.[1] ?? 0) * 1024;
  return size === HUGE_PAGE ? Number(/HugePages_Free:\s+(\d+)/.exec(text)?.[1] ?? 0) : 0;
}
