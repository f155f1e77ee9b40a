/** What people see of a run: the page, the Markdown and the table. */
import { describe, expect, test } from '@jest/globals';
import { compare, standAlone } from '../../bench/compare.js';
import { atLeast, atMostInTime } from '../../bench/goal.js';
import { markdown } from '../../bench/markdown.js';
import { htmlReport } from '../../bench/html-report.js';
import type { Report } from '../../bench/report-data.js';
import type { Outcome } from '../../bench/run.js';
import { table } from '../../bench/table.js';
import type { Trial } from '../../bench/trial.js';

function trial(opsPerSecond: number, rest: Partial<Trial> = {}): Trial {
  const latencyUs = {
    ...{ p50: 2, p99: 8, p999: 9 },
    curve: [
      [50, 2],
      [90, 4],
      [99, 8],
    ] as [number, number][],
    sampled: { count: 10_000, every: 3 },
  };
  const process = { seconds: 2, userSeconds: 1, systemSeconds: 0.5 };
  return { opsPerSecond, seconds: 1, userSeconds: 0.25, systemSeconds: 0.5, latencyUs, process, ...rest };
}

const base = { comparisons: [], skipped: [], alone: undefined, nvme: undefined, limits: 'physics' };

const compared: Outcome = {
  ...base,
  workload: 'read-sync',
  title: 'a read <b>',
  comparisons: [
    compare({ rival: 'reached & fine', goal: atLeast(0.9), ours: [trial(1000)], theirs: [trial(1000)] }),
    compare({ rival: 'missed', goal: atMostInTime(1), ours: [trial(1000)], theirs: [trial(1250)], nice: 0 }),
  ],
  skipped: [{ rival: 'absent', reason: 'there is no cargo' }],
};

const mapped: Outcome = {
  ...base,
  workload: 'mapped',
  title: 'mapped',
  alone: standAlone([trial(1e8, { nsPerAccess: 10 })], { measure: 'nsPerAccess', most: 5 }),
};

const nvme = [1, 32].map((depth): Outcome => ({
  ...base,
  workload: `nvme-emulated-randread-${depth}-poll`,
  title: `NVMe, depth ${depth}`,
  alone: standAlone([trial(1000 * depth)], undefined),
  nvme: { target: 'emulated', rw: 'randread', depth, api: 'poll' },
}));

function report(outcomes: Outcome[]): Report {
  return {
    date: '2026-01-02T03:04:05.000Z',
    command: 'npm run bench -- --quick',
    machine: { cpu: 'A | CPU', processors: 2, memoryBytes: 2 ** 33, kernel: '6.1' },
    versions: { Node: 'v20', 'vfio_user crate': '0.1.7' },
    ...{ pairs: 1, quick: true, outcomes },
  };
}

describe('the page', () => {
  test('has plots of ratios, of throughput by depth and of latencies, and needs nothing else', async () => {
    const html = await htmlReport(report([compared, mapped, ...nvme]));
    for (const id of ['ratio', 'depth', 'latency']) {
      expect(html).toMatch(new RegExp(`<section id="${id}">[^]*?<svg[^]*?</svg>[^]*?</section>`));
    }
    expect(html).toContain('emulated namespace, randread');
    expect(html).not.toMatch(/<script|<link|<img|\bsrc=|url\(|NaN|undefined/);
    expect(html).toContain('prefers-color-scheme: dark');
  });

  test('says where the figures come from, and what was missed by how much and why', async () => {
    const html = await htmlReport(report([compared, mapped]));
    for (const part of ['A | CPU', 'kernel 6.1', '0.1.7', 'npm run bench -- --quick', 'too short to quote']) {
      expect(html).toContain(part);
    }
    expect(html).toMatch(
      /id="missed"[^]*against missed <span class="missed">missed by 25 % \(1.25 in time\)/,
    );
    expect(html).toMatch(/mapped: <span class="missed">missed by 100 %<\/span>. physics/);
    expect(html).toContain('absent: there is no cargo');
    expect(html).toContain('all at nice 0');
    expect(html).toContain('10,000, one of 3');
  });

  test('names are text', async () => {
    const html = await htmlReport(report([compared]));
    expect(html).toContain('a read &lt;b&gt;');
    expect(html).not.toContain('a read <b>');
  });

  test('sections with nothing in them are left out', async () => {
    const html = await htmlReport(report([mapped]));
    expect(html).not.toMatch(/id="(ratio|depth|skipped)"/);
  });
});

describe('Markdown', () => {
  test('has the tables, the conditions and what was missed', () => {
    const text = markdown(report([compared, mapped, ...nvme]));
    expect(text).toContain('Made by `npm run bench -- --quick` on 2026-01-02');
    expect(text).toContain('| a read <b> | reached & fine | ≥ 0.90 | 1.00 |');
    expect(text).toContain('missed by 25 % (1.25 in time)');
    expect(text).toContain('- mapped: missed by 100 %. physics');
    expect(text).toContain('Left out: absent (there is no cargo).');
    // Every row has as many cells as its table.
    for (const block of text.split('\n\n').filter((part) => part.startsWith('|'))) {
      const widths = block.split('\n').map((line) => line.split(/(?<!\\)\|/).length);
      expect(new Set(widths).size).toBe(1);
    }
  });
});

describe('the table', () => {
  test('has colours only where it is told to', () => {
    expect(table([compared, mapped], false)).not.toContain('\u001b[');
    expect(table([compared, mapped], true)).toContain('\u001b[');
  });

  test('has a row for each rival, and says what was left out', () => {
    const text = table([compared, mapped], false);
    expect(text).toMatch(/read-sync +│ reached & fine/);
    expect(text).toMatch(/read-sync +│ missed /);
    expect(text).toContain('skipped: read-sync against absent: there is no cargo');
    expect(text).toMatch(/mapped +│ 100,000,000/);
  });
});
