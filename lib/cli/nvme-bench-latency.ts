/** Latencies of some of the transfers: two looks at the clock would cost a fast one a tenth of its time. */

/** Samples that are kept; later ones replace the oldest. */
const MOST_SAMPLES = 1 << 20;
/** How many a second are enough. */
const WANTED_A_SECOND = 20_000;

export interface LatencyReport {
  mean: number;
  p50: number;
  p99: number;
  p999: number;
  max: number;
  /** How it was found: so many samples, one of so many transfers. */
  sampled: { count: number; every: number };
}

export class LatencySampler {
  readonly #starts: Float64Array;
  readonly #samples = new Float64Array(MOST_SAMPLES);
  #count = 0;
  #every = 1;
  #countdown = 1;

  /** `depth` transfers are under way at most; each has a number below that. */
  constructor(depth: number) {
    this.#starts = new Float64Array(depth);
  }

  /** Begins anew, for so many transfers a second. */
  restart(iops: number): void {
    this.#count = 0;
    this.#every = Math.max(1, Math.round(iops / WANTED_A_SECOND));
    this.#countdown = this.#every;
    this.#starts.fill(0);
  }

  /** Transfer `tag` begins. */
  begin(tag: number): void {
    if (--this.#countdown > 0) return;
    this.#countdown = this.#every;
    this.#starts[tag] = performance.now();
  }

  /** Transfer `tag` has ended. */
  end(tag: number): void {
    const start = this.#starts[tag]!;
    if (start === 0) return;
    this.#samples[this.#count++ % MOST_SAMPLES] = performance.now() - start;
    this.#starts[tag] = 0;
  }

  /** In microseconds. */
  report(): LatencyReport {
    const count = Math.min(this.#count, MOST_SAMPLES);
    const sorted = this.#samples.slice(0, count).sort();
    const sum = sorted.reduce((total, value) => total + value, 0);
    const at = (part: number) => us(sorted[Math.min(count - 1, Math.floor(count * part))] ?? 0);
    return {
      mean: us(count === 0 ? 0 : sum / count),
      p50: at(0.5),
      p99: at(0.99),
      p999: at(0.999),
      max: at(1),
      sampled: { count, every: this.#every },
    };
  }
}

function us(ms: number): number {
  return Math.round(ms * 1e5) / 100;
}
