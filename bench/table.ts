/** The report on a terminal, or in a log. */
import Table from 'cli-table3';
import type { Outcome } from './run.js';
import { PROCESS_SCOPE, rowsOf } from './words.js';

const HEAD = [
  'workload',
  'against',
  'ours/s',
  'theirs/s',
  'ratio',
  'least–most',
  'goal',
  '',
  'CPU ours',
  'CPU theirs',
];

/** `colors` is what a terminal that is not told otherwise gets. */
export function table(outcomes: readonly Outcome[], colors: boolean): string {
  const style = colors ? { head: ['bold'], border: ['gray'] } : { head: [], border: [] };
  const comparisons = new Table({ head: HEAD, style });
  const alone = new Table({
    head: ['workload', 'ours/s', 'least–most', 'goal', '', 'CPU', 'latency'],
    style,
  });
  let isOfProcess = false;
  for (const row of outcomes.flatMap(rowsOf)) {
    const { workload, rival, ours, theirs, ratio, spread, goal, verdict, oursProcessor, theirsProcessor } =
      row;
    isOfProcess ||= oursProcessor.endsWith('*');
    if (rival === '') alone.push([workload, ours, spread, goal, verdict, oursProcessor, row.latency]);
    else
      comparisons.push([
        ...[workload, rival, ours, theirs, ratio, spread, goal, verdict, oursProcessor, theirsProcessor],
      ]);
  }
  const skipped = outcomes.flatMap((outcome) =>
    outcome.skipped.map(({ rival, reason }) => `skipped: ${outcome.workload} against ${rival}: ${reason}`),
  );
  return [
    ...[comparisons, alone].filter((one) => one.length > 0).map((one) => one.toString()),
    'CPU: processor seconds a second, user + system',
    ...(isOfProcess ? [PROCESS_SCOPE] : []),
    ...skipped,
  ].join('\n');
}
