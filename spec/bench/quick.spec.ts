/** The benchmark runs, checks answers and leaves a report: a part of `npm run bench -- --quick`, built before tests run. */
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Report } from '../../bench/report-data.js';
import { Scratch } from '../cli/cli.js';

jest.setTimeout(300_000);

const MAIN = fileURLToPath(new URL('../../build/tools/bench/main.js', import.meta.url));
const PART = '^(read-sync|read-async-32|dma-4096|mapped-plain|nvme-emulated-randread-32-poll|proxy)$';

let scratch: Scratch;

beforeAll(() => {
  scratch = new Scratch();
});

afterAll(() => scratch.remove());

/** Without the servers that this machine may have, and without crates to fetch. */
function environment(): NodeJS.ProcessEnv {
  const { BENCH_SPDK: _, ...env } = process.env;
  return { ...env, CARGO: '/nonexistent/cargo' };
}

async function bench(...args: string[]): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [MAIN, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: environment(),
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, stdout, stderr };
}

describe('a quick run', () => {
  test('measures, and writes JSON and a page with plots', async () => {
    const { status, stdout, stderr } = await bench('--quick', '--only', PART, '--output', scratch.directory);
    expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/read-sync +│ C floor, blocking/);
    expect(stdout).not.toContain('\u001b[');
    // Built by an earlier run, or left out where everybody sees it.
    expect(stdout).toMatch(
      /read-sync +│ vfio_user crate|skipped: read-sync against vfio_user crate: there is no cargo/,
    );

    const report = JSON.parse(readFileSync(scratch.path('report.json'), 'utf8')) as Report;
    expect(report).toMatchObject({ quick: true, pairs: 1, machine: { processors: expect.any(Number) } });
    expect(report.versions).toMatchObject({ Node: process.version });
    const names = report.outcomes.map(({ workload }) => workload);
    expect(names.filter((name) => new RegExp(PART).test(name))).toEqual(names);
    expect(names).toHaveLength(6);
    for (const { comparisons, alone } of report.outcomes) {
      for (const { ours, theirs, ratios, processor } of comparisons) {
        expect([ours.length, theirs.length, ratios.length]).toEqual([1, 1, 1]);
        expect(ratios[0]).toBeGreaterThan(0);
        expect(processor.ours.user + processor.ours.system).toBeGreaterThan(0);
        expect(processor.theirs).toBeDefined();
      }
      if (alone !== undefined) expect(alone.opsPerSecond.median).toBeGreaterThan(0);
      expect(comparisons.length > 0 || alone !== undefined).toBe(true);
    }
    const busy = report.outcomes[0]!.comparisons.find(({ load }) => load !== undefined);
    expect(busy?.load?.ours).toBeGreaterThan(0);
    expect(busy?.load?.theirs).toBeGreaterThan(0);
    expect(report.outcomes[0]!.comparisons[0]!.latencyUs.ours?.sampled?.count).toBeGreaterThan(0);

    const proxied = report.outcomes.find(({ workload }) => workload === 'proxy');
    expect(proxied?.alone?.others).toEqual({
      addedAsyncUs: expect.any(Number),
      addedSyncUs: expect.any(Number),
      addedAsyncSpin0Us: expect.any(Number),
      addedSyncSpin0Us: expect.any(Number),
      addedAsyncByDefaultUs: expect.any(Number),
      addedSyncByDefaultUs: expect.any(Number),
    });
    expect(stdout).toMatch(/added to an asynchronous read -?[\d.]+ µs/);

    const html = readFileSync(scratch.path('report.html'), 'utf8');
    for (const id of ['ratio', 'depth', 'latency']) {
      expect(html).toMatch(new RegExp(`<section id="${id}">[^]*?<svg[^]*?</svg>`));
    }

    const again = await bench('--markdown', '--output', scratch.directory);
    expect(again).toMatchObject({ status: 0, stderr: '' });
    expect(again.stdout).toMatch(/^\| 4-byte region read by message, synchronous \| C floor, same spin \|/m);
  });

  test('lists its workloads', async () => {
    const { status, stdout } = await bench('--list');
    expect(status).toBe(0);
    for (const name of ['write-async-32', 'mapped-ordered', 'open-close', 'nvme-emulated-read-128-poll']) {
      expect(stdout).toMatch(new RegExp(`^${name} `, 'm'));
    }
  });

  test.each([
    [['--pairs', '0'], '--pairs takes a positive number'],
    [['--only', 'no such workload'], '--only matches no workload'],
  ])('%j is refused', async (args, message) => {
    const { status, stderr } = await bench('--quick', ...args);
    expect(status).not.toBe(0);
    expect(stderr).toContain(message);
  });
});
