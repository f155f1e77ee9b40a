/** Asks before what cannot be undone. */
import { createInterface } from 'node:readline/promises';
import { UsageError } from './errors.js';
import { interruptible } from './stop-signals.js';

/**
 * Goes on where the answer on the terminal is yes.
 * @throws UsageError without a terminal, and for another answer.
 */
export async function confirm(question: string, flag: string): Promise<void> {
  if (!process.stdin.isTTY || !process.stderr.isTTY)
    throw new UsageError(`${question} There is no terminal to ask on: ${flag} goes on without asking`);
  const answer = await interruptible(async (signal) => {
    const terminal = createInterface({ input: process.stdin, output: process.stderr });
    try {
      return await terminal.question(`${question} Type yes to go on: `, { signal });
    } finally {
      terminal.close();
    }
  });
  if (answer.trim().toLowerCase() !== 'yes') throw new UsageError('nothing was done');
}
