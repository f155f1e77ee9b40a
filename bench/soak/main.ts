/**
 * `npm run soak -- --minutes N`: several devices in one process under a mixed load, whose servers are killed every few
 * seconds, stall, answer late, wrongly, or stop in the middle of a message. Beside it the models that the specs have run
 * with other seeds each time. Writes build/soak/soak.json and soak.html.
 *
 * Exits with 1 where something was lost that was acknowledged, a call missed its deadline, memory grew, a file descriptor
 * was left, or a model found something. ^C ends it early, with the report.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import net from 'node:net';
import { fileURLToPath } from 'node:url';
import { SingleBar } from 'cli-progress';
import { Command } from 'commander';
import { VfioUserError } from 'vfio-user';
import { Chaos } from './chaos.js';
import { DmaLoad } from './dma-load.js';
import { growthAllowed, growthOf } from './leak.js';
import { Link } from './link.js';
import { MIGRATION_LOAD_BYTES, MigrationLoad } from './migration-load.js';
import { NVME_LOAD_BYTES, NvmeLoad } from './nvme-load.js';
import { Models } from './models.js';
import { Random } from './random.js';
import { openFds } from './recorder.js';
import { REGISTER_LOAD_BYTES, RegisterLoad } from './register-load.js';
import { writeSoakReport, type SoakReport } from './report.js';
import { ServerProcess } from './server-process.js';
import type { SoakServerOptions } from './server.js';
import { Soak, type Load } from './soak.js';

/** From build/tools/bench/soak, where this runs. */
const ROOT = fileURLToPath(new URL('../../../..', import.meta.url));
/** A load ends between two steps: the longest has some calls. */
const END_MS = 90_000;
const VERIFY_ATTEMPTS = 10;
const MOST_SAMPLES = 600;

const program = new Command('soak')
  .option('--minutes <n>', 'how long', '5')
  .option('--kill-every <seconds>', 'a server is killed or stopped about so often', '3')
  .option('--seed <n>', 'what is done, and when')
  .option('--output <directory>', 'where the report goes', path.join(ROOT, 'build/soak'))
  .option('--no-models', 'without the models of the specs');
const options = program
  .parse()
  .opts<{ minutes: string; killEvery: string; seed?: string; output: string; models: boolean }>();

const minutes = positive('--minutes', options.minutes);
const killEveryMs = positive('--kill-every', options.killEvery) * 1e3;
const seed = options.seed === undefined ? Date.now() % 2 ** 32 : Number(options.seed) >>> 0;

setFlagsFromString('--expose-gc');
globalThis.gc = runInNewContext('gc') as NodeJS.GCFunction;

process.exitCode = (await main()) ? 0 : 1;

async function main(): Promise<boolean> {
  const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-soak-'));
  const soak = new Soak(new Random(seed));
  const servers = makeServers(directory);
  const links = makeLinks(soak, servers);
  const loads = makeLoads(soak, links);
  const models = new Models({ root: ROOT, output: options.output, random: soak.random.fork('models') });
  const interrupted = new AbortController();
  const onInterrupt = () => interrupted.abort();
  process.on('SIGINT', onInterrupt).on('SIGTERM', onInterrupt);
  const begun = performance.now();
  // The first child process has Node open what all of them share.
  await servers.registers.start();
  await servers.registers.close();
  const fdsBefore = openFds();
  try {
    for (const server of Object.values(servers)) await server.start();
    const modelled = options.models ? models.run() : undefined;
    try {
      await underLoad(soak, loads, Object.values(servers), interrupted.signal);
    } finally {
      models.stop();
      await modelled;
    }
    await verified(soak, loads, Object.values(servers));
    for (const load of loads) await load.close();
  } finally {
    for (const server of Object.values(servers)) await server.close();
    soak.watchdog.close();
    rmSync(directory, { recursive: true, force: true });
  }
  await sleep(200);
  process.off('SIGINT', onInterrupt).off('SIGTERM', onInterrupt);
  const fds = { before: fdsBefore, after: openFds() };
  const report = makeReport(soak, models, servers, links, fds, (performance.now() - begun) / 60e3);
  const page = await writeSoakReport(report, options.output);
  print(report, page);
  return report.problems.length === 0;
}

