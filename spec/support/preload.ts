/** Libraries in C that a spec preloads into a process, to stand between the addon and the kernel there. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const compiler = process.env['CC'] ?? 'cc';

/** No sanitizer stands between the two itself; and UBSan needs a pipe to look at an object. */
export const isPlain = process.env['LD_PRELOAD'] === undefined;

export const canPreload = isPlain && spawnSync(compiler, ['--version']).status === 0;

/** Compiles `spec/support/NAME.c` into `directory`. Returns what is to be preloaded. */
export function compilePreload(name: string, directory: string): string {
  const source = fileURLToPath(new URL(`${name}.c`, import.meta.url));
  const library = join(directory, `${name}.so`);
  const { status, stderr } = spawnSync(compiler, ['-shared', '-fPIC', '-o', library, source], {
    encoding: 'utf8',
  });
  if (status !== 0 || stderr !== '') throw new Error(`${compiler} ended with ${status}: ${stderr}`);
  return library;
}
