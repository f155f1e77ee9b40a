/** Faults on purpose: what a client does when its server does not behave. */

import { integer, outOfRange, wrongType } from '../fields.js';
import { MOST_ERRNO } from './device-error.js';

/** A command as it came, before anything of it was checked. */
export interface InterceptedMessage {
  /** The message id. */
  readonly id: number;
  /** `Command` numbers. */
  readonly command: number;
  /** `REGION_READ` for 9, and so on. */
  readonly name: string;
  /** `HEADER_FLAG_…` bits. */
  readonly flags: number;
  /** What follows the header. Only valid until the hook returns. */
  readonly payload: Buffer;
  /** How many fds came along. */
  readonly fdCount: number;
}

/**
 * What becomes of a command:
 * - `'pass'`, or nothing: it is carried out and answered;
 * - `'drop'`: it is neither carried out nor answered;
 * - `'close'`: the connection is closed;
 * - `{ errno }`: it is not carried out, and answered with this error;
 * - `{ delayMs }`: it is carried out later, and what the client sends meanwhile waits behind it.
 */
export type Verdict = 'pass' | 'drop' | 'close' | { errno: number } | { delayMs: number };

const MOST_DELAY_MS = 0x7fff_ffff;

/** @throws TypeError and RangeError for what is no verdict. */
export function checkVerdict(verdict: Verdict): Verdict {
  if (verdict === 'pass' || verdict === 'drop' || verdict === 'close') return verdict;
  const given: unknown = verdict;
  if (typeof given === 'object' && given !== null) {
    if ('errno' in given) integer('intercept: errno', given.errno as number, 1, MOST_ERRNO);
    if ('delayMs' in given) checkDelay(given.delayMs);
    if ('errno' in given || 'delayMs' in given) return verdict;
  }
  throw wrongType('intercept: the verdict', "'pass', 'drop', 'close', { errno } or { delayMs }", verdict);
}

/** @throws TypeError, RangeError */
function checkDelay(delayMs: unknown): void {
  if (typeof delayMs !== 'number') throw wrongType('intercept: delayMs', 'a number of milliseconds', delayMs);
  if (!(delayMs >= 0 && delayMs <= MOST_DELAY_MS)) {
    throw outOfRange(`intercept: delayMs must be from 0 to ${MOST_DELAY_MS}, got ${delayMs}`);
  }
}

/** Sees every command of every client, VERSION among them, in the order in which they are carried out. */
export type Intercept = (message: InterceptedMessage) => Verdict | void;
