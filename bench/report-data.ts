/** What a run has found, as it stands in report.json. */
import type { Machine } from './machine.js';
import type { Outcome } from './run.js';

export interface Report {
  date: string;
  /** What made it. */
  command: string;
  machine: Machine;
  versions: Record<string, string>;
  pairs: number;
  quick: boolean;
  outcomes: Outcome[];
}
