/**
 * Rigs in Vitest: a fixture for `test.extend`.
 *
 * ```ts
 * import { test as base } from 'vitest';
 * const test = base.extend({ rig: rigFixture({ device: () => new EduDevice(), map: 'edu.json' }) });
 * test('identification', async ({ rig }) => rig.expectRegister('ID', 0x010000ed));
 * ```
 * What a failed test leaves is annotated to it where Vitest has annotations (3.2), and named on the console as
 * `[[ATTACHMENT|path]]`, which the junit reporter puts into `system-out`.
 * @packageDocumentation
 */
import { attachmentLine, type RigOptionsSource } from './adapter.js';
import type { RigAttachment } from './evidence.js';
import { openRig, type Rig } from './rig.js';

export type { RigOptionsSource } from './adapter.js';
export type { RigAttachment } from './evidence.js';
export type { RigOptions } from './rig-options.js';
export { ExpectationError, RigError, openRig, withRig } from './index.js';
export { Rig } from './rig.js';

/** What of Vitest's test context is used. */
export interface VitestContext {
  /** The test. */
  readonly task: {
    readonly name: string;
    readonly result?:
      { readonly state?: string; readonly errors?: readonly unknown[] | undefined } | undefined;
  };
  /** Vitest 3.2 and later. */
  readonly annotate?:
    ((message: string, attachment: { path: string; contentType: string }) => unknown) | undefined;
}

/** A fixture, in the form that `test.extend` takes. */
export type VitestRigFixture = (context: VitestContext, use: (rig: Rig) => Promise<void>) => Promise<void>;

/** The fixture: a rig for each test that asks for it, named after the test. */
export function rigFixture(source: RigOptionsSource): VitestRigFixture {
  // Vitest reads the names of what is taken apart here, to know which fixtures this one needs.
  return async ({ task, annotate }, use) => {
    const options = typeof source === 'function' ? await source() : source;
    const rig = await openRig({ name: task.name, ...options });
    try {
      await use(rig);
    } finally {
      if (task.result?.state === 'fail') await rig.fail(task.result.errors?.[0]);
      try {
        await rig.close();
      } finally {
        for (const attachment of rig.attachments) await report(attachment, annotate);
      }
    }
  };
}

async function report(attachment: RigAttachment, annotate: VitestContext['annotate']): Promise<void> {
  console.log(attachmentLine(attachment));
  const { name, path, contentType } = attachment;
  try {
    await annotate?.(name, { path, contentType });
  } catch {
    // Vitest takes no annotations once a test is over: the console has said it.
  }
}
