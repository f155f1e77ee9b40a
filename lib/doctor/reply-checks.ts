/** What holds for every reply of every probe: the rules of the header. */
import { errnoName } from '../errors.js';
import {
  commandName,
  HEADER_FLAG_ERROR,
  HEADER_FLAG_NO_REPLY,
  HEADER_FLAG_REPLY,
} from '../protocol/constants.js';
import type { Evidence, RuleResult } from './report.js';
import { RULES, type RuleId } from './rules.js';
import type { Asked, Reply, ReplyWatcher } from './raw-connection.js';

export const REPLY_CHECK_RULES = [
  'header.id',
  'header.command',
  'header.type',
  'error.bare-header',
  'error.errno',
] as const;

/** The numbers that Linux has. */
const MOST_ERRNO = 4095;
/** The bits that a reply may have. A copied No_reply would be one too many, and is not forbidden. */
const REPLY_FLAGS = HEADER_FLAG_REPLY | HEADER_FLAG_ERROR | HEADER_FLAG_NO_REPLY;

interface Entry {
  kept: number;
  broken: { detail: string; probe: string; evidence: Evidence[] } | undefined;
  last: { probe: string; evidence: Evidence[] } | undefined;
}

export class ReplyChecks {
  readonly #entries = new Map<RuleId, Entry>();

  /** Notes the replies of one probe. That a server answers what was not asked counts where nothing provoked it. */
  watcher(probe: string, isProvoking: boolean): ReplyWatcher {
    return (reply, asked, evidence) => {
      if (asked !== undefined || !isProvoking) this.#note(probe, reply, asked, evidence);
    };
  }

  results(): RuleResult[] {
    return REPLY_CHECK_RULES.map((id) => {
      const { text, section } = RULES[id];
      const { kept, broken, last } = this.#entry(id);
      const base = { id, rule: text, section };
      if (broken !== undefined) return { ...base, verdict: 'broken', ...broken };
      if (last === undefined)
        return { ...base, verdict: 'not run', detail: 'no such reply came', probe: 'all', evidence: [] };
      return { ...base, verdict: 'kept', detail: `${kept} replies kept it`, ...last };
    });
  }

  #note(probe: string, reply: Reply, asked: Asked | undefined, evidence: () => Evidence[]): void {
    const { id, command, flags, errno, payload } = reply;
    this.#check(
      'header.id',
      asked !== undefined,
      `a reply came to id 0x${id.toString(16)}, which was not sent`,
      probe,
      evidence,
    );
    if (asked !== undefined) {
      const detail = `${commandName(asked.command)} was answered as ${commandName(command)}`;
      this.#check('header.command', command === asked.command, detail, probe, evidence);
    }
    const isType = (flags & ~REPLY_FLAGS) === 0 && (flags & HEADER_FLAG_REPLY) !== 0;
    this.#check('header.type', isType, `flags 0x${flags.toString(16)}`, probe, evidence);
    if ((flags & HEADER_FLAG_ERROR) === 0) return;
    const what = `${commandName(command)}: ${errno === 0 ? 'an error' : errnoName(errno)} with ${payload.length} bytes`;
    this.#check('error.bare-header', payload.length === 0, what, probe, evidence);
    this.#check('error.errno', errno <= MOST_ERRNO, `errno ${errno}`, probe, evidence);
  }

  #check(id: RuleId, isKept: boolean, detail: string, probe: string, evidence: () => Evidence[]): void {
    const entry = this.#entry(id);
    if (isKept) {
      entry.kept++;
      entry.last ??= { probe, evidence: evidence() };
    } else entry.broken ??= { detail, probe, evidence: evidence() };
  }

  #entry(id: RuleId): Entry {
    let entry = this.#entries.get(id);
    if (entry === undefined) {
      entry = { kept: 0, broken: undefined, last: undefined };
      this.#entries.set(id, entry);
    }
    return entry;
  }
}
