/** Where things are, wherever this runs from: the sources, or what is compiled of them. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = findRoot(path.dirname(fileURLToPath(import.meta.url)));
export const CLI = path.join(ROOT, 'dist/cli/main.js');
/** What is built for the benchmark, and what it reports. */
export const OUTPUT = path.join(ROOT, 'build/bench');

function findRoot(from: string): string {
  if (existsSync(path.join(from, 'package.json'))) return from;
  if (path.dirname(from) === from) throw new Error('no package.json above the benchmark');
  return findRoot(path.dirname(from));
}
