import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import type { EmulatorServer } from '../../lib/emulator/index.js';
import { Scratch, vfioUser } from './cli.js';
import { serveEdu } from './emulator.js';

jest.setTimeout(60_000);

const scratch = new Scratch();
const socket = scratch.path('edu');
let server: EmulatorServer;

beforeAll(async () => {
  server = await serveEdu(socket);
});

afterAll(async () => {
  await server.close();
  scratch.remove();
});

describe('lspci', () => {
  test('dumps all of config space', async () => {
    const { status, stdout, stderr } = await vfioUser('lspci', socket);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const lines = stdout.split('\n');
    expect(lines[0]).toMatch(/^00:00\.0 .*1234:11e8$/);
    expect(lines[1]).toBe('00: 34 12 e8 11 00 00 10 00 10 00 ff 00 00 00 00 00');
    expect(lines).toHaveLength(1 + 16 + 2);
  });

  test('at the slot that was asked for', async () => {
    const { stdout } = await vfioUser('lspci', socket, '--slot', '0001:3f:1f.7');
    expect(stdout).toMatch(/^0001:3f:1f\.7 /);
  });

  test('a slot that cannot be is wrong usage', async () => {
    const { status, stdout, stderr } = await vfioUser('lspci', socket, '--slot', '00:20.0');
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(/^vfio-user: .*'00:20\.0' is no slot.*\n$/);
  });
});

const hasLspci = spawnSync('lspci', ['--version']).status === 0;

(hasLspci ? describe : describe.skip)('pciutils (needs lspci on PATH)', () => {
  test('finds in the dump what the device has', async () => {
    const { stdout: dump } = await vfioUser('lspci', socket);
    const file = scratch.path('dump');
    writeFileSync(file, dump);
    const { stdout, status } = spawnSync('lspci', ['-F', file, '-nn', '-vv'], { encoding: 'utf8' });
    expect(status).toBe(0);
    expect(stdout).toMatch(/^00:00\.0 Unclassified device \[00ff\].*\[1234:11e8\] \(rev 10\)/);
    expect(stdout).toMatch(/Interrupt: pin A/);
    expect(stdout).toMatch(/Capabilities: \[40\] MSI: Enable- Count=1\/1/);
  });
});
