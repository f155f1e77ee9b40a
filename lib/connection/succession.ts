/**
 * Which channel is asked after which, so that what the next call needs can be fetched while this one's answer is awaited.
 *
 * Where a process asks a thousand devices in turn, what it has of each (some twenty objects, and the kernel's socket) has
 * left the processor's caches when its turn comes again. To fetch it takes 2 µs and more between an answer and the next
 * question, and makes more than that of them where the server's processor is halted meanwhile. Who followed last time
 * follows again, mostly; where not, something was fetched in vain while there was nothing else to do.
 *
 * ```
 *   ◀─▶ A ◀─▶ B ◀─▶ C          each has one before it and one after it at the most, and none once it is closed:
 *             ▲                nothing is kept that nobody else holds
 *          the latest
 * ```
 */
import type { Touchable } from '../transport/index.js';

export interface Successor extends Touchable {
  /** Who was asked before this one. */
  previous: Successor | undefined;
  /** Who was asked after it, last time. */
  next: Successor | undefined;
}

let latest: Successor | undefined;

/** `asked` is asked now. */
export function succeed(asked: Successor): void {
  const last = latest;
  if (last === asked) return;
  latest = asked;
  if (last === undefined || last.next === asked) return;
  part(last, last.next);
  part(asked.previous, asked);
  last.next = asked;
  asked.previous = last;
}

/** `closed` will not be asked any more. */
export function resign(closed: Successor): void {
  if (latest === closed) latest = undefined;
  part(closed.previous, closed);
  part(closed, closed.next);
}

function part(first: Successor | undefined, second: Successor | undefined): void {
  if (first === undefined || second === undefined) return;
  first.next = undefined;
  second.previous = undefined;
}
