/**
 * Says what differs between two reports of the bench beyond noise. Throughput: the means of the intervals differ by more than
 * three standard errors of their difference (Welch), and by at least 2 %. Latency: the ranges in which the median and the 99th
 * percentile almost surely are (three standard deviations of the rank) do not overlap, and the values differ by at least 5 %.
 */
import { readFile, stat } from 'node:fs/promises';
import { UsageError } from '../errors.js';

const MOST_BYTES = 64 << 20;
const MOST_RUNS = 1_000;
const ERRORS = 3;
const LEAST_THROUGHPUT = 0.02;
const LEAST_LATENCY = 0.05;

/** What is read of a run. */
export interface ComparedRun {
  key: string;
  intervals: number[];
  p50: Quantile;
  p99: Quantile;
}

interface Quantile {
  value: number;
  low: number;
  high: number;
}

export interface Difference {
  run: string;
  what: 'iops' | 'p50' | 'p99';
  a: number;
  b: number;
  /** `(b - a) / a`. */
  change: number;
  verdict: 'same' | 'better' | 'worse';
}

export interface Comparison {
  differences: Difference[];
  /** Runs that only one of the files has. */
  unmatched: string[];
}

/** @throws UsageError for a file that is no report of `nvme bench --json`. */
export async function readRuns(file: string): Promise<ComparedRun[]> {
  if ((await stat(file)).size > MOST_BYTES)
    throw new UsageError(`${file} is larger than ${MOST_BYTES} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    if (error instanceof SyntaxError) throw new UsageError(`${file} is no JSON`);
    throw error;
  }
  const runs = isObject(value) && Array.isArray(value['runs']) ? (value['runs'] as unknown[]) : [value];
  if (runs.length > MOST_RUNS) throw new UsageError(`${file} has more than ${MOST_RUNS} runs`);
  return runs.map((run, i) => runOf(run, `${file}: run ${i + 1}`));
}

export function compareRuns(a: readonly ComparedRun[], b: readonly ComparedRun[]): Comparison {
  const others = new Map(b.map((run) => [run.key, run]));
  const names = new Set(a.map(({ key }) => key));
  const differences = a.flatMap((run) => {
    const other = others.get(run.key);
    return other === undefined ? [] : differencesOf(run, other);
  });
  const unmatched = [
    ...a.filter(({ key }) => !others.has(key)).map(({ key }) => `only in the first: ${key}`),
    ...b.filter(({ key }) => !names.has(key)).map(({ key }) => `only in the second: ${key}`),
  ];
  return { differences, unmatched };
}

function differencesOf(a: ComparedRun, b: ComparedRun): Difference[] {
  return [
    throughput(a, b),
    ...(['p50', 'p99'] as const).map((what) => latency(a.key, what, a[what], b[what])),
  ];
}

function throughput(a: ComparedRun, b: ComparedRun): Difference {
  const [one, two] = [moments(a.intervals), moments(b.intervals)];
  const change = relative(one.mean, two.mean);
  const noise = ERRORS * Math.sqrt(one.squaredError + two.squaredError);
  const isBeyond = Math.abs(two.mean - one.mean) > noise && Math.abs(change) >= LEAST_THROUGHPUT;
  const verdict = !isBeyond ? 'same' : change > 0 ? 'better' : 'worse';
  return { run: a.key, what: 'iops', a: one.mean, b: two.mean, change, verdict };
}

function latency(run: string, what: 'p50' | 'p99', a: Quantile, b: Quantile): Difference {
  const change = relative(a.value, b.value);
  const isApart = a.high < b.low || b.high < a.low;
  const isBeyond = isApart && Math.abs(change) >= LEAST_LATENCY;
  const verdict = !isBeyond ? 'same' : change < 0 ? 'better' : 'worse';
  return { run, what, a: a.value, b: b.value, change, verdict };
}

/** The mean, and the square of its standard error. */
function moments(values: readonly number[]): { mean: number; squaredError: number } {
  const count = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1);
  return { mean, squaredError: variance / count };
}

function relative(a: number, b: number): number {
  return a === 0 ? 0 : (b - a) / a;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function runOf(value: unknown, where: string): ComparedRun {
  if (!isObject(value)) throw new UsageError(`${where} is no report of vfio-user nvme bench --json`);
  const { intervals, latencyUs } = value;
  const isList = Array.isArray(intervals) && intervals.length <= 10_000;
  if (isList && intervals.length < 2)
    throw new UsageError(`${where} was too short to be compared: it has fewer than 2 intervals`);
  if (!isList || !intervals.every(isAmount) || !isObject(latencyUs) || !isObject(latencyUs['bounds']))
    throw new UsageError(
      `${where} is no report of vfio-user nvme bench --json: it has no intervals, or no latencyUs.bounds`,
    );
  const bounds = latencyUs['bounds'];
  const quantile = (name: 'p50' | 'p99'): Quantile => {
    const range: unknown = bounds[name];
    const at: unknown = latencyUs[name];
    if (!isAmount(at) || !Array.isArray(range) || range.length !== 2 || !range.every(isAmount))
      throw new UsageError(`${where}: latencyUs.${name} and its bounds are not numbers`);
    return { value: at, low: range[0] as number, high: range[1] as number };
  };
  return { key: keyOf(value), intervals: intervals, p50: quantile('p50'), p99: quantile('p99') };
}

function isAmount(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0;
}

const KEYS = [
  'rw',
  'size',
  'qd',
  'queues',
  'devices',
  'api',
  'completion',
  'rwmixread',
  'distribution',
] as const;

/** What has to be alike for two runs to be compared. */
function keyOf(run: Record<string, unknown>): string {
  return KEYS.map((name) => {
    const value = run[name];
    const text = typeof value === 'string' || typeof value === 'number' ? String(value).slice(0, 40) : '-';
    return `${name}=${text}`;
  }).join(' ');
}
