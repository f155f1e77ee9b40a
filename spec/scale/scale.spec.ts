/** Many devices in one process, a server that floods, a million requests: memory and counts, never times. */
import { fork, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { FIXED_NEW_SPACE } from '../../bench/scale/bounds.js';
import { outcomeOf } from '../cli/cli.js';

jest.setTimeout(120_000);

const TOOLS = fileURLToPath(new URL('../../build/tools/bench/scale/', import.meta.url));
/** For a child of a busy machine; idle it takes some 13 s at the most. */
const PATIENCE_MS = 110_000;
const DEVICES = 1_000;
const MOST_KIB_EACH = 64;
const MOST_GROWN_MIB = 5;
/** Each device had DMA memory of its own: the allocator takes longer to settle. */
const MOST_GROWN_OPENING_MIB = 16;
/** Answers that wait, and what it takes to have been flooded at all. */
const MOST_FLOODED_MIB = 48;

const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-scale-'));
const children: ChildProcess[] = [];
let server: string;

async function start(name: string, ...args: string[]): Promise<string> {
  const socket = path.join(directory, `${children.length}.sock`);
  const child = fork(path.join(TOOLS, `${name}.js`), [socket, ...args], { execArgv: [] });
  children.push(child);
  expect((await once(child, 'message'))[0]).toBe('listening');
  return socket;
}

/** The line of JSON that a tool prints. */
async function figures(name: string, ...args: string[]): Promise<Record<string, number>> {
  const child = spawn(process.execPath, [...FIXED_NEW_SPACE, path.join(TOOLS, `${name}.js`), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const { status, stdout, stderr } = await outcomeOf(child, PATIENCE_MS);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return JSON.parse(stdout) as Record<string, number>;
}

beforeAll(async () => {
  server = await start('server');
});

afterAll(async () => {
  for (const child of children) {
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
  rmSync(directory, { recursive: true, force: true });
});

test('a thousand devices are read and interrupted, in 64 KiB each', async () => {
  const { devices, kibEach } = await figures('client', server, String(DEVICES), '1000');
  expect(devices).toBe(DEVICES);
  expect(kibEach).toBeLessThanOrEqual(MOST_KIB_EACH);
});

test.each(['read', 'unread', 'refused', 'stray', 'write'])(
  'a server that floods (%s) leaves another device alone, and memory bounded',
  async (kind) => {
    const flooder = await start('flooder', kind);
    const { handled, others, grownMib, isOpen } = await figures('latency-probe', server, flooder, kind, '1');
    expect(handled).toBeGreaterThan(200);
    expect(others).toBeGreaterThan(0);
    expect(grownMib).toBeLessThan(MOST_FLOODED_MIB);
    expect(isOpen).toBe(true);
  },
);

describe('requests without end', () => {
  // The command `npm run scale` makes a million of each.
  test.each(['sync', 'async', 'pipelined', 'write', 'posted', 'dma'])('%s: memory stays', async (mode) => {
    const { grownMib, count } = await figures('endless', server, mode, '30000');
    expect(count).toBe(30_000);
    expect(grownMib).toBeLessThan(MOST_GROWN_MIB);
  });
});

test('opening and closing leaves no file descriptor, and memory stays', async () => {
  const { fds, grownMib, count } = await figures('open-close', server, '500');
  expect({ count, fds }).toEqual({ count: 500, fds: 0 });
  expect(grownMib).toBeLessThan(MOST_GROWN_OPENING_MIB);
});

test('worker threads drive devices of their own, each at its own speed', async () => {
  const { workers, leastReads, wrong } = await figures('workers', server, '4', '1');
  expect({ workers, wrong }).toEqual({ workers: 4, wrong: 0 });
  expect(leastReads).toBeGreaterThan(0);
});

test.each([
  ['deadlines', 'registers', { TimeoutError: 2_000 }],
  ['defaults', 'registers', { TimeoutError: 2_000 }],
  ['aborted', 'registers', { Error: 2_000 }],
  ['nvme', 'nvme', { TimeoutError: 2_000 }],
  ['zeroes', 'nvme', { Error: 1 }],
])('many that wait (%s) all end, over turns that are measured', async (kind, of, ends) => {
  const turns = await figures('turns', await start('stalled-server', of, '4096'), kind, '2000');
  expect(turns).toMatchObject({ kind, count: 2_000, ends });
  expect(turns['turns']).toBeGreaterThan(1);
});
