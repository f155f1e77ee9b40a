/**
 * `npm run scale`: what a process holds and how it fares with a thousand devices, beside a server that floods, after a
 * million requests, after ten thousand openings, with worker threads, and how long a turn of its event loop takes while a
 * hundred thousand calls wait. Prints a table; exits with 1 where memory or a count is out of bounds.
 */
import { fork, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { SingleBar } from 'cli-progress';
import { Command, InvalidArgumentError, Option } from 'commander';
import { reference } from '../rivals.js';
import { median } from '../stats.js';
import { broken, EACH, FIXED_NEW_SPACE, FLOODED, OWN, STEADY, type Bounds, type Figures } from './bounds.js';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const FLOODS = ['read', 'unread', 'refused', 'stray', 'write'];
/** Round trips whose median is taken, and how often that is done. */
const READS = 20_000;
const PAIRS = 7;
/** What waits, and how much of it: calls, or milliseconds of a writeZeroes of so many GiB. */
const TURNS: readonly [kind: string, of: 'registers' | 'nvme', count: number][] = [
  ['deadlines', 'registers', 100_000],
  ['defaults', 'registers', 100_000],
  ['aborted', 'registers', 100_000],
  ['nvme', 'nvme', 100_000],
  ['zeroes', 'nvme', 10_000],
];
const NAMESPACE_GIB = 4_096;
const MODES = ['sync', 'async', 'pipelined', 'write', 'posted', 'dma'];

interface Options {
  devices: number;
  requests: number;
  cycles: number;
  only?: string[];
  json: boolean;
}

/** What is measured: its name, what `--only` calls it, and what its figures must lie between. */
interface Step {
  what: string;
  words: readonly string[];
  bounds: Bounds;
  measure: () => Promise<Figures>;
}

const WORDS = ['devices', 'flood', 'requests', ...MODES, 'openings', 'workers', 'turns'];

const program = new Command('scale')
  .option('--devices <n>', 'open at once', whole, 1_000)
  .option('--requests <n>', 'of each kind on one connection', whole, 1_000_000)
  .option('--cycles <n>', 'of opening and closing', whole, 10_000)
  .addOption(new Option('--only <what...>', 'some of it').choices(WORDS))
  .option('--json', 'one line of JSON for each figure', false);
const options = program.parse().opts<Options>();

function whole(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('a whole number, 1 or more');
  return value;
}

const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-scale-'));
const children: ChildProcess[] = [];

async function start(name: string, ...args: string[]): Promise<string> {
  const socket = path.join(directory, `${children.length}.sock`);
  const child = fork(path.join(HERE, `${name}.js`), [socket, ...args], { execArgv: [] });
  children.push(child);
  await once(child, 'message');
  return socket;
}

/** The reference target for many clients: see bench/reference/many.c. */
async function startMany(): Promise<string> {
  const socket = path.join(directory, `${children.length}.sock`);
  const child = spawn(reference('many'), [socket], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  await once(child.stdout, 'data');
  return socket;
}

async function run(name: string, ...args: (string | number)[]): Promise<Figures> {
  const child = spawn(
    process.execPath,
    [...FIXED_NEW_SPACE, path.join(HERE, `${name}.js`), ...args.map(String)],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${name} ${args.join(' ')} ended with ${code}`);
  return JSON.parse(output) as Figures;
}

function steps(server: string): Step[] {
  const { devices, requests, cycles } = options;
  return [
    {
      what: `${devices} devices`,
      words: ['devices'],
      bounds: EACH,
      measure: () => run('client', server, devices, READS),
    },
    {
      what: `one of ${devices} devices of the C target, the others idle`,
      words: ['devices'],
      bounds: {},
      measure: () => amongIdle(devices),
    },
    ...FLOODS.map((kind) => ({
      what: `flood: ${kind}`,
      words: ['flood'],
      bounds: FLOODED,
      measure: async () => run('latency-probe', server, await start('flooder', kind), kind, 3),
    })),
    ...MODES.map((mode) => ({
      what: `${requests} requests: ${mode}`,
      words: ['requests', mode],
      bounds: STEADY,
      measure: () => run('endless', server, mode, requests),
    })),
    {
      what: `${cycles} openings`,
      words: ['openings'],
      bounds: STEADY,
      measure: () => run('open-close', server, cycles),
    },
    ...TURNS.map(([kind, of, count]) => ({
      what: `longest turn: ${count} ${kind}`,
      words: ['turns'],
      bounds: {},
      measure: async () =>
        run('turns', await start('stalled-server', of, String(NAMESPACE_GIB)), kind, count),
    })),
    { what: '4 workers', words: ['workers'], bounds: OWN, measure: () => run('workers', server, 4, 3) },
  ];
}

/**
 * Processes with so many devices, of which one is used, and with one device, in alternation: the round trips of that one
 * in relation to those of a device alone. On a server in C, which has little to touch for each client: it is the client
 * that is measured.
 */
async function amongIdle(devices: number): Promise<Figures> {
  const server = await startMany();
  const pairs: { all: Figures; one: Figures }[] = [];
  while (pairs.length < PAIRS) {
    const one = await run('client', server, 1, READS);
    pairs.push({ one, all: await run('client', server, devices, READS) });
  }
  const medianOf = (name: string, side: 'all' | 'one') =>
    median(pairs.map((pair) => Number(pair[side][name])));
  const ratioOf = (name: string) =>
    median(pairs.map(({ all, one }) => Number(all[name]) / Number(one[name])));
  return {
    pairs: PAIRS,
    asyncUs: medianOf('asyncUs', 'all'),
    asyncUsOfOne: medianOf('asyncUs', 'one'),
    asyncRatio: ratioOf('asyncUs'),
    syncUs: medianOf('syncUs', 'all'),
    syncUsOfOne: medianOf('syncUs', 'one'),
    syncRatio: ratioOf('syncUs'),
  };
}

/** Whether all is within bounds. */
async function main(): Promise<boolean> {
  const { only = WORDS } = options;
  const measured = steps(await start('server')).filter(({ words }) =>
    words.some((word) => only.includes(word)),
  );
  const bar = new SingleBar({ format: '{bar} {value}/{total} {what}', noTTYOutput: false });
  bar.start(measured.length, 0, { what: '' });
  const table = new Table({ head: ['', 'figures', 'out of bounds'] });
  let isWithin = true;
  for (const { what, bounds, measure } of measured) {
    bar.update({ what });
    const figures = await measure();
    const out = broken(figures, bounds);
    if (out.length > 0) isWithin = false;
    if (options.json) console.log(JSON.stringify({ what, ...figures, broken: out }));
    else table.push([what, text(figures), out.map((name) => limits(name, bounds)).join('\n')]);
    bar.increment();
  }
  bar.stop();
  if (!options.json) console.log(table.toString());
  return isWithin;
}

function limits(name: string, bounds: Bounds): string {
  const [least, most] = bounds[name]!;
  return least === -Infinity ? `${name}: at most ${most}` : `${name}: ${least} to ${most}`;
}

function text(figures: Figures): string {
  const shown = (value: unknown): string => {
    if (typeof value === 'number') return String(Number(value.toPrecision(4)));
    return JSON.stringify(value) ?? '';
  };
  return Object.entries(figures)
    .map(([key, value]) => `${key} ${shown(value)}`)
    .join('\n');
}

try {
  process.exitCode = (await main()) ? 0 : 1;
} finally {
  for (const child of children) child.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
}
