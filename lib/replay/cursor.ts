/** Where in the recording a client is: finds the exchange for each request that comes. */
import type { Comparable, Comparison } from './comparison.js';
import { differenceOf, type Difference } from './difference.js';
import type { Exchange } from './exchange.js';
import { headerCommand } from '../protocol/header.js';

export type Found =
  | {
      kind: 'exchange';
      exchange: Exchange;
      /** It was played before: only its reply is given once more. */
      isRepeated: boolean;
      /** What was left out before it. */
      skipped: readonly Exchange[];
    }
  | { kind: 'difference'; difference: Difference };

export interface Cursor {
  next(request: Comparable): Found;
  /** Exchanges that have not been played, in order. */
  readonly left: readonly Exchange[];
}

/** How far ahead a client that goes on after a difference is looked for. */
const LOOK_AHEAD = 256;

/** One after the other, as recorded. */
export class OrderedCursor implements Cursor {
  readonly #exchanges: readonly Exchange[];
  readonly #comparison: Comparison;
  readonly #mayResume: boolean;
  #at = 0;

  /** `mayResume` looks for the place where a client goes on that did something else, or left something out. */
  constructor(exchanges: readonly Exchange[], comparison: Comparison, mayResume: boolean) {
    this.#exchanges = exchanges;
    this.#comparison = comparison;
    this.#mayResume = mayResume;
  }

  get left(): readonly Exchange[] {
    return this.#exchanges.slice(this.#at);
  }

  next(request: Comparable): Found {
    const key = this.#comparison.keyOf(request);
    const reach = this.#mayResume ? LOOK_AHEAD : 1;
    const end = Math.min(this.#exchanges.length, this.#at + reach);
    for (let at = this.#at; at < end; at++) {
      const exchange = this.#exchanges[at]!;
      if (this.#comparison.keyOf(exchange.request) !== key) continue;
      const skipped = this.#exchanges.slice(this.#at, at);
      this.#at = at + 1;
      return { kind: 'exchange', exchange, isRepeated: false, skipped };
    }
    const expected = this.#exchanges[this.#at]?.request;
    const kind = expected === undefined ? 'beyond' : 'changed';
    return { kind: 'difference', difference: differenceOf(kind, expected, request, this.#comparison) };
  }
}

/** In any order: the recorded exchanges of equal requests are played in the order in which they are recorded. */
export class MatchingCursor implements Cursor {
  readonly #comparison: Comparison;
  readonly #repeatLast: boolean;
  readonly #byKey = new Map<string, Exchange[]>();
  readonly #left: Set<Exchange>;
  readonly #last = new Map<string, Exchange>();

  /** `repeatLast` answers a request once more as the last of its kind, when all of them have been played. */
  constructor(exchanges: readonly Exchange[], comparison: Comparison, repeatLast: boolean) {
    this.#comparison = comparison;
    this.#repeatLast = repeatLast;
    this.#left = new Set(exchanges);
    for (const exchange of exchanges) {
      const key = comparison.keyOf(exchange.request);
      const same = this.#byKey.get(key);
      if (same === undefined) this.#byKey.set(key, [exchange]);
      else same.push(exchange);
    }
    // Taken from the end.
    for (const same of this.#byKey.values()) same.reverse();
  }

  get left(): readonly Exchange[] {
    return [...this.#left];
  }

  next(request: Comparable): Found {
    const key = this.#comparison.keyOf(request);
    const exchange = this.#byKey.get(key)?.pop();
    if (exchange !== undefined) {
      this.#left.delete(exchange);
      this.#last.set(key, exchange);
      return { kind: 'exchange', exchange, isRepeated: false, skipped: [] };
    }
    const last = this.#repeatLast ? this.#last.get(key) : undefined;
    if (last !== undefined) return { kind: 'exchange', exchange: last, isRepeated: true, skipped: [] };
    const nearest = this.#nearest(request);
    return {
      kind: 'difference',
      difference: differenceOf('beyond', nearest?.request, request, this.#comparison),
    };
  }

  /** The next of the same command. */
  #nearest({ bytes }: Comparable): Exchange | undefined {
    const command = headerCommand(bytes, 0);
    for (const exchange of this.#left) {
      if (headerCommand(exchange.request.bytes, 0) === command) return exchange;
    }
    return undefined;
  }
}
