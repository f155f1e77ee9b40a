/** Runs workloads: answers first, then pairs of trials in alternation, each in a fresh process. */
import { Burners } from './burners.js';
import { compare, latencyOf, standAlone, type Alone, type Comparison } from './compare.js';
import { serverFor, type Server } from './servers.js';
import { capture, lastJson, runTrial, type Trial } from './trial.js';
import type { MakeTrial, NvmePlace, Rival, Workload } from './workload.js';

export interface Outcome {
  workload: string;
  title: string;
  comparisons: Comparison[];
  /** Rivals that this machine has not. */
  skipped: { rival: string; reason: string }[];
  /** Where no rival is known at all. */
  alone: Alone | undefined;
  nvme: NvmePlace | undefined;
  limits: string;
}

export interface RunOptions {
  pairs: number;
  quick: boolean;
  /** Called before each trial. */
  onTrial: (what: string) => void;
}

/** How many trials a workload makes. */
export function trialCount(
  workload: Workload,
  { pairs, quick }: Pick<RunOptions, 'pairs' | 'quick'>,
): number {
  const checks = workload.check === undefined ? 0 : 1;
  if (workload.rivals.length === 0) return checks + trialsAlone(pairs, quick);
  const rivals = workload.rivals.filter((rival) => rival.missing?.() === undefined);
  const distributions = rivals.filter((rival) => rival.distribution !== undefined).length;
  return checks + rivals.length * pairs * 2 + distributions;
}

function trialsAlone(pairs: number, quick: boolean): number {
  return quick ? 1 : pairs;
}

export async function runWorkload(workload: Workload, options: RunOptions): Promise<Outcome> {
  const server = await serverFor(workload.server);
  try {
    return await new WorkloadRun(workload, server, options).run();
  } finally {
    await server.close();
  }
}

class WorkloadRun {
  readonly #workload: Workload;
  readonly #server: Server;
  readonly #options: RunOptions;

  constructor(workload: Workload, server: Server, options: RunOptions) {
    this.#workload = workload;
    this.#server = server;
    this.#options = options;
  }

  async run(): Promise<Outcome> {
    const { name, title, rivals, check, nvme, limits } = this.#workload;
    if (check !== undefined) {
      this.#options.onTrial(`${name}: checking answers`);
      await capture(check(this.#server.socket, this.#options.quick));
    }
    const comparisons: Comparison[] = [];
    const skipped: Outcome['skipped'] = [];
    for (const rival of rivals) {
      const reason = rival.missing?.();
      if (reason === undefined) comparisons.push(await this.#compare(rival));
      else skipped.push({ rival: rival.name, reason });
    }
    const alone = rivals.length === 0 ? await this.#alone() : undefined;
    return { workload: name, title, comparisons, skipped, alone, nvme, limits };
  }

  async #alone(): Promise<Alone> {
    const { pairs, quick } = this.#options;
    const trials: Trial[] = [];
    while (trials.length < trialsAlone(pairs, quick)) trials.push(await this.#ours());
    return standAlone(trials, this.#workload.goal);
  }

  async #compare(rival: Rival): Promise<Comparison> {
    const burners = rival.busy === undefined ? undefined : await Burners.start(rival.busy);
    const loaded = async (trial: () => Promise<Trial>): Promise<Trial> => {
      if (burners === undefined) return trial();
      const { result, burned } = await burners.during(trial);
      return { ...result, burned };
    };
    const ours: Trial[] = [];
    const theirs: Trial[] = [];
    try {
      for (let pair = 0; pair < this.#options.pairs; pair++) {
        // The first of a pair changes, so that neither always has the warmer machine.
        const oursFirst = pair % 2 === 0;
        if (oursFirst) ours.push(await loaded(() => this.#ours()));
        theirs.push(await loaded(() => this.#once(rival.trial, rival.name)));
        if (!oursFirst) ours.push(await loaded(() => this.#ours()));
      }
    } finally {
      await burners?.[Symbol.asyncDispose]();
    }
    const { name, goal, distribution } = rival;
    const shown =
      distribution === undefined ? undefined : await this.#once(distribution, `${name}, latencies`);
    const theirLatency = shown && latencyOf([shown]);
    return compare({ rival: name, goal, ours, theirs, theirLatency, nice: burners?.nice });
  }

  #ours(): Promise<Trial> {
    return this.#once(this.#workload.ours, 'vfio-user');
  }

  async #once(trial: MakeTrial, who: string): Promise<Trial> {
    const { name, measuredByServer } = this.#workload;
    const { quick, onTrial } = this.#options;
    onTrial(`${name}: ${who}`);
    const command = trial(this.#server.socket, quick);
    if (measuredByServer !== true) return runTrial(command);
    const line = this.#server.nextLine();
    // The client may fail first: nobody waits for the line then.
    line.catch(() => undefined);
    const { process } = await capture(command);
    return { ...lastJson(await line), process };
  }
}
