/** The page: one file that needs nothing else, light or dark as its reader has it. */
import { depthPlots, latencyPlots, ratioPlot } from './plots.js';
import type { Report } from './report-data.js';
import type { Outcome } from './run.js';
import { latencyWords, PROCESS_SCOPE, rowsOf, type Row } from './format-rows.js';

const STYLE = `
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6472; --paper: #fff; --line: #dfe3e8; --band: #f5f7f9;
  --good: #13795b; --bad: #b3261e }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e7ed; --soft: #9aa4b2; --paper: #14181f; --line: #2c333d; --band: #1a2029; --good: #57c79f; --bad: #ff8a80 } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1.25rem;
  color: var(--ink); background: var(--paper) }
h1 { font-size: 1.6rem; margin: 0 0 .5rem } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem }
p, li { max-width: 62rem } .soft { color: var(--soft) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 1rem 0 }
dt { color: var(--soft) } dd { margin: 0 }
.wide { overflow-x: auto } .plots { display: flex; flex-wrap: wrap; gap: 1.5rem 2rem; align-items: flex-start }
figure { margin: 1rem 0 } svg { max-width: 100%; height: auto; overflow: visible }
table { border-collapse: collapse; width: 100%; margin: .8rem 0; font-size: .9rem }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--soft); vertical-align: bottom } tbody tr:nth-child(even) { background: var(--band) }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
tbody td:first-child { min-width: 15rem } .small { font-size: .85em; color: var(--soft); white-space: nowrap }
.missed { color: var(--bad) } .reached { color: var(--good) }
code { font-size: .9em }`;

