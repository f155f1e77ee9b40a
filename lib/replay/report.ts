/** How a client's session with a recording went. */
import type { VfioUserError } from '../errors.js';
import { describe, formatDescription } from '../trace/index.js';
import { formatDifference, type Difference } from './difference.js';
import type { RecordedMessage } from './exchange.js';

/** How a client's session with a recording went. */
export interface ReplayReport {
  /**
   * `complete`: all of the recording was played, and nothing else came. `different`: the client did something else.
   * `incomplete`: it did not, and has not done, or had not when it left, all that is recorded.
   */
  outcome: 'complete' | 'different' | 'incomplete';
  /** The name of the recorded connection's socket. */
  connection: string;
  /** Requests of the client in the recording. */
  requests: number;
  /** Those of them that have been played. */
  played: number;
  /** The first request that has not: its number in the recording, and a line that says what it is. */
  next: { number: number; line: string } | undefined;
  /** What the client did else, in order; the first hundred. `differences[0]` is where it left the recording. */
  differences: readonly Difference[];
  /** How many there were. */
  differenceCount: number;
  /** Requests that were answered with an errno since then. */
  refused: number;
  /** Recorded interrupts for which the client had given no eventfd. */
  undelivered: number;
  /** What is not as it was recorded, or could not be recorded: memory and fds. */
  notes: readonly string[];
  /** Why the connection ended; undefined while it is open, or where no client has come. */
  reason: VfioUserError | undefined;
}

/** A number and the line of a message that has not been played. */
export function nextOf(message: RecordedMessage): { number: number; line: string } {
  return { number: message.number, line: formatDescription(describe(message.bytes)).replace(/^#\d+ /, '') };
}

/** What a report says, in lines. */
export function formatReport(report: ReplayReport): string {
  const { outcome, requests, played, next, differences, differenceCount, refused, undelivered } = report;
  const lines = [`${outcome}: ${played} of ${requests} recorded requests were played`];
  for (const difference of differences) lines.push(formatDifference(difference));
  const more = differenceCount - differences.length;
  if (more > 0) lines.push(`and ${more} more ${more === 1 ? 'difference' : 'differences'}`);
  if (refused > 0) lines.push(`${refused} ${refused === 1 ? 'request was' : 'requests were'} refused`);
  if (next !== undefined)
    lines.push(`${requests - played} are left, the next is message ${next.number}: ${next.line}`);
  if (undelivered > 0) lines.push(`${undelivered} recorded interrupts had no eventfd to go to`);
  for (const note of report.notes) lines.push(`note: ${note}`);
  return lines.join('\n');
}
