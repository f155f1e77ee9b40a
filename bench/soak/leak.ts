/** Whether memory grew: a slope that single peaks do not move. */
import type { Sample } from './recorder.js';

export type Memory = 'rss' | 'heapTotal' | 'heapUsed' | 'external' | 'arrayBuffers';

export const MEMORIES: readonly Memory[] = ['rss', 'heapTotal', 'heapUsed', 'external', 'arrayBuffers'];

/** The share of the time in which caches fill, code is compiled, and memory is first used. */
const WARM_UP = 0.25;
/** Of resident memory: what the time after that may add. */
const MOST_GROWTH_BYTES = 8 << 20;
/** A short run is over before the allocator has found its shape, and only shows what is gross. */
const SHORT_SECONDS = 600;
const MOST_GROWTH_SHORT_BYTES = 48 << 20;
/** Fewer samples say nothing. */
const LEAST_SAMPLES = 8;

export interface Growth {
  memory: Memory;
  /** What the slope comes to over the time after warm-up, bytes. */
  bytes: number;
  /** Bytes a minute. */
  perMinute: number;
}

/** What resident memory may grow by after warm-up in a run of that length, bytes. */
export function growthAllowed(seconds: number): number {
  return seconds < SHORT_SECONDS ? MOST_GROWTH_SHORT_BYTES : MOST_GROWTH_BYTES;
}

/** How each kind of memory grew after warm-up. */
export function growthOf(samples: readonly Sample[]): Growth[] {
  const end = samples.at(-1)?.seconds ?? 0;
  const settled = samples.filter(({ seconds }) => seconds >= end * WARM_UP);
  if (settled.length < LEAST_SAMPLES) return [];
  const span = end - settled[0]!.seconds;
  return MEMORIES.map((memory) => {
    const slope = slopeOf(settled.map((sample) => [sample.seconds, sample[memory]]));
    return { memory, bytes: Math.round(slope * span), perMinute: Math.round(slope * 60) };
  });
}

/** The median of the slopes between all pairs (Theil and Sen). */
export function slopeOf(points: readonly (readonly [x: number, y: number])[]): number {
  const slopes: number[] = [];
  for (const [i, [x1, y1]] of points.entries()) {
    for (const [x2, y2] of points.slice(i + 1)) if (x2 !== x1) slopes.push((y2 - y1) / (x2 - x1));
  }
  slopes.sort((a, b) => a - b);
  return slopes.length === 0 ? 0 : slopes[slopes.length >> 1]!;
}
