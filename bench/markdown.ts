/** The report as the documents have it. */
import type { Report } from './report-data.js';
import { PROCESS_SCOPE, rowsOf, type Row } from './format-rows.js';

export function markdown(report: Report): string {
  const { outcomes } = report;
  const rows = outcomes.flatMap(rowsOf);
  const compared = rows.filter(({ rival }) => rival !== '');
  const alone = rows.filter(({ rival }) => rival === '');
  return [
    conditions(report),
    ...(compared.length === 0 ? [] : [comparedTable(compared)]),
    ...(alone.length === 0 ? [] : [aloneTable(alone)]),
    ...(rows.some(isOfProcess) ? [`\\${PROCESS_SCOPE}.`] : []),
    ...missed(report),
    ...skipped(report),
  ].join('\n\n');
}

function isOfProcess({ oursProcessor }: Row): boolean {
  return oursProcessor.endsWith('*');
}

function conditions({ date, command, machine, versions, pairs, quick }: Report): string {
  const { cpu, processors, memoryBytes, kernel } = machine;
  const memory = `${Math.round(memoryBytes / 2 ** 30)} GiB`;
  const all = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return [
    `Made by \`${command}\` on ${date.slice(0, 10)}: ${cpu}, ${processors} processors, ${memory}, kernel ${kernel}; ` +
      `${all.join('; ')}.`,
    `Medians of ${pairs === 1 ? 'one pair' : `${pairs} pairs in alternation`}${quick ? ', quick: too short to quote' : ''}.`,
  ].join('\n');
}

function comparedTable(rows: readonly Row[]): string {
  return table(
    [
      ['Workload', 'left'],
      ['Against', 'left'],
      ['Goal', 'left'],
      ['Ratio', 'right'],
      ['Least to most', 'right'],
      ['', 'left'],
      ['Ours /s', 'right'],
      ['Theirs /s', 'right'],
      ['CPU, ours', 'right'],
      ['CPU, theirs', 'right'],
    ],
    rows.map((row) => [
      ...[row.title, row.rival, row.goal, row.ratio, row.spread, row.verdict],
      ...[row.ours, row.theirs, row.oursProcessor, row.theirsProcessor],
    ]),
  );
}

function aloneTable(rows: readonly Row[]): string {
  return table(
    [
      ['Workload', 'left'],
      ['Goal', 'left'],
      ['', 'left'],
      ['Ours /s', 'right'],
      ['Least to most', 'right'],
      ['CPU', 'right'],
      ['Latency', 'left'],
    ],
    rows.map((row) => [
      row.title,
      row.goal,
      row.verdict,
      row.ours,
      row.spread,
      row.oursProcessor,
      row.latency,
    ]),
  );
}

function missed({ outcomes }: Report): string[] {
  const lines = outcomes.flatMap((outcome) => {
    const rows = rowsOf(outcome).filter(({ reached }) => reached === false);
    const words = rows.map(({ rival, verdict }) => `${rival === '' ? '' : `against ${rival} `}${verdict}`);
    return rows.length === 0 ? [] : [`- ${outcome.title}: ${words.join('; ')}. ${outcome.limits}`];
  });
  return lines.length === 0 ? [] : ['What was missed, and what limits it:', lines.join('\n')];
}

function skipped({ outcomes }: Report): string[] {
  const reasons = new Map(
    outcomes.flatMap((outcome) => outcome.skipped.map(({ rival, reason }) => [rival, reason] as const)),
  );
  return [...reasons].map(([rival, reason]) => `Left out: ${rival} (${reason}).`);
}

type Column = [name: string, side: 'left' | 'right'];

function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map(escape).join(' | ')} |`;
  const rule = columns.map(([, side]) => (side === 'left' ? '---' : '---:'));
  return [line(columns.map(([name]) => name)), `| ${rule.join(' | ')} |`, ...rows.map(line)].join('\n');
}

function escape(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('*', '\\*');
}
