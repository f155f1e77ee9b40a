/** Runs a built example to its end. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { outcomeOf, type Outcome } from '../cli/cli.js';

export function runExample(name: string, ...args: string[]): Promise<Outcome> {
  const file = fileURLToPath(new URL(`../../build/tools/examples/${name}.js`, import.meta.url));
  return outcomeOf(spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'pipe'] }));
}
