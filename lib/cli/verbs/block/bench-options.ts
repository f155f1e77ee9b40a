/** The options of a bench, and what is printed of it, whichever driver has the disks. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { parseDistribution, UNIFORM } from '../../bench-report/distributions.js';
import { fioJson, type FioRun } from '../../bench-report/fio-json.js';
import { benchHtml } from '../../bench-report/html.js';
import { liveLine } from '../../bench-report/live-line.js';
import { UsageError } from '../../errors.js';
import { colorsOf } from '../../global-options.js';
import { toJson } from '../../json.js';
import { byteSize, length } from '../../numbers.js';
import { writeOutput } from '../../output-file.js';
import { print } from '../../output.js';
import { renderBench } from '../../render-bench.js';
import type { OpenDisk } from './bench-disk.js';
import { runBench, type RunOptions } from './bench-run.js';
import type { Rw } from './bench-workload.js';

export interface BenchOptions extends RunOptions {
  sweep?: number[];
  html?: string;
  progress: boolean;
  outputFormat: 'normal' | 'json' | 'fio';
  json: boolean;
}

const RWS: readonly Rw[] = ['randread', 'randwrite', 'randrw', 'read', 'write', 'rw'];
const MOST_SECONDS = 86_400;
const MOST_POINTS = 64;
const MOST_DEPTH = 65_535;
const PERCENT = 100;

/** Adds what every bench has: what to do, how much of it, and by which API. */
export function addBenchOptions(command: Command): Command {
  addLoadOptions(command);
  return command
    .option('--seconds <s>', 'for how long', seconds, 3)
    .option('--ramp <s>', 'how long before that nothing is timed (0.3)', ramp)
    .option('--total <bytes>', 'until so much was transferred', byteSize)
    .option('--rate-iops <n>', 'no more transfers a second, all together', length)
    .option('--rate <bytes>', 'no more bytes a second, all together', byteSize)
    .option('--sweep <qd=list>', 'a run for each of these depths: qd=1,2,4', depths)
    .addOption(new Option('--api <api>', 'the API to use').choices(['poll', 'promise']).default('poll'))
    .addOption(
      new Option('--completion <how>', 'how promises learn of completions')
        .choices(['poll', 'interrupt'])
        .default('poll'),
    )
    .option('--verify', 'check the answers', false)
    .option('--html <file>', 'write a page with charts')
    .option('--progress', 'say on stderr how it goes, also where that is no terminal', false)
    .addOption(
      new Option('--output-format <format>', 'how to print it')
        .choices(['normal', 'json', 'fio'])
        .default('normal'),
    )
    .option('--json', 'print JSON: --output-format json', false);
}

function addLoadOptions(command: Command): void {
  command
    .addOption(new Option('--rw <rw>', 'what to do').choices(RWS).default('randread'))
    .option('--rwmixread <percent>', 'how many of randrw and rw read', percent, 50)
    .addOption(
      new Option(
        '--random-distribution <d>',
        'which blocks: random, zipf:THETA or pareto:POWER, as fio has them',
      )
        .argParser(parseDistribution)
        .default(UNIFORM, 'random'),
    )
    .option('--size <bytes>', 'of each transfer, whole blocks', byteSize, 4096)
    .option('--qd <n>', 'transfers under way at once in each queue', length, 32)
    .option('--queues <n>', 'queues of each device', length, 1);
}

/** @throws UsageError where a device is named twice: it has one driver. */
export function checkSockets(sockets: readonly string[], device: string): void {
  if (new Set(sockets).size < sockets.length)
    throw new UsageError(`${device} has one host: each SOCKET once`);
}

/** Runs, once or for each depth of a sweep, and prints what was found. */
export async function bench(
  sockets: readonly string[],
  open: readonly OpenDisk[],
  options: BenchOptions,
  command: Command,
): Promise<void> {
  const isTimed = command.getOptionValueSource('seconds') !== 'default';
  const limit = options.total !== undefined && !isTimed ? MOST_SECONDS : options.seconds;
  const live = liveLine(options.progress);
  const runs: FioRun[] = [];
  try {
    for (const qd of options.sweep ?? [options.qd])
      runs.push(await runBench(open, { ...options, qd, seconds: limit }, live));
  } finally {
    live.stop();
  }
  await printRuns(sockets, runs, options, command);
}

async function printRuns(
  sockets: readonly string[],
  runs: readonly FioRun[],
  options: BenchOptions,
  command: Command,
): Promise<void> {
  const reports = runs.map(({ report }) => report);
  if (options.html !== undefined) {
    const page = benchHtml(reports, sockets, new Date());
    await writeOutput(options.html, async (file) => file.write(page), false);
  }
  const format = options.json ? 'json' : options.outputFormat;
  if (format === 'fio') await print(`${toJson(fioJson(runs, sockets))}\n`);
  else if (format === 'json')
    await print(`${toJson(options.sweep === undefined ? reports[0] : { sweep: 'qd', runs: reports })}\n`);
  else await print(reports.map((report) => renderBench(report, colorsOf(command).bold)).join('\n'));
}

function seconds(text: string): number {
  const value = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && value > 0 && value <= MOST_SECONDS) return value;
  throw new UsageError(`--seconds is a number up to ${MOST_SECONDS}`);
}

function ramp(text: string): number {
  const value = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && value <= MOST_SECONDS) return value;
  throw new InvalidArgumentError(`It is a number of seconds up to ${MOST_SECONDS}.`);
}

function percent(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value <= PERCENT) return value;
  throw new InvalidArgumentError(`It is a whole number from 0 to ${PERCENT}.`);
}

function depths(text: string): number[] {
  const list = /^qd=(?<list>\d+(?:,\d+)*)$/.exec(text)?.groups?.['list']?.split(',').map(Number);
  if (list === undefined)
    throw new InvalidArgumentError('It is qd= and numbers with commas between: qd=1,2,4.');
  if (list.length > MOST_POINTS) throw new InvalidArgumentError(`It has at most ${MOST_POINTS} numbers.`);
  if (list.some((qd) => qd < 1 || qd > MOST_DEPTH))
    throw new InvalidArgumentError(`A depth is 1 to ${MOST_DEPTH}.`);
  if (new Set(list).size < list.length) throw new InvalidArgumentError('A depth is named once.');
  return list;
}
