/**
 * The tables of docs/benchmarks.md and docs/reliability.md, made of the recorded figures. A table stands between
 * `<!-- figures: NAME -->` and `<!-- /figures -->`.
 *
 * A cell has the figure that was recorded last for its row and machine: where several runs were recorded at one commit,
 * the median of their medians, from the least to the most of all. The column's head names the commit, a cell only where
 * it has another one.
 */
import { goalInWords, judge, type AbsoluteGoal, type Goal } from './goal.js';
import type { Figure, RecordedRun } from './history.js';
import { least, median, most } from './stats.js';
import type { Workload } from './workload.js';
import { allWorkloads } from './workloads.js';

interface Row {
  title: string;
  against: string;
  goal: string;
  key: string;
  /** From what is recorded to what is told. */
  convert: (recorded: number) => number;
  digits: number;
  unit: string;
  isMissed: (told: number) => boolean;
}

/** All workloads, those beside SPDK too. */
const WORKLOADS = allWorkloads(false, { BENCH_SPDK: '', BENCH_SPDK_PERF: '' });

const asIs = (value: number): number => value;
const never = (): boolean => false;

function comparedRows({ name, title, rivals }: Workload): Row[] {
  // Those without a goal of their own are told in the measure of the others.
  const usual = rivals.find(({ goal }) => goal !== undefined && goal.measure !== 'p90')?.goal?.measure;
  return rivals.map((rival) => ({
    ...{ title, against: rival.name, key: `${name} vs ${rival.name}`, digits: 2, unit: '' },
    goal: rival.goal === undefined ? '' : goalInWords(rival.goal),
    convert: (rival.goal?.measure ?? usual) === 'time' ? (rate) => 1 / rate : asIs,
    isMissed: missedBy(rival.goal),
  }));
}

function missedBy(goal: Goal | AbsoluteGoal | undefined): (told: number) => boolean {
  return goal === undefined ? never : (told) => !judge(goal, told).reached;
}

function single(
  title: string,
  key: string,
  unit: string,
  bound?: number,
  { digits = 1, shownBound = `≤ ${bound} ${unit}`.trimEnd() } = {},
): Row {
  return {
    ...{ title, key, digits, unit, against: '', convert: asIs },
    goal: bound === undefined ? '' : shownBound,
    isMissed: bound === undefined ? never : (told) => told > bound,
  };
}

const MODES: Readonly<Record<string, string>> = {
  async: 'reads one by one',
  pipelined: 'reads, 32 at once',
  write: 'writes',
  posted: 'posted writes',
  sync: 'blocking reads',
  dma: 'DMA requests of 4 KiB, served by message',
};

const FLOODS: Readonly<Record<string, string>> = {
  read: 'DMA_READ that wait for their answers',
  unread: 'DMA_READ whose answers are not read',
  refused: 'requests that are refused',
  stray: 'replies that nobody waits for',
  write: 'DMA_WRITE',
};

function scaleRows(): Row[] {
  const million = Object.entries(MODES).flatMap(([mode, words]) => [
    single(`1,000,000 ${words}: memory gained`, `scale: 1000000 requests: ${mode}: grownMib`, 'MiB', 5),
    single(`1,000,000 ${words}: file descriptors gained`, `scale: 1000000 requests: ${mode}: fds`, '', 0, {
      digits: 0,
    }),
  ]);
  const floods = Object.entries(FLOODS).flatMap(([kind, words]) => [
    single(`a flood of ${words}: memory gained`, `scale: flood: ${kind}: grownMib`, 'MiB', 48),
    single(`the same: round trip of another device, to that alone`, `scale: flood: ${kind}: ratio`, ''),
  ]);
  const one = 'scale: one of 1000 devices of the C target, the others idle';
  return [
    single('memory of an open device with interrupts, of 1,000', 'scale: 1000 devices: kibEach', 'KiB', 64),
    single('1,000 devices opened', 'scale: 1000 devices: openSeconds', 's'),
    single('one device among 1,000 idle ones, to one alone: awaited reads', `${one}: asyncRatio`, '', 1.3, {
      digits: 2,
    }),
    single('the same: blocking reads', `${one}: syncRatio`, '', 1.3, { digits: 2 }),
    ...floods,
    ...million,
    single(
      '10,000 openings, with interrupt and DMA: memory gained',
      'scale: 10000 openings: grownMib',
      'MiB',
      5,
    ),
    single('10,000 openings: file descriptors gained', 'scale: 10000 openings: fds', '', 0, { digits: 0 }),
  ];
}

const SOAK_ROWS: readonly Row[] = [
  single('minutes', 'soak: minutes', '', undefined, { digits: 0 }),
  single('calls that succeeded', 'soak: calls', '', undefined, { digits: 0 }),
  single('calls that failed, as they may', 'soak: failed calls', '', undefined, { digits: 0 }),
  single('servers killed', 'soak: servers killed', '', undefined, { digits: 0 }),
  single('bytes verified', 'soak: verified MiB', 'MiB', undefined, { digits: 0 }),
  single('lost, hung or leaked', 'soak: problems', '', 0, { digits: 0, shownBound: 'nothing' }),
  single('resident memory gained after the warm-up', 'soak: rss grownMib', 'MiB', 8),
  single('file descriptors gained', 'soak: fds', '', 0, { digits: 0 }),
];

