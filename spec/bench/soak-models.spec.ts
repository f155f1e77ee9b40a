/** The models beside a soak: what came of them, and that none is left. */
import { afterEach, expect, test } from '@jest/globals';
import { readdirSync, writeFileSync } from 'node:fs';
import { Models } from '../../bench/soak/models.js';
import { Random } from '../../bench/soak/random.js';
import { Scratch } from '../cli/cli.js';
import { until } from '../support/until.js';

const scratches: Scratch[] = [];

afterEach(() => {
  for (const scratch of scratches.splice(0)) scratch.remove();
});

/** Children that run `script` instead of a spec, each with one model. */
function modelsOf(script: string, limitMs?: number): { models: Models; output: string } {
  const scratch = new Scratch();
  scratches.push(scratch);
  const runner = scratch.path('runner.cjs');
  writeFileSync(runner, script);
  const output = scratch.path('output');
  const models = new Models({
    root: scratch.path('.'),
    output,
    runner,
    random: new Random(1),
    models: [{ spec: 'spec/a/model.spec.ts', runs: 7 }],
    ...(limitMs === undefined ? {} : { limitMs }),
  });
  return { models, output };
}

test('each has a seed of its own; what passes leaves nothing', async () => {
  const { models, output } = modelsOf('process.exitCode = process.env.VFIO_USER_MODEL_RUNS === "7" ? 0 : 1');
  const running = models.run();
  await until(() => models.done.length >= 2);
  models.stop();
  await running;
  expect(models.problems).toEqual([]);
  const [first, second] = models.done;
  expect(first).toMatchObject({ spec: 'spec/a/model.spec.ts', runs: 7, outcome: 'passed' });
  expect(second!.seed).not.toBe(first!.seed);
  expect(readdirSync(output)).toEqual([]);
});

test('what fails says how it is run again, and its output is kept', async () => {
  const again = 'VFIO_USER_MODEL_SEED=12 VFIO_USER_MODEL_PATH=3:1';
  const { models, output } = modelsOf(`console.log('  run again with ${again}'); process.exitCode = 1`);
  const running = models.run();
  await until(() => models.problems.length >= 1);
  models.stop();
  await running;
  expect(models.problems[0]).toMatch(
    new RegExp(
      `^spec/a/model.spec.ts failed: ${again} node tools/jest.cjs spec/a/model.spec.ts \\(output/a-model-.*log\\)$`,
    ),
  );
  expect(readdirSync(output).length).toBeGreaterThan(0);
});

test('what does not end is ended, and what is under way at the end broken off', async () => {
  const endless = 'setInterval(() => undefined, 1_000)';
  const late = modelsOf(endless, 300);
  const running = late.models.run();
  await until(() => late.models.problems.length >= 1);
  late.models.stop();
  await running;
  expect(late.models.problems[0]).toMatch(
    /did not end within 0.3 s: VFIO_USER_MODEL_SEED=-?\d+ VFIO_USER_MODEL_RUNS=7/,
  );

  const { models } = modelsOf(endless);
  const broken = models.run();
  await new Promise((resolve) => setTimeout(resolve, 100));
  models.stop();
  await broken;
  expect(models.problems).toEqual([]);
  expect(models.done).toMatchObject([{ outcome: 'broken off' }]);
});
