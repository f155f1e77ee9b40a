/** A loop that looks at memory which clients have mapped: a store to it causes no event. */

/** Turns of the loop without work, after which it pauses; and the pauses, which grow. Milliseconds. */
const PATIENT_TURNS = 2_000;
const FIRST_PAUSE_MS = 1;
const LONGEST_PAUSE_MS = 10;
const TURNS_A_PAUSE = 200;

export class LookLoop {
  #look: (() => boolean) | undefined;
  #immediate: NodeJS.Immediate | undefined;
  #timer: NodeJS.Timeout | undefined;
  #idleTurns = 0;

  /** Looks from now on, often at first; `look` says whether there was work. */
  start(look: () => boolean): void {
    this.stop();
    this.#look = look;
    this.#idleTurns = 0;
    this.#immediate = setImmediate(this.#turn);
  }

  stop(): void {
    this.#look = undefined;
    clearImmediate(this.#immediate);
    clearTimeout(this.#timer);
  }

  readonly #turn = (): void => {
    if (this.#look === undefined) return;
    this.#idleTurns = this.#look() ? 0 : this.#idleTurns + 1;
    // What was looked at may have ended all this.
    if (this.#look === undefined) return;
    const tired = this.#idleTurns - PATIENT_TURNS;
    // Not unref'd: the loop would wait for something else to happen first.
    if (tired < 0) this.#immediate = setImmediate(this.#turn);
    else {
      const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS + Math.floor(tired / TURNS_A_PAUSE));
      this.#timer = setTimeout(this.#turn, pause).unref();
    }
  };
}
