/** One trial: a fresh process that measures something and prints one line of JSON. */
import { spawn } from 'node:child_process';

/** What a trial found. Rivals say what they know. */
export interface Measurement {
  opsPerSecond: number;
  userSeconds?: number;
  systemSeconds?: number;
  seconds?: number;
  count?: number;
}

export interface TrialCommand {
  command: string;
  args: readonly string[];
  /** The processors that it may use, as taskset has them. */
  cpus?: string | undefined;
  /** Reads the measurement out of the output, where that is not a line of JSON. */
  parse?: (output: string) => Measurement;
}

const TRIAL_TIMEOUT_MS = 120_000;

/** Runs a trial. @throws Error with what it printed where it fails, or prints no measurement. */
export async function runTrial(trial: TrialCommand): Promise<Measurement> {
  const output = await capture(trial);
  const measurement = (trial.parse ?? lastJson)(output);
  if (!(measurement.opsPerSecond > 0)) throw new Error(`${trial.command} measured nothing: ${output}`);
  return measurement;
}

export function capture({ command, args, cpus }: TrialCommand): Promise<string> {
  const [file, list] = cpus === undefined ? [command, args] : ['taskset', ['-c', cpus, command, ...args]];
  return new Promise((resolve, reject) => {
    const child = spawn(file, list, { stdio: ['ignore', 'pipe', 'pipe'], timeout: TRIAL_TIMEOUT_MS });
    let output = '';
    let errors = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) resolve(output);
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
