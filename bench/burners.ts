/** Threads that keep processors busy, and that are seen to do so. */
import { availableParallelism, getPriority } from 'node:os';
import { Worker } from 'node:worker_threads';

const ENDLESS = `
  const { workerData: { rounds, index } } = require('node:worker_threads');
  for (;;) {
    for (let x = 0; x < 1e6; x++) Math.sqrt(x);
    Atomics.add(rounds, index, 1);
  }`;
const START_TIMEOUT_MS = 10_000;

export class Burners implements AsyncDisposable {
  /** They are threads of this process, and trials its children: all have the same. */
  readonly nice = getPriority();
  readonly #rounds: Int32Array;
  readonly #workers: Worker[];

  /** One thread, or one for each processor. */
  static async start(which: 'one' | 'all' = 'all'): Promise<Burners> {
    const burners = new Burners(which === 'one' ? 1 : availableParallelism());
    await burners.#running();
    return burners;
  }

  private constructor(count: number) {
    const rounds = new Int32Array(new SharedArrayBuffer(4 * count));
    this.#rounds = rounds;
    this.#workers = Array.from(
      rounds,
      (_, index) => new Worker(ENDLESS, { eval: true, workerData: { rounds, index } }),
    );
  }

  /**
   * Does `work`, and says how many processors' time was burned meanwhile.
   * @throws Error where one of them stood still.
   */
  async during<T>(work: () => Promise<T>): Promise<{ result: T; burned: number }> {
    const before = Int32Array.from(this.#rounds);
    const cpu = process.cpuUsage();
    const begin = performance.now();
    const result = await work();
    const elapsed = performance.now() - begin;
    const { user, system } = process.cpuUsage(cpu);
    if (this.#rounds.some((rounds, i) => rounds === before[i])) {
      throw new Error('a thread that should keep a processor busy stood still during a trial');
    }
    return { result, burned: (user + system) / 1e3 / elapsed };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  /** A thread takes a moment to start, and starts only once this one's loop turns. */
  async #running(): Promise<void> {
    const deadline = performance.now() + START_TIMEOUT_MS;
    while (this.#rounds.some((rounds) => rounds === 0)) {
      if (performance.now() > deadline) throw new Error('the threads that burn processor time do not start');
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}
