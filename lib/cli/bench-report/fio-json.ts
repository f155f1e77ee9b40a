/**
 * A bench's figures in the shape of fio's JSON, version 3: a job for each run, with `read` and `write`. What this library does not
 * measure is 0, as it is for a direction that has no transfers.
 */
import { createRequire } from 'node:module';
import type { BenchReport } from '../verbs/block/bench-report.js';

/** Fio's own list, percent. */
const PERCENTILES = [1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99];
const NS_A_MS = 1e6;
const KIB = 1024;
const DEPTHS = ['1', '2', '4', '8', '16', '32', '>=64'];
const RANGES = {
  latency_ns: ['2', '4', '10', '20', '50', '100', '250', '500', '750', '1000'],
  latency_us: ['2', '4', '10', '20', '50', '100', '250', '500', '750', '1000'],
  latency_ms: ['2', '4', '10', '20', '50', '100', '250', '500', '750', '1000', '2000', '>=2000'],
} as const;

/** What was measured in one run. */
export interface FioRun {
  report: BenchReport;
  /** Of reads and of writes, milliseconds in ascending order. */
  sorted: { reads: Float64Array; writes: Float64Array };
}

export function fioJson(runs: readonly FioRun[], sockets: readonly string[]): unknown {
  const now = new Date();
  const first = runs[0]?.report;
  const { version } = createRequire(import.meta.url)('../../../package.json') as { version: string };
  return {
    // Consumers look for the 3.
    'fio version': `fio-3 (vfio-user ${version})`,
    timestamp: Math.floor(now.getTime() / 1000),
    timestamp_ms: now.getTime(),
    time: now.toString().replace(/ GMT.*$/, ''),
    'global options': {
      ...{ ioengine: 'vfio-user', direct: '1', filename: sockets.join(':'), rw: first?.rw ?? '' },
      ...{ bs: String(first?.size ?? 0), rwmixread: String(first?.rwmixread ?? 0) },
    },
    jobs: runs.map((run, i) => job(run, i)),
    disk_util: [],
  };
}

function job({ report, sorted }: FioRun, index: number): unknown {
  const { rw, size, qd, queues, seconds, userSeconds, systemSeconds, rwmixread } = report;
  const runtime = Math.round(seconds * 1000);
  return {
    ...{ jobname: `${rw}-qd${qd}`, groupid: index, error: 0, eta: 0, elapsed: Math.ceil(seconds) },
    'job options': {
      ...{ name: `${rw}-qd${qd}`, rw, bs: String(size), iodepth: String(qd), numjobs: String(queues) },
      ...{
        rwmixread: String(rwmixread),
        runtime: String(Math.round(seconds)),
        random_distribution: report.distribution,
      },
    },
    read: direction(report, report.reads, sorted.reads, runtime),
    write: direction(report, report.writes, sorted.writes, runtime),
    trim: direction(report, { count: 0 }, new Float64Array(0), 0),
    sync: { total_ios: 0, lat_ns: latency(new Float64Array(0)) },
    ...{
      job_runtime: runtime,
      usr_cpu: (userSeconds / seconds) * 100,
      sys_cpu: (systemSeconds / seconds) * 100,
    },
    ...{ ctx: 0, majf: 0, minf: 0 },
    iodepth_level: depthLevels(qd),
    iodepth_submit: depthLevels(0),
    iodepth_complete: depthLevels(0),
    ...bins(sorted),
    ...{ latency_depth: qd, latency_target: 0, latency_percentile: 100, latency_window: 0 },
  };
}

function direction(
  { size, seconds }: BenchReport,
  { count }: { count: number },
  sorted: Float64Array,
  runtime: number,
): unknown {
  const iops = count === 0 ? 0 : count / seconds;
  const bytes = Math.round(iops * size);
  const spread = {
    min: Math.round(iops),
    max: Math.round(iops),
    mean: iops,
    stddev: 0,
    samples: count === 0 ? 0 : 1,
  };
  const bandwidth = Math.floor(bytes / KIB);
  return {
    ...{
      io_bytes: count * size,
      io_kbytes: Math.floor((count * size) / KIB),
      bw_bytes: bytes,
      bw: bandwidth,
      iops,
    },
    ...{ runtime: count === 0 ? 0 : runtime, total_ios: count, short_ios: 0, drop_ios: 0 },
    slat_ns: plain(new Float64Array(0)),
    clat_ns: latency(sorted),
    lat_ns: plain(sorted),
    ...{
      bw_min: bandwidth,
      bw_max: bandwidth,
      bw_agg: count === 0 ? 0 : 100,
      bw_mean: bytes / KIB,
      bw_dev: 0,
    },
    ...{ bw_samples: spread.samples, iops_min: spread.min, iops_max: spread.max, iops_mean: spread.mean },
    ...{ iops_stddev: spread.stddev, iops_samples: spread.samples },
  };
}

/** Of samples: N is how many there are, and not how many transfers. */
function plain(sorted: Float64Array): { min: number; max: number; mean: number; stddev: number; N: number } {
  const count = sorted.length;
  if (count === 0) return { min: 0, max: 0, mean: 0, stddev: 0, N: 0 };
  const mean = sorted.reduce((sum, ms) => sum + ms, 0) / count;
  const variance = sorted.reduce((sum, ms) => sum + (ms - mean) ** 2, 0) / count;
  const ns = (ms: number) => Math.round(ms * NS_A_MS);
  const ends = { min: ns(sorted[0]!), max: ns(sorted[count - 1]!) };
  return { ...ends, mean: mean * NS_A_MS, stddev: Math.sqrt(variance) * NS_A_MS, N: count };
}

function latency(sorted: Float64Array): unknown {
  const about = plain(sorted);
  if (about.N === 0) return about;
  const percentile = PERCENTILES.map((percent): [string, number] => {
    const at = Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100));
    return [percent.toFixed(6), Math.round(sorted[at]! * NS_A_MS)];
  });
  return { ...about, percentile: Object.fromEntries(percentile) };
}

/** All of it at one depth. */
function depthLevels(depth: number): Record<string, number> {
  const level = depth === 0 ? -1 : Math.min(DEPTHS.length - 1, Math.floor(Math.log2(depth)));
  return Object.fromEntries(DEPTHS.map((name, i) => [name, i === level ? 100 : 0]));
}

/** Percent of the samples in each range, which ends at its name. */
function bins({ reads, writes }: FioRun['sorted']): Record<string, Record<string, number>> {
  const all = [...reads, ...writes].map((ms) => ms * NS_A_MS);
  const units = { latency_ns: 1, latency_us: 1e3, latency_ms: 1e6 } as const;
  let below = 0;
  const entries = Object.entries(RANGES).map(([name, ends]) => {
    const unit = units[name as keyof typeof units];
    const shares = ends.map((end): [string, number] => {
      const bound = end.startsWith('>=') ? Infinity : Number(end) * unit;
      const count = all.filter((ns) => ns >= below && ns < bound).length;
      below = bound;
      return [end, all.length === 0 ? 0 : (count / all.length) * 100];
    });
    return [name, Object.fromEntries(shares)] as const;
  });
  return Object.fromEntries(entries);
}