export async function htmlReport(report: Report): Promise<string> {
  const { outcomes } = report;
  const rows = outcomes.flatMap(rowsOf);
  const compared = rows.filter(({ rival }) => rival !== '');
  const alone = rows.filter(({ rival }) => rival === '');
  const [ratios, depths, latencies] = await Promise.all([
    ratioPlot(outcomes),
    depthPlots(outcomes),
    latencyPlots(outcomes),
  ]);
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>vfio-user: benchmark</title><style>${STYLE}
</style></head><body>
${[
  heading(report),
  section('Beside rivals', 'ratio', [figure([ratios]), comparedTable(compared), busyNote(outcomes)]),
  missed(outcomes),
  section('NVMe throughput by depth', 'depth', [figure(depths)]),
  section('Latency distribution', 'latency', [latencyNote(outcomes), figure(latencies)]),
  section('Without a rival', 'alone', [aloneTable(alone)]),
  section('Latency', 'percentiles', [latencyTable(outcomes)]),
  skipped(outcomes),
]
  .filter((part) => part !== '')
  .join('\n')}
</body></html>
`;
}

function heading({ date, command, machine, versions, pairs, quick }: Report): string {
  const { cpu, processors, memoryBytes, kernel } = machine;
  const facts = {
    Made: `${date}, by <code>${escape(command)}</code>`,
    Machine: escape(
      `${cpu}, ${processors} processors, ${Math.round(memoryBytes / 2 ** 30)} GiB, kernel ${kernel}`,
    ),
    ...Object.fromEntries(Object.entries(versions).map(([name, version]) => [escape(name), escape(version)])),
  };
  return `<h1>vfio-user: benchmark</h1>
<p>${pairs === 1 ? 'One pair' : `${pairs} pairs`} of trials in alternation, each trial a fresh process; answers are checked before anything is timed.
A ratio is ours to theirs in operations a second, the median of pairs.${
    quick ? ' <strong>A quick run: too short to quote.</strong>' : ''
  }</p>
<dl>${Object.entries(facts)
    .map(([name, words]) => `<dt>${name}</dt><dd>${words}</dd>`)
    .join('\n')}</dl>`;
}

/** Nothing where none of the parts is anything. */
function section(title: string, id: string, parts: readonly string[]): string {
  const content = parts.filter((part) => part !== '').join('\n');
  return content === '' ? '' : `<section id="${id}"><h2>${title}</h2>\n${content}</section>`;
}

function figure(plots: readonly string[]): string {
  const drawn = plots.filter((plot) => plot !== '');
  return drawn.length === 0
    ? ''
    : `<figure class="plots">${drawn.map((plot) => `<div>${plot}</div>`).join('\n')}</figure>`;
}

type Column = [head: string, cell: (row: Row) => string, kind?: 'n'];

/** A figure, and in smaller letters what belongs to it. */
function stacked(first: string, ...rest: readonly string[]): string {
  const lines = rest.filter((words) => words !== '').map((words) => `<span class="small">${words}</span>`);
  return [first, ...lines].join('<br>');
}

const GOAL: Column = [
  'Goal',
  ({ goal, reached, verdict }) => {
    const mark = reached === true ? 'reached' : 'missed';
    return reached === undefined
      ? ''
      : stacked(escape(goal), `<span class="${mark}">${escape(verdict)}</span>`);
  },
];

function comparedTable(rows: readonly Row[]): string {
  const columns: Column[] = [
    ['Workload', (row) => escape(row.title)],
    ['Against', (row) => escape(row.rival)],
    ['Ratio', (row) => stacked(`<strong>${row.ratio}</strong>`, row.spread), 'n'],
    GOAL,
    ['Ours a second', (row) => stacked(row.ours, row.oursTime, `user + system ${row.oursProcessor}`), 'n'],
    [
      'Theirs a second',
      (row) => stacked(row.theirs, row.theirsTime, `user + system ${row.theirsProcessor}`),
      'n',
    ],
  ];
  return htmlTable(columns, rows) + processorNote(rows);
}

function aloneTable(rows: readonly Row[]): string {
  const columns: Column[] = [
    ['Workload', (row) => escape(row.title)],
    ['Ours a second', (row) => stacked(`<strong>${row.ours}</strong>`, row.spread), 'n'],
    GOAL,
    ['Time', (row) => stacked(row.oursTime, `user + system ${row.oursProcessor}`), 'n'],
    ['Latency', (row) => escape(row.latency)],
  ];
  return htmlTable(columns, rows) + processorNote(rows);
}

function processorNote(rows: readonly Row[]): string {
  if (rows.length === 0) return '';
  const ofProcess = rows.some(({ oursProcessor }) => oursProcessor.endsWith('*')) ? `; ${PROCESS_SCOPE}` : '';
  return `<p class="soft">Small print: least to most of the pairs; what one operation takes of the wall clock and of a
processor; the processor seconds a second, user + system${escape(ofProcess)}.</p>`;
}

function busyNote(outcomes: readonly Outcome[]): string {
  const loads = outcomes.flatMap(({ comparisons }) => comparisons.flatMap(({ load }) => load ?? []));
  const words = loads.map(
    ({ nice, ours, theirs }) =>
      `${ours.toFixed(2)} processors’ time while ours ran, ${theirs.toFixed(2)} while theirs did, all at nice ${nice}`,
  );
  return words.length === 0
    ? ''
    : `<p class="soft">Processors busy: endless threads, which got ${words.join('; ')}.</p>`;
}

function missed(outcomes: readonly Outcome[]): string {
  const items = outcomes.flatMap((outcome) => {
    const rows = rowsOf(outcome).filter(({ reached }) => reached === false);
    if (rows.length === 0) return [];
    const words = rows.map(({ rival, verdict }) => {
      const against = rival === '' ? '' : `against ${escape(rival)} `;
      return `${against}<span class="missed">${escape(verdict)}</span>`;
    });
    return [`<li>${escape(outcome.title)}: ${words.join('; ')}. ${escape(outcome.limits)}</li>`];
  });
  return section(
    'Missed, and what limits it',
    'missed',
    items.length === 0 ? [] : [`<ul>${items.join('\n')}</ul>`],
  );
}

function latencyNote(outcomes: readonly Outcome[]): string {
  const isSampled = outcomes.some(
    ({ alone, comparisons }) =>
      alone?.latencyUs?.sampled !== undefined ||
      comparisons.some((c) => c.latencyUs.ours?.sampled !== undefined),
  );
  return isSampled
    ? `<p class="soft">Sampled: looking at the clock for each access would slow the fast ones. The table below says how many
samples there are, and one of how many accesses.</p>`
    : '';
}

function latencyTable(outcomes: readonly Outcome[]): string {
  const rows = outcomes.flatMap(({ title, alone, comparisons }) => {
    const all = [
      { who: 'vfio-user', latency: alone?.latencyUs },
      ...comparisons.flatMap(({ rival, latencyUs }) => [
        { who: `vfio-user, beside ${rival}`, latency: latencyUs.ours },
        { who: rival, latency: latencyUs.theirs },
      ]),
    ];
    return all.flatMap(({ who, latency }) => (latency === undefined ? [] : [{ title, who, latency }]));
  });
  if (rows.length === 0) return '';
  const body = rows.map(({ title, who, latency }) => {
    const { sampled } = latency;
    const how = sampled === undefined ? 'all' : sampleWords(sampled);
    const cells = [title, who, latencyWords(latency), how].map((cell) => `<td>${escape(cell)}</td>`);
    return `<tr>${cells.join('')}</tr>`;
  });
  return `<div class="wide"><table><thead><tr><th>Workload</th><th>Who</th><th>Latency</th><th>Samples</th></tr></thead>
<tbody>${body.join('\n')}</tbody></table></div>`;
}

function sampleWords({ count, every }: { count: number; every: number }): string {
  return `${count.toLocaleString('en')}, ${every === 1 ? 'all' : `one of ${every}`}`;
}

function skipped(outcomes: readonly Outcome[]): string {
  const items = outcomes.flatMap(({ title, skipped }) =>
    skipped.map(({ rival, reason }) => `<li>${escape(`${title} against ${rival}: ${reason}`)}</li>`),
  );
  return section('Left out', 'skipped', items.length === 0 ? [] : [`<ul>${items.join('\n')}</ul>`]);
}

function htmlTable(columns: readonly Column[], rows: readonly Row[]): string {
  if (rows.length === 0) return '';
  const tag = (kind: 'n' | undefined) => (kind === undefined ? '' : ' class="n"');
  const head = columns.map(([name, , kind]) => `<th${tag(kind)}>${name}</th>`).join('');
  const body = rows.map(
    (row) => `<tr>${columns.map(([, cell, kind]) => `<td${tag(kind)}>${cell(row)}</td>`).join('')}</tr>`,
  );
  return `<div class="wide"><table><thead><tr>${head}</tr></thead>\n<tbody>${body.join('\n')}</tbody></table></div>\n`;
}

function escape(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
