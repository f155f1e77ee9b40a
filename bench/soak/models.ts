/**
 * The models that the specs have (fast-check), in processes of their own beside the load, one after the other and each time
 * with other seeds. What one of them finds is run again with the seed and the path that the problem names.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { Random } from './random.js';

export interface Model {
  spec: string;
  /** Of one child: some tens of seconds. */
  runs: number;
}

export const MODELS: readonly Model[] = [
  { spec: 'spec/nvme/model.spec.ts', runs: 32 },
  { spec: 'spec/device/migration-model.spec.ts', runs: 48 },
  { spec: 'spec/connection/model.spec.ts', runs: 600 },
];

/** What came of a child. */
export interface ModelRun {
  spec: string;
  seed: number;
  runs: number;
  seconds: number;
  outcome: 'passed' | 'failed' | 'broken off';
}

export interface ModelsOptions {
  /** Where specs are found, and run. */
  root: string;
  /** Where the output of what failed is kept. */
  output: string;
  random: Random;
  models?: readonly Model[];
  /** Node's script that runs a spec; tools/jest.cjs by default. */
  runner?: string;
  /** The most that a child may take. */
  limitMs?: number;
}

const LIMIT_MS = 15 * 60_000;
/** How long a child may take to end once it was told to. */
const END_MS = 5_000;
const AGAIN = /VFIO_USER_MODEL_SEED=-?\d+ VFIO_USER_MODEL_PATH=\S+/;

export class Models {
  readonly done: ModelRun[] = [];
  /** What was found, in words. */
  readonly problems: string[] = [];
  readonly #options: ModelsOptions;
  #child: ChildProcess | undefined;
  #isEnding = false;
  readonly #onExit = (): void => this.#kill('SIGKILL');

  constructor(options: ModelsOptions) {
    this.#options = options;
  }

  /** Until `stop`. */
  async run(): Promise<void> {
    const { models = MODELS, random } = this.#options;
    process.on('exit', this.#onExit);
    try {
      for (let i = 0; !this.#isEnding; i++)
        await this.#runOne(models[i % models.length]!, random.next() >>> 1);
    } finally {
      process.off('exit', this.#onExit);
    }
  }

  /** Breaks off what is under way. */
  stop(): void {
    this.#isEnding = true;
    this.#end();
  }

  async #runOne({ spec, runs }: Model, seed: number): Promise<void> {
    const { root, output, limitMs = LIMIT_MS } = this.#options;
    mkdirSync(output, { recursive: true });
    const log = path.join(output, `${logName(spec)}-${seed}.log`);
    const begun = performance.now();
    const child = (this.#child = this.#start(spec, runs, seed, log));
    let isLate = false;
    const limit = setTimeout(() => {
      isLate = true;
      this.#end();
    }, limitMs);
    const [code] = (await once(child, 'exit')) as [number | null];
    clearTimeout(limit);
    this.#child = undefined;
    const isBrokenOff = this.#isEnding && !isLate && code !== 0;
    const outcome = code === 0 ? 'passed' : isBrokenOff ? 'broken off' : 'failed';
    this.done.push({ spec, seed, runs, seconds: Math.round((performance.now() - begun) / 1e3), outcome });
    if (outcome === 'failed')
      this.problems.push(problemOf(root, { spec, seed, runs }, log, isLate ? limitMs : undefined));
    else rmSync(log, { force: true });
  }

  /** A group of its own: the runner has a child, and ^C is for the soak. */
  #start(spec: string, runs: number, seed: number, log: string): ChildProcess {
    const { root, runner = path.join(root, 'tools/jest.cjs') } = this.#options;
    const fd = openSync(log, 'w');
    try {
      return spawn(process.execPath, [runner, '--runInBand', spec], {
        cwd: root,
        detached: true,
        stdio: ['ignore', fd, fd],
        env: { ...process.env, VFIO_USER_MODEL_SEED: String(seed), VFIO_USER_MODEL_RUNS: String(runs) },
      });
    } finally {
      closeSync(fd);
    }
  }

  #end(): void {
    const child = this.#child;
    this.#kill('SIGTERM');
    setTimeout(() => {
      if (this.#child === child) this.#kill('SIGKILL');
    }, END_MS).unref();
  }

  #kill(signal: NodeJS.Signals): void {
    const { pid, exitCode, signalCode } = this.#child ?? {};
    if (pid === undefined || exitCode !== null || signalCode !== null) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // It has ended meanwhile.
    }
  }
}

/** `nvme-model` of spec/nvme/model.spec.ts. */
function logName(spec: string): string {
  return spec
    .replace(/^spec\//, '')
    .replace(/\.spec\.ts$/, '')
    .replaceAll('/', '-');
}

/** In one line, what to run, and where the rest is. */
function problemOf(
  root: string,
  { spec, seed, runs }: Model & { seed: number },
  log: string,
  limitMs: number | undefined,
): string {
  const again = AGAIN.exec(readFileSync(log, 'utf8'))?.[0];
  const what = limitMs === undefined ? 'failed' : `did not end within ${limitMs / 1e3} s`;
  const how = again ?? `VFIO_USER_MODEL_SEED=${seed} VFIO_USER_MODEL_RUNS=${runs}`;
  return `${spec} ${what}: ${how} node tools/jest.cjs ${spec} (${path.relative(root, log)})`;
}
