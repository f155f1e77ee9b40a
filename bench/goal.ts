/** What is aimed at, in the measure that it is stated in, and what became of it. */

/**
 * Of ours to theirs: operations or bytes a second (more is better), or the time that as many take, or the 90th percentile
 * of the latencies (less is better).
 */
export type Goal = { measure: 'rate'; least: number } | { measure: 'time' | 'p90'; most: number };

/** Of a figure that stands alone. */
export interface AbsoluteGoal {
  measure: 'nsPerAccess';
  most: number;
}

export interface Verdict {
  /** In the goal's measure. */
  value: number;
  reached: boolean;
  /** The part of the goal by which it was missed; 0 where it was reached. */
  missedBy: number;
}

export const atLeast = (least: number): Goal => ({ measure: 'rate', least });
export const atMostInTime = (most: number): Goal => ({ measure: 'time', most });
export const atMostAtP90 = (most: number): Goal => ({ measure: 'p90', most });

export function judge(goal: Goal | AbsoluteGoal, value: number): Verdict {
  const missedBy =
    goal.measure === 'rate' ? (goal.least - value) / goal.least : (value - goal.most) / goal.most;
  return { value, reached: missedBy <= 0, missedBy: Math.max(0, missedBy) };
}

export function goalInWords(goal: Goal | AbsoluteGoal): string {
  if (goal.measure === 'rate') return `≥ ${goal.least.toFixed(2)}`;
  if (goal.measure === 'time') return `≤ ${goal.most.toFixed(2)} in time`;
  if (goal.measure === 'p90') return `≤ ${goal.most.toFixed(2)} at p90`;
  return `≤ ${goal.most} ns`;
}

/** `reached`, or `missed by 12 % (1.23 in time)`. */
export function verdictInWords(goal: Goal | AbsoluteGoal, { value, reached, missedBy }: Verdict): string {
  const of = value.toFixed(2);
  const measured = { rate: '', time: `${of} in time`, p90: `${of} at p90`, nsPerAccess: '' }[goal.measure];
  const aside = measured === '' ? '' : ` (${measured})`;
  return reached ? `reached${aside}` : `missed by ${percent(missedBy)}${aside}`;
}

/** A miss is never rounded to none. */
function percent(part: number): string {
  const value = part * 100;
  return value < 1 ? `${value.toPrecision(1)} %` : `${Math.round(value)} %`;
}
