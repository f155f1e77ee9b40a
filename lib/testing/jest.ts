/**
 * Rigs in Jest: `rigTest` is `test` with a rig.
 *
 * ```ts
 * const test = rigTest({ device: () => new EduDevice(), map: 'edu.json' });
 * test('identification', async ({ rig }) => rig.expectRegister('ID', 0x010000ed));
 * ```
 * What a failed test leaves is named on the console as `[[ATTACHMENT|path]]`, which jest-junit puts into JUnit's `system-out`
 * (`includeConsoleOutput`).
 * @packageDocumentation
 */
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
}

/** Jest's `test`, as far as it is used. */
export type JestTest = (name: string, body: () => Promise<unknown>, timeoutMs?: number) => unknown;

/** `test` with a rig. */
export type RigTest = (name: string, body: (context: RigTestContext) => unknown, timeoutMs?: number) => void;

/**
 * Makes a `test` whose tests have a rig each, which is open when they begin and closed when they end.
 *
 * @param options - of each rig, whose name is the test's
 * @param test - Jest's, by default the global one
 * @throws TypeError where there is none.
 */
export function rigTest(
  options: RigOptionsSource,
  test: JestTest | undefined = (globalThis as { test?: JestTest }).test,
): RigTest {
  if (typeof test !== 'function')
    throw new TypeError('rigTest: there is no global test: give it as the second argument');
  return (name, body, timeoutMs) => {
    const run = (): Promise<void> =>
      runWithRig(
        options,
        name,
        (rig) => body({ rig }),
        (attachment) => console.log(attachmentLine(attachment)),
      );
    test(name, run, timeoutMs);
  };
}
