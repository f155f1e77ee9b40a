/** What all test frameworks have in common: a test that is given a rig, named after it, and whose evidence is reported. */
import type { RigAttachment } from './evidence.js';
import type { RigOptions } from './rig-options.js';
import { withRig, type Rig } from './rig.js';

/** Options of a rig, or a function that makes them for each test. */
export type RigOptionsSource = RigOptions | (() => RigOptions | Promise<RigOptions>);

/** Runs a test with a rig of its own. `report` is called with what a failed test leaves, one by one. */
export async function runWithRig(
  source: RigOptionsSource,
  name: string,
  body: (rig: Rig) => unknown,
  report: (attachment: RigAttachment) => unknown,
): Promise<void> {
  const options = typeof source === 'function' ? await source() : source;
  await withRig({ name, ...options }, body, async (rig) => {
    for (const attachment of rig.attachments) await report(attachment);
  });
}

/** The line by which JUnit's readers (Jenkins, GitLab) find a file that belongs to a test. */
export function attachmentLine({ path }: RigAttachment): string {
  return `[[ATTACHMENT|${path}]]`;
}
