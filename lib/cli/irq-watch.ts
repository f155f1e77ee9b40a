/** Watches vectors until enough have come, the process is interrupted, or the device is lost. */
import type { Device, IrqIndex, Vector } from '../index.js';
import { IrqLog, type Interrupts } from './irq-log.js';
import { print } from './output.js';
import { onStop } from './stop-signals.js';

export interface WatchWork {
  /** How many interrupts are enough; without end where nothing is said. */
  count?: number | undefined;
  json: boolean;
  /** Done once everything listens. */
  begin(): Promise<void>;
}

/**
 * Prints the interrupts of `vectors` and a summary.
 * @returns how many there were.
 * @throws ClosedError when the connection ends; what printing and `begin` throw.
 */
export async function watchInterrupts(
  device: Device,
  index: IrqIndex,
  vectors: readonly Vector[],
  work: WatchWork,
): Promise<number> {
  const enough = work.count ?? Infinity;
  const log = new IrqLog(index.name, work.json, performance.now());
  const arrivals = new Arrivals(vectors);
  let lost: Error | undefined;
  const forget = onStop(() => arrivals.end());
  void device.closed.then((reason) => {
    lost = reason;
    arrivals.end();
  });
  try {
    if (process.stderr.isTTY === true) process.stderr.write(`${watching(index, vectors)}\n`);
    await work.begin();
    for await (const interrupts of arrivals) {
      await print(log.line(interrupts));
      // An interrupt that masked itself would be the last one.
      if (index.automasked) await index.unmask(interrupts.vector.subindex, 1);
      if (log.total >= enough) break;
    }
  } finally {
    forget();
    arrivals.end();
    await print(log.summary(performance.now()));
  }
  if (lost !== undefined && log.total < enough) throw lost;
  return log.total;
}

function watching({ name }: IrqIndex, vectors: readonly Vector[]): string {
  const [first, last] = [vectors[0]!.subindex, vectors.at(-1)!.subindex];
  return `watching ${name} ${first === last ? first : `${first} to ${last}`}, ^C to end`;
}

/**
 * What the vectors' listeners hear, in order. Interrupts of a vector whose last ones have not been taken yet are added to
 * those: there is one entry a vector at most, however slow the reader is.
 */
class Arrivals {
  readonly #waiting = new Map<number, Interrupts>();
  readonly #forget: (() => void)[];
  #wake: (() => void) | undefined;
  #ended = false;

  constructor(vectors: readonly Vector[]) {
    this.#forget = vectors.map((vector) => vector.onInterrupt((count) => this.#add(vector, count)));
  }

  /** What has arrived is still handed out. */
  end(): void {
    this.#ended = true;
    for (const forget of this.#forget) forget();
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Interrupts, void, undefined> {
    for (;;) {
      for (const [subindex, interrupts] of this.#waiting) {
        this.#waiting.delete(subindex);
        yield interrupts;
      }
      if (this.#ended && this.#waiting.size === 0) return;
      if (this.#waiting.size === 0) await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #add(vector: Vector, count: number): void {
    const waiting = this.#waiting.get(vector.subindex);
    if (waiting !== undefined) waiting.count += count;
    else {
      const now = { time: Date.now(), at: performance.now() };
      this.#waiting.set(vector.subindex, { vector, count, ...now });
    }
    this.#wake?.();
  }
}
