/**
 * Looking for the next message before leaving for the loop. A question is about to be answered, and an answer about to be
 * followed by the next question: whoever waits for that in the loop has to be woken, which is about half of what a
 * proxy adds to a round trip.
 *
 * It is done while it pays: a time in which nothing came costs a chance, one in which something came gives one back, and
 * with none left it is tried again now and then. A turn of the loop is never held up for longer than a bound.
 */
import { performance } from 'node:perf_hooks';

/** The longest that the loop is held up: then others have their turn, interrupts too, before it goes on. */
const TURN_MS = 0.25;
const MAX_HOPE = 8;
/** After one link has looked the others do not for so long. */
const OTHERS_MS = 1;
/** With no chance left it is tried again once in so many turns. */
const HOPELESS_TURNS = 64;

/**
 * When one of this thread's links last left off. With several busy the loop does not sleep anyway, and each that looks
 * holds up the others: for a while only one does.
 */
let leftOffAt = -Infinity;
let lastToLook: symbol | undefined;

export class Linger {
  readonly #patienceMs: number;
  readonly #name = Symbol();
  #hope = MAX_HOPE;
  #hopelessTurns = 0;
  #isLooking = false;
  #later: NodeJS.Immediate | undefined;

  /** For how long nothing may come before it leaves; 0 leaves at once. */
  constructor(patienceUs: number) {
    this.#patienceMs = patienceUs / 1000;
  }

  /**
   * Something has been passed on. `look` passes on what has come since, for no longer than so many microseconds, and says
   * whether there was anything.
   */
  run(look: (leftUs: number) => boolean): void {
    if (this.#isLooking || !this.#hasHope()) return;
    this.#isLooking = true;
    try {
      this.#look(look);
    } finally {
      this.#isLooking = false;
    }
  }

  close(): void {
    clearImmediate(this.#later);
  }

  #look(look: (leftUs: number) => boolean): void {
    const begun = performance.now();
    if (lastToLook !== this.#name && begun - leftOffAt < OTHERS_MS) return;
    lastToLook = this.#name;
    let last = begun;
    let came = false;
    for (let now = begun; now - last < this.#patienceMs; now = performance.now()) {
      if (now - begun >= TURN_MS) {
        this.#later ??= setImmediate(() => {
          this.#later = undefined;
          this.run(look);
        });
        break;
      }
      if (!look(Math.ceil((TURN_MS - (now - begun)) * 1e3))) continue;
      came = true;
      last = performance.now();
    }
    leftOffAt = performance.now();
    this.#hope = came ? Math.min(this.#hope + 1, MAX_HOPE) : this.#hope - 1;
  }

  #hasHope(): boolean {
    if (this.#patienceMs === 0) return false;
    if (this.#hope > 0) return true;
    if (++this.#hopelessTurns < HOPELESS_TURNS) return false;
    this.#hopelessTurns = 0;
    this.#hope = 1;
    return true;
  }
}
