/** Every program in the README and the documents runs, and prints what its comments say. */
import { afterAll, expect, jest, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { EduDevice } from '../../lib/emulator/index.js';
import { outcomeOf } from '../cli/cli.js';
import { programs, ROOT } from './programs.js';
import { HAS_OPENSSL, Surroundings } from './surroundings.js';

jest.setTimeout(60_000);

// In this package, so that programs find 'vfio-user'. Not in beforeAll: concurrent tests begin before it.
mkdirSync(path.join(ROOT, 'build'), { recursive: true });
const directory = mkdtempSync(path.join(ROOT, 'build', 'docs-'));

afterAll(() => rmSync(directory, { recursive: true }));

const all = programs();

test('there are programs', () => {
  expect(all.length).toBeGreaterThan(20);
});

/** Several at once: most of their time is Node's start. */
test.concurrent.each(all)('$name', async ({ name, source, output }) => {
  if (source.includes('node:tls') && !HAS_OPENSSL) return;
  await using surroundings = new Surroundings();
  const file = path.join(directory, `${name.replaceAll(/\W/g, '-')}.mjs`);
  writeFileSync(file, await surroundings.prepare(source));
  const { env } = surroundings;
  const child = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'pipe'], env });
  const { status, stdout, stderr } = await outcomeOf(child);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  if (output !== undefined) expect(stdout).toBe(output);
  if (!name.startsWith('README.md')) return;
  const { buffer } = surroundings.devices.get('edu.sock') as EduDevice;
  expect(buffer.toString('utf8', 0, 13)).toBe('hello, device');
});
