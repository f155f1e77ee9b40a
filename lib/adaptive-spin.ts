/**
 * How long a wait spins before the event loop goes on: an interval that adapts, as KVM's halt polling does. What waits on a
 * socket uses the addon's (`addon/adaptive-spin.h`), by the same rules.
 *
 * ```
 *   spinning paid     ──▶ the interval is doubled, up to the ceiling
 *   it was in vain    ──▶ it is halved; below a sixteenth of the ceiling nothing spins for some waits, more each time
 * ```
 * After that the whole ceiling is tried again.
 */

/** How many waits do not spin after spinning was in vain: at first, and at the most. */
const SHORTEST_REST = 64;
const LONGEST_REST = 1_024;

export class AdaptiveSpin {
  readonly #ceiling: number;
  #interval: number;
  #rest = 0;
  #nextRest = SHORTEST_REST;

  /** `ceilingUs`: the longest spin, in microseconds; 0 never spins. */
  constructor(ceilingUs: number) {
    this.#ceiling = ceilingUs;
    this.#interval = ceilingUs;
  }

  /** A wait begins: how long it may spin, in microseconds. `end` follows where that is not 0. */
  begin(): number {
    if (this.#interval === 0 && this.#ceiling > 0 && --this.#rest <= 0) this.#interval = this.#ceiling;
    return this.#interval;
  }

  /** The wait has ended: whether what it was for came while it span. */
  end(paid: boolean): void {
    if (paid) {
      this.#interval = Math.min(this.#interval * 2, this.#ceiling);
      if (this.#interval === this.#ceiling) this.#nextRest = SHORTEST_REST;
      return;
    }
    this.#interval /= 2;
    if (this.#interval > this.#ceiling / 16) return;
    this.#interval = 0;
    this.#rest = this.#nextRest;
    this.#nextRest = Math.min(this.#rest * 2, LONGEST_REST);
  }
}
