/**
 * Metrics as text, in OpenMetrics 1.0 (https://prometheus.io/docs/specs/om/open_metrics_spec/): what Prometheus and
 * its like scrape.
 */

/** What an OpenMetrics exposition is served as. */
export const OPEN_METRICS_TYPE = 'application/openmetrics-text; version=1.0.0; charset=utf-8';

/** Label names and their values. A value may be any text. */
export type Labels = Readonly<Record<string, string>>;

/** Upper bounds of a latency's buckets, in seconds: 1, 2, 5 in each decade, from 2 µs to 10 s. */
const BOUNDS = [
  2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5,
  10,
];
/** In milliseconds, as they are measured. */
const BOUNDS_MS = BOUNDS.map((seconds) => seconds * 1e3);

/** How often a duration was how long. It takes the same memory whatever is recorded. */
export class DurationHistogram {
  /** By bucket, what is above the last bound included. */
  readonly counts: number[] = new Array<number>(BOUNDS.length + 1).fill(0);
  /** In milliseconds. */
  sum = 0;

  /** A duration, in milliseconds. */
  record(milliseconds: number): void {
    let bucket = 0;
    while (bucket < BOUNDS_MS.length && milliseconds > BOUNDS_MS[bucket]!) bucket++;
    this.counts[bucket]!++;
    this.sum += milliseconds;
  }
}

/** Durations by what took them. */
export type Durations = ReadonlyMap<string, DurationHistogram>;

/** Durations, with as many histograms as there are names. */
export class DurationTable {
  readonly #histograms = new Map<string, DurationHistogram>();

  /** What was recorded until now. */
  get durations(): Durations {
    return this.#histograms;
  }

  /** `name` took so many milliseconds. Names come from a list of constants: there is no end to what a peer may send. */
  record(name: string, milliseconds: number): void {
    let histogram = this.#histograms.get(name);
    if (histogram === undefined) this.#histograms.set(name, (histogram = new DurationHistogram()));
    histogram.record(milliseconds);
  }
}

interface Family {
  /** Without the suffix that its type wants. */
  name: string;
  help: string;
}

/** Writes an exposition, a family of metrics at a time. The labels of the writer stand on every sample. */
export class MetricsWriter {
  readonly #labels: Labels;
  readonly #lines: string[] = [];

  constructor(labels: Labels) {
    this.#labels = labels;
  }

  /** A number that only grows; back to 0 means a new beginning. */
  counter({ name, help }: Family, samples: number | readonly (readonly [Labels, number])[]): this {
    this.#head(name, 'counter', help);
    for (const [labels, value] of listOf(samples)) this.#sample(`${name}_total`, labels, value);
    return this;
  }

  /** A number that goes up and down. */
  gauge({ name, help }: Family, samples: number | readonly (readonly [Labels, number])[]): this {
    this.#head(name, 'gauge', help);
    for (const [labels, value] of listOf(samples)) this.#sample(name, labels, value);
    return this;
  }

  /** Durations in seconds; `label` is what their names are called. The family's name ends with `_seconds`. */
  durations({ name, help }: Family, label: string, durations: Durations): this {
    this.#head(name, 'histogram', help, 'seconds');
    for (const [what, { counts, sum }] of durations) {
      let below = 0;
      for (const [bucket, count] of counts.entries()) {
        below += count;
        const bound = BOUNDS[bucket];
        const le = bound === undefined ? '+Inf' : floatOf(bound);
        this.#sample(`${name}_bucket`, { [label]: what, le }, below);
      }
      this.#sample(`${name}_count`, { [label]: what }, below);
      this.#sample(`${name}_sum`, { [label]: what }, sum / 1e3);
    }
    return this;
  }

  /** The exposition, which ends with `# EOF` and a line break. */
  end(): string {
    return `${[...this.#lines, '# EOF'].join('\n')}\n`;
  }

  #head(name: string, type: string, help: string, unit?: string): void {
    this.#lines.push(`# TYPE ${name} ${type}`);
    if (unit !== undefined) this.#lines.push(`# UNIT ${name} ${unit}`);
    this.#lines.push(`# HELP ${name} ${escaped(help)}`);
  }

  #sample(name: string, labels: Labels, value: number): void {
    const pairs = Object.entries({ ...this.#labels, ...labels }).map(
      ([label, text]) => `${label}="${escaped(text)}"`,
    );
    this.#lines.push(`${name}${pairs.length === 0 ? '' : `{${pairs.join(',')}}`} ${value}`);
  }
}

function listOf(
  samples: number | readonly (readonly [Labels, number])[],
): readonly (readonly [Labels, number])[] {
  return typeof samples === 'number' ? [[{}, samples]] : samples;
}

/** A bound's canonical form has a fraction, or an exponent. */
function floatOf(value: number): string {
  return Number.isInteger(value) ? `${value}.0` : String(value);
}

function escaped(text: string): string {
  // A lone surrogate is no text in UTF-8: what it becomes is.
  return Buffer.from(text).toString().replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
