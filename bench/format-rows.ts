/** Figures as they stand in every form of the report. */
import type { Alone, Comparison, ProcessorShare, Share } from './compare.js';
import { goalInWords, verdictInWords } from './goal.js';
import type { Outcome } from './run.js';
import { median } from './stats.js';
import type { Latency, Trial } from './trial.js';

/** One row: a workload beside one rival, or alone. */
export interface Row {
  workload: string;
  title: string;
  rival: string;
  ours: string;
  theirs: string;
  ratio: string;
  spread: string;
  goal: string;
  verdict: string;
  /** undefined where there is no goal. */
  reached: boolean | undefined;
  /** Processor seconds a second, user + system. */
  oursProcessor: string;
  theirsProcessor: string;
  /** Of each operation, wall and processor. */
  oursTime: string;
  theirsTime: string;
  latency: string;
}

export function rowsOf(outcome: Outcome): Row[] {
  const { comparisons, alone } = outcome;
  if (alone !== undefined) return [aloneRow(outcome, alone)];
  return comparisons.map((comparison) => comparisonRow(outcome, comparison));
}

function comparisonRow({ workload, title }: Outcome, comparison: Comparison): Row {
  const { rival, ours, theirs, medianRatio, leastRatio, mostRatio, goal, verdict, processor } = comparison;
  return {
    ...{ workload, title, rival },
    ours: rate(opsOf(ours)),
    theirs: rate(opsOf(theirs)),
    ratio: medianRatio.toFixed(2),
    spread: `${leastRatio.toFixed(2)}–${mostRatio.toFixed(2)}`,
    goal: goal === undefined ? '' : goalInWords(goal),
    verdict: goal === undefined || verdict === undefined ? '' : verdictInWords(goal, verdict),
    reached: verdict?.reached,
    ...processorWords(processor),
    oursTime: timeWords(opsOf(ours), processor.ours),
    theirsTime: timeWords(opsOf(theirs), processor.theirs),
    latency: latencyWords(comparison.latencyUs.ours),
  };
}

function aloneRow({ workload, title }: Outcome, alone: Alone): Row {
  const { opsPerSecond, others, goal, verdict, processor, latencyUs } = alone;
  const figures = Object.entries(others).map(
    ([name, value]) => `${FIGURES[name] ?? name} ${significant(value)} ${name.endsWith('Us') ? 'µs' : 'ns'}`,
  );
  return {
    ...{ workload, title, rival: '' },
    ours: rate(opsPerSecond.median),
    theirs: '',
    ratio: '',
    spread: `${rate(opsPerSecond.least)}–${rate(opsPerSecond.most)}`,
    goal: goal === undefined ? '' : goalInWords(goal),
    verdict: goal === undefined || verdict === undefined ? '' : verdictInWords(goal, verdict),
    reached: verdict?.reached,
    ...processorWords(processor),
    oursTime: timeWords(opsPerSecond.median, processor.ours),
    theirsTime: '',
    latency: [...figures, latencyWords(latencyUs)].filter((words) => words !== '').join(', '),
  };
}

const FIGURES: Readonly<Record<string, string>> = {
  nsPerAccess: 'access',
  nsPerRead: 'read',
  nsPerWrite: 'write',
  addedNs: 'added to the bare calls',
  addedAsyncUs: 'added to an asynchronous read',
  addedSyncUs: 'to a blocking one',
  addedAsyncSpin0Us: 'with --spin 0 asynchronous',
  addedSyncSpin0Us: 'blocking',
  addedAsyncByDefaultUs: 'to a client as it is by default, asynchronous',
  addedSyncByDefaultUs: 'blocking',
};

function processorWords({
  scope,
  ours,
  theirs,
}: ProcessorShare): Pick<Row, 'oursProcessor' | 'theirsProcessor'> {
  const mark = scope === 'process' ? '*' : '';
  const words = ({ user, system }: Share) => `${user.toFixed(2)} + ${system.toFixed(2)}${mark}`;
  return { oursProcessor: words(ours), theirsProcessor: theirs === undefined ? '' : words(theirs) };
}

/** `3.21 µs, CPU 2.80 µs`: an operation takes that long, and that much of a processor. */
function timeWords(opsPerSecond: number, share: Share | undefined): string {
  if (share === undefined) return '';
  const wall = 1e6 / opsPerSecond;
  return `${duration(wall)}, CPU ${duration(wall * (share.user + share.system))}`;
}

/** `p50 1.2, p99 3.4 µs`. */
export function latencyWords(latency: Latency | undefined): string {
  if (latency === undefined) return '';
  const { mean, p50, p99, p999, sampled } = latency;
  // A percentile that less than one sample stands for is the longest by another name.
  const isKnown = (share: number) => sampled === undefined || sampled.count * share >= 1;
  const named: [string, number | undefined][] = [
    ['mean', p50 === undefined ? mean : undefined],
    ['p50', isKnown(0.5) ? p50 : undefined],
    ['p99', isKnown(0.01) ? p99 : undefined],
    ['p99.9', isKnown(0.001) ? p999 : undefined],
  ];
  const told = named.flatMap(([name, value]) =>
    value === undefined ? [] : [`${name} ${significant(value)}`],
  );
  return told.length === 0 ? '' : `${told.join(', ')} µs`;
}

export function opsOf(trials: readonly Trial[]): number {
  return median(trials.map((trial) => trial.opsPerSecond));
}

export function rate(opsPerSecond: number): string {
  return Math.round(opsPerSecond).toLocaleString('en');
}

function duration(us: number): string {
  return us < 0.1 ? `${significant(us * 1e3)} ns` : `${significant(us)} µs`;
}

/** Three digits that say something. */
export function significant(value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString('en');
  return Number(value.toPrecision(3)).toString();
}

/** What the asterisk of `processorWords` says. */
export const PROCESS_SCOPE =
  '* of the whole process, starting up and ending with it, because one of the two does not say what its timed part took';