const named = (pattern: RegExp): Workload[] => WORKLOADS.filter(({ name }) => pattern.test(name));

/** What the documents have, by name. */
export const TABLES: Readonly<Record<string, { rows: readonly Row[]; first: string }>> = {
  regions: { rows: named(/^(?:read|write|dma)-/).flatMap(comparedRows), first: 'Workload' },
  nvme: {
    rows: named(/^nvme-(?:malloc|null)-(?:randread-|randwrite-32)/).flatMap(comparedRows),
    first: 'Workload',
  },
  alone: {
    first: 'Workload',
    rows: [
      ...named(/^mapped-/).map(({ name, title, goal }) =>
        single(title, `${name} nsPerAccess`, 'ns', goal?.most),
      ),
      single('a read by message, beside a bare send and receive', 'request-path addedNs', 'ns', undefined, {
        digits: 0,
      }),
      single('what a proxy adds to an awaited read', 'proxy addedAsyncByDefaultUs', 'µs'),
      single('what a proxy adds to a blocking read', 'proxy addedSyncByDefaultUs', 'µs'),
      single('the same with `spinUs: 0` and `--spin 0`: awaited', 'proxy addedAsyncSpin0Us', 'µs'),
      single('the same: blocking', 'proxy addedSyncSpin0Us', 'µs'),
    ],
  },
  scale: { rows: scaleRows(), first: 'Figure' },
  soak: { rows: SOAK_ROWS, first: 'Figure' },
};

const PLACE = /(<!-- figures: (\w+) -->\n)[^]*?(<!-- \/figures -->)/g;

/** A document with its tables made anew. */
export function withTables(document: string, history: readonly RecordedRun[]): string {
  return document.replace(PLACE, (_all, begin: string, name: string, end: string) => {
    const table = TABLES[name];
    if (table === undefined) throw new RangeError(`there is no table ${name}`);
    return `${begin}\n${render(table.first, table.rows, history)}\n\n${end}`;
  });
}

interface Cell {
  text: string;
  commit: string;
  date: string;
}

function render(first: string, rows: readonly Row[], history: readonly RecordedRun[]): string {
  const machines = [...new Set(history.map(({ machine }) => machine))];
  const cells = rows.map((row) => machines.map((machine) => cellOf(row, machine, history)));
  const columns = machines
    .map((machine, i) => ({ machine, cells: cells.map((line) => line[i]) }))
    .filter((column) => column.cells.some((cell) => cell !== undefined));
  const newest = columns.map((column) => latest(column.cells.filter((cell) => cell !== undefined)));
  const hasRivals = rows.some(({ against }) => against !== '');
  const head = columns.map(({ machine }, i) => `${machine}, ${newest[i]!.commit} (${newest[i]!.date})`);
  const lines = rows.map((row, at) => [
    row.title,
    ...(hasRivals ? [row.against] : []),
    row.goal,
    ...columns.map((column, i) => told(column.cells[at], newest[i]!.commit)),
  ]);
  const names = [first, ...(hasRivals ? ['Against'] : []), 'Goal', ...head];
  return markdownTable(names, lines);
}

function latest(cells: readonly Cell[]): Cell {
  return cells.reduce((a, b) => (b.date > a.date ? b : a));
}

function told(cell: Cell | undefined, columnsCommit: string): string {
  if (cell === undefined) return '–';
  return cell.commit === columnsCommit ? cell.text : `${cell.text}, ${cell.commit}`;
}

function cellOf(row: Row, machine: string, history: readonly RecordedRun[]): Cell | undefined {
  const runs = history.filter((run) => run.machine === machine && row.key in run.figures);
  const last = runs.at(-1);
  if (last === undefined) return undefined;
  const figures = runs.filter(({ commit }) => commit === last.commit).map((run) => run.figures[row.key]!);
  return { text: figureText(row, figures), commit: last.commit, date: last.date };
}

function figureText({ convert, digits, unit, isMissed }: Row, figures: readonly Figure[]): string {
  const all = figures.flatMap((figure) => figure.map((value) => convert(value!)));
  const value = convert(median(figures.map(([middle]) => middle)));
  const shown = (number: number) =>
    number.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const text = isMissed(value) ? `**${shown(value)}**` : shown(value);
  const spread = all.length === 1 ? '' : ` (${shown(least(all))} to ${shown(most(all))})`;
  return `${text}${spread}${unit === '' ? '' : ` ${unit}`}`;
}

/** In columns of one width, as prettier has them. */
function markdownTable(names: readonly string[], lines: readonly (readonly string[])[]): string {
  const widths = names.map((name, i) => Math.max(3, name.length, ...lines.map((line) => line[i]!.length)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(' | ')} |`;
  return [line(names), line(widths.map((width) => '-'.repeat(width))), ...lines.map(line)].join('\n');
}
