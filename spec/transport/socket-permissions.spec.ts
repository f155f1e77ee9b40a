/** Sockets that others can replace or use are told of, or refused. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { connect, type ConnectOptions } from '../../lib/device/connect.js';
import { RamDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { ClosedError } from '../../lib/errors.js';
import { openFds } from '../support/fds.js';

const CODE = 'VFIO_USER_SOCKET_PERMISSIONS';
/** Somebody else, without a name on most systems. */
const STRANGER = 54_321;
const asRoot = process.geteuid!() === 0 ? test : test.skip;

let scratch: string;
let server: EmulatorServer;
let device: RamDevice;
let cleanup = (): unknown => undefined;
let warn: jest.SpiedFunction<typeof process.emitWarning>;

beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  device = new RamDevice({ sharedSize: 0 });
  warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
});

afterEach(async () => {
  cleanup();
  warn.mockRestore();
  await server.close();
  device.close();
  rmSync(scratch, { recursive: true });
});

/** A served socket in a directory of these modes. */
async function socket(socketMode: number, directoryMode = 0o755): Promise<string> {
  chmodSync(scratch, 0o755);
  const directory = join(scratch, 'd');
  mkdirSync(directory);
  const path = join(directory, 's');
  server = await serve(device, { path, mode: socketMode });
  chmodSync(directory, directoryMode);
  return path;
}

/** Opens the device and closes it; what was warned of. */
async function warnings(path: string, options: ConnectOptions = {}): Promise<string[]> {
  const opened = await connect(path, options);
  await opened.close();
  return warn.mock.calls.map(([message, options]) => {
    expect(options).toEqual({ type: 'VfioUserWarning', code: CODE });
    return String(message);
  });
}

describe('nothing is said of', () => {
  test.each([
    ['a socket of our own', 0o600, 0o755],
    ['one that a group may connect to', 0o660, 0o770],
    ['one that all may connect to, in a directory that they cannot enter', 0o777, 0o700],
    ['one in a directory that is writable and sticky', 0o600, 0o1777],
  ])('%s', async (_, socketMode, directoryMode) => {
    expect(await warnings(await socket(socketMode, directoryMode))).toEqual([]);
  });

  test('an abstract name that we listen on ourselves', async () => {
    const path = `\0vfio-user-spec-${process.pid}`;
    server = await serve(device, { path });
    expect(await warnings(path)).toEqual([]);
  });
});

describe('it is told of', () => {
  test('a socket that everybody can connect to, once', async () => {
    const path = await socket(0o777);
    await warnings(path);
    expect(await warnings(path)).toEqual([
      `the server behind ${path} may not be yours: everybody can connect to it (mode 0777)`,
    ]);
  });

  test('a directory in which everybody can replace the socket', async () => {
    const path = await socket(0o600, 0o777);
    expect(await warnings(path)).toEqual([
      expect.stringMatching(/everybody can replace what is in .*\/d \(mode 0777, not sticky\)$/),
    ]);
  });

  test('a directory farther up', async () => {
    const path = await socket(0o600);
    chmodSync(scratch, 0o777);
    expect(await warnings(path)).toEqual([expect.stringContaining(`what is in ${scratch} (mode 0777`)]);
  });

  test('what a link leads to', async () => {
    const path = await socket(0o600, 0o777);
    const safe = join(scratch, 'safe');
    mkdirSync(safe, 0o700);
    symlinkSync(path, join(safe, 's'));
    expect(await warnings(join(safe, 's'))).toEqual([expect.stringContaining('/d (mode 0777')]);
  });

  asRoot('a socket and a directory of somebody else (needs root)', async () => {
    const path = await socket(0o600);
    chownSync(path, STRANGER, STRANGER);
    chownSync(join(scratch, 'd'), STRANGER, STRANGER);
    expect(await warnings(path)).toEqual([
      expect.stringMatching(
        /\/d belongs to user 54321, who can replace what is in it; the socket belongs to user 54321$/,
      ),
    ]);
  });

  asRoot('somebody else only where it was not said that the server is theirs (needs root)', async () => {
    const path = await socket(0o600);
    chownSync(path, STRANGER, STRANGER);
    chownSync(join(scratch, 'd'), STRANGER, STRANGER);
    expect(await warnings(path, { serverUid: STRANGER })).toEqual([]);
  });
});

describe('with socketPermissions', () => {
  test("'ignore' nothing is said", async () => {
    expect(await warnings(await socket(0o777, 0o777), { socketPermissions: 'ignore' })).toEqual([]);
  });

  test("'refuse' it is an error, and no fd is left", async () => {
    const path = await socket(0o777, 0o777);
    const before = openFds();
    await expect(connect(path, { socketPermissions: 'refuse' })).rejects.toMatchObject({
      name: 'VfioUserError',
      code: `ERR_${CODE}`,
      message: expect.stringContaining(path),
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(openFds()).toBe(before);
    expect(warn).not.toHaveBeenCalled();
  });

  asRoot("'refuse' a server that another user runs needs serverUid (needs root)", async () => {
    const path = await socket(0o600);
    const theirs = join(scratch, 'd', 'theirs');
    const script = `require('node:net').createServer((s) => s.end()).listen('${theirs}', () => process.send(0))`;
    const file = join(scratch, 'listen.cjs');
    writeFileSync(file, script);
    chownSync(join(scratch, 'd'), STRANGER, STRANGER);
    const child = fork(file, { uid: STRANGER, gid: STRANGER, execArgv: [] });
    cleanup = () => child.kill();
    await once(child, 'message');
    const refuse = { socketPermissions: 'refuse' } as const;
    await expect(connect(path, refuse)).rejects.toThrow(/d belongs to user 54321/);
    await expect(connect(theirs, refuse)).rejects.toThrow(/it runs as user 54321/);
    // This one does not speak the protocol.
    await expect(connect(theirs, { ...refuse, serverUid: STRANGER })).rejects.toThrow(ClosedError);
    child.kill();
    await once(child, 'exit');
  });
});
