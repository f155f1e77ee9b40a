/** Where every processor is wanted a thread that blocks for answers moves to the server's, and is bound to none. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { built, runScript } from '../lifecycle/child.js';
import { canPreload, compilePreload } from '../support/preload.js';

/** Processors that this process may run on, of the first 64: a bit for each. */
const allowed = BigInt.asUintN(64, BigInt(`0x${allowedText().replaceAll(',', '')}`));
const processors = Array.from({ length: 64 }, (_, i) => i).filter(
  (i) => ((allowed >> BigInt(i)) & 1n) !== 0n,
);
/** Where the server is, and where the client is said to be. */
const [there, here] = [processors.at(-1)!, processors[0]!];
/** Under a seccomp filter, as in most containers, nothing moves. */
const isFiltered = !/^Seccomp:\s*0$/m.test(readFileSync('/proc/self/status', 'latin1'));
const hasTaskset = spawnSync('taskset', ['--version']).status === 0;
const canMove = canPreload && here !== there && hasTaskset && !isFiltered;

/** Answers each read after a millisecond: to wait on the same processor is no quicker. */
const SERVER = `
  import { serve, RamDevice } from '${built('emulator/index.js')}';
  const intercept = ({ command }) => (command === 9 ? { delayMs: 1 } : 'pass');
  await serve(new RamDevice(), { path: process.argv[1], intercept, clients: 'many' });
  process.send('listening');
`;
const READS = `
  const status = () => /^Cpus_allowed:.*$/m.exec(fs.readFileSync('/proc/thread-self/status', 'latin1'))[0];
  const before = status();
  const region = device.bar(0);
  const values = new Set();
  for (let i = 0; i < 1024; i++) values.add(region.readUInt32Sync(8));
  report({ values: [...values], isBound: status() !== before });
  await device.close();
  process.exit(0);
`;
const CLIENT = `const device = await connect(process.argv[1]); ${READS}`;

let scratch: string;
let preload: string;
let server: ChildProcess | undefined;
let socket: string;
let moves: string;

function allowedText(): string {
  return /^Cpus_allowed:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))![1]!;
}

beforeAll(async () => {
  if (!canMove) return;
  scratch = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  preload = compilePreload('busy-machine', scratch);
  socket = join(scratch, 's');
  moves = join(scratch, 'moves');
  const node = [process.execPath, '--input-type=module', '-e', SERVER, '--', socket];
  server = spawn('taskset', ['-c', String(there), ...node], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  await once(server, 'message');
}, 60_000);

afterAll(async () => {
  if (server === undefined) return;
  const ended = once(server, 'exit');
  server.kill();
  await ended;
  rmSync(scratch, { recursive: true });
});

beforeEach(() => rmSync(moves ?? '', { force: true }));

/** Runs the script where `runnable` threads want to run. What it reported, and the sets of processors it asked for. */
async function run(script: string, runnable: number, env: Record<string, string> = {}) {
  const loadavg = join(scratch, 'loadavg');
  writeFileSync(loadavg, `1.00 1.00 1.00 ${runnable}/500 1\n`);
  const { status, reports, stderr } = await runScript(script, {
    args: [socket],
    preload,
    env: { VFIO_USER_LOADAVG: loadavg, VFIO_USER_HERE: String(here), VFIO_USER_MOVES: moves, ...env },
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const lines = existsSync(moves) ? readFileSync(moves, 'latin1').trim().split('\n') : [];
  return { outcome: reports[0], moves: lines };
}

const one = (processor: number) => (1n << BigInt(processor)).toString(16);
const all = 'f'.repeat(16);
const moveIf = canMove ? test : test.skip;
const WELL = { values: [4], isBound: false };
const BUSY = 10_000;

moveIf(
  'moves, less often as long as it does not help (needs a C compiler, taskset, two processors, no sanitizer, no seccomp filter)',
  async () => {
    const { outcome, moves } = await run(CLIENT, BUSY);
    expect(outcome).toEqual(WELL);
    expect(moves).toEqual(Array.from({ length: 4 }, () => [one(there), all]).flat());
  },
);

// A processor that there is not, for what the kernel does not leave.
(processors.includes(63) ? test.skip : moveIf)(
  'is bound again to what somebody had bound it to',
  async () => {
    const bound = (allowed | (1n << 63n)).toString(16);
    const { outcome, moves } = await run(CLIENT, BUSY, { VFIO_USER_ALLOWED: bound });
    expect(outcome).toEqual(WELL);
    expect(moves.slice(0, 5)).toEqual([one(there), all, bound, one(there), all]);
  },
);

moveIf('is given back what it had where it cannot be given all', async () => {
  const { outcome, moves } = await run(CLIENT, BUSY, { VFIO_USER_UNMOVED: '2' });
  expect(outcome).toEqual(WELL);
  expect(moves.slice(0, 3)).toEqual([one(there), all, allowed.toString(16)]);
});

moveIf('stays where it is when it never spins', async () => {
  const client = `const device = await connect(process.argv[1], { spinUs: 0 }); ${READS}`;
  expect(await run(client, BUSY)).toEqual({ outcome: WELL, moves: [] });
});

moveIf.each([2, 1])('stays where it is under a seccomp filter: mode %i', async (mode) => {
  const file = join(scratch, 'status');
  const status = readFileSync('/proc/self/status', 'latin1');
  writeFileSync(file, status.replace(/^Seccomp:.*$/m, `Seccomp:\t${mode}`));
  expect(await run(CLIENT, BUSY, { VFIO_USER_STATUS: file })).toEqual({ outcome: WELL, moves: [] });
});

moveIf('stays where it is when it cannot be moved', async () => {
  const { outcome, moves } = await run(CLIENT, BUSY, { VFIO_USER_UNMOVED: '1' });
  expect(outcome).toEqual(WELL);
  expect(moves).toEqual([one(there)]);
});

moveIf('stays where it is while there are processors for all', async () => {
  expect(await run(CLIENT, 1)).toEqual({ outcome: WELL, moves: [] });
});

moveIf('stays where it is when the server is there as well', async () => {
  expect(await run(CLIENT, BUSY, { VFIO_USER_HERE: String(there) })).toEqual({ outcome: WELL, moves: [] });
});
