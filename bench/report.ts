/** What a run leaves behind: JSON for programs, and a page with plots for people. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import path from 'node:path';
import { compile, type TopLevelSpec } from 'vega-lite';
import { View, parse } from 'vega';
import type { Comparison, Outcome } from './run.js';
import { median } from './stats.js';

export interface Report {
  date: string;
  machine: { cpu: string; processors: number; memoryBytes: number; kernel: string; node: string };
  version: string;
  pairs: number;
  quick: boolean;
  outcomes: Outcome[];
}

export function makeReport(outcomes: Outcome[], pairs: number, quick: boolean, root: string): Report {
  const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { version: string };
  return {
    date: new Date().toISOString(),
    machine: {
      cpu: cpus()[0]?.model ?? 'unknown',
      processors: cpus().length,
      memoryBytes: totalmem(),
      kernel: release(),
      node: process.version,
    },
    version: manifest.version,
    pairs,
    quick,
    outcomes,
  };
}

/** Writes report.json and report.html. Returns the page's path. */
export async function writeReport(report: Report, directory: string): Promise<string> {
  mkdirSync(directory, { recursive: true });
  writeFileSync(path.join(directory, 'report.json'), `${JSON.stringify(report, null, 2)}\n`);
  const page = path.join(directory, 'report.html');
  writeFileSync(page, await html(report));
  return page;
}

async function html(report: Report): Promise<string> {
  const { machine } = report;
  const compared = report.outcomes.flatMap((outcome) =>
    outcome.comparisons.map((comparison) => ({ outcome, comparison })),
  );
  const plot = compared.length === 0 ? '' : await svg(ratioPlot(report.outcomes));
  const depths = depthPlot(report.outcomes);
  const depthSvg = depths === undefined ? '' : await svg(depths);
  const rows = compared.map(({ outcome, comparison }) => comparisonRow(outcome, comparison)).join('\n');
  const alone = report.outcomes
    .filter((outcome) => outcome.alone !== undefined)
    .map(
      (outcome) =>
        `<tr><td>${escape(outcome.title)}</td><td>${escape(JSON.stringify(outcome.alone))}</td></tr>`,
    )
    .join('\n');
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>vfio-user: benchmark</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 } th, td { text-align: left; padding: .3rem .6rem }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } tr:nth-child(even) { background: #f5f5f5 }
.missed { color: #b00 } .reached { color: #070 }
</style></head><body>
<h1>vfio-user ${escape(report.version)}: benchmark</h1>
<p>${escape(report.date)}; ${escape(machine.cpu)}, ${machine.processors} processors, kernel ${escape(machine.kernel)},
Node ${escape(machine.node)}; ${report.pairs} pairs in alternation${report.quick ? ', quick: too short to quote' : ''}.
A ratio is ours to theirs in operations a second, the median of pairs.</p>
${plot}
${depthSvg}
<table><thead><tr><th>Workload</th><th>Against</th><th class="n">Ours /s</th><th class="n">Theirs /s</th>
<th class="n">Ratio</th><th class="n">Least to most</th><th class="n">Goal</th><th class="n">CPU ours, theirs</th></tr></thead>
<tbody>
${rows}
</tbody></table>
${alone === '' ? '' : `<h2>Without a rival</h2><table><tbody>${alone}</tbody></table>`}
</body></html>
`;
}

function comparisonRow(outcome: Outcome, comparison: Comparison): string {
  const { goal, reached, medianRatio, leastRatio, mostRatio, cpu } = comparison;
  const mark = reached === undefined ? '' : reached ? 'reached' : 'missed';
  const share = (value: number | undefined) => (value === undefined ? '–' : value.toFixed(2));
  const cells = [
    Math.round(median(comparison.ours)).toLocaleString('en'),
    Math.round(median(comparison.theirs)).toLocaleString('en'),
    `<span class="${mark}">${medianRatio.toFixed(2)}</span>`,
    `${leastRatio.toFixed(2)}–${mostRatio.toFixed(2)}`,
    goal === undefined ? '–' : `≥ ${goal.toFixed(2)}`,
    `${share(cpu.ours)}, ${share(cpu.theirs)}`,
  ];
  const numbers = cells.map((cell) => `<td class="n">${cell}</td>`).join('');
  return `<tr><td>${escape(outcome.title)}</td><td>${escape(comparison.rival)}</td>${numbers}</tr>`;
}

/** Every pair's ratio as a point, the median as a bar. */
function ratioPlot(outcomes: readonly Outcome[]): TopLevelSpec {
  const values = outcomes.flatMap((outcome) =>
    outcome.comparisons.flatMap(({ rival, ratios }) =>
      ratios.map((ratio) => ({ case: `${outcome.workload} / ${rival}`, ratio })),
    ),
  );
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title: 'Ours to theirs, operations a second; more than 1 is faster',
    width: 600,
    data: { values },
    layer: [
      {
        mark: { type: 'rule', strokeDash: [4, 4] },
        encoding: { x: { datum: 1 } },
      },
      {
        mark: { type: 'point', opacity: 0.5 },
        encoding: {
          x: { field: 'ratio', type: 'quantitative', title: 'ratio' },
          y: { field: 'case', type: 'nominal', sort: null, title: null, axis: { labelLimit: 360 } },
        },
      },
      {
        mark: { type: 'tick', thickness: 3 },
        encoding: {
          x: { aggregate: 'median', field: 'ratio', type: 'quantitative' },
          y: { field: 'case', type: 'nominal', sort: null },
        },
      },
    ],
  };
}

/** Throughput by depth, for the workloads that are named by one: nvme-DEVICE-RW-DEPTH-API. */
function depthPlot(outcomes: readonly Outcome[]): TopLevelSpec | undefined {
  const values = outcomes.flatMap((outcome) => {
    const match = /^nvme-(\w+)-(\w+)-(\d+)-(\w+)$/.exec(outcome.workload);
    if (match === null) return [];
    const [, device, rw, depth, api] = match;
    return outcome.comparisons.flatMap(({ rival, ours, theirs }) => [
      { depth: Number(depth), iops: median(ours), who: `vfio-user ${api}`, target: `${device} ${rw}` },
      { depth: Number(depth), iops: median(theirs), who: rival, target: `${device} ${rw}` },
    ]);
  });
  if (values.length === 0) return undefined;
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title: 'NVMe throughput by depth',
    data: { values },
    facet: { column: { field: 'target', title: null } },
    spec: {
      width: 260,
      mark: { type: 'line', point: true },
      encoding: {
        x: { field: 'depth', type: 'quantitative', scale: { type: 'log', base: 2 } },
        y: { field: 'iops', type: 'quantitative', title: 'I/O a second' },
        color: { field: 'who', type: 'nominal', title: null },
      },
    },
  };
}

async function svg(spec: TopLevelSpec): Promise<string> {
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  const picture = await view.toSVG();
  view.finalize();
  return picture;
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
