/**
 * `npm run bench`: measures this library beside its rivals and writes build/bench/report.json and report.html.
 *
 * By default it runs on the reference target and the embedded emulator. BENCH_SPDK (a directory with malloc/cntrl and
 * null/cntrl of a running nvmf target, whose NQNs are BENCH_SPDK_NQN with {name} in it) and BENCH_SPDK_PERF (the
 * spdk_nvme_perf binary) add NVMe beside spdk_nvme_perf, both on processor BENCH_CPU; BENCH_SPDK_RPC, its RPC socket,
 * says which version it is. See docs/benchmarks.md.
 */
import path from 'node:path';
import { SingleBar } from 'cli-progress';
import { Command } from 'commander';
import { machine, versions } from './machine.js';
import { markdown } from './markdown.js';
import { OUTPUT } from './paths.js';
import { readReport, writeReport } from './report.js';
import { runWorkload, trialCount, type Outcome } from './run.js';
import { table } from './table.js';
import { allWorkloads } from './workloads.js';
import type { Workload } from './workload.js';

interface Options {
  quick: boolean;
  pairs?: string;
  only?: string;
  output: string;
  list: boolean;
  markdown: boolean;
}

const program = new Command('bench')
  .option('--quick', 'a moment for each workload: that it works, not what it says', false)
  .option('--pairs <n>', 'pairs of trials (default 7, quick 1)')
  .option('--only <pattern>', 'the workloads whose name matches')
  .option('--output <directory>', 'where the report goes', OUTPUT)
  .option('--list', 'list the workloads', false)
  .option('--markdown', 'print the last report as Markdown; nothing is measured', false);
const options = program.parse().opts<Options>();

const all = allWorkloads(options.quick);
const pattern = new RegExp(options.only ?? '');
const chosen = all.filter((workload) => pattern.test(workload.name));

if (options.list) {
  for (const { name, title } of all) console.log(`${name.padEnd(36)} ${title}`);
} else if (options.markdown) {
  console.log(markdown(readReport(options.output)));
} else await main(chosen, Number(options.pairs ?? (options.quick ? 1 : 7)));

async function main(workloads: readonly Workload[], pairs: number): Promise<void> {
  if (!Number.isInteger(pairs) || pairs < 1) throw new RangeError('--pairs takes a positive number');
  if (workloads.length === 0) throw new RangeError('--only matches no workload; --list has their names');
  const { quick } = options;
  const total = workloads.reduce((sum, workload) => sum + trialCount(workload, { pairs, quick }), 0);
  const progress = startProgress(total);
  const outcomes: Outcome[] = [];
  for (const workload of workloads) {
    progress.workload(workload.name);
    outcomes.push(await runWorkload(workload, { pairs, quick, onTrial: progress.trial }));
  }
  progress.stop();
  const { NO_COLOR = '' } = process.env;
  console.log(table(outcomes, process.stdout.isTTY === true && NO_COLOR === ''));
  const report = {
    date: new Date().toISOString(),
    command: ['npm run bench --', ...process.argv.slice(2)].join(' '),
    machine: machine(),
    versions: await versions(),
    ...{ pairs, quick, outcomes },
  };
  const page = await writeReport(report, options.output);
  console.log(`report: ${path.relative(process.cwd(), page)}`);
}

interface Progress {
  workload: (name: string) => void;
  trial: (what: string) => void;
  stop: () => void;
}

/** A bar on stderr; a line for each workload where nobody looks at a bar. */
function startProgress(total: number): Progress {
  if (process.stderr.isTTY !== true) {
    return { workload: (name) => console.error(`measuring ${name}`), trial: () => {}, stop: () => {} };
  }
  const bar = new SingleBar({
    format: '{bar} {value}/{total} {what}',
    hideCursor: true,
    stream: process.stderr,
  });
  bar.start(total, 0, { what: '' });
  let begun = 0;
  return {
    workload: () => {},
    // What is begun is not yet done.
    trial: (what) => bar.update(begun++, { what }),
    stop: () => {
      bar.update(total, { what: '' });
      bar.stop();
    },
  };
}
