/** What a diagnosis gives: plain data, that JSON can carry. */
import type { Quirks } from '../index.js';

/**
 * - `kept`: the server did what the rule says.
 * - `broken`: it did something else, and the evidence shows what.
 * - `not applicable`: the rule is about something that this device or server does not have.
 * - `not run`: not tried: it changes state, was left out, or the server was gone before.
 * - `unclear`: it was tried, and what came does not tell.
 */
export type Verdict = 'kept' | 'broken' | 'not applicable' | 'not run' | 'unclear';

/** All verdicts, the most telling first. */
export const VERDICTS: readonly Verdict[] = ['kept', 'broken', 'unclear', 'not applicable', 'not run'];

/** One step of a conversation, in order. */
export interface Evidence {
  /** `sent` and `received` are messages or parts of them; `event` is what happened otherwise, in `note`. */
  direction: 'sent' | 'received' | 'event';
  /** The first bytes in hexadecimal; empty for an event. */
  hex: string;
  /** How many bytes there were. */
  size: number;
  /** File descriptors that went with them. */
  fds: number;
  /** What happened, for people. */
  note?: string;
}

/** What became of one rule of the specification. */
export interface RuleResult {
  /** Stable, for programs: `version.minor`, `error.bare-header`. */
  id: string;
  /** What the rule demands, in one sentence. */
  rule: string;
  /** The section of the specification. */
  section: string;
  /** Whether the server kept the rule. */
  verdict: Verdict;
  /** What was seen, in one sentence. */
  detail: string;
  /** The probe that tried it. */
  probe: string;
  /** What was sent and received. */
  evidence: Evidence[];
}

/** Something that the specification leaves open and a client wants to know. */
export interface Trait {
  /** Stable, for programs: `clients.next`, `region.0.widths`. */
  id: string;
  /** What it is about. */
  title: string;
  /** What this server does. */
  value: string;
  /** The probe that saw it. */
  probe: string;
  /** What was sent and received. */
  evidence: Evidence[];
}

/** Which implementation this looks like. */
export interface Recognised {
  /** `libvfio-user`, `rust-vmm vfio_user`, `SPDK`, `QEMU`, `vfio-user emulator`, or `unknown`. */
  name: string;
  /** 0 to 1: the weight of the signs that were seen among those that were looked for. */
  confidence: number;
  /** The signs that were seen. */
  signs: string[];
  /** The signs of this implementation that were missed. */
  missing: string[];
}

/** What the server says of itself. */
export interface Identity {
  /** The version in the reply to a proposal of 0.2, `0.1`; null where VERSION was not answered. */
  version: string | null;
  /** The JSON of VERSION's reply, as it came. */
  capabilities: string | null;
  /** From config space; null where that could not be read. */
  vendorId: number | null;
  /** From config space; null where that could not be read. */
  deviceId: number | null;
  /** By index; sizes in bytes. */
  regions: { index: number; size: number; flags: string[] }[];
  /** Types of interrupts, by index. */
  irqs: { index: number; count: number; flags: string[] }[];
}

/** A whole diagnosis. `format` is raised when members change their meaning. */
export interface DoctorReport {
  /** Of this structure. */
  format: 1;
  /** What the caller calls the server. */
  server: string;
  /** Whether probes that change state were left out. */
  readOnly: boolean;
  /** What the server says of itself. */
  identity: Identity;
  /** Which implementation this looks like. */
  recognised: Recognised;
  /** How many rules have each verdict. */
  summary: Record<Verdict, number>;
  /**
   * Why something that was wanted could not be tried: nobody listened, the server went away, the diagnosis was ended.
   * null where all of it was. What the options leave out was not wanted.
   */
  incomplete: string | null;
  /** Every rule that was looked at, in the order of `RULES`. */
  rules: RuleResult[];
  /** What the specification leaves open, in the order in which it was found. */
  traits: Trait[];
  /** For `connect(endpoint, { quirks })`. Empty where nothing is needed. */
  quirks: Quirks;
  /** Why each of them, by its name. */
  quirkReasons: Record<string, string>;
}

export function summaryOf(rules: readonly RuleResult[]): Record<Verdict, number> {
  const summary: Record<Verdict, number> = {
    kept: 0,
    broken: 0,
    unclear: 0,
    'not applicable': 0,
    'not run': 0,
  };
  for (const { verdict } of rules) summary[verdict]++;
  return summary;
}
