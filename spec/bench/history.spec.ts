/** Recorded figures, and the documents' tables that are made of them. */
import { describe, expect, test } from '@jest/globals';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { compare, standAlone } from '../../bench/compare.js';
import { withTables } from '../../bench/figure-tables.js';
import { atMostAtP90 } from '../../bench/goal.js';
import {
  appendHistory,
  benchFigures,
  machineClass,
  readHistory,
  scaleFigures,
  type Figure,
  type RecordedRun,
} from '../../bench/history.js';
import type { Report } from '../../bench/report-data.js';
import type { Trial } from '../../bench/trial.js';

function trial(opsPerSecond: number, p90: number, rest: Partial<Trial> = {}): Trial {
  const process = { seconds: 2, userSeconds: 1, systemSeconds: 0.5 };
  return { opsPerSecond, latencyUs: { curve: [[90, p90]] }, process, ...rest };
}

function run(commit: string, machine: string, figures: Record<string, Figure>): RecordedRun {
  return { date: '2026-01-02', commit, machine, command: 'npm run bench', figures };
}

/** The rows of a table, cell by cell. */
function rows(name: string, history: readonly RecordedRun[]): string[][] {
  const made = withTables(`<!-- figures: ${name} -->\n<!-- /figures -->\n`, history);
  const lines = made.split('\n').filter((line) => line.startsWith('|'));
  return lines.map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

const BLOCKING = 'read-sync vs C floor, blocking';
const rowOf = (table: string[][], against: string) => table.find((row) => row[1] === against);

describe('what is recorded', () => {
  test('of a report: ratios with their spread, the 90th percentile, figures that stand alone', () => {
    const outcome = { skipped: [], alone: undefined, nvme: undefined, limits: '', title: '' };
    const ours = [trial(100, 2), trial(110, 4)];
    const theirs = [trial(100, 2), trial(100, 2)];
    const report: Report = {
      date: '2026-01-02T03:04:05.000Z',
      command: 'npm run bench',
      machine: { cpu: 'A', processors: 2, memoryBytes: 1, kernel: '6' },
      versions: {},
      ...{ pairs: 2, quick: false },
      outcomes: [
        {
          ...outcome,
          workload: 'read-async-1',
          comparisons: [
            compare({ rival: 'mean', ours, theirs }),
            compare({ rival: 'p90', goal: atMostAtP90(1.25), ours, theirs }),
          ],
        },
        {
          ...outcome,
          workload: 'mapped-plain',
          comparisons: [],
          alone: standAlone([trial(1, 1, { nsPerAccess: 3.14159 })], undefined),
        },
      ],
    };
    expect(benchFigures(report)).toEqual({
      'read-async-1 vs mean': [1.05, 1, 1.1],
      'read-async-1 vs p90': [1.5, 1, 2],
      'mapped-plain nsPerAccess': [3.142],
    });
  });

  test('of scale: every number of every line', () => {
    const lines =
      '{"what":"1000 devices","kibEach":49.123456,"broken":[]}\nwarning\n{"what":"4 workers","wrong":0}\n';
    expect(scaleFigures(lines)).toEqual({
      'scale: 1000 devices: kibEach': [49.12],
      'scale: 4 workers: wrong': [0],
    });
  });

  test.each([
    ['Intel(R) Xeon(R) CPU @ 2.50GHz', 'Intel Xeon'],
    ['AMD EPYC', 'AMD EPYC'],
    ['AMD EPYC 7763 64-Core Processor', 'AMD EPYC 7763'],
  ])('%s is %s', (cpu, name) => {
    expect(machineClass(cpu)).toBe(name);
  });

  test('stands behind what was there', () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'history-'));
    const file = path.join(directory, 'history.jsonl');
    try {
      const runs = [run('a', 'M', { x: [1] }), run('b', 'M', { x: [2, 1, 3] })];
      for (const each of runs) appendHistory(each, file);
      expect(readHistory(file)).toEqual(runs);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe('a table', () => {
  test('has the last figure of each machine, in the measure of the goal, and says what missed it', () => {
    const table = rows('regions', [
      run('old', 'X', { [BLOCKING]: [4] }),
      run('new', 'X', { [BLOCKING]: [2, 1, 4] }),
      run('new', 'Y', { [BLOCKING]: [0.5] }),
    ]);
    expect(table[0]!.slice(2)).toEqual(['Goal', 'X, new (2026-01-02)', 'Y, new (2026-01-02)']);
    expect(rowOf(table, 'C floor, blocking')!.slice(2)).toEqual([
      '≤ 1.00 in time',
      '0.50 (0.25 to 1.00)',
      '**2.00**',
    ]);
    expect(rowOf(table, 'C floor, same spin')!.slice(3)).toEqual(['–', '–']);
  });

  test('takes the runs of one commit together', () => {
    const table = rows('regions', [
      run('old', 'X', { [BLOCKING]: [100] }),
      run('new', 'X', { [BLOCKING]: [2, 1, 2] }),
      run('new', 'X', { [BLOCKING]: [4] }),
      run('new', 'X', { [BLOCKING]: [5] }),
    ]);
    expect(rowOf(table, 'C floor, blocking')![3]).toBe('0.25 (0.20 to 1.00)');
  });

  test('names the commit of a figure that is not of the newest', () => {
    const older = { ...run('old', 'X', { [BLOCKING]: [2] }), date: '2026-01-01' };
    const table = rows('regions', [older, run('new', 'X', { 'read-sync vs C floor, same spin': [1] })]);
    expect(rowOf(table, 'C floor, blocking')![3]).toBe('0.50, old');
  });

  test('of a name that there is none of is an error', () => {
    expect(() => rows('nothing', [])).toThrow(RangeError);
  });
});

test.each(['docs/benchmarks.md', 'docs/reliability.md'])(
  '%s has the figures of bench/history.jsonl (npm run bench:record -- --tables)',
  (name) => {
    const document = readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8');
    expect(withTables(document, readHistory())).toBe(document);
  },
);
