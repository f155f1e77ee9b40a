/** Counts and times transfers, those that read and those that write apart. */
import { LatencySampler, type LatencyReport } from '../../latency.js';

export interface Metered {
  count: number;
  latencyUs: LatencyReport;
  /** Milliseconds, in ascending order. */
  sorted: Float64Array;
}

export class Meters {
  /** Transfers that were completed since `restart`. */
  readCount = 0;
  writeCount = 0;
  /** Of reads, and of writes; one where all are alike. */
  readonly #reads: LatencySampler;
  readonly #writes: LatencySampler;
  readonly #all: LatencySampler;

  /** Tags are below `tags`. */
  constructor(tags: number) {
    this.#reads = new LatencySampler(tags);
    this.#writes = new LatencySampler(tags);
    this.#all = new LatencySampler(tags);
  }

  /** For so many transfers a second; 0 where that is not known. */
  restart(perSecond: number): void {
    this.readCount = 0;
    this.writeCount = 0;
    for (const sampler of [this.#reads, this.#writes, this.#all]) sampler.restart(perSecond);
  }

  begin(reads: boolean, tag: number): void {
    this.#all.begin(tag);
    (reads ? this.#reads : this.#writes).begin(tag);
  }

  end(reads: boolean, tag: number): void {
    this.#all.end(tag);
    (reads ? this.#reads : this.#writes).end(tag);
    if (reads) this.readCount++;
    else this.writeCount++;
  }

  get latencyUs(): LatencyReport {
    return this.#all.report();
  }

  of(reads: boolean): Metered {
    const sampler = reads ? this.#reads : this.#writes;
    return {
      count: reads ? this.readCount : this.writeCount,
      latencyUs: sampler.report(),
      sorted: sampler.sorted(),
    };
  }
}
