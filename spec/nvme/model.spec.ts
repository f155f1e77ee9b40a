/**
 * The NVMe driver under any interleaving of what its users do and of what can go wrong, beside a model of the disks.
 *
 * VFIO_USER_MODEL_SEED begins it with that seed, VFIO_USER_MODEL_RUNS says how many runs there are, and
 * VFIO_USER_MODEL_SHRINK=1 looks for the shortest sequence of steps that fails. Times are the machine's own: what a seed
 * fixes is what is done, and in which order.
 */
import { test } from '@jest/globals';
import { readdirSync, readlinkSync } from 'node:fs';
import fc from 'fast-check';
import { openFds } from '../support/fds.js';
import { anyEnd, anyNature, anyStep } from './model/steps.js';
import { World } from './model/world.js';

const SEED = Number(process.env['VFIO_USER_MODEL_SEED'] ?? 2_000) | 0;
const RUNS = Number(process.env['VFIO_USER_MODEL_RUNS'] ?? 16);
const PATH = process.env['VFIO_USER_MODEL_PATH'];
const SHRINKS = process.env['VFIO_USER_MODEL_SHRINK'] === '1';
/** Runs beside each other: each waits for deadlines most of the time. */
const LANES = Number(process.env['VFIO_USER_MODEL_LANES'] ?? (PATH === undefined ? 4 : 1));
const RUN_MS = 60_000;

const property = fc.asyncProperty(
  anyNature,
  fc.array(anyStep, { minLength: 1, maxLength: 40, size: 'max' }),
  anyEnd,
  async (nature, steps, how) => {
    const fds = openFds();
    const world = new World(nature);
    let end = how;
    try {
      await world.begin();
      for (const step of steps) await world.step(step);
    } catch (error) {
      end = 'close device';
      throw error;
    } finally {
      await world.end(end);
    }
    if (LANES === 1) await fewerFds(fds);
  },
);

/** What is closed is closed within a few turns of the loop. */
async function fewerFds(before: number): Promise<void> {
  for (let tries = 0; openFds() > before && tries < 200; tries++)
    await new Promise((resolve) => setTimeout(resolve, 10));
  if (openFds() <= before) return;
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return `${fd} ${readlinkSync(`/proc/self/fd/${fd}`)}`;
    } catch {
      return fd;
    }
  });
  throw new Error(`there were ${before} file descriptors, and now there are\n${links.join('\n')}`);
}

async function lane(number: number): Promise<void> {
  const numRuns = PATH === undefined ? Math.ceil(RUNS / LANES) : 1;
  await fc.assert(property, {
    seed: (SEED + number) | 0,
    numRuns,
    endOnFailure: !SHRINKS,
    ...(PATH === undefined ? {} : { path: PATH }),
  });
}

test(
  `whatever comes together: each call ends once, what was acknowledged is there, nothing else is (VFIO_USER_MODEL_SEED=${SEED})`,
  async () => {
    await new Promise((resolve) => setTimeout(resolve, 200));
    const before = openFds();
    const lanes = await Promise.allSettled(Array.from({ length: LANES }, (_, i) => lane(i)));
    for (const result of lanes) if (result.status === 'rejected') throw result.reason;
    await fewerFds(before);
  },
  RUNS * RUN_MS,
);
