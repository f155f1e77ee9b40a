/** `vfio-user replay`: a capture as a server. */
import { constants } from 'node:os';
import { InvalidArgumentError, Option, type Command } from 'commander';
import {
  ReplayError,
  formatReport,
  replay,
  type ReplayOptions,
  type ReplayReport,
  type ReplayServer,
} from '../../replay/index.js';
import { VfioUserError } from '../../errors.js';
import { listeningAddress } from '../endpoint.js';
import { UsageError, printable } from '../errors.js';
import { length, milliseconds } from '../numbers.js';
import { print } from '../output.js';
import { untilStopped } from '../stop-signals.js';

interface ReplayVerbOptions {
  socket: string;
  mode: 'ordered' | 'matching';
  repeatLast: boolean;
  connection: number | string;
  after: 'refuse' | 'continue' | 'close';
  errno: number;
  timing: 'fast' | 'recorded';
  mappings: 'withhold' | 'blank';
  ignore: string[];
  answerTimeout: number;
  complete: boolean;
  keep: boolean;
  json: boolean;
}

const HELP = `
FILE is what connect's capture option, VFIO_USER_CAPTURE=FILE or vfio-user proxy --capture wrote; of a capture that was
rotated all files, the oldest first. A capture has no shared memory: record with --mmap never, and in programs with
secureDma, or better { ...RECORDABLE } of vfio-user/replay, so that everything is a message.

Serves one client, then prints how it went. Exit status: 0 when the client did nothing but what is recorded (with
--complete: and all of it), 1 when it did something else, or when no client was served before an interrupt.

Examples:
  $ VFIO_USER_CAPTURE=dev.pcapng vfio-user --mmap never info /run/dev.sock
  $ vfio-user replay dev.pcapng --socket /tmp/dev.sock &
  $ vfio-user --mmap never info /tmp/dev.sock
  $ vfio-user replay dev.pcapng.1 dev.pcapng --socket /tmp/dev.sock --mode matching --repeat-last
  $ vfio-user replay dev.pcapng --socket /tmp/dev.sock --ignore DMA_READ.data --after continue`;

export function registerReplay(program: Command): void {
  program
    .command('replay')
    .description('serve a capture: the same requests get the same answers')
    .argument('<FILE...>', 'a capture, or the files of a rotated one, the oldest first')
    .requiredOption('--socket <path>', 'where to listen: a path, or @name for an abstract socket')
    .addOption(
      new Option('--mode <mode>', 'requests come in the recorded order, or in any')
        .choices(['ordered', 'matching'])
        .default('ordered'),
    )
    .option(
      '--repeat-last',
      'matching: answer once more as the last time when recorded answers run out',
      false,
    )
    .option(
      '--connection <which>',
      'which connection: its number, or the name of its socket',
      connectionOf,
      1,
    )
    .addOption(
      new Option('--after <what>', 'what to do after a difference')
        .choices(['refuse', 'continue', 'close'])
        .default('refuse'),
    )
    .option('--errno <errno>', 'what refused requests are answered, by name', errnoOf, constants.errno.EIO)
    .addOption(
      new Option('--timing <timing>', 'as fast as possible, or with the recorded times')
        .choices(['fast', 'recorded'])
        .default('fast'),
    )
    .addOption(
      new Option('--mappings <policy>', 'regions that could be mapped: not, or as zeros')
        .choices(['withhold', 'blank'])
        .default('withhold'),
    )
    .option('--ignore <field>', 'a field that may differ, such as DMA_READ.data; repeatable', collect, [])
    .option('--answer-timeout <ms>', 'how long the client may take to answer DMA', milliseconds, 5_000)
    .option('--complete', 'a client that leaves part of the recording out has failed', false)
    .option('--keep', 'serve further clients, until interrupted', false)
    .option('--json', 'print the report as JSON', false)
    .addHelpText('after', HELP)
    .action(run);
}

async function run(files: string[], options: ReplayVerbOptions): Promise<void> {
  const { socket, keep, complete } = options;
  let isStopped = false;
  const stopped = untilStopped().then(() => {
    isStopped = true;
  });
  await using server = await open(files, options);
  await print(`listening on ${socket}\n`);
  let failed: ReplayError | undefined;
  let printed = 0;
  const printNew = async () => {
    for (const report of server.reports.slice(printed)) {
      printed++;
      failed = (await printReport(report, options)) ?? failed;
    }
  };
  do {
    if (server.reports.length === printed) await Promise.race([server.nextReport(), stopped]);
    await printNew();
  } while (keep && !isStopped);
  // A client that is still here leaves now.
  const last = server.progress === undefined ? undefined : server.nextReport();
  await server.close();
  await last;
  await printNew();
  if (failed !== undefined) throw failed;
  if (isStopped && !keep) throw new VfioUserError('EINTR', 'interrupted before a client had been served');
  if (printed === 0 && complete) throw new VfioUserError('EINTR', 'interrupted before a client had come');
}

async function open(files: string[], options: ReplayVerbOptions): Promise<ReplayServer> {
  const { mode, repeatLast, connection, errno, timing, mappings, ignore } = options;
  const wanted: ReplayOptions = {
    path: listeningAddress(options.socket),
    mode,
    repeatLast,
    connection,
    afterDifference: options.after,
    errno,
    timing,
    mappings,
    ignore,
    answerTimeoutMs: options.answerTimeout,
  };
  try {
    return await replay(files, wanted);
  } catch (error) {
    throw error instanceof TypeError || error instanceof RangeError ? new UsageError(error.message) : error;
  }
}

/** Prints how a client's session went; the error where it is one. */
async function printReport(
  report: ReplayReport,
  { json, complete }: ReplayVerbOptions,
): Promise<ReplayError | undefined> {
  const text = json ? JSON.stringify(report) : formatReport(report);
  await print(`${text.split('\n').map(printable).join('\n')}\n`);
  const { outcome, requests, played } = report;
  if (outcome === 'different') {
    const at = report.differences[0]?.number;
    const where = at === undefined ? 'after its end' : `at message ${at}`;
    return new ReplayError(`the client left the recording ${where}`, report);
  }
  if (outcome === 'complete' || !complete) return undefined;
  return new ReplayError(`the client did ${played} of ${requests} recorded requests`, report);
}

function connectionOf(text: string): number | string {
  return /^\d+$/.test(text) ? length(text) : text;
}

function errnoOf(text: string): number {
  const errno = (constants.errno as Readonly<Record<string, number>>)[text];
  if (errno === undefined) throw new InvalidArgumentError('It is the name of an errno, such as EIO.');
  return errno;
}

function collect(field: string, before: string[]): string[] {
  return [...before, field];
}
