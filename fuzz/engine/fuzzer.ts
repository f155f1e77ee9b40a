/**
 * Runs a target on mutated inputs for a time. An input that reached code which none before it did is kept and mutated
 * further.
 *
 * Looking at the coverage costs as much as some hundred runs, so it is looked at once for a batch, as long as makes looking
 * cheap; only of a batch that found something new the inputs are run again, by halves, to find which did.
 */
import { inspect } from 'node:util';
import { Coverage } from './coverage.js';
import { mutate } from './mutator.js';
import type { Random } from './random.js';
import type { Target } from './target.js';

/** Looking may take this part of the time. */
const LOOKING = 0.2;
const FIRST_BATCH = 64;
const LARGEST_BATCH = 32_768;
/** The end of the time is looked for between batches. */
const LONGEST_BATCH_MS = 2_000;

export interface Outcome {
  runs: number;
  blocks: number;
  /** Inputs that reached something new, in the order of their finding. */
  found: Buffer[];
}

/** The input at which the target threw. */
export class Finding extends Error {
  readonly input: Buffer;

  constructor(input: Buffer, cause: unknown) {
    super(inspect(cause), { cause });
    this.input = input;
  }
}

export class Fuzzer {
  readonly #target: Target;
  readonly #random: Random;
  readonly #pool: Buffer[];
  readonly #coverage = new Coverage();
  readonly #found: Buffer[] = [];
  #runs = 0;
  #end = 0;

  constructor(target: Target, corpus: readonly Buffer[], random: Random) {
    this.#target = target;
    this.#random = random;
    this.#pool = [Buffer.alloc(0), ...corpus];
  }

  /** @throws Finding */
  async run(milliseconds: number): Promise<Outcome> {
    this.#end = performance.now() + milliseconds;
    await this.#runAll(this.#pool);
    this.#coverage.news(true);
    for (let batch = FIRST_BATCH; performance.now() < this.#end;) {
      const began = performance.now();
      const inputs = Array.from({ length: batch }, () => this.#next());
      await this.#runAll(inputs);
      const ran = performance.now();
      const hasNews = this.#coverage.news(false) > 0;
      const looked = performance.now();
      if (hasNews) await this.#keep(inputs);
      else if (looked - ran > LOOKING * (looked - began)) batch = Math.min(batch * 2, LARGEST_BATCH);
      if (ran - began > LONGEST_BATCH_MS) batch = Math.ceil(batch / 2);
    }
    return { runs: this.#runs, blocks: this.#coverage.size, found: this.#found };
  }

  #next(): Buffer {
    return mutate(this.#random.pick(this.#pool), this.#random.pick(this.#pool), this.#random);
  }

  async #runAll(inputs: readonly Buffer[]): Promise<void> {
    for (const input of inputs) {
      if (this.#runs > this.#pool.length && performance.now() > this.#end) return;
      this.#runs++;
      try {
        await this.#target.run(input);
      } catch (error) {
        throw new Finding(input, error);
      }
    }
  }

  /** Finds which of the inputs reached something new. */
  async #keep(inputs: readonly Buffer[]): Promise<void> {
    this.#coverage.skip();
    await this.#runAll(inputs);
    const only = inputs.length === 1;
    if (this.#coverage.news(only) === 0) return;
    if (only) {
      this.#pool.push(inputs[0]!);
      this.#found.push(inputs[0]!);
      return;
    }
    const middle = inputs.length >> 1;
    await this.#keep(inputs.slice(0, middle));
    await this.#keep(inputs.slice(middle));
  }
}
