/** What a workload is, as data: a server, our way of doing it, and the rivals that do the same. */
import type { AbsoluteGoal, Goal } from './goal.js';
import type { TrialCommand } from './trial.js';

/** Where a workload's server comes from. */
export type ServerKind =
  | { kind: 'target'; dmaSize?: number; dmaCount?: number; isPci?: boolean }
  | { kind: 'emulator'; args: readonly string[] }
  /** Running already. */
  | { kind: 'running'; socket: string };

/** What to run against a server that listens on `socket`. */
export type MakeTrial = (socket: string, quick: boolean) => TrialCommand;

export interface Rival {
  name: string;
  goal?: Goal | undefined;
  /** Others keep one processor busy meanwhile, or all. */
  busy?: 'one' | 'all';
  /** Why it is left out on this machine; undefined where it is there. */
  missing?: () => string | undefined;
  trial: MakeTrial;
  /** One more trial, that only says how latencies are distributed: finding out would slow the others. */
  distribution?: MakeTrial;
}

/** Where a workload stands in the plots. */
export interface NvmePlace {
  /** Of the namespace: `emulated`, `malloc`, `null`. */
  target: string;
  rw: string;
  depth: number;
  api: 'poll' | 'promise';
}

export interface Workload {
  name: string;
  title: string;
  server: ServerKind;
  /** The server prints the measurement, not the client. */
  measuredByServer?: boolean;
  /** Run once before anything is timed; it fails where an answer is wrong. */
  check?: MakeTrial;
  ours: MakeTrial;
  rivals: readonly Rival[];
  /** Where there is no rival. */
  goal?: AbsoluteGoal;
  nvme?: NvmePlace;
  /** What stands between us and a better figure. */
  limits: string;
}
