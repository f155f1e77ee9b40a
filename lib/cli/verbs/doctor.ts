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
import { endpointOf, pciFunctionOf } from '../endpoint.js';
import { doctorPci } from '../pci-doctor.js';
import { printable, UsageError } from '../errors.js';
import { colorsOf, type GlobalOptions } from '../global-options.js';
import { toJson } from '../json.js';
import { milliseconds } from '../numbers.js';
import { print } from '../output.js';
import { renderDoctor } from '../render-doctor.js';
import { onStop } from '../stop-signals.js';
import { counted } from '../format-text.js';

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

Of a PCI function of this machine it finds out whether it can be driven from here: IOMMU, driver, group, permission, interrupt
remapping, locked memory, reset, BARs, and what mends each. Where nothing is in the way it is opened, and so reset; not with --gentle.
  $ vfio-user doctor pci:0000:01:00.0

Exit status: 0 where no rule is broken, 1 where one is, where not all could be tried (nobody listens, or the server went
away), and where nothing was (--only names what needs --write).`;

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
  const pci = socket === undefined ? undefined : pciFunctionOf(socket);
  if (pci !== undefined) return doctorFunction(pci, options, command);
  const { timeout, wait } = command.optsWithGlobals<GlobalOptions>();
  const progress = startProgress();
  let report: DoctorReport;
  try {
    const subject = subjectOf(socket, options);
    report = await untilInterrupted((signal) =>
      diagnose(subject, {
        readOnly: options.write !== true,
        gentle: options.gentle,
        only: options.only,
        timeoutMs: options.probeTimeout,
        ...(wait === true && { waitForSocket: true, startTimeoutMs: timeout }),
        name: options.name ?? socket ?? 'the server',
        signal,
        onProgress: (now) => progress.show(now),
      }),
    );
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(error.message) : error;
  } finally {
    progress.stop();
  }
  await print(rendered(report, options, command));
  const problem = problemOf(report, options.only ?? []);
  if (problem !== undefined) throw problem;
}

/** Of hardware there are no rules of the protocol to try: whether it can be driven from here. */
async function doctorFunction(address: string, options: DoctorOptions, command: Command): Promise<void> {
  const { json = false, gentle = false, only = [] } = options;
  for (const name of ['write', 'markdown', 'probeTimeout', 'name'] as const) {
    if (options[name] !== undefined)
      throw new UsageError(`doctor pci:ADDRESS takes --json, --gentle and --only, not --${spelled(name)}`);
  }
  await doctorPci(address, { json, gentle, only }, colorsOf(command));
}

/** `probeTimeout` as `probe-timeout`. */
function spelled(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** Prints what is known by then: the work ends by itself. */
async function untilInterrupted<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const interrupted = new AbortController();
  const forget = onStop((reason) => interrupted.abort(reason));
  try {
    return await work(interrupted.signal);
  } finally {
    forget();
  }
}

/** Why the server, or the diagnosis, is not as it should be. */
function problemOf({ summary, incomplete, rules }: DoctorReport, only: readonly string[]): Error | undefined {
  const missing = incomplete === null ? '' : `not all could be tried: ${incomplete}`;
  if (summary.broken > 0) {
    const broken = `${counted(summary.broken, 'rule')} of the specification broken`;
    const text = [broken, missing].filter((part) => part !== '').join('; ');
    return new VfioUserError('ERR_VFIO_USER_RULES_BROKEN', text);
  }
  if (missing !== '') return new VfioUserError('ERR_VFIO_USER_DIAGNOSIS_INCOMPLETE', missing);
  const wanted = rules.filter(
    ({ id, probe }) =>
      only.length === 0 || only.some((name) => id.startsWith(name) || probe.startsWith(name)),
  );
  if (wanted.some(({ verdict }) => verdict !== 'not run')) return undefined;
  const why = wanted[0]?.detail ?? 'no probe came to it';
  return new VfioUserError('ERR_VFIO_USER_DIAGNOSIS_INCOMPLETE', `nothing was tried: ${why}`);
}

function rendered(report: DoctorReport, options: DoctorOptions, command: Command): string {
  if (options.json === true) return `${toJson(report)}\n`;
  return options.markdown === true ? toMarkdown(report) : renderDoctor(report, colorsOf(command));
}

function subjectOf(socket: string | undefined, { spawn }: DoctorOptions): Subject {
  if (socket !== undefined) return endpointOf(socket);
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
