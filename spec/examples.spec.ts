/** Every example runs, against the embedded emulator in a process of its own. */
import { describe, expect, jest, test } from '@jest/globals';
import { readFileSync, readdirSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { runExample } from './support/example.js';
import { Scratch } from './cli/cli.js';

jest.setTimeout(60_000);

describe('edu', () => {
  test('verifies every step', async () => {
    const { status, stdout, stderr } = await runExample('edu');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const lines = stdout.trimEnd().split('\n');
    const steps = lines.filter((line) => /^ ?\d+ {2}\S/.test(line));
    expect(lines.at(-1)).toMatch(new RegExp(`^all ${steps.length} steps verified`));
    for (const what of [
      /1234:11e8/,
      /0x010000ed/,
      /0xedcba987/,
      /10! = 3628800/,
      /12! = 479001600, 1 interrupt/,
    ]) {
      expect(stdout).toMatch(what);
    }
    expect(stdout.match(/2048 bytes from .* into the device and on to .*, equal/g)).toHaveLength(2);
  });

  test('says which step failed, and exits with 1', async () => {
    const scratch = new Scratch();
    const path = scratch.path('socket');
    const connections: Socket[] = [];
    const server = createServer((connection) => {
      connections.push(connection);
      connection.destroy();
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    try {
      const { status, stdout, stderr } = await runExample('edu', '--socket', path);
      expect(status).toBe(1);
      expect(stdout).toMatch(/ 1 {2}open +FAILED/);
      expect(stdout).not.toMatch(/verified/);
      expect(stderr).toMatch(/^step 1 \(open\) failed: .+\n$/);
    } finally {
      await new Promise((resolve) => server.close(resolve));
      scratch.remove();
    }
  });
});

test('each is below sixty lines, is in the package and in examples/README.md', () => {
  const directory = new URL('../examples/', import.meta.url);
  const names = readdirSync(directory).filter((name) => name.endsWith('.ts'));
  expect(names.length).toBeGreaterThan(5);
  const readme = readFileSync(new URL('README.md', directory), 'utf8');
  for (const name of names) {
    const lines = readFileSync(new URL(name, directory), 'utf8').split('\n').length - 1;
    expect({ name, isShort: lines < 60, isListed: readme.includes(`(${name})`) }).toEqual({
      name,
      isShort: true,
      isListed: true,
    });
  }
  const { files } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    files: string[];
  };
  expect(files).toContain('examples');
});

describe('the small ones', () => {
  test('hello', async () => {
    const { status, stdout } = await runExample('hello');
    expect(status).toBe(0);
    expect(stdout).toMatch(/^found 1234:11e8 in the embedded emulator/);
    expect(stdout).toMatch(/the first register of BAR 0 is 0x010000ed\n$/);
  });

  test('interrupts', async () => {
    const { status, stdout } = await runExample('interrupts');
    expect(status).toBe(0);
    expect(stdout.split('\n')).toEqual([
      'MSI: waited, 1 interrupt, status 0x1',
      'MSI: heard 1 interrupt',
      'MSI: iterated over 3 interrupts',
      '5 interrupts in all',
      '',
    ]);
  });

  test('migrate', async () => {
    const { status, stdout, stderr } = await runExample('migrate');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/the destination knows it: "what the device knew", 0xcafe/);
    expect(stdout).toMatch(/^1 interrupt from the destination$/m);
  });

  test('dma', async () => {
    const { status, stdout } = await runExample('dma');
    expect(status).toBe(0);
    expect(stdout).toMatch(/"moved by the device, through shared memory"/);
    expect(stdout).toMatch(/"moved by the device, by messages"/);
  });
});
