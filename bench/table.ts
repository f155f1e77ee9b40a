/** The report on a terminal, or in a log. */
import Table from 'cli-table3';
import picocolors from 'picocolors';
import type { Outcome } from './run.js';
import { PROCESS_SCOPE, rowsOf } from './format-rows.js';

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
  const comparisons = emptyTable(HEAD, colors);
  const alone = emptyTable(['workload', 'ours/s', 'least–most', 'goal', '', 'CPU', 'latency'], colors);
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

/** cli-table3's own colours would ask the environment once more, whatever `colors` says. */
function emptyTable(head: readonly string[], colors: boolean): Table.Table {
  const { bold } = picocolors.createColors(colors);
  return new Table({ head: head.map(bold), style: { head: [], border: [] } });
}
