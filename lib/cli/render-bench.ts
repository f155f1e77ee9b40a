/** What a bench prints for people. */
import type { BenchReport } from './verbs/block/bench-report.js';

export function renderBench(report: BenchReport, bold: (text: string) => string): string {
  const { iops, latencyUs, rw, size, qd, api, userSeconds, systemSeconds, verified } = report;
  const { mean, p50, p99, p999, sampled } = latencyUs;
  return (
    `${bold(Math.round(iops).toString())} ${rw} transfers of ${size} bytes a second at depth ${qd} (${api}), ` +
    `${(report.bytesPerSecond / 1e6).toFixed(1)} MB/s${verified ? ', verified' : ''}\n` +
    `latency in µs: mean ${mean}, median ${p50}, 99 % ${p99}, 99.9 % ${p999} ` +
    `(${sampled.count} samples, one of ${sampled.every})\n` +
    directions(report) +
    `processor: user ${userSeconds.toFixed(2)} s, system ${systemSeconds.toFixed(2)} s\n`
  );
}

/** Where there are both. */
function directions({ reads, writes }: BenchReport): string {
  if (reads.count === 0 || writes.count === 0) return '';
  const line = (what: string, { iops, bytesPerSecond, latencyUs }: typeof reads) =>
    `${what}: ${Math.round(iops)} a second, ${(bytesPerSecond / 1e6).toFixed(1)} MB/s, ` +
    `median ${latencyUs.p50} µs, 99 % ${latencyUs.p99} µs\n`;
  return line('reads', reads) + line('writes', writes);
}
