/** What spdk_nvme_perf prints. */
import type { Latency, Measurement } from './trial.js';

/** The line of totals has the I/O a second first, then MiB a second, then latencies in µs; `-L` adds a summary. */
export function parsePerf(output: string): Measurement {
  const total = /^Total\s*:\s+([\d.]+)\s+[\d.]+\s+([\d.]+)\s+[\d.]+\s+([\d.]+)/m.exec(output);
  if (total === null) throw new Error(`no total in: ${output}`);
  const [, iops, mean, max] = total.map(Number);
  const curve = parseSummary(output);
  const latencyUs: Latency = { mean: mean!, max: max!, ...(curve.length > 0 && { curve }) };
  return { opsPerSecond: iops!, latencyUs: { ...latencyUs, ...percentiles(curve) } };
}

/** Lines ` 99.00000% :   12.345us`, of the first summary. */
function parseSummary(output: string): [number, number][] {
  const summary = output.indexOf('Summary latency data');
  if (summary < 0) return [];
  const curve: [number, number][] = [];
  for (const [, percent, us] of output.slice(summary).matchAll(/^\s*([\d.]+)%\s*:\s*([\d.]+)us/gm)) {
    if (Number(percent) <= (curve.at(-1)?.[0] ?? -1)) break;
    // The last one, 100 %, is the longest; on a plot of percentiles it is infinitely far.
    if (Number(percent) < 100) curve.push([Number(percent), Number(us)]);
  }
  return curve;
}

function percentiles(curve: readonly [number, number][]): Pick<Latency, 'p50' | 'p99' | 'p999'> {
  const at = new Map(curve);
  const [p50, p99, p999] = [50, 99, 99.9].map((percent) => at.get(percent));
  return { ...(p50 && { p50 }), ...(p99 && { p99 }), ...(p999 && { p999 }) };
}
