/** Which places a bench goes to: as fio's random_distribution says. */
import { InvalidArgumentError } from 'commander';

export interface Distribution {
  kind: 'random' | 'zipf' | 'pareto';
  /** Zipf's theta, or Pareto's power. */
  value: number;
}

const TWO_32 = 2 ** 32;
/** Fio's. */
const DEFAULTS = { zipf: 1.1, pareto: 0.2 } as const;
const MOST_TERMS = 10_000_000;
const MOST_THETA = 100;

export const UNIFORM: Distribution = { kind: 'random', value: 0 };

/** `random` (or `uniform`), `zipf:1.2`, `pareto:0.3`. */
export function parseDistribution(text: string): Distribution {
  if (text === 'random' || text === 'uniform') return UNIFORM;
  const { kind, value } = /^(?<kind>zipf|pareto)(?::(?<value>\d+(?:\.\d+)?))?$/.exec(text)?.groups ?? {};
  if (kind !== 'zipf' && kind !== 'pareto')
    throw new InvalidArgumentError('It is random, zipf:THETA or pareto:POWER.');
  const number = value === undefined ? DEFAULTS[kind] : Number(value);
  if (kind === 'zipf' && (number <= 0 || number === 1 || number > MOST_THETA))
    throw new InvalidArgumentError(`Zipf's theta is greater than 0, at most ${MOST_THETA}, and not 1.`);
  if (kind === 'pareto' && (number <= 0 || number >= 1))
    throw new InvalidArgumentError("Pareto's power is between 0 and 1.");
  return { kind, value: number };
}

export function distributionText({ kind, value }: Distribution): string {
  return kind === 'random' ? kind : `${kind}:${value}`;
}

/** Marsaglia's xorshift, 32 bits: a few instructions, and good enough to miss every cache. */
export function xorshift(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** Gives numbers from 0 to `units` - 1. */
export function picker(distribution: Distribution, units: number, random: () => number): () => number {
  if (distribution.kind === 'zipf') return zipf(distribution.value, units, random);
  if (distribution.kind === 'pareto') return pareto(distribution.value, units, random);
  const scale = units / TWO_32;
  return () => Math.floor(random() * scale);
}

/** The method of Gray et al. (SIGMOD 1994), which fio uses; places that are near in rank are spread. */
function zipf(theta: number, units: number, random: () => number): () => number {
  let zetan = 0;
  for (let i = 1; i <= Math.min(units, MOST_TERMS); i++) zetan += i ** -theta;
  const half = 1 + 0.5 ** theta;
  const alpha = 1 / (1 - theta);
  const eta = (1 - (2 / units) ** (1 - theta)) / (1 - half / zetan);
  return () => {
    const uniform = random() / TWO_32;
    const z = uniform * zetan;
    if (z < 1) return spread(0, units);
    if (z < half) return spread(1, units);
    return spread(Math.floor(units * (eta * uniform - eta + 1) ** alpha), units);
  };
}

function pareto(power: number, units: number, random: () => number): () => number {
  const exponent = Math.log(power) / Math.log(1 - power);
  return () => spread(Math.floor((units - 1) * (random() / TWO_32) ** exponent), units);
}

/** Another place for each rank, or the popular ones would be neighbours. */
function spread(rank: number, units: number): number {
  let hash = Math.imul(rank ^ (rank >>> 16), 0x45d9_f3b);
  hash = Math.imul(hash ^ (hash >>> 16), 0x45d9_f3b);
  return ((hash ^ (hash >>> 16)) >>> 0) % units;
}