type Servers = Record<
  'registers' | 'remote' | 'broken' | 'dma' | 'nvme' | 'source' | 'destination',
  ServerProcess
>;

function makeServers(directory: string): Servers {
  const make = (name: string, kind: SoakServerOptions['kind'], size: number) =>
    new ServerProcess(name, {
      kind,
      path: path.join(directory, `${name}.sock`),
      file: path.join(directory, `${name}.bytes`),
      size,
      seed: soakSeed(name),
    });
  return {
    registers: make('registers', 'durable', REGISTER_LOAD_BYTES),
    remote: make('remote', 'broken', REGISTER_LOAD_BYTES),
    broken: make('broken', 'broken', REGISTER_LOAD_BYTES),
    dma: make('dma', 'ram', 1 << 20),
    nvme: make('nvme', 'nvme', NVME_LOAD_BYTES),
    source: make('source', 'ram', MIGRATION_LOAD_BYTES),
    destination: make('destination', 'ram', MIGRATION_LOAD_BYTES),
  };
}

function soakSeed(name: string): number {
  return new Random(seed).fork(name).next();
}

function makeLinks(soak: Soak, servers: Servers): Record<keyof Servers, Link> {
  const link = (name: keyof Servers) => new Link(soak, name, servers[name].path);
  const dial = () => net.connect(servers.remote.path);
  return {
    registers: link('registers'),
    remote: new Link(soak, 'remote', { dial, name: 'remote' }, { inFlight: 32 }),
    broken: link('broken'),
    dma: link('dma'),
    nvme: link('nvme'),
    source: link('source'),
    destination: link('destination'),
  };
}

function makeLoads(soak: Soak, links: Record<keyof Servers, Link>): Load[] {
  return [
    new RegisterLoad(soak, links.registers, true),
    new RegisterLoad(soak, links.remote, false),
    new RegisterLoad(soak, links.broken, true),
    new DmaLoad(soak, links.dma),
    new NvmeLoad(soak, links.nvme),
    new MigrationLoad(soak, links.source, links.destination),
  ];
}

/** The load and the faults, for as long as was asked for. */
async function underLoad(
  soak: Soak,
  loads: readonly Load[],
  servers: readonly ServerProcess[],
  interrupted: AbortSignal,
): Promise<void> {
  const seconds = minutes * 60;
  const chaos = new Chaos(servers, soak.random.fork('chaos'), killEveryMs);
  const chaotic = chaos.run();
  const running = loads.map((load) => load.run());
  // A load that fails does so at once, not when the time is over.
  const failed = new AbortController();
  for (const load of [...running, chaotic]) load.catch(() => failed.abort());
  const stop = AbortSignal.any([interrupted, failed.signal]);
  await watched(soak, seconds, stop);
  chaos.stop();
  soak.isEnding = true;
  await chaotic;
  for (const [i, end] of running.entries()) {
    const late = sleep(END_MS, 'late', { ref: false });
    if ((await Promise.race([end, late])) === 'late')
      soak.watchdog.hung.push(`${loads[i]!.name} did not end`);
  }
}

/** Takes samples until the time is over. */
async function watched(soak: Soak, seconds: number, stop: AbortSignal): Promise<void> {
  const format = '{bar} {value}/{total} s  {mib} MiB  {fds} fds  {calls} calls  {problems} problems';
  const bar = new SingleBar({ format, hideCursor: true, noTTYOutput: false });
  bar.start(Math.round(seconds), 0, { mib: 0, fds: 0, calls: 0, problems: 0 });
  const intervalMs = Math.max(1_000, (seconds * 1e3) / MOST_SAMPLES);
  const begun = performance.now();
  while (!stop.aborted && performance.now() - begun < seconds * 1e3) {
    await sleep(intervalMs, undefined, { signal: stop }).catch(() => undefined);
    const { rss, fds } = soak.recorder.sample(soak.watchdog.pending);
    const calls = Object.values(soak.recorder.done).reduce((sum, count) => sum + count, 0);
    const problems = soak.wrong.length + soak.watchdog.hung.length;
    const mib = Math.round(rss / 2 ** 20);
    bar.update(Math.round((performance.now() - begun) / 1e3), { mib, fds, calls, problems });
  }
  bar.stop();
}

