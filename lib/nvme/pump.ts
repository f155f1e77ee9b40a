/**
 * Looks for completions while somebody waits for one.
 *
 * ```
 *   idle ── wake ──▶ microtasks, while that pays ──▶ turns of the loop ──▶ timers, when nothing has come for a while
 * ```
 * Microtasks see a completion within nanoseconds but keep the loop from turning: they have a budget, which shrinks to
 * next to nothing with a controller that needs the loop itself (one in this process) or is slow.
 */

/** What a look costs, and what each completion costs that it finds, in units of the budget. */
const LOOK_COST = 1;
const COMPLETION_COST = 8;
const MOST_BUDGET = 512;
const LEAST_BUDGET = 4;
/** Turns of the loop without a completion, after which looking each millisecond is enough. */
const PATIENT_TURNS = 4_000;
const PAUSE_MS = 1;

export class Pump {
  readonly #look: () => number;
  readonly #isWanted: () => boolean;
  #isAwake = false;
  #budget = MOST_BUDGET;
  #spent = 0;
  /** Completions of this turn that a microtask found, and that the turn itself did. */
  #found = 0;
  #foundAtOnce = 0;
  #idleTurns = 0;

  /** `look` gives the number of completions that it saw; `isWanted` says whether more are waited for. */
  constructor(look: () => number, isWanted: () => boolean) {
    this.#look = look;
    this.#isWanted = isWanted;
  }

  /** Looks soon, and again until nothing is waited for. */
  wake(): void {
    if (this.#isAwake) return;
    this.#isAwake = true;
    queueMicrotask(this.#round);
  }

  readonly #round = (): void => {
    const count = this.#look();
    this.#found += count;
    this.#goOn(count);
  };

  readonly #turn = (): void => {
    const count = this.#look();
    this.#foundAtOnce += count;
    this.#goOn(count);
  };

  #goOn(count: number): void {
    this.#spent += LOOK_COST + count * COMPLETION_COST;
    if (!this.#isWanted()) this.#isAwake = false;
    else if (this.#spent < this.#budget) queueMicrotask(this.#round);
    else this.#yield();
  }

  #yield(): void {
    if (this.#found > 0) this.#budget = Math.min(MOST_BUDGET, this.#budget * 2);
    else this.#budget = Math.max(LEAST_BUDGET, this.#budget >>> 1);
    this.#idleTurns = this.#found + this.#foundAtOnce > 0 ? 0 : this.#idleTurns + 1;
    this.#found = this.#foundAtOnce = this.#spent = 0;
    if (this.#idleTurns < PATIENT_TURNS) setImmediate(this.#turn);
    else setTimeout(this.#turn, PAUSE_MS);
  }
}
