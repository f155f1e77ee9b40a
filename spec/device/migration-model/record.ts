/** What was done and what came of it: each call settles once, within the time that anything may take. */
import { setTimeout as sleep } from 'node:timers/promises';

/** Far more than anything takes that has deadlines of some 100 ms, on any machine. */
const PATIENCE_MS = 30_000;
/** A loop that was away for so long may have missed deadlines. */
const LAG_MS = 60;
const LAG_EVERY_MS = 10;

interface Call {
  label: string;
  abort: AbortController | undefined;
  outcome: string | undefined;
  settled: Promise<void>;
}

export interface CallOf<T> {
  label: string;
  promise: Promise<T>;
  abort?: AbortController | undefined;
  onValue?: (value: T) => unknown;
  /** Says what is wrong with that error; undefined where nothing is. */
  whyNot?: (error: unknown) => string | undefined;
  onError?: (error: unknown) => unknown;
}

export class Record {
  readonly problems: string[] = [];
  readonly #log: string[] = [];
  readonly #calls: Call[] = [];
  readonly #begun = performance.now();
  readonly #watch: NodeJS.Timeout;
  #tick = 0;
  #lastLook = performance.now();
  #lastLag = -Infinity;

  constructor() {
    this.#watch = setInterval(() => this.#look(), LAG_EVERY_MS);
  }

  close(): void {
    clearInterval(this.#watch);
  }

  /** The clock: each event has a time of its own. */
  now(): number {
    return ++this.#tick;
  }

  note(text: string): void {
    this.#log.push(`${(performance.now() - this.#begun).toFixed(0).padStart(5)} ms ${text}`);
  }

  problem(text: string): void {
    this.problems.push(text);
    this.note(`PROBLEM ${text}`);
  }

  /** Whether the loop was away since then: a deadline may have passed although nothing was wrong. */
  laggedSince(ms: number): boolean {
    this.#look();
    return this.#lastLag >= ms;
  }

  call<T>({ label, promise, abort, onValue, whyNot, onError }: CallOf<T>): Promise<void> {
    const call: Call = { label, abort, outcome: undefined, settled: Promise.resolve() };
    const settle = async (outcome: string, then: () => unknown) => {
      if (call.outcome !== undefined) this.problem(`${label} ended twice: ${call.outcome}, ${outcome}`);
      call.outcome = outcome;
      this.note(`${label}: ${outcome}`);
      try {
        await then();
      } catch (error) {
        this.problem(`${label}: ${error instanceof Error ? error.stack : String(error)}`);
      }
    };
    call.settled = promise.then(
      (value) => settle('done', () => onValue?.(value)),
      (error: unknown) =>
        settle(String(error), async () => {
          // That a connection has ended is told after its calls have failed.
          await new Promise((resolve) => setImmediate(resolve));
          const wrong = abort?.signal.aborted && error === abort.signal.reason ? undefined : whyNot?.(error);
          if (wrong !== undefined) this.problem(`${label}: ${wrong}: ${stackOf(error)}`);
          return onError?.(error);
        }),
    );
    this.#calls.push(call);
    return call.settled;
  }

  /** Gives up one of the calls that can be. */
  abortOne(which: number): void {
    const calls = this.#calls.filter(
      ({ abort, outcome }) => abort?.signal.aborted === false && outcome === undefined,
    );
    calls[which % Math.max(1, calls.length)]?.abort!.abort(new Error('given up'));
  }

  async allSettled(what: string): Promise<void> {
    for (;;) {
      const calls = this.#calls.filter(({ outcome }) => outcome === undefined);
      await this.bounded(
        () =>
          `${what}: nobody answers ${calls
            .filter((c) => c.outcome === undefined)
            .map((c) => c.label)
            .join('; ')}`,
        Promise.all(this.#calls.map(({ settled }) => settled)),
      );
      if (this.#calls.every(({ outcome }) => outcome !== undefined)) return;
    }
  }

  /** @throws what was wrong, where it does not settle within the time that anything may take. */
  async bounded<T>(what: string | (() => string), promise: Promise<T>): Promise<T> {
    const stop = new AbortController();
    const late = sleep(PATIENCE_MS, LATE, { signal: stop.signal }).catch(() => LATE);
    try {
      const value = await Promise.race([promise, late]);
      if (value !== LATE) return value as T;
      this.problem(typeof what === 'string' ? `${what} does not end` : what());
      throw this.failure();
    } finally {
      stop.abort();
    }
  }

  failure(): Error {
    return new Error([...this.problems, '', ...this.#log].join('\n'));
  }

  #look(): void {
    const now = performance.now();
    if (now - this.#lastLook > LAG_MS) this.#lastLag = now;
    this.#lastLook = now;
  }
}

const LATE = Symbol('late');

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
