/**
 * Rigs in Playwright Test: a fixture for `test.extend`.
 *
 * ```ts
 * import { test as base } from '@playwright/test';
 * const test = base.extend<{ rig: Rig }>({ rig: rigFixture({ device: () => new EduDevice(), map: 'edu.json' }) });
 * test('identification', async ({ rig }) => rig.expectRegister('ID', 0x010000ed));
 * ```
 * What a failed test leaves is attached to it by `testInfo.attach`, which all of Playwright's reporters have.
 * @packageDocumentation
 */
import type { RigOptionsSource } from './adapter.js';
import { openRig, type Rig } from './rig.js';

export type { RigOptionsSource } from './adapter.js';
export type { RigAttachment } from './evidence.js';
export type { RigOptions } from './rig-options.js';
export { ExpectationError, RigError, openRig, withRig } from './index.js';
export { Rig } from './rig.js';

/** What of Playwright's TestInfo is used. */
export interface PlaywrightTestInfo {
  readonly title: string;
  readonly status?: string | undefined;
  readonly expectedStatus: string;
  readonly error?: unknown;
  /** Of this test alone. */
  outputPath(...segments: string[]): string;
  attach(name: string, options: { path: string; contentType: string }): Promise<void>;
}

/** A fixture, in the form that `test.extend` takes. */
export type PlaywrightRigFixture = (
  // eslint-disable-next-line @typescript-eslint/no-empty-object-type -- what Playwright has it take: no other fixture
  fixtures: {},
  use: (rig: Rig) => Promise<void>,
  testInfo: PlaywrightTestInfo,
) => Promise<void>;

/** The fixture: a rig for each test that asks for it, named after the test; evidence is in the test's output directory. */
export function rigFixture(source: RigOptionsSource): PlaywrightRigFixture {
  // Playwright reads what is taken apart here, to know which fixtures this one needs: none.
  // eslint-disable-next-line no-empty-pattern
  return async ({}, use, testInfo) => {
    const options = typeof source === 'function' ? await source() : source;
    const rig = await openRig({ name: testInfo.title, outputDir: testInfo.outputPath(), ...options });
    try {
      await use(rig);
    } finally {
      if (testInfo.status !== testInfo.expectedStatus) await rig.fail(testInfo.error);
      try {
        await rig.close();
      } finally {
        for (const { name, path, contentType } of rig.attachments) {
          await testInfo.attach(name, { path, contentType });
        }
      }
    }
  };
}
