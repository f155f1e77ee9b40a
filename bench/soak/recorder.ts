/** What a soak measures while it runs. Latencies go into buckets, so that what is kept does not grow with the load. */
import { readdirSync } from 'node:fs';

/** Latencies of one kind of call in one interval, in microseconds. */
export interface Latency {
  count: number;
  p50: number;
  p99: number;
  most: number;
}

export interface Sample {
  /** Seconds from the beginning. */
  seconds: number;
  /** Bytes, after a collection of garbage. */
  rss: number;
  /** What the JavaScript heap has of the system, used or not. */
  heapTotal: number;
  heapUsed: number;
  external: number;
  arrayBuffers: number;
  fds: number;
  /** Calls that are under way. */
  pending: number;
  latencies: Record<string, Latency>;
}

/** Buckets grow by a tenth each: from 1 µs to beyond an hour. */
const GROWTH = Math.log(1.1);
const BUCKETS = 256;

class Histogram {
  readonly #buckets = new Uint32Array(BUCKETS);
  #count = 0;
  #most = 0;

  add(us: number): void {
    const bucket = us <= 1 ? 0 : Math.min(BUCKETS - 1, Math.ceil(Math.log(us) / GROWTH));
    this.#buckets[bucket]!++;
    this.#count++;
    this.#most = Math.max(this.#most, us);
  }

  /** What was added since the last time. */
  take(): Latency {
    const latency = {
      count: this.#count,
      p50: this.#quantile(0.5),
      p99: this.#quantile(0.99),
      most: Math.round(this.#most),
    };
    this.#buckets.fill(0);
    this.#count = 0;
    this.#most = 0;
    return latency;
  }

  #quantile(share: number): number {
    let left = Math.ceil(this.#count * share);
    for (let bucket = 0; bucket < BUCKETS && this.#count > 0; bucket++) {
      left -= this.#buckets[bucket]!;
      if (left <= 0) return Math.min(Math.round(this.#most), Math.round(Math.exp(bucket * GROWTH)));
    }
    return 0;
  }
}

export class Recorder {
  readonly samples: Sample[] = [];
  /** Calls that succeeded, by name. */
  readonly done: Record<string, number> = {};
  /** Calls that failed as they may when servers fail, by name and error. */
  readonly failed: Record<string, number> = {};
  /** Bytes whose content was verified. */
  verifiedBytes = 0;
  readonly #histograms = new Map<string, Histogram>();
  readonly #begun = performance.now();

  succeed(name: string, us: number): void {
    this.done[name] = (this.done[name] ?? 0) + 1;
    let histogram = this.#histograms.get(name);
    if (histogram === undefined) this.#histograms.set(name, (histogram = new Histogram()));
    histogram.add(us);
  }

  fail(name: string, error: string): void {
    const key = `${name}: ${error}`;
    this.failed[key] = (this.failed[key] ?? 0) + 1;
  }

  sample(pending: number): Sample {
    globalThis.gc?.();
    const { rss, heapTotal, heapUsed, external, arrayBuffers } = process.memoryUsage();
    const latencies: Record<string, Latency> = {};
    for (const [name, histogram] of this.#histograms) latencies[name] = histogram.take();
    const seconds = (performance.now() - this.#begun) / 1e3;
    const sample = {
      seconds,
      rss,
      heapTotal,
      heapUsed,
      external,
      arrayBuffers,
      fds: openFds(),
      pending,
      latencies,
    };
    this.samples.push(sample);
    return sample;
  }
}

export function openFds(): number {
  // The directory that is being read has an fd of its own.
  return readdirSync('/proc/self/fd').length - 1;
}
