/** `vfio-user doctor`: does a server keep the specification. */
import type { Command } from 'commander';
import { SingleBar } from 'cli-progress';
import {
  diagnose,
  spawner,
  toMarkdown,
  type DoctorReport,
  type Progress,
  type Subject,
} from '../../doctor/index.js';
import { VfioUserError } from '../../errors.js';
import { endpointOf } from '../endpoint.js';
import { printable, UsageError } from '../errors.js';
import { colorsOf, type GlobalOptions } from '../global-options.js';
import { toJson } from '../json.js';
import { milliseconds } from '../numbers.js';
import { print } from '../output.js';
import { renderDoctor } from '../render-doctor.js';
import { counted } from '../text.js';

interface DoctorOptions {
  json?: boolean;
  markdown?: boolean;
  write?: boolean;
  gentle?: boolean;
  only?: string[];
  probeTimeout?: number;
  spawn?: string;
  name?: string;
}

const HELP = `
Each probe has a connection of its own, the harmless ones come first. Read-only unless --write is given, except that a
register may count its reads. The last probes send what no client should: some servers do not survive them, which is
what they find out. --gentle leaves those out.

A server that serves one client and ends is best started anew for each probe:
  $ vfio-user doctor --spawn 'gpio --socket-path {socket}' --write

Other examples:
  $ vfio-user doctor /run/dev.sock --gentle
  $ vfio-user doctor /run/dev.sock --only stream --only header --json
  $ vfio-user doctor /run/dev.sock --json > dev.json; vfio-user info /run/dev.sock --quirks dev.json

Exit status: 0 where no rule is broken, 1 where one is.`;

export function registerDoctor(program: Command): void {
  program
    .command('doctor')
    .description('find out whether a server keeps the specification, and how to get on with it')
    .argument('[SOCKET]', 'where the server listens')
    .option('--spawn <command>', 'start the server for each probe: a shell command with {socket} in it')
    .option('--write', 'change state as well: writes, reset, DMA mappings, interrupts')
    .option('--gentle', 'leave out what some servers do not survive')
    .option('--only <name>', 'only probes and rules whose names begin so; may be repeated', collect)
    .option('--probe-timeout <ms>', 'how long a probe may take (2000 where nothing is said)', milliseconds)
    .option('--name <name>', 'what the report calls the server')
    .option('--json', 'print JSON')
    .option('--markdown', 'print Markdown')
    .addHelpText('after', HELP)
    .action(doctor);
}

async function doctor(socket: string | undefined, options: DoctorOptions, command: Command): Promise<void> {
  if ((socket === undefined) === (options.spawn === undefined))
    throw new UsageError('doctor takes a SOCKET, or --spawn with a command');
  if (options.json === true && options.markdown === true)
    throw new UsageError('--json and --markdown exclude each other');
  const { timeout } = command.optsWithGlobals<GlobalOptions>();
  const progress = startProgress();
  const interrupted = new AbortController();
  const stop = (): void => interrupted.abort();
  process.once('SIGINT', stop);
  let report: DoctorReport;
  try {
    report = await diagnose(await subjectOf(socket, options, timeout), {
      readOnly: options.write !== true,
      gentle: options.gentle,
      only: options.only,
      timeoutMs: options.probeTimeout,
      name: options.name ?? socket ?? 'the server',
      signal: interrupted.signal,
      onProgress: (now) => progress.show(now),
    });
  } finally {
    process.off('SIGINT', stop);
    progress.stop();
  }
  await print(rendered(report, options, command));
  const { broken } = report.summary;
  if (broken > 0)
    throw new VfioUserError(
      'ERR_VFIO_USER_RULES_BROKEN',
      `${counted(broken, 'rule')} of the specification broken`,
    );
}

function rendered(report: DoctorReport, options: DoctorOptions, command: Command): string {
  if (options.json === true) return `${toJson(report)}\n`;
  return options.markdown === true ? toMarkdown(report) : renderDoctor(report, colorsOf(command));
}

async function subjectOf(
  socket: string | undefined,
  { spawn }: DoctorOptions,
  timeoutMs: number,
): Promise<Subject> {
  if (socket !== undefined) return endpointOf(socket, timeoutMs);
  try {
    return { start: spawner(spawn!) };
  } catch (error) {
    throw new UsageError(printable((error as Error).message));
  }
}

function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

/** On a terminal: which probe runs. */
function startProgress(): { show(progress: Progress): void; stop(): void } {
  if (process.stderr.isTTY !== true) return { show: () => undefined, stop: () => undefined };
  const bar = new SingleBar({
    format: '[{bar}] {value} of {total}  {probe}',
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
  });
  let isStarted = false;
  return {
    show: ({ done, total, probe }) => {
      if (!isStarted) bar.start(total, 0, { probe });
      isStarted = true;
      bar.update(done, { probe });
    },
    stop: () => bar.stop(),
  };
}
