/**
 * Migration and dirty logging under any interleaving of what users do and of what can go wrong, beside a model of the
 * memory: a guest's, which the device writes to while it is copied, and the device's own. At each end the destination
 * equals the source, or the source runs on; no page that was written is missing from the reports.
 *
 * spec/support/model-run.ts has the environment that runs a failure again.
 */
import { test } from '@jest/globals';
import fc from 'fast-check';
import { openFds } from '../support/fds.js';
import { assertModel, fdsWereClosed, holdings, modelRun, nothingIsLeft } from '../support/model-run.js';
import { anyEnd, anyNature, anyStep } from './migration-model/steps.js';
import { World } from './migration-model/world.js';

const RUN = modelRun({ seed: 3_000, runs: 16, lanes: 4 });
const RUN_MS = 60_000;

const property = fc.asyncProperty(
  anyNature,
  fc.array(anyStep, { minLength: 1, maxLength: 50, size: 'max' }),
  anyEnd,
  async (nature, steps, how) => {
    const fds = openFds();
    const world = new World(nature);
    let end: typeof how | 'failed' = how;
    try {
      await world.begin();
      for (const step of steps) await world.step(step);
    } catch (error) {
      end = 'failed';
      throw error;
    } finally {
      await world.end(end);
    }
    if (RUN.lanes === 1) await fdsWereClosed(fds);
  },
);

test(
  `whatever comes together: the destination is the source, or the source runs on (VFIO_USER_MODEL_SEED=${RUN.seed})`,
  async () => {
    await new Promise((resolve) => setTimeout(resolve, 200));
    const fds = openFds();
    const before = holdings();
    await assertModel(property, RUN);
    await fdsWereClosed(fds);
    await nothingIsLeft(before);
  },
  RUN.runs * RUN_MS,
);
