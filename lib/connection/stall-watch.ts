/**
 * Notices that the server answers nothing while calls wait to be sent. Their default deadline begins when they are sent,
 * so without this they would wait for ever behind what is never answered.
 */
import { performance } from 'node:perf_hooks';
import type { Deadlines, Timed } from './deadlines.js';

/**
 * A little longer than the default deadline: what is in flight ends first, and what is sent in its place may be answered.
 */
const PATIENCE = 1.1;

export class StallWatch implements Timed {
  deadline = 0;
  heapIndex = -1;
  readonly #deadlines: Deadlines<Timed>;
  readonly #patienceMs: number;
  #waiting = 0;
  /** When the server answered last, or the first call began to wait. */
  #since = 0;

  /** `timeoutMs` is the default deadline; Infinity watches nothing. */
  constructor(deadlines: Deadlines<Timed>, timeoutMs: number) {
    this.#deadlines = deadlines;
    this.#patienceMs = timeoutMs * PATIENCE;
  }

  /** One more call waits to be sent. */
  add(): void {
    if (this.#waiting++ > 0 || this.#patienceMs === Infinity) return;
    this.#since = performance.now();
    this.#deadlines.add(this, this.#since + this.#patienceMs);
  }

  /** One call waits no more. */
  remove(): void {
    if (--this.#waiting === 0) this.#deadlines.remove(this);
  }

  /** The server answered something. */
  onReply(): void {
    if (this.#waiting > 0) this.#since = performance.now();
  }

  /** The deadline has passed: whether the server is stalled. Where it is not, or calls still wait, the watch goes on. */
  isStalled(): boolean {
    const now = performance.now();
    const isStalled = now >= this.#since + this.#patienceMs;
    if (isStalled) this.#since = now;
    if (this.#waiting > 0) this.#deadlines.add(this, this.#since + this.#patienceMs);
    return isStalled;
  }
}
