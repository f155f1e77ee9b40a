/**
 * A peer's share of a turn of the event loop. Messages are carried out as they come, many in a turn; a peer that sends
 * without end would have the loop to itself. So the time that its messages take is counted, and when the share is used up
 * its owner does nothing more for it until the loop has turned, and everybody else has had a turn.
 *
 */
import { performance } from 'node:perf_hooks';

/** Short enough that a hundred peers who all send without end leave each other's round trips below 100 ms. */
const SHARE_MS = 0.5;

/** For owners that are called as messages come. */
export class TurnShare {
  readonly #onAgain: () => void;
  #turn = 0;
  #spentMs = 0;
  #later: NodeJS.Immediate | undefined;
  #isStopped = false;

  /** `onAgain` is called when the loop has turned after the share was used up. */
  constructor(onAgain: () => void) {
    this.#onAgain = onAgain;
  }

  /** Whether the owner is to wait for `onAgain`. */
  get isUsedUp(): boolean {
    return this.#later !== undefined;
  }

  /**
   * Work took so long; waiting is none. `turn` is what its owner knows the loop's turn by: another number, another turn.
   */
  spend(ms: number, turn: number): void {
    if (turn !== this.#turn) {
      this.#turn = turn;
      this.#spentMs = 0;
    }
    this.#spentMs += ms;
    if (this.#spentMs >= SHARE_MS) this.useUp();
  }

  /** There is more to do than is done in one turn. */
  useUp(): void {
    if (this.#isStopped) return;
    // Kept by the loop: what has come is carried out, also where nothing else keeps the process.
    this.#later ??= setImmediate(() => {
      this.#later = undefined;
      this.#spentMs = 0;
      this.#onAgain();
    });
  }

  /** `onAgain` is not called any more. */
  stop(): void {
    this.#isStopped = true;
    clearImmediate(this.#later);
    this.#later = undefined;
  }
}

/** For owners that go through what waits in a loop of their own: nothing in it may wait for the event loop otherwise. */
export class TurnPace {
  #begun = performance.now();

  /** The loop has turned, and work begins. */
  begin(): void {
    this.#begun = performance.now();
  }

  /** To be awaited where the share of this turn is used up; undefined where work may go on at once. */
  rest(): Promise<void> | undefined {
    if (performance.now() - this.#begun < SHARE_MS) return undefined;
    return new Promise((resolve) => {
      setImmediate(() => {
        this.begin();
        resolve();
      });
    });
  }
}
