/**
 * What `vfio-user proxy` adds to a round trip: one read at a time, asynchronous and blocking, directly and through a
 * proxy in a process of its own, in alternation: by a client that never spins and a proxy as it is by default, by that client
 * and a proxy that never spins, and with all as it is by default.
 * Arguments: SOCKET quick|full. Prints one line of JSON: asynchronous reads a second by the first of them, and the
 * medians of the microseconds that are added.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connect, type ConnectOptions } from 'vfio-user';
import { CLI } from '../paths.js';
import { median } from '../stats.js';
import { timed, type Timing } from './timing.js';

const [socket, length] = process.argv.slice(2);
const rounds = length === 'quick' ? 3 : 5;
const count = length === 'quick' ? 200 : 10_000;
const warmUp = length === 'quick' ? 50 : 5_000;

const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-proxy-'));

/** A proxy that listens, until it is disposed of. */
async function startProxy(name: string, ...options: string[]) {
  const front = path.join(directory, name);
  const args = [CLI, 'proxy', '--listen', front, '--connect', socket!, ...options];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  const exited = once(child, 'exit');
  // Whatever ends this process ends its proxies too.
  const kill = () => child.kill();
  process.once('exit', kill);
  const ended = exited.then(() => Promise.reject(new Error('the proxy has ended before it listened')));
  await Promise.race([once(child.stdout, 'data'), ended]);
  const stop = async () => {
    process.off('exit', kill);
    kill();
    await exited;
  };
  return { front, [Symbol.asyncDispose]: stop };
}

interface Reads {
  async: Timing;
  sync: Timing;
}

/** The target serves one client at a time: each is closed before the next. */
async function readsAt(at: string, options: ConnectOptions): Promise<Reads> {
  await using device = await connect(at, options);
  const bar1 = device.bar(1);
  const readAll = async (n: number) => {
    for (let i = 0; i < n; i++) await bar1.readUInt32(0);
  };
  const readAllSync = (n: number) => {
    for (let i = 0; i < n; i++) bar1.readUInt32Sync(0);
  };
  await readAll(warmUp);
  const asynchronous = await timed(count, () => readAll(count));
  readAllSync(warmUp);
  return { async: asynchronous, sync: await timed(count, () => readAllSync(count)) };
}

class Pairs {
  readonly through: Reads[] = [];
  readonly #direct: Reads[] = [];
  readonly #options: ConnectOptions;

  constructor(options: ConnectOptions) {
    this.#options = options;
  }

  async add(front: string): Promise<void> {
    // The first of a pair changes, so that neither always has the warmer machine.
    const directFirst = this.through.length % 2 === 0;
    if (directFirst) this.#direct.push(await readsAt(socket!, this.#options));
    this.through.push(await readsAt(front, this.#options));
    if (!directFirst) this.#direct.push(await readsAt(socket!, this.#options));
  }

  addedUs(kind: keyof Reads): number {
    const added = this.through.map((reads, i) => reads[kind].seconds - this.#direct[i]![kind].seconds);
    return Number(((median(added) / count) * 1e6).toFixed(1));
  }
}

const NEVER = { spinUs: 0 };
const spinning = new Pairs(NEVER);
const sleeping = new Pairs(NEVER);
const byDefault = new Pairs({});
try {
  await using first = await startProxy('default');
  await using second = await startProxy('spin-0', '--spin', '0');
  for (let round = 0; round < rounds; round++) {
    await spinning.add(first.front);
    await sleeping.add(second.front);
    await byDefault.add(first.front);
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}

const sum = (part: 'seconds' | 'userSeconds' | 'systemSeconds') =>
  spinning.through.reduce((total, reads) => total + reads.async[part], 0);
console.log(
  JSON.stringify({
    opsPerSecond: (rounds * count) / sum('seconds'),
    seconds: sum('seconds'),
    count: rounds * count,
    userSeconds: sum('userSeconds'),
    systemSeconds: sum('systemSeconds'),
    addedAsyncUs: spinning.addedUs('async'),
    addedSyncUs: spinning.addedUs('sync'),
    addedAsyncSpin0Us: sleeping.addedUs('async'),
    addedSyncSpin0Us: sleeping.addedUs('sync'),
    addedAsyncByDefaultUs: byDefault.addedUs('async'),
    addedSyncByDefaultUs: byDefault.addedUs('sync'),
  }),
);
