/** Errors for people: one line, that names what happened. */
import { inspect } from 'node:util';
import { CommanderError } from 'commander';
import { ClosedError } from '../errors.js';

export const FAILURE = 1;
const USAGE = 2;

/** The command line makes no sense. Exit status 2; all other errors have 1. */
export class UsageError extends Error {
  override name = 'UsageError';
}

export function exitStatus(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE;
  return error instanceof UsageError ? USAGE : FAILURE;
}

/**
 * `vfio-user: what happened [code]`, on one line whatever the server put into its messages; with `verbose` followed by
 * the stack and the causes. The code is left out where the text has it.
 */
export function describeError(error: unknown, verbose = false): string {
  const line = `vfio-user: ${printable(oneLine(error))}`;
  if (!verbose) return line;
  const details = inspect(error, { colors: false });
  return `${line}\n${details.split('\n').map(printable).join('\n')}`;
}

function oneLine(error: unknown): string {
  if (!(error instanceof Error)) return `${inspect(error)} was thrown`;
  const text = error.message.replaceAll(/\s*\n\s*/g, ' ');
  if (error instanceof UsageError) return text;
  const code = codeOf(error);
  return text.includes(code) ? text : `${text} [${code}]`;
}

/** That a connection is closed says less than why. */
function codeOf(error: Error): string {
  if (error instanceof ClosedError && error.cause instanceof Error) return codeOf(error.cause);
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name;
}

/** Control characters, and those that turn the direction of text: a server must not steer the terminal. */
// eslint-disable-next-line no-control-regex
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** The text with what is not printable as `\u001b`. */
export function printable(text: string): string {
  return text.replaceAll(UNPRINTABLE, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
