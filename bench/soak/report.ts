/** What a soak leaves behind: JSON for programs, and a page with plots for people. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { TopLevelSpec } from 'vega-lite';
import { escape, svg } from './svg.js';
import { MEMORIES, type Growth } from './leak.js';
import type { ModelRun } from './models.js';
import type { Sample } from './recorder.js';

export interface SoakReport {
  date: string;
  version: string;
  machine: { cpu: string; processors: number; kernel: string; node: string };
  seed: number;
  minutes: number;
  /** Why it failed, in words; empty where it passed. */
  problems: string[];
  growth: Growth[];
  fds: { before: number; after: number };
  servers: { name: string; kills: number; stops: number }[];
  links: { name: string; losses: number; reconnects: number; opens: number }[];
  models: readonly ModelRun[];
  done: Record<string, number>;
  failed: Record<string, number>;
  verifiedBytes: number;
  samples: Sample[];
}

/** Writes soak.json and soak.html. Returns the page's path. */
export async function writeSoakReport(report: SoakReport, directory: string): Promise<string> {
  mkdirSync(directory, { recursive: true });
  writeFileSync(path.join(directory, 'soak.json'), `${JSON.stringify(report, null, 1)}\n`);
  const page = path.join(directory, 'soak.html');
  writeFileSync(page, await html(report));
  return page;
}

async function html(report: SoakReport): Promise<string> {
  const { machine, problems } = report;
  const plots = [memoryPlot(report), fdPlot(report), latencyPlot(report, 'p50'), latencyPlot(report, 'p99')];
  const pictures: string[] = [];
  for (const plot of plots) pictures.push(await svg(plot));
  const verdict =
    problems.length === 0
      ? '<p class="good">Nothing lost, nothing hung, nothing leaked.</p>'
      : `<ul class="bad">${problems.map((text) => `<li><pre>${escape(text)}</pre></li>`).join('')}</ul>`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>vfio-user: soak</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { text-align: left; padding: .3rem .6rem }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } tr:nth-child(even) { background: #f5f5f5 }
.bad { color: #b00 } .good { color: #070 } pre { white-space: pre-wrap; margin: 0 }
</style></head><body>
<h1>vfio-user ${escape(report.version)}: soak of ${report.minutes.toFixed(1)} minutes</h1>
<p>${escape(report.date)}; ${escape(machine.cpu)}, ${machine.processors} processors, kernel ${escape(machine.kernel)},
Node ${escape(machine.node)}; seed ${report.seed}; ${(report.verifiedBytes / 2 ** 20).toFixed(0)} MiB verified;
${report.fds.before} file descriptors before, ${report.fds.after} after.</p>
${verdict}
${pictures.join('\n')}
${table(
  'Growth after warm-up',
  ['memory', 'KiB', 'KiB a minute'],
  report.growth.map(({ memory, bytes, perMinute }) => [memory, kib(bytes), kib(perMinute)]),
)}
${table(
  'Servers',
  ['server', 'killed', 'stopped for a while'],
  report.servers.map(({ name, kills, stops }) => [name, kills, stops]),
)}
${table(
  'Connections',
  ['device', 'lost', 'reconnected', 'opened'],
  report.links.map(({ name, losses, reconnects, opens }) => [name, losses, reconnects, opens]),
)}
${table(
  'Models',
  ['model', 'seed', 'runs', 'seconds', 'outcome'],
  report.models.map(({ spec, seed, runs, seconds, outcome }) => [spec, String(seed), runs, seconds, outcome]),
)}
${table('Calls that succeeded', ['call', 'times'], Object.entries(report.done).sort())}
${table('Calls that failed, as they may', ['call and error', 'times'], Object.entries(report.failed).sort())}
</body></html>
`;
}

function table(title: string, head: string[], rows: readonly (readonly (string | number)[])[]): string {
  const cell = (value: string | number, i: number, tag: string) =>
    `<${tag}${i === 0 ? '' : ' class="n"'}>${escape(typeof value === 'number' ? value.toLocaleString('en') : value)}</${tag}>`;
  const line = (cells: readonly (string | number)[], tag: string) =>
    `<tr>${cells.map((value, i) => cell(value, i, tag)).join('')}</tr>`;
  return `<h2>${title}</h2><table><thead>${line(head, 'th')}</thead>
<tbody>${rows.map((row) => line(row, 'td')).join('\n')}</tbody></table>`;
}

function kib(bytes: number): number {
  return Math.round(bytes / 1024);
}

const MINUTES = { field: 'minutes', type: 'quantitative', title: 'minutes' } as const;

function memoryPlot({ samples }: SoakReport): TopLevelSpec {
  const values = samples.flatMap((sample) =>
    MEMORIES.map((memory) => ({ minutes: sample.seconds / 60, memory, mib: sample[memory] / 2 ** 20 })),
  );
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title: 'Memory of the process, MiB, after a collection of garbage',
    width: 760,
    height: 260,
    data: { values },
    mark: 'line',
    encoding: {
      x: MINUTES,
      y: { field: 'mib', type: 'quantitative', title: 'MiB' },
      color: { field: 'memory', type: 'nominal', title: null },
    },
  };
}

function fdPlot({ samples }: SoakReport): TopLevelSpec {
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title: 'Open file descriptors',
    width: 760,
    height: 120,
    data: { values: samples.map(({ seconds, fds }) => ({ minutes: seconds / 60, fds })) },
    mark: 'line',
    encoding: { x: MINUTES, y: { field: 'fds', type: 'quantitative', title: null } },
  };
}

function latencyPlot({ samples }: SoakReport, which: 'p50' | 'p99'): TopLevelSpec {
  const values = samples.flatMap(({ seconds, latencies }) =>
    Object.entries(latencies)
      .filter(([, { count }]) => count > 0)
      .map(([call, latency]) => ({ minutes: seconds / 60, call, us: Math.max(1, latency[which]) })),
  );
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title: `Latency, ${which === 'p50' ? 'median' : '99th percentile'}, µs`,
    width: 760,
    height: 260,
    data: { values },
    mark: { type: 'line', strokeWidth: 1 },
    encoding: {
      x: MINUTES,
      y: { field: 'us', type: 'quantitative', title: 'µs', scale: { type: 'log' } },
      color: {
        field: 'call',
        type: 'nominal',
        title: null,
        scale: { scheme: 'tableau20' },
        legend: { symbolLimit: 40 },
      },
    },
  };
}
