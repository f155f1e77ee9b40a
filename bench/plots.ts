/** The plots of the page, as SVG that takes its colours from the page it stands in. */
import { compile, type TopLevelSpec } from 'vega-lite';
import { View, parse } from 'vega';
import type { Outcome } from './run.js';
import type { Latency } from './trial.js';
import { opsOf } from './format-rows.js';

/** Told apart on light and on dark, and by those who see few colours. */
const COLORS = ['#3b82c4', '#e0802a', '#2fa37c', '#c0539b', '#8a6fd1', '#b8961a', '#d1495b', '#5f7d8c'];

const CONFIG = {
  background: 'transparent',
  font: 'system-ui, sans-serif',
  view: { stroke: null },
  axis: {
    labelColor: 'currentColor',
    titleColor: 'currentColor',
    domainColor: 'currentColor',
    tickColor: 'currentColor',
    gridColor: 'currentColor',
    gridOpacity: 0.15,
    titleFontWeight: 'normal',
  },
  title: { color: 'currentColor', anchor: 'start', fontSize: 14 },
  legend: { labelColor: 'currentColor', titleColor: 'currentColor', labelLimit: 260 },
  header: { labelColor: 'currentColor', titleColor: 'currentColor' },
  range: { category: COLORS },
} as const;

type Spec = TopLevelSpec;

/** Every pair's ratio as a point, the median as a bar. */
export async function ratioPlot(outcomes: readonly Outcome[]): Promise<string> {
  const values = outcomes.flatMap((outcome) =>
    outcome.comparisons.flatMap(({ rival, ratios }) =>
      ratios.map((ratio) => ({ case: `${outcome.workload} / ${rival}`, ratio })),
    ),
  );
  if (values.length === 0) return '';
  return svg({
    title: 'Ours to theirs in operations a second, each pair and the median',
    width: 560,
    height: { step: 20 },
    data: { values },
    layer: [
      { mark: { type: 'rule', strokeDash: [4, 4], color: 'currentColor' }, encoding: { x: { datum: 1 } } },
      {
        mark: { type: 'point', filled: true, size: 40, opacity: 0.5, color: COLORS[0]! },
        encoding: {
          x: {
            field: 'ratio',
            type: 'quantitative',
            title: 'ratio; more than 1 is faster',
            scale: { type: 'log', nice: false, padding: 12 },
          },
          y: { field: 'case', type: 'nominal', sort: null, title: null, axis: { labelLimit: 420 } },
        },
      },
      {
        mark: { type: 'tick', thickness: 3, color: COLORS[1]! },
        encoding: {
          x: { aggregate: 'median', field: 'ratio', type: 'quantitative' },
          y: { field: 'case', type: 'nominal', sort: null },
        },
      },
    ],
  });
}

interface Throughput {
  depth: number;
  iops: number;
  who: string;
}

/** NVMe throughput by depth: a plot for each namespace and kind of transfer. */
export async function depthPlots(outcomes: readonly Outcome[]): Promise<string[]> {
  const panels = new Map<string, Throughput[]>();
  for (const { nvme, comparisons, alone } of outcomes) {
    if (nvme === undefined) continue;
    const panel = `${nvme.target} namespace, ${nvme.rw}`;
    const points = panels.get(panel) ?? [];
    panels.set(panel, points);
    const { depth, api } = nvme;
    const who = `vfio-user, ${api}`;
    if (alone !== undefined) points.push({ depth, iops: alone.opsPerSecond.median, who });
    for (const { rival, ours, theirs } of comparisons) {
      points.push({ depth, iops: opsOf(ours), who });
      // It has been measured beside each of our faces.
      if (api === 'poll') points.push({ depth, iops: opsOf(theirs), who: rival });
    }
  }
  return Promise.all([...panels].map(([title, values]) => svg(depthPlot(title, values))));
}

function depthPlot(title: string, values: Throughput[]): Spec {
  const depths = [...new Set(values.map(({ depth }) => depth))].sort((a, b) => a - b);
  return {
    title,
    width: 300,
    height: 180,
    data: { values },
    mark: { type: 'line', point: { filled: true, size: 50 } },
    encoding: {
      x: {
        field: 'depth',
        type: 'quantitative',
        title: 'transfers under way',
        scale: { type: 'log', base: 2 },
        axis: { values: depths, grid: false },
      },
      y: { field: 'iops', type: 'quantitative', title: 'I/O a second', axis: { format: '~s', tickCount: 5 } },
      color: {
        field: 'who',
        type: 'nominal',
        title: null,
        sort: null,
        legend: { orient: 'bottom', columns: 1 },
      },
    },
  };
}

interface LatencyPoint {
  nines: number;
  latency: number;
  who: string;
}

/** How latencies are distributed: a plot for registers, one for each depth of NVMe. */
export async function latencyPlots(outcomes: readonly Outcome[]): Promise<string[]> {
  const panels = new Map<string, LatencyPoint[]>();
  const add = (panel: string, who: string, latency: Latency | undefined) => {
    const points = panels.get(panel) ?? [];
    panels.set(panel, points);
    if (points.some((point) => point.who === who)) return;
    for (const [percent, us] of latency?.curve ?? []) {
      if (us > 0) points.push({ nines: -Math.log10(1 - percent / 100), latency: us, who });
    }
  };
  for (const { workload, nvme, comparisons, alone } of outcomes) {
    const panel =
      nvme === undefined ? 'Regions by message' : `NVMe, ${nvme.target} namespace, depth ${nvme.depth}`;
    const who = nvme === undefined ? workload : `${nvme.rw}, ${nvme.api}`;
    add(panel, who, alone?.latencyUs);
    for (const { rival, latencyUs, load } of comparisons) {
      add(panel, load === undefined ? who : `${who}, processors busy`, latencyUs.ours);
      add(panel, nvme === undefined ? `${who}: ${rival}` : `${nvme.rw}: ${rival}`, latencyUs.theirs);
    }
  }
  const drawn = [...panels].filter(([, points]) => points.length > 0);
  return Promise.all(drawn.map(([title, values]) => svg(latencyPlot(title, values))));
}

/** 0, 50, 90, 99 … %, as far as they go, each nine as wide as the one before. */
const NINES = [0, Math.log10(2), 1, 2, 3, 4];
const NINES_LABELS =
  "datum.value < 0.1 ? '0' : datum.value < 0.5 ? '50' : datum.value < 1.5 ? '90' : datum.value < 2.5 ? '99' : " +
  "datum.value < 3.5 ? '99.9' : '99.99'";

function latencyPlot(title: string, values: LatencyPoint[]): Spec {
  return {
    title,
    width: 300,
    height: 220,
    data: { values },
    mark: { type: 'line', interpolate: 'monotone' },
    encoding: {
      x: {
        field: 'nines',
        type: 'quantitative',
        title: 'percent of accesses that took',
        axis: { values: NINES, labelExpr: NINES_LABELS },
      },
      y: {
        field: 'latency',
        type: 'quantitative',
        title: 'at most so many µs',
        scale: { type: 'log' },
        axis: { format: '~g', tickCount: 5 },
      },
      color: {
        field: 'who',
        type: 'nominal',
        title: null,
        sort: null,
        legend: { orient: 'bottom', columns: 2 },
      },
    },
  };
}

async function svg(spec: Spec): Promise<string> {
  const view = new View(parse(compile({ ...spec, config: CONFIG }).spec), { renderer: 'none' });
  const picture = await view.toSVG();
  view.finalize();
  return picture;
}
