/** Latencies of some of the accesses: two looks at the clock would cost a fast one a tenth of its time. */

/** Samples that are kept; later ones replace the oldest. */
const MOST_SAMPLES = 1 << 20;
/** How many a second are enough: two beyond 99.9 % in each. More would be seen in the rate of synchronous accesses. */
const WANTED_A_SECOND = 2_000;
/** One of so many, while nobody knows how many there will be a second. */
const EVERY_AT_FIRST = 8;
/** So many of those that are made one after the other are sampled in one go: a look at the clock makes the next access slower, too. */
const RUN = 32;
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
  /** Between these the true median, and 99 %, are almost surely (three standard errors of the rank). */
  bounds: { p50: [low: number, high: number]; p99: [low: number, high: number] };
  /** How it was found: so many samples, one of so many accesses. */
  sampled: { count: number; every: number };
}

export class LatencySampler {
  readonly #starts: Float64Array;
  readonly #samples = new Float64Array(MOST_SAMPLES);
  #count = 0;
  #every = 1;
  #countdown = 1;
  /** Of `repeat`: accesses made, and those before the next run that is sampled. */
  #made = 0;
  #others = 0;

  /** `depth` accesses are under way at most; each has a number below that. */
  constructor(depth: number) {
    this.#starts = new Float64Array(depth);
  }

  /** Begins anew, for so many accesses a second; 0 where that is not known. */
  restart(perSecond: number): void {
    this.#count = 0;
    this.#every = perSecond === 0 ? EVERY_AT_FIRST : Math.max(1, Math.round(perSecond / WANTED_A_SECOND));
    this.#countdown = this.#every;
    this.#starts.fill(0);
    this.#made = 0;
    this.#others = 0;
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
    this.#keep(performance.now() - start);
    this.#starts[tag] = 0;
  }

  /**
   * Makes `count` accesses one after the other, each of which is over when `once` returns. What is between them is little,
   * and in functions that are called often: V8 does not compile an async function while it runs.
   */
  repeat(count: number, once: () => void): void {
    this.#made += count;
    let left = count;
    while (left > 0) {
      const others = Math.min(left, this.#others);
      repeat(others, once);
      const run = Math.min(left - others, RUN);
      this.#sampleRun(run, once);
      this.#others += (this.#every - 1) * run - others;
      left -= others + run;
    }
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
      bounds: { p50: rankBounds(sorted, 0.5), p99: rankBounds(sorted, 0.99) },
      curve: told.map((percent) => [percent, at(percent / 100)]),
      sampled: { count, every: this.#made === 0 ? this.#every : Math.round(this.#made / this.#count) },
    };
  }

  /** Milliseconds, in ascending order. */
  sorted(): Float64Array {
    return this.#samples.slice(0, Math.min(this.#count, MOST_SAMPLES)).sort();
  }

  #sampleRun(count: number, once: () => void): void {
    let start = performance.now();
    for (let i = 0; i < count; i++) {
      once();
      const end = performance.now();
      this.#keep(end - start);
      start = end;
    }
  }

  #keep(ms: number): void {
    this.#samples[this.#count++ % MOST_SAMPLES] = ms;
  }
}

function repeat(count: number, once: () => void): void {
  for (let i = 0; i < count; i++) once();
}

function us(ms: number): number {
  return Math.round(ms * 1e5) / 100;
}

/** Of a quantile: the values whose ranks are three standard deviations of the binomial distribution away. */
function rankBounds(sorted: Float64Array, part: number): [low: number, high: number] {
  const count = sorted.length;
  const margin = 3 * Math.sqrt(count * part * (1 - part));
  const at = (rank: number) => us(sorted[Math.max(0, Math.min(count - 1, Math.round(rank)))] ?? 0);
  return [at(count * part - margin), at(count * part + margin)];
}
