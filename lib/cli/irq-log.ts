/** Interrupts as they come, for people and programs: counts, rates, and a summary. */
import type { Vector } from '../index.js';
import { toJsonLine } from './json.js';
import { counted } from './format-text.js';

/** What came from one vector at one time: more than one interrupt where they came faster than they were read. */
export interface Interrupts {
  vector: Vector;
  count: number;
  /** Of the first of them: wall clock, in milliseconds, and `performance.now()`. */
  time: number;
  at: number;
}

interface Tally {
  count: number;
  /** `performance.now()` of the last ones. */
  last: number;
}

const MS_A_SECOND = 1_000;

/** Formats each line, and counts for the summary. */
export class IrqLog {
  readonly #index: string;
  readonly #json: boolean;
  readonly #begin: number;
  readonly #tallies = new Map<number, Tally>();
  #total = 0;

  /** `index` is the interrupts' name, `begin` when watching began, by `performance.now()`. */
  constructor(index: string, json: boolean, begin: number) {
    this.#index = index;
    this.#json = json;
    this.#begin = begin;
  }

  get total(): number {
    return this.#total;
  }

  /** The line for `interrupts`, whose rate counts from the vector's last ones; it has none for the first. */
  line({ vector, count, time, at }: Interrupts): string {
    const { subindex } = vector;
    const before = this.#tallies.get(subindex);
    const total = (before?.count ?? 0) + count;
    const rate = before === undefined ? null : perSecond(count, at - before.last);
    this.#tallies.set(subindex, { count: total, last: at });
    this.#total += count;
    if (this.#json) {
      return toJsonLine({
        event: 'interrupt',
        time: new Date(time).toISOString(),
        index: this.#index,
        vector: subindex,
        count,
        total,
        rate,
      });
    }
    const name = `${this.#index} ${subindex}`.padEnd(9);
    const rateText = rate === null ? '' : `  ${shortRate(rate)}`;
    return `${clock(time)}  ${name}  +${count}  total ${total}${rateText}\n`;
  }

  /** `now` by `performance.now()`. */
  summary(now: number): string {
    const seconds = (now - this.#begin) / MS_A_SECOND;
    const vectors = [...this.#tallies].sort(([a], [b]) => a - b);
    if (this.#json) {
      const list = vectors.map(([vector, { count }]) => ({ vector, count }));
      return toJsonLine({ event: 'summary', index: this.#index, total: this.#total, seconds, vectors: list });
    }
    // Of a moment or of nothing a rate says nothing.
    const hasRate = this.#total > 0 && seconds >= 1;
    const rate = hasRate ? `, ${shortRate(perSecond(this.#total, now - this.#begin))}` : '';
    const each = vectors.map(([vector, { count }]) => `\n  ${this.#index} ${vector}: ${count}`);
    return `${counted(this.#total, 'interrupt')} in ${seconds.toFixed(1)} s${rate}${each.join('')}\n`;
  }
}

/** No time at all has no rate: the clock has not moved on. */
function perSecond(count: number, ms: number): number {
  return count / Math.max(ms / MS_A_SECOND, 1e-6);
}

function shortRate(rate: number): string {
  return `${rate >= 100 ? Math.round(rate) : Number(rate.toPrecision(3))}/s`;
}

/** The time of day here, to the millisecond. */
function clock(time: number): string {
  const date = new Date(time);
  const two = (value: number) => `${value}`.padStart(2, '0');
  const hours = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':');
  return `${hours}.${`${date.getMilliseconds()}`.padStart(3, '0')}`;
}
