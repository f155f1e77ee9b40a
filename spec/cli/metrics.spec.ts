/** `--metrics`: OpenMetrics over HTTP. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { HAS_PROMETHEUS, parsedByPrometheus, sampleOf } from '../support/open-metrics.js';
import { Scratch, start, vfioUser } from './cli.js';

jest.setTimeout(60_000);

let scratch: Scratch;
const children: ChildProcess[] = [];

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  scratch.remove();
});

/** Starts a server with `--metrics`; where they are, once it listens. */
async function startServer(...args: string[]): Promise<{ child: ChildProcess; url: string }> {
  const child = start([...args, '--metrics', '0']);
  children.push(child);
  let said = '';
  child.stderr!.on('data', (chunk: Buffer) => (said += chunk.toString()));
  await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')]);
  const url = /^metrics at (\S+)$/m.exec(said)?.[1];
  expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/metrics$/);
  return { child, url: url! };
}

async function scrape(url: string): Promise<string> {
  const response = await fetch(url);
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toBe(
    'application/openmetrics-text; version=1.0.0; charset=utf-8',
  );
  const text = await response.text();
  if (HAS_PROMETHEUS) expect(parsedByPrometheus(text).length).toBeGreaterThan(0);
  return text;
}

describe('--metrics', () => {
  test('emulate and proxy count what a client did', async () => {
    const back = scratch.path('edu');
    const front = scratch.path('front');
    const emulator = await startServer('emulate', 'edu', '--socket', back);
    const proxy = await startServer('proxy', '--listen', front, '--connect', back);
    expect((await vfioUser('read', front, 'bar0', '0')).stdout).toBe('0x010000ed\n');
    const served = await scrape(emulator.url);
    const reads = { command: 'REGION_READ', device: back };
    expect(sampleOf(served, 'vfio_user_command_duration_seconds_count', reads)).toBeGreaterThan(0);
    const passed = await scrape(proxy.url);
    expect(sampleOf(passed, 'vfio_user_proxy_connections_total')).toBe(1);
    expect(sampleOf(passed, 'vfio_user_proxy_messages_total', { direction: 'to_server' })).toBeGreaterThan(5);
  });

  test('anything but GET /metrics is refused, and the server ends while a scraper stays connected', async () => {
    const { child, url } = await startServer('emulate', 'edu', '--socket', scratch.path('edu'));
    expect((await fetch(new URL('/', url))).status).toBe(404);
    expect((await fetch(url, { method: 'POST' })).status).toBe(405);
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([0, null]);
  });

  test.each(['', 'host', '1.2.3.4:99999', '::1:80', ':80'])('%j is wrong usage', async (address) => {
    const socket = scratch.path('edu');
    const { status, stderr } = await vfioUser('emulate', 'edu', '--socket', socket, '--metrics', address);
    expect({ status, stderr }).toMatchObject({ status: 2, stderr: expect.stringContaining('HOST:PORT') });
  });

  test('a port that is taken is an error, and the socket file is gone', async () => {
    const { url } = await startServer('emulate', 'edu', '--socket', scratch.path('edu'));
    const other = scratch.path('other');
    const { port } = new URL(url);
    const outcome = await vfioUser('emulate', 'edu', '--socket', other, '--metrics', port);
    expect(outcome).toMatchObject({ status: 1, stderr: expect.stringContaining('EADDRINUSE') });
  });
});
