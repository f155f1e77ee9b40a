/** Work whose length a peer decides: the loop turns while it is done. */
import { setImmediate as turn } from 'node:timers/promises';
import { performance } from 'node:perf_hooks';

/** How long one turn may take. */
const TURN_MS = 10;
/** The clock is looked at once in so many. */
const CHECKED_EACH = 256;

/** Calls `each` with every item, in order. */
export async function yieldingForEach<T>(items: Iterable<T>, each: (item: T) => void): Promise<void> {
  let since = performance.now();
  let count = 0;
  for (const item of items) {
    each(item);
    if (++count % CHECKED_EACH !== 0 || performance.now() - since < TURN_MS) continue;
    await turn();
    since = performance.now();
  }
}
