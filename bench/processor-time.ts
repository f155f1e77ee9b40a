/** Processor time of processes that have ended, without a wrapper around them that would be measured with them. */
import { readFileSync } from 'node:fs';

export interface ProcessorTime {
  userSeconds: number;
  systemSeconds: number;
}

/** USER_HZ, in which /proc counts on every Linux that Node runs on: times are exact to 10 ms. */
const TICKS_A_SECOND = 100;

/** Of all children of this process that have ended. */
export function childrenTime(): ProcessorTime {
  return parseChildrenTime(readFileSync('/proc/self/stat', 'latin1'));
}

/** proc(5): cutime and cstime are fields 16 and 17. The second field is a name in parentheses, with whatever in it. */
export function parseChildrenTime(stat: string): ProcessorTime {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [user, system] = [fields[13], fields[14]].map(Number);
  if (!Number.isFinite(user) || !Number.isFinite(system)) throw new Error(`not as proc(5) has it: ${stat}`);
  return { userSeconds: user! / TICKS_A_SECOND, systemSeconds: system! / TICKS_A_SECOND };
}
