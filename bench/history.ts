/** The figures that were recorded: bench/history.jsonl, a line of JSON for each run, oldest first. */
import { appendFileSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { inMeasureOf } from './compare.js';
import { ROOT } from './paths.js';
import type { Report } from './report-data.js';
import type { SoakReport } from './soak/report.js';
import { least, median, most } from './stats.js';

export const HISTORY = path.join(ROOT, 'bench/history.jsonl');

/** A median, with the least and the most of what it is the median of where that is known. */
export type Figure = readonly [value: number, least?: number, most?: number];

/** What a run measured. */
export interface RecordedRun {
  /** Of the measurement: `2026-11-28`. */
  date: string;
  /** That the library was built from. */
  commit: string;
  /** A class of machines: `AMD EPYC`. */
  machine: string;
  command: string;
  /** By the keys that `benchFigures`, `scaleFigures` and `soakFigures` make. */
  figures: Readonly<Record<string, Figure>>;
}

export function readHistory(file = HISTORY): RecordedRun[] {
  const lines = readFileSync(file, 'utf8').split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as RecordedRun);
}

export function appendHistory(run: RecordedRun, file = HISTORY): void {
  appendFileSync(file, `${JSON.stringify(run)}\n`);
}

/** The class of machines that a processor's name stands for: `Intel(R) Xeon(R) CPU @ 2.50GHz` is an `Intel Xeon`. */
export function machineClass(cpu: string): string {
  const name = cpu.replace(/\((?:R|TM)\)|\bCPU\b|\bProcessor\b|@.*$|\d+-Core/g, ' ');
  return name.replace(/\s+/g, ' ').trim();
}

/** `read-sync vs C floor, blocking`: the ratio of the rates, or of the 90th percentiles where the goal is of those. */
export function benchFigures({ outcomes }: Report): Record<string, Figure> {
  const figures: Record<string, Figure> = {};
  for (const { workload, comparisons, alone } of outcomes) {
    for (const { rival, goal, ratios, ours, theirs } of comparisons) {
      const all = goal?.measure === 'p90' ? inMeasureOf(goal, ours, theirs) : ratios;
      figures[`${workload} vs ${rival}`] = [short(median(all)), short(least(all)), short(most(all))];
    }
    for (const [name, value] of Object.entries(alone?.others ?? {})) {
      figures[`${workload} ${name}`] = [short(value)];
    }
  }
  return figures;
}

/** Of `npm run scale -- --json`: `scale: 1000 devices: kibEach`. */
export function scaleFigures(lines: string): Record<string, Figure> {
  const figures: Record<string, Figure> = {};
  for (const line of lines.split('\n').filter((text) => text.startsWith('{'))) {
    const { what, ...found } = JSON.parse(line) as { what: string } & Record<string, unknown>;
    for (const [name, value] of Object.entries(found)) {
      if (typeof value === 'number') figures[`scale: ${what}: ${name}`] = [short(value)];
    }
  }
  return figures;
}

/** Of soak.json. */
export function soakFigures(report: SoakReport): Record<string, Figure> {
  const sum = (counts: Record<string, number>) => Object.values(counts).reduce((a, b) => a + b, 0);
  const grown = report.growth.map(
    ({ memory, bytes }) => [`soak: ${memory} grownMib`, [short(bytes / 2 ** 20)]] as const,
  );
  return {
    'soak: minutes': [short(report.minutes)],
    'soak: problems': [report.problems.length],
    'soak: calls': [sum(report.done)],
    'soak: failed calls': [sum(report.failed)],
    'soak: servers killed': [report.servers.reduce((all, { kills }) => all + kills, 0)],
    'soak: verified MiB': [Math.round(report.verifiedBytes / 2 ** 20)],
    'soak: fds': [report.fds.after - report.fds.before],
    ...Object.fromEntries(grown),
  };
}

/** Four digits. */
function short(value: number): number {
  return Number(value.toPrecision(4));
}
