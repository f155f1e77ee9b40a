/**
 * The states of a device that migrates, the ways between them, and what is said where a step fails.
 *
 * ```
 *                ┌─────────────── PRE_COPY ◀──▶ RUNNING ◀──▶ STOP ◀──▶ RESUMING
 *                └──▶ STOP_COPY ◀──────────────────────────────┘
 * ```
 * These are the direct arcs. Other transitions are made of them: the shortest way, never through PRE_COPY or STOP_COPY.
 * ERROR is left by a reset alone.
 */
import type { CallOptions } from '../connection/index.js';
import { MigrationError, ProtocolError, RemoteError, TimeoutError } from '../errors.js';
import { MigrationState, migrationStateName } from '../protocol/constants.js';
import type { MigrationCommands } from './migration-commands.js';

const { ERROR, STOP, RUNNING, STOP_COPY, RESUMING, PRE_COPY } = MigrationState;

/** Direct arcs, from each state; the specification's list. */
const ARCS: Readonly<Record<number, readonly MigrationState[]>> = {
  [RUNNING]: [STOP, PRE_COPY],
  [STOP]: [RUNNING, STOP_COPY, RESUMING],
  [STOP_COPY]: [STOP],
  [PRE_COPY]: [RUNNING, STOP_COPY],
  [RESUMING]: [STOP],
};
const SAVING: readonly MigrationState[] = [PRE_COPY, STOP_COPY];

/** What went wrong, without where the device is now: that is asked, and said, when all is over. */
export class StepError extends Error {}

/** Takes the device from `from`, where it is, to `target`. @throws StepError where a step fails; what ends a call. */
export async function walk(
  commands: MigrationCommands,
  from: MigrationState,
  target: MigrationState,
  options: CallOptions | undefined,
): Promise<void> {
  let at = from;
  for (const next of pathBetween(from, target)) {
    const reached = await step(commands, at, next, options);
    if (reached !== next) throw new StepError(`the server went to ${name(reached)} instead of ${name(next)}`);
    at = next;
  }
}

async function step(
  commands: MigrationCommands,
  from: MigrationState,
  to: MigrationState,
  options: CallOptions | undefined,
): Promise<MigrationState> {
  try {
    return await commands.setState(to, options);
  } catch (cause) {
    if (!isFailure(cause)) throw cause;
    throw new StepError(`the device did not go from ${name(from)} to ${name(to)} (${cause.message})`, {
      cause,
    });
  }
}

/** The states on the shortest way, without where it begins; empty where it is there already. @throws StepError */
export function pathBetween(from: MigrationState, to: MigrationState): MigrationState[] {
  const ways: MigrationState[][] = [[from]];
  for (const way of ways) {
    const last = way.at(-1) ?? from;
    if (last === to) return way.slice(1);
    const interior = way.length > 1 && SAVING.includes(last);
    if (interior || way.length > 4) continue;
    for (const next of ARCS[last] ?? []) if (!way.includes(next)) ways.push([...way, next]);
  }
  throw new StepError(`no way leads from ${name(from)} to ${name(to)}`);
}

/** `error` for the caller: what leaves the device in a state that its user must be told of says which it is. */
export function explained(error: unknown, what: string, state: MigrationState | undefined): unknown {
  if (!isFailure(error)) return error;
  const where = state === undefined ? 'unknown' : name(state);
  const message = what === '' ? error.message : `${what} (${error.message})`;
  const cause = error instanceof StepError ? error.cause : error;
  return new MigrationError(`${message}; the device is in state ${where}: ${recoveryFrom(state)}`, where, {
    cause,
  });
}

/** With the connection everything has ended, and a call that was aborted has failed for reasons of its caller's. */
export function isFailure(error: unknown): error is Error {
  return (
    error instanceof RemoteError ||
    error instanceof ProtocolError ||
    error instanceof TimeoutError ||
    error instanceof StepError
  );
}

function recoveryFrom(state: MigrationState | undefined): string {
  if (state === ERROR || state === undefined) return 'reset it to recover';
  if (state === RUNNING) return 'it can go on from there';
  return 'it can go on from there, transition(RUNNING) sets it running, or it can be reset';
}

export function name(state: MigrationState): string {
  return migrationStateName(state);
}
