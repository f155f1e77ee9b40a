/**
 * Polls for completions while somebody waits for one.
 *
 * ```
 *   idle ── wake ──▶ microtasks, while that pays ──▶ turns of the loop ──▶ timers, when nothing has come for a while
 * ```
 * Microtasks see a completion within nanoseconds but keep the loop from turning: they spin, for as long as that pays, which
 * is not at all with a controller that needs the loop itself (one in this process) or is slow.
 */
import { performance } from 'node:perf_hooks';
import { AdaptiveSpin } from '../adaptive-spin.js';

/** Turns of the loop without a completion, after which polling each millisecond is enough. */
const PATIENT_TURNS = 4_000;
const PAUSE_MS = 1;

export class CompletionPoller {
  readonly #poll: () => number;
  readonly #isWanted: () => boolean;
  readonly #spin: AdaptiveSpin;
  #isAwake = false;
  /** When this turn's microtasks have polled for long enough. */
  #spinsUntil = 0;
  /** Completions of this turn that a microtask found, and that the turn itself did. */
  #found = 0;
  #foundAtOnce = 0;
  #idleTurns = 0;

  /**
   * `poll` takes completions and gives their number; `isWanted` says whether more are waited for; `spinUs` is how long
   * the loop is kept from turning at the most.
   */
  constructor(poll: () => number, isWanted: () => boolean, spinUs: number) {
    this.#poll = poll;
    this.#isWanted = isWanted;
    this.#spin = new AdaptiveSpin(spinUs);
  }

  /** Polls soon, and again until nothing is waited for. */
  wake(): void {
    if (this.#isAwake) return;
    this.#isAwake = true;
    this.#beginTurn();
    queueMicrotask(this.#round);
  }

  readonly #round = (): void => {
    const count = this.#poll();
    this.#found += count;
    this.#goOn();
  };

  readonly #turn = (): void => {
    this.#beginTurn();
    this.#foundAtOnce += this.#poll();
    this.#goOn();
  };

  #beginTurn(): void {
    this.#found = this.#foundAtOnce = 0;
    const spinUs = this.#spin.begin();
    this.#spinsUntil = spinUs === 0 ? 0 : performance.now() + spinUs / 1000;
  }

  #goOn(): void {
    if (!this.#isWanted()) {
      this.#endTurn();
      this.#isAwake = false;
    } else if (this.#spinsUntil !== 0 && performance.now() < this.#spinsUntil) queueMicrotask(this.#round);
    else this.#yield();
  }

  #yield(): void {
    this.#endTurn();
    this.#idleTurns = this.#found + this.#foundAtOnce > 0 ? 0 : this.#idleTurns + 1;
    if (this.#idleTurns < PATIENT_TURNS) setImmediate(this.#turn);
    else setTimeout(this.#turn, PAUSE_MS);
  }

  #endTurn(): void {
    if (this.#spinsUntil !== 0) this.#spin.end(this.#found > 0);
  }
}
