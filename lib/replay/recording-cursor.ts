/** Where in the recording a client is: finds the exchange for each request that comes. */
import type { Comparable, Comparison } from './comparison.js';
import type { Exchange, RecordedMessage } from './exchange.js';
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
  | {
      kind: 'difference';
      why: 'changed' | 'beyond';
      /** What was recorded, or what comes nearest to it. */
      expected: RecordedMessage | undefined;
    };

export interface RecordingCursor {
  next(request: Comparable): Found;
  /** Exchanges that have not been played, in order. */
  readonly left: readonly Exchange[];
}

/** How far ahead a client that goes on after a difference is looked for. */
const LOOK_AHEAD = 256;

/** One after the other, as recorded. */
export class OrderedCursor implements RecordingCursor {
  readonly #exchanges: readonly Exchange[];
  readonly #comparison: Comparison;
  readonly #mayResume: boolean;
  /** Of the exchanges that are looked at, by their places: a client may look in vain as often as it likes. */
  readonly #keys = new Map<number, string>();
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
      if (this.#keyAt(at) !== key) continue;
      const skipped = this.#exchanges.slice(this.#at, at);
      for (; this.#at <= at; this.#at++) this.#keys.delete(this.#at);
      return { kind: 'exchange', exchange, isRepeated: false, skipped };
    }
    const expected = this.#exchanges[this.#at]?.request;
    return { kind: 'difference', why: expected === undefined ? 'beyond' : 'changed', expected };
  }

  #keyAt(at: number): string {
    const known = this.#keys.get(at);
    if (known !== undefined) return known;
    const key = this.#comparison.keyOf(this.#exchanges[at]!.request);
    this.#keys.set(at, key);
    return key;
  }
}

/** In any order: the recorded exchanges of equal requests are played in the order in which they are recorded. */
export class MatchingCursor implements RecordingCursor {
  readonly #comparison: Comparison;
  readonly #repeatLast: boolean;
  readonly #byKey = new Map<string, Exchange[]>();
  readonly #left: Set<Exchange>;
  /** Of those that are left, by command. */
  readonly #byCommand = new Map<number, Set<Exchange>>();
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
      const command = headerCommand(exchange.request.bytes, 0);
      const alike = this.#byCommand.get(command) ?? new Set<Exchange>();
      this.#byCommand.set(command, alike.add(exchange));
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
      this.#byCommand.get(headerCommand(request.bytes, 0))?.delete(exchange);
      this.#last.set(key, exchange);
      return { kind: 'exchange', exchange, isRepeated: false, skipped: [] };
    }
    const last = this.#repeatLast ? this.#last.get(key) : undefined;
    if (last !== undefined) return { kind: 'exchange', exchange: last, isRepeated: true, skipped: [] };
    // The next of the same command.
    const [nearest] = this.#byCommand.get(headerCommand(request.bytes, 0)) ?? [];
    return { kind: 'difference', why: 'beyond', expected: nearest?.request };
  }
}
