/** A bench's report as one page: throughput by depth and latency percentiles as SVG, and the figures in a table. */
import type { BenchReport } from '../verbs/block/bench-report.js';

const WIDTH = 620;
const HEIGHT = 300;
const MARGIN = { left: 70, right: 20, top: 20, bottom: 45 };
const COLORS = ['#2f6fb0', '#c8641b', '#23845f', '#a63d82', '#6f55c0', '#8c7208', '#b8324c', '#4d6a78'];
const TICKS = 5;

const STYLE = `
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; overflow-x: auto; }
figcaption { font-weight: 600; }
svg text { fill: currentColor; font: 12px system-ui, sans-serif; }
svg .grid { stroke: currentColor; opacity: .18; }
svg .axis { stroke: currentColor; opacity: .6; }
`;

interface Point {
  x: number;
  y: number;
}

interface Series {
  name: string;
  points: readonly Point[];
}

interface Axis {
  title: string;
  ticks: readonly (readonly [value: number, text: string])[];
  /** Where a value stands, 0 to 1. */
  place: (value: number) => number;
}

export function benchHtml(reports: readonly BenchReport[], sockets: readonly string[], when: Date): string {
  const [first] = reports;
  const title = first === undefined ? 'Bench' : `${first.rw}, ${first.size} bytes, ${sockets.join(', ')}`;
  const charts = [
    figure('Throughput by depth', throughputChart(reports)),
    figure('Latency percentiles', latencyChart(reports)),
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>vfio-user nvme bench</h1>
<p>${escaped(title)}; ${escaped(when.toISOString())}</p>
${charts.join('\n')}
${table(reports)}
</body>
</html>
`;
}

function figure(caption: string, svg: string): string {
  return `<figure><figcaption>${escaped(caption)}</figcaption>${svg}</figure>`;
}

function throughputChart(reports: readonly BenchReport[]): string {
  const points = reports.map(({ qd, iops }) => ({ x: qd, y: iops })).sort((a, b) => a.x - b.x);
  const depths = [...new Set(points.map(({ x }) => x))];
  const most = nice(Math.max(...points.map(({ y }) => y), 1));
  return chart(
    'Throughput in I/O a second by the depth of the queue',
    [{ name: 'IOPS', points }],
    {
      title: 'transfers under way, each queue',
      ticks: depths.map((x) => [x, String(x)]),
      place: logPlace(depths),
    },
    linear('I/O a second', most),
  );
}

/** Percent along nines: 90, 99, 99.9 and so on are equally far from each other. */
function latencyChart(reports: readonly BenchReport[]): string {
  const series = reports.map(({ qd, latencyUs }) => ({
    name: `depth ${qd}`,
    points: latencyUs.curve.map(([percent, us]) => ({ x: percent, y: Math.max(us, 0.01) })),
  }));
  const all = series.flatMap(({ points }) => points.map(({ y }) => y));
  const [low, high] = [
    Math.floor(Math.log10(Math.min(...all, 1))),
    Math.ceil(Math.log10(Math.max(...all, 10))),
  ];
  const decades = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
  const nines = (percent: number) => -Math.log10(Math.max(1 - percent / 100, 1e-5)) / 4;
  return chart(
    'Latency in microseconds by percentile, a line for each depth',
    series,
    {
      title: 'percent of the transfers',
      ticks: [0, 50, 90, 99, 99.9, 99.99].map((percent) => [percent, String(percent)] as const),
      place: nines,
    },
    {
      title: 'latency, µs',
      ticks: decades.map((value) => [value, String(Number(value.toPrecision(2)))] as const),
      place: (value) => (Math.log10(value) - low) / Math.max(high - low, 1),
    },
  );
}

function logPlace(values: readonly number[]): (value: number) => number {
  const [low, high] = [Math.log2(Math.min(...values)), Math.log2(Math.max(...values))];
  return (value) => (high === low ? 0.5 : (Math.log2(value) - low) / (high - low));
}

function linear(title: string, most: number): Axis {
  const ticks = Array.from({ length: TICKS + 1 }, (_, i) => (most * i) / TICKS);
  return {
    title,
    ticks: ticks.map((value) => [value, short(value)] as const),
    place: (value) => value / most,
  };
}

/** The next of 1, 2, 5, 10, … above. */
function nice(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 2.5, 5, 10].find((step) => step * power >= value) ?? 10) * power;
}

function short(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  return value >= 1e3 ? `${Number((value / 1e3).toPrecision(3))}k` : String(Number(value.toPrecision(3)));
}

function chart(label: string, series: readonly Series[], x: Axis, y: Axis): string {
  const [left, bottom] = [MARGIN.left, HEIGHT - MARGIN.bottom];
  const px = (value: number) => round(left + x.place(value) * (WIDTH - MARGIN.left - MARGIN.right));
  const py = (value: number) => round(bottom - y.place(value) * (HEIGHT - MARGIN.top - MARGIN.bottom));
  const parts = [
    ...y.ticks.map(
      ([value, text]) =>
        `<line class="grid" x1="${left}" x2="${WIDTH - MARGIN.right}" y1="${py(value)}" y2="${py(value)}"/>` +
        `<text x="${left - 8}" y="${py(value) + 4}" text-anchor="end">${escaped(text)}</text>`,
    ),
    ...x.ticks.map(
      ([value, text]) =>
        `<text x="${px(value)}" y="${bottom + 18}" text-anchor="middle">${escaped(text)}</text>`,
    ),
    `<line class="axis" x1="${left}" x2="${WIDTH - MARGIN.right}" y1="${bottom}" y2="${bottom}"/>`,
    `<text x="${(left + WIDTH - MARGIN.right) / 2}" y="${HEIGHT - 6}" text-anchor="middle">${escaped(x.title)}</text>`,
    `<text transform="translate(14 ${(MARGIN.top + bottom) / 2}) rotate(-90)" text-anchor="middle">${escaped(y.title)}</text>`,
    ...series.map(({ points }, i) => line(points, COLORS[i % COLORS.length]!, px, py)),
  ];
  const key = series.length < 2 ? '' : legend(series);
  const height = HEIGHT + (series.length < 2 ? 0 : 24 * Math.ceil(series.length / 5));
  return (
    `<svg role="img" aria-label="${escaped(label)}" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}">` +
    `<title>${escaped(label)}</title>${parts.join('')}${key}</svg>`
  );
}

