/**
 * The block driver under any interleaving of what its users do and of what can go wrong, beside a model of the disk.
 *
 * spec/support/model-run.ts has the environment that runs a failure again. Times are the machine's own: what a seed fixes is
 * what is done, and in which order.
 */
import { test } from '@jest/globals';
import fc from 'fast-check';
import { openFds } from '../support/fds.js';
import { assertModel, fdsWereClosed, holdings, modelRun, nothingIsLeft } from '../support/model-run.js';
import { anyEnd, anyNature, anyStep } from './model/steps.js';
import { World } from './model/world.js';

const RUN = modelRun({ seed: 3_000, runs: 24, lanes: 4 });
const RUN_MS = 60_000;

const property = fc.asyncProperty(
  anyNature,
  fc.array(anyStep, { minLength: 1, maxLength: 40, size: 'max' }),
  anyEnd,
  async (nature, steps, end) => {
    const world = await World.make(nature);
    try {
      for (const step of steps) await world.step(step);
    } finally {
      await world.end(end);
    }
  },
);

test(
  `whatever comes together: each call ends once, what was acknowledged is there, nothing else is (VFIO_USER_MODEL_SEED=${RUN.seed})`,
  async () => {
    const fds = openFds();
    const before = holdings();
    await assertModel(property, RUN);
    await fdsWereClosed(fds);
    await nothingIsLeft(before);
  },
  RUN.runs * RUN_MS,
);
