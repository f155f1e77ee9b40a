/**
 * Rigs in Node's own test runner: `rigTest` is `test` with a rig.
 *
 * ```ts
 * const test = rigTest({ device: () => new EduDevice(), map: 'edu.json' });
 * test('identification', async ({ rig }) => rig.expectRegister('ID', 0x010000ed));
 * ```
 * What a failed test leaves is named by its diagnostics as `[[ATTACHMENT|path]]`, which the junit reporter writes, too.
 * @packageDocumentation
 */
import { test as nodeTest, type TestContext } from 'node:test';
import { attachmentLine, runWithRig, type RigOptionsSource } from './adapter.js';
import type { Rig } from './rig.js';

export type { RigOptionsSource } from './adapter.js';
export type { RigAttachment } from './evidence.js';
export type { RigOptions } from './rig-options.js';
export { ExpectationError, RigError, openRig, withRig } from './index.js';
export { Rig } from './rig.js';

/** What a test is given. */
export interface RigTestContext {
  /** Its rig, which is open. */
  readonly rig: Rig;
  /** What the runner gives it. */
  readonly t: TestContext;
}

/** `test` with a rig. */
export type RigTest = (name: string, body: (context: RigTestContext) => unknown) => Promise<void>;

/** Makes a `test` whose tests have a rig each, named after the test, open when it begins and closed when it ends. */
export function rigTest(options: RigOptionsSource): RigTest {
  return (name, body) =>
    nodeTest(name, async (t) => {
      await runWithRig(
        options,
        name,
        (rig) => body({ rig, t }),
        (attachment) => t.diagnostic(attachmentLine(attachment)),
      );
    });
}