function line(
  points: readonly Point[],
  color: string,
  px: (x: number) => number,
  py: (y: number) => number,
): string {
  const places = points.map(({ x, y }) => `${px(x)},${py(y)}`);
  const dots = points.map(
    ({ x, y }) =>
      `<circle cx="${px(x)}" cy="${py(y)}" r="3" fill="${color}"><title>${x}: ${y}</title></circle>`,
  );
  return `<polyline fill="none" stroke="${color}" stroke-width="2" points="${places.join(' ')}"/>${dots.join('')}`;
}

function legend(series: readonly Series[]): string {
  return series
    .map(({ name }, i) => {
      const [x, y] = [MARGIN.left + (i % 5) * 108, HEIGHT + 10 + 24 * Math.floor(i / 5)];
      const color = COLORS[i % COLORS.length]!;
      return `<rect x="${x}" y="${y}" width="14" height="4" fill="${color}"/><text x="${x + 20}" y="${y + 7}">${escaped(name)}</text>`;
    })
    .join('');
}

function table(reports: readonly BenchReport[]): string {
  const heads = [
    'what',
    'depth',
    'queues',
    'devices',
    'IOPS',
    'MB/s',
    'mean µs',
    'p50 µs',
    'p99 µs',
    'p99.9 µs',
    'seconds',
  ];
  const rows = reports.map((report) => {
    const { latencyUs, rw, qd, queues, devices, iops, bytesPerSecond, seconds } = report;
    const { mean, p50, p99, p999 } = latencyUs;
    const cells = [
      rw,
      qd,
      queues,
      devices,
      Math.round(iops),
      (bytesPerSecond / 1e6).toFixed(1),
      mean,
      p50,
      p99,
      p999,
    ];
    return [...cells, seconds.toFixed(2)].map((cell) => `<td>${escaped(String(cell))}</td>`).join('');
  });
  const head = heads.map((text) => `<th scope="col">${escaped(text)}</th>`).join('');
  return `<table><thead><tr>${head}</tr></thead><tbody>${rows.map((row) => `<tr>${row}</tr>`).join('')}</tbody></table>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escaped(text: string): string {
  return text.replaceAll(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
