/** Runs workloads: answers first, then pairs of trials in alternation, each in a fresh process. */
import { Worker } from 'node:worker_threads';
import { CLI, reference, startServer, type Server } from './servers.js';
import { least, median, most } from './stats.js';
import { lastJson, runTrial, type Measurement, type TrialCommand } from './trial.js';
import type { Rival, Workload } from './workloads.js';

export interface Comparison {
  rival: string;
  goal: number | undefined;
  /** Operations a second, trial by trial. */
  ours: number[];
  theirs: number[];
  /** Ours to theirs, pair by pair. */
  ratios: number[];
  medianRatio: number;
  leastRatio: number;
  mostRatio: number;
  /** Processor seconds per second of ours and theirs, where the trials say so. */
  cpu: { ours: number | undefined; theirs: number | undefined };
  reached: boolean | undefined;
}

export interface Outcome {
  workload: string;
  title: string;
  comparisons: Comparison[];
  /** Without a rival: our figure alone, and whatever else the trial said. */
  alone: Measurement | undefined;
}

export interface RunOptions {
  pairs: number;
  quick: boolean;
  /** Called before each trial. */
  onTrial: (what: string) => void;
}

/** How many trials a workload makes. */
export function trialCount(workload: Workload, pairs: number): number {
  return workload.rivals.length === 0 ? 1 : workload.rivals.length * pairs * 2;
}

export async function runWorkload(workload: Workload, options: RunOptions): Promise<Outcome> {
  const server = await start(workload);
  try {
    const comparisons: Comparison[] = [];
    for (const rival of workload.rivals) comparisons.push(await compare(workload, rival, server, options));
    const alone =
      workload.rivals.length > 0 ? undefined : await once(workload, workload.ours, server, options);
    return { workload: workload.name, title: workload.title, comparisons, alone };
  } finally {
    await server.close();
  }
}

async function compare(
  workload: Workload,
  rival: Rival,
  server: Server,
  options: RunOptions,
): Promise<Comparison> {
  const burners = rival.busy === true ? burn() : [];
  const ours: Measurement[] = [];
  const theirs: Measurement[] = [];
  try {
    for (let pair = 0; pair < options.pairs; pair++) {
      // The first of a pair changes, so that neither always has the warmer machine.
      const oursFirst = pair % 2 === 0;
      if (oursFirst) ours.push(await once(workload, workload.ours, server, options));
      theirs.push(await once(workload, rival.trial, server, options, rival.name));
      if (!oursFirst) ours.push(await once(workload, workload.ours, server, options));
    }
  } finally {
    for (const burner of burners) await burner.terminate();
  }
  const ratios = ours.map((measurement, i) => measurement.opsPerSecond / theirs[i]!.opsPerSecond);
  const medianRatio = median(ratios);
  return {
    rival: rival.name,
    goal: rival.goal,
    ours: ours.map((measurement) => measurement.opsPerSecond),
    theirs: theirs.map((measurement) => measurement.opsPerSecond),
    ratios,
    medianRatio,
    leastRatio: least(ratios),
    mostRatio: most(ratios),
    cpu: { ours: cpuShare(ours), theirs: cpuShare(theirs) },
    reached: rival.goal === undefined ? undefined : medianRatio >= rival.goal,
  };
}

async function once(
  workload: Workload,
  trial: (socket: string, quick: boolean) => TrialCommand,
  server: Server,
  { quick, onTrial }: RunOptions,
  who = 'vfio-user',
): Promise<Measurement> {
  onTrial(`${workload.name}: ${who}`);
  const command = trial(server.socket, quick);
  if (workload.measuredByServer !== true) return runTrial(command);
  const ignored: TrialCommand = { ...command, parse: () => ({ opsPerSecond: 1 }) };
  const line = server.nextLine();
  await runTrial(ignored);
  return lastJson(await line);
}

async function start({ server }: Workload): Promise<Server> {
  if (server.kind === 'running') {
    return {
      socket: server.socket,
      nextLine: () => Promise.reject(new Error('the server is not ours')),
      close: () => Promise.resolve(),
    };
  }
  if (server.kind === 'emulator') return startServer(process.execPath, [CLI, ...server.args]);
  const { dmaSize, dmaCount } = server;
  const dma = dmaSize === undefined ? [] : [String(dmaSize), String(dmaCount)];
  return startServer(reference('target'), ['{socket}', ...dma]);
}

/** Keeps both processors busy. */
function burn(): Worker[] {
  const endless = 'for (let x = 0; ; x++) Math.sqrt(x);';
  return [0, 1].map(() => new Worker(endless, { eval: true }));
}

function cpuShare(measurements: readonly Measurement[]): number | undefined {
  const shares = measurements
    .filter((m) => m.userSeconds !== undefined && m.seconds !== undefined)
    .map((m) => (m.userSeconds! + (m.systemSeconds ?? 0)) / m.seconds!);
  return shares.length === 0 ? undefined : median(shares);
}