/** With servers that make no faults: what was acknowledged is there. */
async function verified(
  soak: Soak,
  loads: readonly Load[],
  servers: readonly ServerProcess[],
): Promise<void> {
  for (const server of servers) {
    await server.kill();
    await server.start(true);
  }
  soak.isEnding = false;
  for (const load of loads) {
    for (let attempt = 1; ; attempt++) {
      try {
        await load.verify();
        break;
      } catch (error) {
        // What was under way when the servers were replaced fails once.
        const mayPass = error instanceof VfioUserError && attempt < VERIFY_ATTEMPTS;
        if (!mayPass) soak.wrong.push(`${load.name}: at the end: ${String(error)}`);
        if (!mayPass) break;
        await sleep(100);
      }
    }
  }
  soak.isEnding = true;
}

function makeReport(
  soak: Soak,
  models: Models,
  servers: Servers,
  links: Record<keyof Servers, Link>,
  fds: SoakReport['fds'],
  took: number,
): SoakReport {
  const manifest = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const { recorder, watchdog, wrong } = soak;
  const growth = growthOf(recorder.samples);
  const allowed = growthAllowed(recorder.samples.at(-1)?.seconds ?? 0);
  const leaks = growth
    .filter(({ memory, bytes }) => memory === 'rss' && bytes > allowed)
    .map(({ bytes }) => `resident memory grew by ${(bytes / 2 ** 20).toFixed(1)} MiB after warm-up`);
  if (fds.after > fds.before) leaks.push(`${fds.after - fds.before} file descriptors were left`);
  return {
    date: new Date().toISOString(),
    version: manifest.version,
    machine: {
      cpu: cpus()[0]?.model ?? 'unknown',
      processors: cpus().length,
      kernel: release(),
      node: process.version,
    },
    seed,
    minutes: took,
    problems: [...wrong, ...watchdog.hung, ...leaks, ...models.problems],
    models: models.done,
    growth,
    fds,
    servers: Object.values(servers).map(({ name, kills, stops }) => ({ name, kills, stops })),
    links: Object.values(links).map(({ name, losses, reconnects, reopens }) => ({
      name,
      losses,
      reconnects,
      opens: reopens,
    })),
    done: recorder.done,
    failed: recorder.failed,
    verifiedBytes: recorder.verifiedBytes,
    samples: recorder.samples,
  };
}

function print(report: SoakReport, page: string): void {
  const sum = (counts: Record<string, number>) => Object.values(counts).reduce((a, b) => a + b, 0);
  const kills = report.servers.reduce((total, server) => total + server.kills, 0);
  const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
  console.log(
    `${report.minutes.toFixed(1)} minutes, seed ${report.seed}: ${sum(report.done).toLocaleString('en')} calls, ` +
      `${sum(report.failed).toLocaleString('en')} failed as they may, ${kills} servers killed, ` +
      `${mib(report.verifiedBytes)} MiB verified`,
  );
  for (const { memory, bytes } of report.growth)
    console.log(`${memory.padEnd(12)} ${mib(bytes).padStart(7)} MiB after warm-up`);
  console.log(`fds          ${report.fds.before} before, ${report.fds.after} after`);
  const runs = report.models
    .filter(({ outcome }) => outcome === 'passed')
    .reduce((all, model) => all + model.runs, 0);
  console.log(`models       ${runs.toLocaleString('en')} runs passed`);
  for (const problem of report.problems) console.log(`problem: ${problem}`);
  console.log(report.problems.length === 0 ? 'nothing lost, nothing hung, nothing leaked' : 'FAILED');
  console.log(`report: ${path.relative(process.cwd(), page)}`);
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new RangeError(`${name} takes a positive number, not ${text}`);
  return value;
}
