/** What figures must lie between. Memory and counts only: times say as much about what else the machine does. */

export type Figures = Readonly<Record<string, unknown>>;

/** By the figure's name: the least and the most that it may be. */
export type Bounds = Readonly<Record<string, readonly [least: number, most: number]>>;

/** Of `client`: a device that is open, with interrupts. */
export const EACH: Bounds = { kibEach: [0, 64] };
/** Of `endless` and `open-close`. Fewer fds than before are as wrong: one was closed that is another's. */
export const STEADY: Bounds = { grownMib: [-Infinity, 5], fds: [0, 0] };
/** Of `latency-probe`, which has answers wait. */
export const FLOODED: Bounds = { grownMib: [-Infinity, 48] };
/** Of `workers`. */
export const OWN: Bounds = { wrong: [0, 0] };

/** The names of the figures that are out of bounds, or missing. */
export function broken(figures: Figures, bounds: Bounds): string[] {
  return Object.entries(bounds)
    .filter(([name, [least, most]]) => {
      const value = figures[name];
      return !(typeof value === 'number' && value >= least && value <= most);
    })
    .map(([name]) => name);
}

/**
 * Options of Node for a process whose memory is looked at: V8 lets the space of new objects grow to 16 MiB and more when it
 * likes, which is neither kept by the library nor growth without end.
 */
export const FIXED_NEW_SPACE: readonly string[] = ['--max-semi-space-size=2'];
