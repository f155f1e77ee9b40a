/** What `vfio-user nvme bench` has of fio: mixes, rates, queues, devices, sweeps, its JSON, a page; and comparing reports. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { picker, xorshift, parseDistribution } from '../../lib/cli/bench-report/distributions.js';
import { MemoryStore, NvmeDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { Scratch, vfioUser } from './cli.js';

jest.setTimeout(120_000);

let scratch: Scratch;
let sockets: string[];
let servers: EmulatorServer[];
let devices: NvmeDevice[];

beforeEach(async () => {
  scratch = new Scratch();
  sockets = [scratch.path('a'), scratch.path('b')];
  devices = sockets.map(
    () => new NvmeDevice({ queues: 4, namespaces: [{ store: new MemoryStore(8 << 20) }] }),
  );
  servers = await Promise.all(devices.map((device, i) => serve(device, { path: sockets[i]! })));
});

afterEach(async () => {
  for (const server of servers) await server.close();
  for (const device of devices) await device.close();
  scratch.remove();
});

interface Report {
  count: number;
  totalIos: number;
  totalReads: number;
  totalWrites: number;
  reads: { count: number };
  writes: { count: number };
  intervals: number[];
  qd: number;
}

async function bench(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await vfioUser('nvme', 'bench', ...args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

describe('nvme bench', () => {
  test('a mix, by several queues of several devices: counted as the controllers count', async () => {
    const counts = [0, 0, 0];
    for (const device of devices)
      device.intercept = ({ queue, opcode }) => {
        if (queue > 0) counts[opcode] = (counts[opcode] ?? 0) + 1;
        return 'pass';
      };
    const options = ['--rw', 'randrw', '--rwmixread', '70', '--queues', '2', '--qd', '4', '--seconds', '0.3'];
    const report = JSON.parse(await bench(...sockets, ...options, '--verify', '--json')) as Report;
    expect(report).toMatchObject({
      queues: 2,
      devices: 2,
      rwmixread: 70,
      verified: true,
      distribution: 'random',
    });
    expect(report.reads.count + report.writes.count).toBe(report.count);
    expect(report.reads.count).toBeGreaterThan(report.writes.count);
    expect([report.totalReads, report.totalWrites]).toEqual([counts[2], counts[1]]);
    expect(report.intervals.length).toBeGreaterThanOrEqual(2);
  });

  test.each(['poll', 'promise'])('so much in all, not timed before: %s', async (api) => {
    const options = ['--total', '1M', '--ramp', '0', '--qd', '2', '--api', api, '--rw', 'rw'];
    const report = JSON.parse(await bench(sockets[0]!, ...options, '--json')) as Report;
    expect(report.count).toBeGreaterThanOrEqual(256);
    expect(report.totalIos).toBeLessThan(256 + 64);
  });

  test.each([
    ['--rate-iops', '200'],
    ['--rate', '800K'],
  ])('no more than %s %s', async (...rate) => {
    const options = ['--seconds', '0.5', '--ramp', '0', '--qd', '8', '--random-distribution', 'zipf:1.2'];
    const report = JSON.parse(await bench(sockets[0]!, ...options, ...rate, '--json')) as Report & {
      seconds: number;
    };
    // A limit is kept, whatever the machine does.
    expect(report.count).toBeLessThanOrEqual(200 * report.seconds * 1.1 + 16);
    expect(report).toMatchObject({ distribution: 'zipf:1.2' });
  });

  test('a sweep, with a page that needs nothing else', async () => {
    const page = scratch.path('report.html');
    const text = await bench(
      sockets[0]!,
      '--sweep',
      'qd=1,2,8',
      '--seconds',
      '0.2',
      '--html',
      page,
      '--json',
    );
    const { sweep, runs } = JSON.parse(text) as { sweep: string; runs: Report[] };
    expect([sweep, ...runs.map(({ qd }) => qd)]).toEqual(['qd', 1, 2, 8]);
    const html = readFileSync(page, 'utf8');
    expect(html.match(/<svg role="img"/g)).toHaveLength(2);
    expect(html.match(/<polyline/g)).toHaveLength(4);
    expect(html).not.toMatch(/https?:|<script|<link|url\(/);
    expect(html).not.toMatch(/NaN|undefined|Infinity/);
  });

  test('a name that is HTML is text in the page', async () => {
    const path = scratch.path('<b>&x');
    await using server = await serve(new NvmeDevice({ namespaces: [{ store: new MemoryStore(1 << 20) }] }), {
      path,
    });
    expect(server.path).toBe(path);
    await bench(path, '--seconds', '0.1', '--html', scratch.path('page'));
    expect(readFileSync(scratch.path('page'), 'utf8')).not.toContain('<b>');
  });

  test('how it goes, on stderr, where it is asked for', async () => {
    const { status, stderr } = await vfioUser('nvme', 'bench', sockets[0]!, '--seconds', '1', '--progress');
    expect(status).toBe(0);
    expect(stderr).toMatch(/^randread, depth 32: \d+ IOPS, [\d.]+ MB\/s, median [\d.]+ µs\n/);
  });

  test.each([
    [['--rwmixread', '101'], 'a whole number from 0 to 100'],
    [['--random-distribution', 'zipf:1'], "Zipf's theta"],
    [['--random-distribution', 'pareto:1'], "Pareto's power"],
    [['--random-distribution', 'normal'], 'It is random, zipf:THETA or pareto:POWER'],
    [['--queues', '5'], '--queues is at most 4'],
    [['--sweep', '1,2'], 'It is qd= and numbers'],
    [['--sweep', 'qd=1,1'], 'A depth is named once'],
    [['--sweep', 'qd=0'], 'A depth is 1 to'],
    [['--ramp', '-1'], 'It is a number of seconds'],
    [['--total', '0'], 'It is at least 1'],
    [['--output-format', 'xml'], 'Allowed choices are normal, json, fio'],
  ])('%j: wrong usage', async (options, message) => {
    const { status, stdout, stderr } = await vfioUser('nvme', 'bench', sockets[0]!, ...options);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toContain(message);
  });

  test('the same controller twice: wrong usage', async () => {
    const { status, stderr } = await vfioUser('nvme', 'bench', sockets[0]!, sockets[0]!);
    expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringContaining('each SOCKET once') });
  });
});

/** Keys, with the types of their values; what may be missing of a direction without transfers is left out. */
function shape(value: unknown): unknown {
  if (Array.isArray(value)) return value.slice(0, 1).map(shape);
  if (typeof value !== 'object' || value === null) return typeof value;
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(members.map(([key, item]) => [key, shape(item)]));
}

