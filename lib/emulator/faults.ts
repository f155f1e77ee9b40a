/** Faults on purpose: what a client does when its server does not behave. */

/** A command as it came, before anything of it was checked. */
export interface InterceptedMessage {
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

/** Sees every command of every client, VERSION among them, in the order in which they are carried out. */
export type Intercept = (message: InterceptedMessage) => Verdict | void;
