/** `vfio-user nvme bench`: how fast namespaces are through this library. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import type { NvmeController } from '../../../nvme/index.js';
import { parseDistribution, UNIFORM } from '../../bench-report/distributions.js';
import { fioJson, type FioRun } from '../../bench-report/fio-json.js';
import { benchHtml } from '../../bench-report/html.js';
import { liveLine } from '../../bench-report/live-line.js';
import { UsageError } from '../../errors.js';
import { colorsOf } from '../../global-options.js';
import { toJson } from '../../json.js';
import { byteSize, length, size as offset } from '../../numbers.js';
import { writeOutput } from '../../output-file.js';
import { print } from '../../output.js';
import { renderBench } from '../../render-nvme.js';
import { runBench, type RunOptions } from './bench-run.js';
import type { Rw } from './bench-workload.js';
import { namespaceId, withController } from './with-controller.js';

interface BenchOptions extends RunOptions {
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

const HELP = `
Transfers go over the whole namespace. With --rw randwrite, write, randrw or rw, and with --verify, its data is overwritten;
--verify stamps the first 64 MiB and checks all that is read there. --size is that of a transfer (fio's bs), --total what is
transferred in all (fio's size); without --seconds a --total has no limit of time. Every one of --queues has --qd transfers
under way, in each of the devices. A controller has one host and all is done by one thread.

--output-format fio is the shape of fio's JSON 3, for what reads that; latencies are of samples, and N is how many. fio-plot takes
the jobs of a file for one run: give it a file for each depth.

Examples:
  $ vfio-user nvme bench /run/nvme.sock --rw randread --qd 32 --seconds 3
  $ vfio-user nvme bench /run/nvme.sock --rw randrw --rwmixread 70 --random-distribution zipf:1.2 --output-format fio
  $ vfio-user nvme bench /run/nvme.sock --sweep qd=1,2,4,8,16,32,64,128 --html report.html
  $ vfio-user nvme bench /run/nvme.sock --rw randwrite --size 128K --qd 4 --api promise --verify --json`;

export function registerNvmeBench(nvme: Command): void {
  nvme
    .command('bench')
    .description('measure transfers')
    .argument('<SOCKET...>', 'where the servers listen')
    .option('--nsid <n>', 'the namespace; the first active one where nothing is said', namespaceId)
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
    .option('--page-offset <bytes>', 'where buffers begin in a page of memory, with --api poll', offset)
    .option('--qd <n>', 'transfers under way at once in each queue', length, 32)
    .option('--queues <n>', 'queue pairs of each controller', length, 1)
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
    .option('--json', 'print JSON: --output-format json', false)
    .addHelpText('after', HELP)
    .action(bench);
}

async function bench(sockets: string[], options: BenchOptions, command: Command): Promise<void> {
  if (new Set(sockets).size < sockets.length)
    throw new UsageError('a controller has one host: each SOCKET once');
  const isTimed = command.getOptionValueSource('seconds') !== 'default';
  const limit = options.total !== undefined && !isTimed ? MOST_SECONDS : options.seconds;
  const live = liveLine(options.progress);
  const runs: FioRun[] = [];
  try {
    await withControllers(command, sockets, async (controllers) => {
      for (const qd of options.sweep ?? [options.qd])
        runs.push(await runBench(controllers, { ...options, qd, seconds: limit }, live));
    });
  } finally {
    live.stop();
  }
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

/** All of them open at once. */
async function withControllers(
  command: Command,
  [socket, ...rest]: readonly string[],
  work: (controllers: readonly NvmeController[]) => Promise<void>,
  opened: readonly NvmeController[] = [],
): Promise<void> {
  if (socket === undefined) await work(opened);
  else
    await withController(command, socket, (controller) =>
      withControllers(command, rest, work, [...opened, controller]),
    );
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
