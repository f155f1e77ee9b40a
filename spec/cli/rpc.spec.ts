/** `vfio-user rpc`: JSON lines, and the Python file on top of them. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { spawn, spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { EmulatorServer } from '../../lib/emulator/index.js';
import { MAIN, Scratch, environment, outcomeOf, vfioUserWith } from './cli.js';
import { serveEdu } from './emulator.js';

jest.setTimeout(120_000);

const PYTHON = fileURLToPath(new URL('../../examples/python', import.meta.url));
const EDU_MAP = path.join(PYTHON, 'edu.json');
const hasPytest = spawnSync('python3', ['-m', 'pytest', '--version']).status === 0;
const hasMypy = spawnSync('python3', ['-m', 'mypy', '--version']).status === 0;

let scratch: Scratch;
let socket: string;
let server: EmulatorServer;

beforeEach(async () => {
  scratch = new Scratch();
  socket = scratch.path('edu');
  server = await serveEdu(socket);
});

afterEach(async () => {
  await server.close();
  scratch.remove();
});

type Answer = { id: unknown; result?: unknown; error?: { code: string; message: string } };

/** The answers to these lines, by their ids. */
async function answers(lines: readonly unknown[], ...more: string[]): Promise<Answer[]> {
  const text = lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n');
  const { status, stdout, stderr } = await vfioUserWith(`${text}\n`, 'rpc', socket, ...more);
  expect([status, stderr]).toEqual([0, '']);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Answer);
}

function resultOf(all: readonly Answer[], id: unknown): unknown {
  return all.find((one) => one.id === id)?.result;
}

describe('requests', () => {
  test('open is answered, and what does not wait for it is told so', async () => {
    const bar = { region: 'bar0' };
    const all = await answers([
      { id: 1, method: 'open' },
      // What follows without waiting is begun before the device is open.
      { id: 'early', method: 'read', params: { ...bar, offset: 0 } },
    ]);
    expect(resultOf(all, 1)).toMatchObject({ vendorId: 0x1234, deviceId: 0x11e8, irqs: { msi: 1 } });
    expect(all.find(({ id }) => id === 'early')?.error).toMatchObject({ code: 'ERR_VFIO_USER_RPC' });
  });

  const MALFORMED: readonly [string, unknown, string, RegExp][] = [
    ['no JSON', '{', 'ERR_VFIO_USER_RPC', /no JSON/],
    ['a list', [1], 'ERR_VFIO_USER_RPC', /a request is an object/],
    ['null', 'null', 'ERR_VFIO_USER_RPC', /a request is an object/],
    ['no id', { method: 'open' }, 'ERR_VFIO_USER_RPC', /the id of a request/],
    ['a long id', { id: 'x'.repeat(65), method: 'open' }, 'ERR_VFIO_USER_RPC', /the id of a request/],
    ['no method', { id: 1 }, 'ERR_VFIO_USER_RPC', /the method of a request/],
    ['a method that is none', { id: 1, method: 'raed' }, 'ERR_VFIO_USER_RPC', /there is no method "raed"/],
    ['one of Object’s', { id: 1, method: 'constructor' }, 'ERR_VFIO_USER_RPC', /there is no method/],
    [
      'params of a list',
      { id: 1, method: 'open', params: [] },
      'ERR_INVALID_ARG_TYPE',
      /params must be an object/,
    ],
    [
      'an unknown parameter',
      { id: 1, method: 'open', params: { enabel: true } },
      'ERR_INVALID_ARG_VALUE',
      /did you mean enable/,
    ],
    [
      'a wrong value',
      { id: 1, method: 'write', params: { value: -1 } },
      'ERR_INVALID_ARG_TYPE',
      /value must be an unsigned integer/,
    ],
    [
      'a wrong number',
      { id: 1, method: 'write', params: { value: '0x10000000000000000' } },
      'ERR_INVALID_ARG_TYPE',
      /64 bits/,
    ],
    [
      'no base64',
      { id: 1, method: 'writeBytes', params: { data: '###=' } },
      'ERR_INVALID_ARG_TYPE',
      /base64/,
    ],
    ['before open', { id: 1, method: 'reset' }, 'ERR_VFIO_USER_RPC', /open comes first/],
    [
      'a name without a map',
      { id: 1, method: 'read', params: { register: 'ID' } },
      'ERR_VFIO_USER_RPC',
      /needs --map/,
    ],
    ['too long a line', `{"id":1,"x":"${'y'.repeat((2 << 20) + 1)}"}`, 'ERR_VFIO_USER_RPC', /too long/],
  ];

  test('what makes no sense is answered by an error, each, and what comes after it is carried out', async () => {
    const lines = MALFORMED.map(([, line]) => line);
    const all = await answers([...lines, { id: 'next', method: 'open' }]);
    expect(all).toHaveLength(MALFORMED.length + 1);
    for (const [i, [name, , code, message]] of MALFORMED.entries()) {
      expect([name, all[i]?.error?.code]).toEqual([name, code]);
      expect(all[i]?.error?.message).toMatch(message);
    }
    expect(all.at(-1)).toMatchObject({ id: 'next', result: { vendorId: 0x1234 } });
  });

  test('a server that is not there is an answer, too', async () => {
    await server.close();
    const [answer] = await answers([{ id: 7, method: 'open' }]);
    expect(answer).toMatchObject({ id: 7, error: { code: 'ENOENT' } });
  });
});

const withPytest = hasPytest ? test : test.skip;
withPytest('examples/python with pytest (needs python3 and pytest)', async () => {
  const env = environment({
    VFIO_USER: `${process.execPath} ${MAIN}`,
    VFIO_USER_DEVICE: socket,
    VFIO_USER_MAP: EDU_MAP,
    PYTHONDONTWRITEBYTECODE: '1',
  });
  const args = ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', PYTHON];
  const child = spawn('python3', args, { env, stdio: ['ignore', 'pipe', 'pipe'], cwd: scratch.directory });
  const { status, stdout } = await outcomeOf(child, 100_000);
  expect(stdout).toMatch(/4 passed/);
  expect(status).toBe(0);
});

const withMypy = hasMypy ? test : test.skip;
withMypy('examples/python with mypy --strict (needs mypy)', async () => {
  const args = ['-m', 'mypy', '--strict', '--cache-dir', scratch.path('mypy'), 'vfio_user.py', 'test_edu.py'];
  const child = spawn('python3', args, { cwd: PYTHON, stdio: ['ignore', 'pipe', 'pipe'] });
  expect(await outcomeOf(child, 100_000)).toMatchObject({ status: 0 });
});
