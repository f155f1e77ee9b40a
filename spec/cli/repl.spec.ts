import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { statSync, readFileSync } from 'node:fs';
import { EduDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { HAS_SCRIPT, Scratch, outcomeOf, start, startOnTerminal, vfioUser, vfioUserWith } from './cli.js';

jest.setTimeout(60_000);

let scratch: Scratch;
let socket: string;
let server: EmulatorServer;

beforeEach(async () => {
  scratch = new Scratch();
  socket = scratch.path('edu');
  server = await serve(new EduDevice(), { path: socket });
});

afterEach(async () => {
  await server.close();
  scratch.remove();
});

const script = (...lines: string[]) => vfioUserWith(lines.join('\n'), 'repl', socket);

describe('vfio-user repl, with a script on stdin', () => {
  test('has the device in it, awaits, and prints values one line after the other', async () => {
    const { status, stdout, stderr } = await script(
      'const id = await bar0.readUInt32(0)',
      'hex(id)',
      'id',
      'config.deviceId.toString(16)',
      'await new Promise((resolve) => setTimeout(resolve, 50))',
      'function half(value) {',
      '  return value / 2',
      '}',
      'half(6)',
      'device.bar(0) === bar0 && irqs === device.irqs',
      'await device.reset()',
      '"end"',
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toBe("'0x10000ed'\n16777453 (0x10000ed)\n'11e8'\n3\ntrue\n'end'\n");
  });

  test.each([
    ['thrown', 'bar0.nope()', /^vfio-user: bar0\.nope is not a function \[TypeError\]\n$/],
    ['awaited', 'await bar0.readUInt32(2)', /^vfio-user: REGION_READ: the server answered EINVAL\n$/],
    ['of syntax', 'this is no script', /\[SyntaxError\]\n$/],
    ['that is no Error', 'throw 5', /^vfio-user: 5 was thrown\n$/],
  ])('ends at the first error (%s)', async (_kind, line, message) => {
    const { status, stdout, stderr } = await script('1 + 1', line, '"not reached"');
    expect({ status, stdout }).toEqual({ status: 1, stdout: '2\n' });
    expect(stderr).toMatch(message);
  });

  test('says that a script ends too early; .exit ends it as planned', async () => {
    expect(await script('let x = {')).toMatchObject({ status: 1, stdout: '' });
    expect(await script('1', '.exit', '2')).toMatchObject({ status: 0, stdout: '1\n', stderr: '' });
    expect(await script('')).toMatchObject({ status: 0, stdout: '', stderr: '' });
  });

  test('fails where the device is lost under it', async () => {
    const child = start(['repl', socket]);
    const outcome = outcomeOf(child);
    child.stdin!.on('error', () => {});
    child.stdin!.write('1\n');
    await new Promise((resolve) => child.stdout!.once('data', resolve));
    await server.close();
    child.stdin!.end('await bar0.readUInt32(0)\n');
    const { status, stderr } = await outcome;
    expect(stderr).toMatch(/^vfio-user: the server closed the connection/);
    expect(status).toBe(1);
  });
});

(HAS_SCRIPT ? describe : describe.skip)('vfio-user repl, on a terminal (needs script)', () => {
  test('prompts with the device, remembers lines for their user alone, tells of a lost device', async () => {
    const state = scratch.path('state');
    const child = startOnTerminal(['repl', socket], { XDG_STATE_HOME: state });
    const outcome = outcomeOf(child);
    let text = '';
    const seen = (wanted: string) =>
      new Promise<void>((resolve) => {
        const look = () => text.includes(wanted) && resolve();
        child.stdout!.on('data', look);
        look();
      });
    child.stdout!.on('data', (chunk: Buffer) => (text += chunk.toString()));
    await seen('1234:11e8> ');
    child.stdin!.write('await bar0.readUInt32(0)\r');
    await seen('16777453');
    await server.close();
    await seen('the device is lost');
    child.stdin!.write('.exit\r');
    const { status } = await outcome;
    expect(status).toBe(0);
    expect(text).toMatch(/device, .*bar0, .*config.* are there/);
    const history = `${state}/vfio-user/repl_history`;
    expect(statSync(history).mode & 0o777).toBe(0o600);
    expect(readFileSync(history, 'utf8')).toMatch(/await bar0\.readUInt32\(0\)/);
  });
});

test('repl says in a line what is wrong', async () => {
  expect(await vfioUser('repl')).toMatchObject({ status: 2 });
  expect(await vfioUser('repl', socket, 'again')).toMatchObject({ status: 2 });
  expect((await vfioUser('repl', '/nonexistent')).stderr).toContain(
    'vfio-user: connect: ENOENT (/nonexistent does not exist; is the server running?',
  );
});
