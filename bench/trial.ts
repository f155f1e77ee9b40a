/** One trial: a fresh process that measures something and prints one line of JSON. */
import { spawn } from 'node:child_process';
import { childrenTime, type ProcessorTime } from './processor-time.js';

/** Microseconds. */
export interface Latency {
  mean?: number;
  p50?: number;
  p99?: number;
  p999?: number;
  max?: number;
  /** Percent, and what so many took at most. */
  curve?: [percent: number, latency: number][];
  sampled?: { count: number; every: number };
}

/** What a trial found. Rivals say what they know. */
export interface Measurement {
  opsPerSecond: number;
  /** Of the timed part. */
  seconds?: number;
  count?: number;
  userSeconds?: number;
  systemSeconds?: number;
  latencyUs?: Latency;
  /** Of mapped memory. */
  nsPerAccess?: number;
  nsPerRead?: number;
  nsPerWrite?: number;
  /** What the library adds to a bare send and receive. */
  addedNs?: number;
  /** What a proxy adds to a round trip, as it is by default and with `--spin 0`. */
  addedAsyncUs?: number;
  addedSyncUs?: number;
  addedAsyncSpin0Us?: number;
  addedSyncSpin0Us?: number;
  addedAsyncByDefaultUs?: number;
  addedSyncByDefaultUs?: number;
}

/** With the whole process, from its start to its end. */
export interface Trial extends Measurement {
  process: ProcessorTime & { seconds: number };
  /** Processor seconds a second that others burned meanwhile, where they were told to. */
  burned?: number;
}

export interface TrialCommand {
  command: string;
  args: readonly string[];
  /** The processors that it may use, as taskset has them. */
  cpus?: string | undefined;
  /** Reads the measurement out of the output, where that is not a line of JSON. */
  parse?: (output: string) => Measurement;
}

export interface Captured {
  output: string;
  process: Trial['process'];
}

const TRIAL_TIMEOUT_MS = 120_000;

/** Runs a trial. @throws Error with what it printed where it fails, or prints no measurement. */
export async function runTrial(trial: TrialCommand): Promise<Trial> {
  const { output, process } = await capture(trial);
  return { ...measurementOf(trial, output), process };
}

function measurementOf(trial: TrialCommand, output: string): Measurement {
  const measurement = (trial.parse ?? lastJson)(output);
  if (!(measurement.opsPerSecond > 0)) throw new Error(`${trial.command} measured nothing: ${output}`);
  return measurement;
}

/** Runs a command to its end. Nothing else that this process started may end meanwhile: its time would be counted. */
export function capture({ command, args, cpus }: TrialCommand): Promise<Captured> {
  const [file, list] = cpus === undefined ? [command, args] : ['taskset', ['-c', cpus, command, ...args]];
  return new Promise((resolve, reject) => {
    const before = childrenTime();
    const begin = performance.now();
    const child = spawn(file, list, { stdio: ['ignore', 'pipe', 'pipe'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), TRIAL_TIMEOUT_MS);
    let output = '';
    let errors = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const seconds = (performance.now() - begin) / 1e3;
      const after = childrenTime();
      const userSeconds = after.userSeconds - before.userSeconds;
      const systemSeconds = after.systemSeconds - before.systemSeconds;
      if (code === 0) resolve({ output, process: { seconds, userSeconds, systemSeconds } });
      else
        reject(new Error(`${command} ${args.join(' ')} ended with ${signal ?? code}: ${errors || output}`));
    });
  });
}

/** The JSON object that the output ends with, on one line or several. */
export function lastJson(output: string): Measurement {
  return parseLast(output) as Measurement;
}

export function parseLast(output: string): unknown {
  const begin = output.startsWith('{') ? 0 : output.lastIndexOf('\n{') + 1;
  if (!output.startsWith('{', begin)) throw new Error(`no JSON in: ${output}`);
  return JSON.parse(output.slice(begin));
}
