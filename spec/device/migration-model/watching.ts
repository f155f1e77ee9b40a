/**
 * Whether dirty pages are watched when a call has its turn. `start`, `report` and `stop` are carried out in the order in
 * which they are made, whatever their caller knows of those before by then: a second `start` is refused also where a
 * `stop` was called meanwhile, as that comes after it.
 */

/** A call that waits for its turn, has it, or had it. */
export class Turn {
  readonly #before: Turn | undefined;
  /** Whether they are watched from then on; undefined where it changed nothing, or has not ended. */
  #leaves: boolean | undefined;

  constructor(before: Turn | undefined) {
    this.#before = before;
  }

  /** Once it has ended, which those before it have by then, too. */
  get foundWatched(): boolean {
    for (let turn = this.#before; turn !== undefined; turn = turn.#before)
      if (turn.#leaves !== undefined) return turn.#leaves;
    return false;
  }

  leaves(isWatched: boolean): void {
    this.#leaves = isWatched;
  }
}

export class Watching {
  #last: Turn | undefined;

  /** That fails: nothing is watched that was not before. */
  start(promise: Promise<unknown>): Turn {
    const turn = this.next();
    promise.then(
      () => turn.leaves(true),
      () => undefined,
    );
    return turn;
  }

  /** That fails: it has ended all the same. */
  stop(promise: Promise<unknown>): void {
    const turn = this.next();
    const ended = () => turn.leaves(false);
    promise.then(ended, ended);
  }

  /** Of a call that changes nothing. */
  next(): Turn {
    return (this.#last = new Turn(this.#last));
  }
}
