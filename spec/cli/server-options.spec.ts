/** What all verbs that serve have: the socket's permissions, readiness, and the end with the parent. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, openSync, readFileSync, statSync } from 'node:fs';
import { until } from '../support/until.js';
import { MAIN, Scratch, environment, start, vfioUser } from './cli.js';

jest.setTimeout(60_000);

let scratch: Scratch;
let socket: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  scratch = new Scratch();
  socket = scratch.path('dev');
});

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  scratch.remove();
});

async function emulate(...options: string[]): Promise<ChildProcess> {
  const child = start(['emulate', 'edu', '--socket', socket, ...options]);
  children.push(child);
  await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')]);
  return child;
}

const permissions = (): string => (statSync(socket).mode & 0o777).toString(8);

describe('--mode and --group', () => {
  test('the socket is for its owner alone where nothing is said', async () => {
    await emulate();
    expect(permissions()).toBe('600');
  });

  test('are those of the socket file', async () => {
    const gid = process.getgid!();
    await emulate('--mode', '660', '--group', `${gid}`);
    expect(permissions()).toBe('660');
    expect(statSync(socket).gid).toBe(gid);
  });

  test('a group has a name', async () => {
    const gid = process.getgid!();
    const name = readFileSync('/etc/group', 'utf8')
      .split('\n')
      .map((line) => line.split(':'))
      .find((fields) => fields[2] === `${gid}`)?.[0];
    if (name === undefined) return;
    await emulate('--mode', '0660', '--group', name);
    expect([permissions(), statSync(socket).gid]).toEqual(['660', gid]);
  });

  test.each([
    [['--mode', '8'], /It is three octal digits/],
    [['--mode', '4755'], /It is three octal digits/],
    [['--group', '--help'], /argument missing|name or the number of a group/],
    [['--group', 'a b'], /name or the number of a group/],
  ])('%j is wrong usage', async (options, message) => {
    const { status, stderr } = await vfioUser('emulate', 'edu', '--socket', socket, ...options);
    expect(stderr).toMatch(message);
    expect(status).toBe(2);
  });

  test('a group that does not exist is said before anything listens', async () => {
    const outcome = await vfioUser('emulate', 'edu', '--socket', socket, '--group', 'no-such-group-here');
    expect(outcome).toMatchObject({ status: 1, stdout: '' });
    expect(outcome.stderr).toMatch(/there is no group no-such-group-here: `groupadd/);
    expect(existsSync(socket)).toBe(false);
  });

  test('an abstract name has neither', async () => {
    const outcome = await vfioUser('emulate', 'edu', '--socket', '@vfio-user-spec', '--mode', '660');
    expect(outcome).toMatchObject({ status: 2, stdout: '' });
    expect(outcome.stderr).toMatch(/is an abstract name, which has no --mode and no --group/);
  });
});

describe('--ready-fd', () => {
  test('gets a line once the server listens, and its end', async () => {
    const child = start(
      ['emulate', 'edu', '--socket', socket, '--ready-fd', '3'],
      ['ignore', 'pipe', 'pipe', 'pipe'],
    );
    children.push(child);
    const ready = child.stdio[3] as NodeJS.ReadableStream;
    let said = '';
    ready.on('data', (chunk: Buffer) => (said += chunk.toString()));
    await once(ready, 'end');
    expect(said).toBe('ready\n');
    expect(existsSync(socket)).toBe(true);
    expect((await vfioUser('read', socket, 'bar0', '0')).stdout).toBe('0x010000ed\n');
  });

  test('must have been inherited', async () => {
    const outcome = await vfioUser('emulate', 'edu', '--socket', socket, '--ready-fd', '700');
    expect(outcome).toMatchObject({ status: 2, stdout: '' });
    expect(outcome.stderr).toMatch(/this process has inherited no fd 700/);
    // Node's own: an epoll instance, its eventfds and pipes.
    for (const fd of [1, 3, 4, 5, 6, 7]) {
      const own = await vfioUser('emulate', 'edu', '--socket', socket, '--ready-fd', `${fd}`);
      expect(own).toMatchObject({ status: 2, stdout: '' });
    }
  });

  test('must be one that can be written', async () => {
    const child = start(
      ['emulate', 'edu', '--socket', socket, '--ready-fd', '3'],
      ['ignore', 'pipe', 'pipe', openSync('/dev/null', 'r')],
    );
    children.push(child);
    let said = '';
    child.stderr!.on('data', (chunk: Buffer) => (said += chunk.toString()));
    const [status] = (await once(child, 'close')) as [number];
    expect(status).toBe(2);
    expect(said).toMatch(/fd 3 \(\/dev\/null\) cannot be written/);
  });
});

test('--exit-with-parent ends the server, and removes its socket, when the parent is killed', async () => {
  const command = `"$0" "$1" emulate edu --socket "$2" --exit-with-parent & wait`;
  const parent = spawn('sh', ['-c', command, process.execPath, MAIN, socket], {
    stdio: 'ignore',
    env: environment(),
  });
  children.push(parent);
  await until(() => existsSync(socket));
  parent.kill('SIGKILL');
  await until(() => !existsSync(socket));
});