const HAS_FIO = /^fio-3/.test(spawnSync('fio', ['--version'], { encoding: 'utf8' }).stdout ?? '');

describe('as fio', () => {
  test('jobs, with read and write, in nanoseconds', async () => {
    const options = ['--rw', 'randrw', '--sweep', 'qd=1,4', '--seconds', '0.2', '--output-format', 'fio'];
    const { jobs } = JSON.parse(await bench(sockets[0]!, ...options)) as { jobs: Record<string, never>[] };
    expect(jobs.map(({ jobname }) => jobname)).toEqual(['randrw-qd1', 'randrw-qd4']);
    for (const job of jobs) {
      const { read, write } = job as unknown as Record<
        'read' | 'write',
        Record<string, number & Record<string, never>>
      >;
      for (const direction of [read, write]) {
        expect(direction['iops']).toBeGreaterThan(0);
        expect(Object.keys(direction['clat_ns']!['percentile']!)).toContain('99.000000');
        expect(direction['clat_ns']!['mean']).toBeGreaterThan(1_000);
      }
    }
  });

  (HAS_FIO ? test : test.skip)(
    'every key that fio 3 has of reads and writes, with its type (needs fio)',
    async () => {
      const fio = spawnSync(
        'fio',
        ['--name=x', '--ioengine=null', '--size=1M', '--rw=randrw', '--output-format=json', '--thread'],
        { encoding: 'utf8', cwd: scratch.path('.') },
      );
      const theirs = JSON.parse(fio.stdout) as { jobs: Record<string, unknown>[] };
      const text = await bench(sockets[0]!, '--rw', 'randrw', '--seconds', '0.2', '--output-format', 'fio');
      const mine = JSON.parse(text) as { jobs: Record<string, unknown>[] };
      for (const direction of ['read', 'write'])
        expect(shape(mine.jobs[0]![direction])).toEqual(shape(theirs.jobs[0]![direction]));
      const missing = Object.keys(theirs.jobs[0]!).filter((key) => !(key in mine.jobs[0]!));
      expect(missing).toEqual([]);
    },
  );
});

