/** The rates of a run's intervals, of which there are never many: where it goes on, they become longer. */

/** Then each two become one. */
const MOST = 200;

interface Part {
  count: number;
  ms: number;
}

export class Intervals {
  #parts: Part[] = [];
  /** Not long enough yet. */
  #open: Part = { count: 0, ms: 0 };
  #widthMs: number;

  /** `widthMs` is how long an interval is at first. */
  constructor(widthMs: number) {
    this.#widthMs = widthMs;
  }

  /** So many transfers in that time. */
  add(count: number, ms: number): void {
    this.#open = sum(this.#open, { count, ms });
    // Timers may be a little early.
    if (this.#open.ms < this.#widthMs * 0.95) return;
    this.#parts.push(this.#open);
    this.#open = { count: 0, ms: 0 };
    if (this.#parts.length < MOST) return;
    this.#parts = Array.from({ length: MOST / 2 }, (_, i) =>
      sum(this.#parts[2 * i]!, this.#parts[2 * i + 1]!),
    );
    this.#widthMs *= 2;
  }

  /** Transfers a second in each. What is left at the end says little where it is short. */
  get rates(): number[] {
    const isTold = this.#open.ms > 0 && (this.#open.ms >= this.#widthMs / 2 || this.#parts.length === 0);
    return [...this.#parts, ...(isTold ? [this.#open] : [])].map(({ count, ms }) => (count / ms) * 1000);
  }
}

function sum(a: Part, b: Part): Part {
  return { count: a.count + b.count, ms: a.ms + b.ms };
}
