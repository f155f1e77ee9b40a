/** From trials to what is told of them. */
import { judge, type AbsoluteGoal, type Goal, type Verdict } from './goal.js';
import { least, median, most } from './stats.js';
import type { Latency, Trial } from './trial.js';

/** Processor seconds a second of the clients, user and system, medians. */
export interface ProcessorShare {
  /** Of the timed part where both trials say so, else of the whole processes, starting up and ending with it. */
  scope: 'timed' | 'process';
  ours: Share;
  theirs: Share | undefined;
}

export interface Share {
  user: number;
  system: number;
}

export interface Comparison {
  rival: string;
  goal: Goal | undefined;
  verdict: Verdict | undefined;
  ours: Trial[];
  theirs: Trial[];
  /** Ours to theirs in operations a second, pair by pair. */
  ratios: number[];
  medianRatio: number;
  leastRatio: number;
  mostRatio: number;
  processor: ProcessorShare;
  latencyUs: { ours: Latency | undefined; theirs: Latency | undefined };
  /** Where processors were kept busy: by how much, while ours and theirs ran, and all at which nice value. */
  load: { nice: number; ours: number; theirs: number } | undefined;
}

/** A workload without a rival. */
export interface Alone {
  trials: Trial[];
  opsPerSecond: { median: number; least: number; most: number };
  goal: AbsoluteGoal | undefined;
  verdict: Verdict | undefined;
  processor: ProcessorShare;
  latencyUs: Latency | undefined;
  /** Medians of what else the trials say. */
  others: Record<string, number>;
}

export interface Contest {
  rival: string;
  goal?: Goal | undefined;
  ours: Trial[];
  theirs: Trial[];
  theirLatency?: Latency | undefined;
  nice?: number | undefined;
}

export function compare({ rival, goal, ours, theirs, theirLatency, nice }: Contest): Comparison {
  if (ours.length === 0 || ours.length !== theirs.length) throw new RangeError('trials come in pairs');
  const ratios = ours.map((trial, i) => trial.opsPerSecond / theirs[i]!.opsPerSecond);
  return {
    rival,
    goal,
    verdict: goal && judge(goal, median(inMeasureOf(goal, ours, theirs))),
    ours,
    theirs,
    ratios,
    medianRatio: median(ratios),
    leastRatio: least(ratios),
    mostRatio: most(ratios),
    processor: shares(ours, theirs),
    latencyUs: { ours: latencyOf(ours), theirs: theirLatency ?? latencyOf(theirs) },
    load: nice === undefined ? undefined : { nice, ours: burned(ours), theirs: burned(theirs) },
  };
}

/** Pair by pair. */
export function inMeasureOf({ measure }: Goal, ours: readonly Trial[], theirs: readonly Trial[]): number[] {
  return ours.map((trial, i) => {
    const other = theirs[i]!;
    if (measure === 'p90') return p90Of(trial) / p90Of(other);
    const ratio = trial.opsPerSecond / other.opsPerSecond;
    return measure === 'time' ? 1 / ratio : ratio;
  });
}

function p90Of({ latencyUs }: Trial): number {
  const point = latencyUs?.curve?.find(([percent]) => percent === 90);
  if (point === undefined) throw new Error('a trial does not say its 90th percentile');
  return point[1];
}

export function standAlone(trials: Trial[], goal: AbsoluteGoal | undefined): Alone {
  if (trials.length === 0) throw new RangeError('no trials');
  const rates = trials.map((trial) => trial.opsPerSecond);
  const others = otherFigures(trials);
  return {
    trials,
    opsPerSecond: { median: median(rates), least: least(rates), most: most(rates) },
    goal,
    verdict: goal && judge(goal, others[goal.measure] ?? NaN),
    processor: shares(trials, []),
    latencyUs: latencyOf(trials),
    others,
  };
}

function shares(ours: readonly Trial[], theirs: readonly Trial[]): ProcessorShare {
  const all = [...ours, ...theirs];
  const scope = all.every(saysItsTime) ? 'timed' : 'process';
  const share = (trials: readonly Trial[]): Share => ({
    user: median(trials.map((trial) => part(trial, scope, 'userSeconds'))),
    system: median(trials.map((trial) => part(trial, scope, 'systemSeconds'))),
  });
  return { scope, ours: share(ours), theirs: theirs.length === 0 ? undefined : share(theirs) };
}

function saysItsTime({ seconds, userSeconds, systemSeconds }: Trial): boolean {
  return seconds !== undefined && userSeconds !== undefined && systemSeconds !== undefined;
}

function part(trial: Trial, scope: ProcessorShare['scope'], what: 'userSeconds' | 'systemSeconds'): number {
  const { seconds, [what]: used } = scope === 'timed' ? trial : trial.process;
  return used! / seconds!;
}

function burned(trials: readonly Trial[]): number {
  return median(trials.map((trial) => trial.burned ?? 0));
}

/** Each figure's median over the trials that have it. */
export function latencyOf(trials: readonly Trial[]): Latency | undefined {
  const told = trials.flatMap(({ latencyUs }) => (latencyUs === undefined ? [] : [latencyUs]));
  if (told.length === 0) return undefined;
  const latency: Latency = {};
  for (const figure of ['mean', 'p50', 'p99', 'p999', 'max'] as const) {
    const values = told.flatMap((one) => one[figure] ?? []);
    if (values.length > 0) latency[figure] = median(values);
  }
  const curves = told.flatMap(({ curve }) => (curve === undefined ? [] : [new Map(curve)]));
  const shared = [...(curves[0]?.keys() ?? [])].filter((percent) => curves.every((c) => c.has(percent)));
  if (shared.length > 0) {
    latency.curve = shared.map((percent) => [percent, median(curves.map((c) => c.get(percent)!))]);
  }
  const sampled = told.flatMap((one) => one.sampled ?? []);
  if (sampled.length > 0) {
    latency.sampled = {
      count: sampled.reduce((sum, { count }) => sum + count, 0),
      every: median(sampled.map(({ every }) => every)),
    };
  }
  return latency;
}

const OTHER_FIGURES = [
  'nsPerAccess',
  'nsPerRead',
  'nsPerWrite',
  'addedNs',
  'addedAsyncUs',
  'addedSyncUs',
  'addedAsyncSpin0Us',
  'addedSyncSpin0Us',
  'addedAsyncByDefaultUs',
  'addedSyncByDefaultUs',
] as const;

function otherFigures(trials: readonly Trial[]): Record<string, number> {
  const others: Record<string, number> = {};
  for (const figure of OTHER_FIGURES) {
    const values = trials.flatMap((trial) => trial[figure] ?? []);
    if (values.length > 0) others[figure] = median(values);
  }
  return others;
}