describe('distributions', () => {
  test.each([
    ['random', 0.5, 1.5],
    ['zipf:1.2', 50, 1_000],
    ['pareto:0.2', 2, 1_000],
  ])('%s: the most popular of 1000 places has so many times its share', (text, least, most) => {
    const pick = picker(parseDistribution(text), 1_000, xorshift(1));
    const counts = new Map<number, number>();
    for (let i = 0; i < 100_000; i++) {
      const unit = pick();
      expect(unit >= 0 && unit < 1_000 && Number.isInteger(unit)).toBe(true);
      counts.set(unit, (counts.get(unit) ?? 0) + 1);
    }
    const top = Math.max(...counts.values()) / 100;
    expect(top).toBeGreaterThan(least);
    expect(top).toBeLessThan(most);
  });

  test.each([1, 2, 3])('of %d places', (units) => {
    for (const text of ['random', 'zipf:1.2', 'zipf:0.5', 'pareto:0.9']) {
      const pick = picker(parseDistribution(text), units, xorshift(7));
      for (let i = 0; i < 1_000; i++) expect([0, 1, 2].slice(0, units)).toContain(pick());
    }
  });
});

describe('bench compare', () => {
  const run = (iops: number, p99: number, more: object = {}) => ({
    ...{ rw: 'randread', size: 4096, qd: 1, queues: 1, devices: 1, api: 'poll', completion: 'poll' },
    ...{ rwmixread: 100, distribution: 'random' },
    intervals: Array.from({ length: 20 }, (_, i) => iops * (1 + ((i % 5) - 2) / 100)),
    latencyUs: { p50: 10, p99, bounds: { p50: [9, 11], p99: [p99 * 0.95, p99 * 1.05] } },
    ...more,
  });

  function file(name: string, value: unknown): string {
    writeFileSync(scratch.path(name), typeof value === 'string' ? value : JSON.stringify(value));
    return scratch.path(name);
  }

  async function verdicts(a: unknown, b: unknown): Promise<{ status: number | null; verdicts: string[] }> {
    const { status, stdout } = await vfioUser(
      'bench',
      'compare',
      file('a.json', a),
      file('b.json', b),
      '--json',
    );
    const { differences } = JSON.parse(stdout) as { differences: { verdict: string }[] };
    return { status, verdicts: differences.map(({ verdict }) => verdict) };
  }

  test('the same, within noise, better, worse', async () => {
    expect(await verdicts(run(1_000, 20), run(1_000, 20))).toEqual({
      status: 0,
      verdicts: ['same', 'same', 'same'],
    });
    expect(await verdicts(run(1_000, 20), run(1_010, 20.5))).toEqual({
      status: 0,
      verdicts: ['same', 'same', 'same'],
    });
    expect(await verdicts(run(1_000, 20), run(1_500, 10))).toEqual({
      status: 0,
      verdicts: ['better', 'same', 'better'],
    });
    expect(await verdicts(run(1_000, 20), run(800, 40))).toEqual({
      status: 1,
      verdicts: ['worse', 'same', 'worse'],
    });
  });

  test('for people, of sweeps that are not all alike', async () => {
    const [a, b] = [{ runs: [run(1, 2), run(1, 2, { qd: 2 })] }, { runs: [run(1, 2), run(1, 2, { qd: 4 })] }];
    const { status, stdout } = await vfioUser('bench', 'compare', file('a.json', a), file('b.json', b));
    expect(status).toBe(0);
    expect(stdout).toMatch(/^ {2}iops +1 +1 +\+0\.0 % +same +rw=randread size=4096 qd=1 /);
    expect(stdout).toMatch(/only in the first: .*qd=2 .*\nonly in the second: .*qd=4 /);
  });

  test('reports of the bench itself', async () => {
    const report = await bench(sockets[0]!, '--seconds', '0.3', '--json');
    expect((await verdicts(JSON.parse(report), JSON.parse(report))).status).toBe(0);
  });

  test.each([
    ['no JSON', '{', 'is no JSON'],
    ['another thing', '[]', 'is no report'],
    ['null', 'null', 'is no report'],
    ['no intervals', JSON.stringify({ latencyUs: { bounds: {} } }), 'it has no intervals'],
    [
      'an interval that is no number',
      JSON.stringify(run(1, 2, { intervals: [1, 'x'] })),
      'it has no intervals',
    ],
    ['a negative rate', JSON.stringify(run(1, 2, { intervals: [1, -1] })), 'it has no intervals'],
    [
      'bounds that are none',
      JSON.stringify(run(1, 2, { latencyUs: { p50: 1, p99: 1, bounds: {} } })),
      'p50 and its bounds',
    ],
    ['nothing in common', JSON.stringify(run(1, 2, { qd: 9 })), 'have no run in common'],
  ])('%s', async (_, text, message) => {
    const { status, stdout, stderr } = await vfioUser(
      'bench',
      'compare',
      file('a.json', run(1, 2)),
      file('b.json', text),
    );
    expect({ status, stdout, stderr }).toEqual({
      status: 2,
      stdout: '',
      stderr: expect.stringContaining(message),
    });
  });
});
