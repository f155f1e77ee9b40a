/**
 * `npm run scale`: what a process holds and how it fares with a thousand devices, beside a server that floods, after a
 * million requests, after ten thousand openings, and with worker threads. Prints tables.
 */
import { fork, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { SingleBar } from 'cli-progress';
import { Command } from 'commander';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const FLOODS = ['read', 'unread', 'refused', 'stray', 'write'];
const MODES = ['sync', 'async', 'pipelined', 'write', 'posted', 'dma'];

const program = new Command('scale')
  .option('--devices <n>', 'open at once', '1000')
  .option('--requests <n>', 'of each kind on one connection', '1000000')
  .option('--cycles <n>', 'of opening and closing', '10000')
  .option('--json', 'one line of JSON for each figure', false);
const options = program.parse().opts<{ devices: string; requests: string; cycles: string; json: boolean }>();

type Figures = Record<string, unknown>;

const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-scale-'));
const children: ChildProcess[] = [];

async function start(name: string, ...args: string[]): Promise<string> {
  const socket = path.join(directory, `${children.length}.sock`);
  const child = fork(path.join(HERE, `${name}.js`), [socket, ...args], { execArgv: [] });
  children.push(child);
  await once(child, 'message');
  return socket;
}

async function run(name: string, ...args: string[]): Promise<Figures> {
  const child = spawn(process.execPath, [path.join(HERE, `${name}.js`), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${name} ${args.join(' ')} ended with ${code}`);
  return JSON.parse(output) as Figures;
}

async function main(): Promise<void> {
  const server = await start('server');
  const { devices, requests, cycles } = options;
  const steps: [what: string, measure: () => Promise<Figures>][] = [
    ['one device', () => run('client', server, '1', '20000')],
    [`${devices} devices`, () => run('client', server, devices, '20000')],
    ...FLOODS.map((kind): [string, () => Promise<Figures>] => [
      `flood: ${kind}`,
      async () => run('victim', server, await start('flooder', kind), kind, '3'),
    ]),
    ...MODES.map((mode): [string, () => Promise<Figures>] => [
      `${requests} requests: ${mode}`,
      () => run('endless', server, mode, requests),
    ]),
    [`${cycles} openings`, () => run('open-close', server, cycles)],
    ['4 workers', () => run('workers', server, '4', '3')],
  ];
  const bar = new SingleBar({ format: '{bar} {value}/{total} {what}', noTTYOutput: false });
  bar.start(steps.length, 0, { what: '' });
  const table = new Table({ head: ['', 'figures'] });
  for (const [what, measure] of steps) {
    bar.update({ what });
    const figures = await measure();
    if (options.json) console.log(JSON.stringify({ what, ...figures }));
    else table.push([what, text(figures)]);
    bar.increment();
  }
  bar.stop();
  if (!options.json) console.log(table.toString());
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
  await main();
} finally {
  for (const child of children) child.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
}
