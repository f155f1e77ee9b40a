/** Latencies of some of the accesses: two looks at the clock would cost a fast one a tenth of its time. */

/** Samples that are kept; later ones replace the oldest. */
const MOST_SAMPLES = 1 << 20;
/** How many a second are enough: five beyond 99.9 % in each. More would be seen in the rate of synchronous accesses. */
const WANTED_A_SECOND = 5_000;
/** Where a curve has its points, percent. */
const CURVE = [0, 1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99];

/** Microseconds. */
export interface LatencyReport {
  mean: number;
  p50: number;
  p99: number;
  p999: number;
  max: number;
  /** Percent, and what so many of the samples took at most. It ends where there are too few samples to say more. */
  curve: [percent: number, latency: number][];
  /** How it was found: so many samples, one of so many accesses. */
  sampled: { count: number; every: number };
}

export class LatencySampler {
  readonly #starts: Float64Array;
  readonly #samples = new Float64Array(MOST_SAMPLES);
  #count = 0;
  #every = 1;
  #countdown = 1;

  /** `depth` accesses are under way at most; each has a number below that. */
  constructor(depth: number) {
    this.#starts = new Float64Array(depth);
  }

  /** Begins anew, for so many accesses a second. */
  restart(perSecond: number): void {
    this.#count = 0;
    this.#every = Math.max(1, Math.round(perSecond / WANTED_A_SECOND));
    this.#countdown = this.#every;
    this.#starts.fill(0);
  }

  /** Access `tag` begins. */
  begin(tag: number): void {
    if (--this.#countdown > 0) return;
    this.#countdown = this.#every;
    this.#starts[tag] = performance.now();
  }

  /** Access `tag` has ended. */
  end(tag: number): void {
    const start = this.#starts[tag]!;
    if (start === 0) return;
    this.#samples[this.#count++ % MOST_SAMPLES] = performance.now() - start;
    this.#starts[tag] = 0;
  }

  report(): LatencyReport {
    const count = Math.min(this.#count, MOST_SAMPLES);
    const sorted = this.#samples.slice(0, count).sort();
    const sum = sorted.reduce((total, value) => total + value, 0);
    const at = (part: number) => us(sorted[Math.min(count - 1, Math.floor(count * part))] ?? 0);
    const told = CURVE.filter((percent) => count * (1 - percent / 100) >= 1);
    return {
      mean: us(count === 0 ? 0 : sum / count),
      p50: at(0.5),
      p99: at(0.99),
      p999: at(0.999),
      max: at(1),
      curve: told.map((percent) => [percent, at(percent / 100)]),
      sampled: { count, every: this.#every },
    };
  }
}

function us(ms: number): number {
  return Math.round(ms * 1e5) / 100;
}
