import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { Scratch, outcomeOf, start, vfioUser } from './cli.js';

jest.setTimeout(60_000);

let scratch: Scratch;
let socket: string;
let child: ChildProcess | undefined;

beforeEach(() => {
  scratch = new Scratch();
  socket = scratch.path('edu');
});

afterEach(() => {
  child?.kill('SIGKILL');
  scratch.remove();
});

/** Starts the emulator; resolves when it says where it listens. */
async function emulate(at: string): Promise<ChildProcess> {
  child = start(['emulate', 'edu', '--socket', at]);
  // One that does not start ends, and says nothing on stdout.
  const said = await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')]);
  expect(String(said[0])).toBe(`listening on ${at}\n`);
  return child;
}

describe('emulate ram', () => {
  test('has memory that can be mapped', async () => {
    child = start(['emulate', 'ram', '--socket', socket]);
    const { stdout } = await vfioUser('info', socket, '--wait', '--json');
    const report = JSON.parse(stdout) as { regions: { mmap: unknown[] }[] };
    expect(report).toMatchObject({ vendorId: 0x1234, deviceId: 0x5241 });
    expect(report.regions[1]!.mmap.length).toBeGreaterThan(0);
  });
});

describe('emulate edu', () => {
  test.each(['SIGINT', 'SIGTERM'] as const)('serves until %s, and removes its socket', async (signal) => {
    const server = await emulate(socket);
    expect((await vfioUser('read', socket, 'bar0', '0')).stdout).toBe('0x010000ed\n');
    server.kill(signal);
    const [status] = (await once(server, 'exit')) as [number | null];
    expect(status).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });

  test('one client after the other finds the device as it was left', async () => {
    await emulate(socket);
    await vfioUser('write', socket, 'bar0', '4', '0');
    expect((await vfioUser('read', socket, 'bar0', '4')).stdout).toBe('0xffffffff\n');
  });

  test('on an abstract socket', async () => {
    const name = `@vfio-user-spec-${process.pid}`;
    await emulate(name);
    expect((await vfioUser('read', name, 'bar0', '0')).stdout).toBe('0x010000ed\n');
  });

  test('--wait finds a server that starts later', async () => {
    const info = vfioUser('info', socket, '--json', '--wait', '--timeout', '20000');
    await emulate(socket);
    expect(await info).toMatchObject({ status: 0, stderr: '' });
  });

  test('does not take a socket that somebody listens on, or a file', async () => {
    await emulate(socket);
    const second = await outcomeOf(start(['emulate', 'edu', '--socket', socket]));
    expect(second).toMatchObject({ status: 1, stdout: '' });
    expect(second.stderr).toMatch(/^vfio-user: bind: EADDRINUSE \(.*\)\n$/);
    const file = scratch.path('file');
    writeFileSync(file, 'precious');
    expect((await vfioUser('emulate', 'edu', '--socket', file)).stderr).toMatch(/is not a socket/);
    expect(existsSync(file)).toBe(true);
  });

  test.each(['tcp:4420', 'tcp:127.0.0.1:0', 'fd:3', 'vsock:3:4420'])(
    'nor makes a file that is called %s',
    async (name) => {
      for (const verb of [
        ['emulate', 'edu'],
        ['replay', 'dev.pcapng'],
      ]) {
        const { status, stdout, stderr } = await vfioUser(...verb, '--socket', name);
        expect([status, stdout]).toEqual([2, '']);
        expect(stderr).toContain(`vfio-user: --socket is a path or @name, not '${name}'`);
        expect(stderr.includes('`vfio-user proxy` listens on TCP')).toBe(name.startsWith('tcp:'));
        expect(existsSync(name)).toBe(false);
      }
    },
  );
});
