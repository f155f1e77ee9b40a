/** The program in the README runs, and says what its comments say. */
import { expect, jest, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { EduDevice, serve } from '../lib/emulator/index.js';
import { Scratch, outcomeOf } from './cli/cli.js';

jest.setTimeout(60_000);

const root = fileURLToPath(new URL('..', import.meta.url));

/** The first block of JavaScript. */
function program(): string {
  const readme = readFileSync(path.join(root, 'README.md'), 'utf8');
  return /```js\n([^]*?)```/.exec(readme)![1]!;
}

test('the program in README.md', async () => {
  const source = program();
  expect(source).toContain("'/tmp/edu.sock'");
  const scratch = new Scratch();
  const socket = scratch.path('edu');
  const device = new EduDevice({ strict: true });
  const server = await serve(device, { path: socket });
  // In this package, so that it finds 'vfio-user'.
  const directory = mkdtempSync(path.join(root, 'build', 'readme-'));
  try {
    const file = path.join(directory, 'program.mjs');
    writeFileSync(file, source.replace('/tmp/edu.sock', socket));
    const { status, stdout, stderr } = await outcomeOf(
      spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'pipe'] }),
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toBe('1234:11e8\n10000ed\n1 interrupt\n');
    expect(device.buffer.toString('utf8', 0, 13)).toBe('hello, device');
  } finally {
    await server.close();
    rmSync(directory, { recursive: true });
    scratch.remove();
  }
});
