/**
 * `npm run bench`: measures this library beside its rivals and writes build/bench/report.json and report.html.
 *
 * By default it runs on the reference target and the embedded emulator. BENCH_SPDK (a directory with malloc/cntrl and
 * null/cntrl of a running nvmf target, whose NQNs are BENCH_SPDK_NQN with {name} in it) and BENCH_SPDK_PERF (the
 * spdk_nvme_perf binary) add the NVMe workloads.
 */
import path from 'node:path';
import Table from 'cli-table3';
import { SingleBar } from 'cli-progress';
import { Command } from 'commander';
import { makeReport, writeReport } from './report.js';
import { runWorkload, trialCount, type Outcome } from './run.js';
import { ROOT } from './servers.js';
import { median } from './stats.js';
import { OWN_WORKLOADS, REGION_WORKLOADS, nvmeWorkloads, type Workload } from './workloads.js';

interface Options {
  quick: boolean;
  pairs?: string;
  only?: string;
  output: string;
  list: boolean;
}

const program = new Command('bench')
  .option('--quick', 'a few seconds a workload: that it works, not what it says', false)
  .option('--pairs <n>', 'pairs of trials (default 7, quick 2)')
  .option('--only <pattern>', 'the workloads whose name matches')
  .option('--output <directory>', 'where the report goes', path.join(ROOT, 'build/bench'))
  .option('--list', 'list the workloads', false);
const options = program.parse().opts<Options>();

const all = [...REGION_WORKLOADS, ...OWN_WORKLOADS, ...spdkWorkloads()];
const pattern = new RegExp(options.only ?? '');
const chosen = all.filter((workload) => pattern.test(workload.name));

if (options.list) {
  for (const { name, title } of all) console.log(`${name.padEnd(36)} ${title}`);
} else await main(chosen, Number(options.pairs ?? (options.quick ? 2 : 7)));

async function main(workloads: readonly Workload[], pairs: number): Promise<void> {
  if (!Number.isInteger(pairs) || pairs < 1) throw new RangeError('--pairs takes a positive number');
  const bar = new SingleBar({ format: '{bar} {value}/{total} {what}', hideCursor: true, noTTYOutput: false });
  const total = workloads.reduce((sum, workload) => sum + trialCount(workload, pairs), 0);
  bar.start(total, 0, { what: '' });
  const outcomes: Outcome[] = [];
  for (const workload of workloads) {
    const onTrial = (what: string) => bar.increment(1, { what });
    outcomes.push(await runWorkload(workload, { pairs, quick: options.quick, onTrial }));
  }
  bar.stop();
  print(outcomes);
  const page = await writeReport(makeReport(outcomes, pairs, options.quick, ROOT), options.output);
  console.log(`report: ${path.relative(process.cwd(), page)}`);
}

function print(outcomes: readonly Outcome[]): void {
  const table = new Table({
    head: ['workload', 'against', 'ours/s', 'theirs/s', 'ratio', 'pairs', 'goal', ''],
  });
  for (const { workload, comparisons, alone } of outcomes) {
    if (alone !== undefined)
      table.push([workload, '', rounded([alone.opsPerSecond]), '', '', '', '', extra(alone)]);
    for (const c of comparisons) {
      const spread = `${c.leastRatio.toFixed(2)}–${c.mostRatio.toFixed(2)}`;
      const mark = c.reached === undefined ? '' : c.reached ? 'reached' : 'missed';
      const goal = c.goal === undefined ? '' : `≥ ${c.goal.toFixed(2)}`;
      table.push([
        workload,
        c.rival,
        rounded(c.ours),
        rounded(c.theirs),
        c.medianRatio.toFixed(2),
        spread,
        goal,
        mark,
      ]);
    }
  }
  console.log(table.toString());
}

function extra(measurement: object): string {
  return Object.entries(measurement)
    .filter(([key]) => !['opsPerSecond', 'seconds', 'count'].includes(key))
    .map(([key, value]) => `${key} ${String(value)}`)
    .join(', ');
}

function rounded(values: readonly number[]): string {
  return Math.round(median(values)).toLocaleString('en');
}

function spdkWorkloads(): Workload[] {
  const { BENCH_SPDK: directory, BENCH_SPDK_PERF: perf, BENCH_SPDK_NQN: nqn, BENCH_CPUS: cpus } = process.env;
  if (directory === undefined || perf === undefined) return [];
  const pattern = nqn ?? 'nqn.2019-07.io.spdk:{name}';
  return nvmeWorkloads({
    directory,
    perf,
    nqn: (name) => pattern.replace('{name}', name),
    cpus: cpus ?? '0',
  });
}
