/**
 * How the runs of a model are told apart, and one of them is run again.
 *
 * VFIO_USER_MODEL_SEED begins with that seed, VFIO_USER_MODEL_RUNS says how many runs there are, VFIO_USER_MODEL_LANES how
 * many of them go on beside each other, with a seed each; VFIO_USER_MODEL_PATH runs the one that a failure names, and
 * VFIO_USER_MODEL_SHRINK=1 looks for the shortest sequence of steps that fails.
 */
import fc from 'fast-check';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { openFds } from './fds.js';

export interface ModelRun {
  seed: number;
  runs: number;
  lanes: number;
  /** Of one run that failed. */
  path: string | undefined;
  shrinks: boolean;
}

/** What the environment says; `defaults` where it says nothing. */
export function modelRun(defaults: { seed: number; runs: number; lanes?: number }): ModelRun {
  const { env } = process;
  const path = env['VFIO_USER_MODEL_PATH'];
  return {
    seed: Number(env['VFIO_USER_MODEL_SEED'] ?? defaults.seed) | 0,
    runs: Number(env['VFIO_USER_MODEL_RUNS'] ?? defaults.runs),
    lanes: Number(env['VFIO_USER_MODEL_LANES'] ?? (path === undefined ? (defaults.lanes ?? 1) : 1)),
    path,
    shrinks: env['VFIO_USER_MODEL_SHRINK'] === '1',
  };
}

/** All the runs; throws what the first one that failed has to say, and how it is run again. */
export async function assertModel<T>(
  property: fc.IAsyncPropertyWithHooks<T>,
  { seed, runs, lanes, path, shrinks }: ModelRun,
  parameters: fc.Parameters<T> = {},
): Promise<void> {
  const lane = async (number: number) => {
    const details = await fc.check(property, {
      ...parameters,
      seed: (seed + number) | 0,
      numRuns: path === undefined ? Math.ceil(runs / lanes) : 1,
      endOnFailure: !shrinks,
      ...(path === undefined ? {} : { path }),
    });
    if (!details.failed) return;
    const again = `VFIO_USER_MODEL_SEED=${details.seed} VFIO_USER_MODEL_PATH=${details.counterexamplePath}`;
    const { errorInstance: why } = details;
    const text = why instanceof Error ? why.message : String(why);
    throw new Error(`run again with ${again}\n\n${text}\n\n${String(fc.defaultReportMessage(details))}`, {
      cause: why,
    });
  };
  const results = await Promise.allSettled(Array.from({ length: lanes }, (_, number) => lane(number)));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** What is closed is closed within a few turns of the loop. */
export async function fdsWereClosed(before: number): Promise<void> {
  for (let tries = 0; openFds() > before && tries < 200; tries++)
    await new Promise((resolve) => setTimeout(resolve, 10));
  if (openFds() <= before) return;
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return `${fd} ${named(readlinkSync(`/proc/self/fd/${fd}`))}`;
    } catch {
      return fd;
    }
  });
  throw new Error(`there were ${before} file descriptors, and now there are\n${links.join('\n')}`);
}

/** With the path of a Unix socket. */
function named(link: string): string {
  const inode = /^socket:\[(\d+)\]$/.exec(link)?.[1];
  const line =
    inode &&
    readFileSync('/proc/net/unix', 'latin1')
      .split('\n')
      .find((text) => text.includes(` ${inode}`));
  return line ? `${link} ${line}` : link;
}

/** What the process has besides file descriptors. */
export interface Holdings {
  /** Mappings of memfds. */
  mappings: number;
  /** Timers that keep it alive. */
  timers: number;
}

export function holdings(): Holdings {
  return {
    mappings: readFileSync('/proc/self/maps', 'latin1').split('/memfd:').length - 1,
    timers: process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length,
  };
}

/** Nothing is left that was not there before; a timer may have some time to go. */
export async function nothingIsLeft(before: Holdings): Promise<void> {
  for (let tries = 0; tries < 50 && isMore(holdings(), before); tries++)
    await new Promise((resolve) => setTimeout(resolve, 100));
  const now = holdings();
  if (isMore(now, before)) throw new Error(`left: ${JSON.stringify(now)}; before: ${JSON.stringify(before)}`);
}

function isMore(now: Holdings, before: Holdings): boolean {
  return now.mappings > before.mappings || now.timers > before.timers;
}
