/** Files that verbs write: whole or not at all, whatever ends the work. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { MemoryStore, NvmeDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { MAIN, Scratch, environment, outcomeOf, start, vfioUser } from './cli.js';
import { PatternDevice } from './emulator.js';

jest.setTimeout(120_000);

const EIO = 5;
const CHUNK = 1 << 16;
const BLOCKS = (8 << 20) / 512;
const REGION_READ = 9;

let scratch: Scratch;
let socket: string;
let nvmeSocket: string;
let file: string;
let server: EmulatorServer;
let nvmeServer: EmulatorServer;
let device: PatternDevice;
let nvme: NvmeDevice;
/** What a read of BAR0 from that offset on is answered: nothing at all, or an error. */
let endOfBar: { from: number; how: 'drop' | { errno: number } } | undefined;
/** Called at the read that is not answered. */
let onStuck: () => void = () => {};

beforeEach(async () => {
  scratch = new Scratch();
  socket = scratch.path('device');
  nvmeSocket = scratch.path('nvme');
  file = scratch.path('file');
  endOfBar = undefined;
  device = new PatternDevice();
  server = await serve(device, {
    path: socket,
    intercept: ({ command, payload }) => {
      if (endOfBar === undefined || command !== REGION_READ || payload.readUInt32LE(8) !== 0)
        return undefined;
      if (Number(payload.readBigUInt64LE(0)) < endOfBar.from) return undefined;
      onStuck();
      return endOfBar.how;
    },
  });
  nvme = new NvmeDevice({ namespaces: [{ store: new MemoryStore(8 << 20) }] });
  nvmeServer = await serve(nvme, { path: nvmeSocket });
});

afterEach(async () => {
  await server.close();
  await nvmeServer.close();
  await nvme.close();
  scratch.remove();
});

/** The verbs that write files, each with what makes it fail after a part of them. */
const VERBS: Record<string, { args: () => string[]; fail: () => void; bytes: () => Buffer }> = {
  read: {
    args: () => ['read', socket, 'bar0', '0', String(PatternDevice.size)],
    fail: () => (endOfBar = { from: CHUNK, how: { errno: EIO } }),
    bytes: () => device.bytes,
  },
  dump: {
    args: () => ['dump', socket, 'bar0'],
    fail: () => (endOfBar = { from: CHUNK, how: { errno: EIO } }),
    bytes: () => device.bytes,
  },
  'nvme read': {
    args: () => ['nvme', 'read', nvmeSocket],
    fail: () => {
      nvme.intercept = ({ queue, opcode, lba }) =>
        queue > 0 && opcode === 2 && lba >= BigInt(BLOCKS / 2) ? { status: 0x281 } : undefined;
    },
    bytes: () => Buffer.alloc(8 << 20),
  },
};

const left = (): string[] =>
  readdirSync(scratch.directory)
    .filter((name) => name !== 'device' && name !== 'nvme')
    .sort();

describe.each(Object.entries(VERBS))('vfio-user %s --output', (verb, { args, fail, bytes }) => {
  test('replaces a file as a whole, and keeps its permissions', async () => {
    writeFileSync(file, 'before');
    chmodSync(file, 0o640);
    const { status, stderr } = await vfioUser(...args(), '--output', file);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(readFileSync(file).equals(bytes())).toBe(true);
    expect(statSync(file).mode & 0o777).toBe(0o640);
    expect(left()).toEqual(['file']);
  });

  test('leaves what was there where it fails, and nothing else', async () => {
    writeFileSync(file, 'before');
    fail();
    const { status, stderr } = await vfioUser(...args(), '--output', file);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^vfio-user: [^\n]+; what had been written was removed[^\n]*\n$/);
    expect(readFileSync(file, 'utf8')).toBe('before');
    expect(left()).toEqual(['file']);
  });

  test('makes no file where there was none', async () => {
    fail();
    expect((await vfioUser(...args(), '--output', file)).status).toBe(1);
    expect(left()).toEqual([]);
  });

  test('goes where a link leads', async () => {
    writeFileSync(scratch.path('real'), 'before');
    symlinkSync('real', file);
    expect((await vfioUser(...args(), '--output', file)).status).toBe(0);
    expect(readFileSync(scratch.path('real')).equals(bytes())).toBe(true);
  });

  test('says in a line that the place takes no file, and asks the device for nothing', async () => {
    mkdirSync(scratch.path('directory'));
    for (const [name, what] of [
      [scratch.path('none/file'), 'ENOENT'],
      [scratch.path('directory'), 'is a directory'],
      ['', 'the file has no name'],
    ] as const) {
      const { status, stdout, stderr } = await vfioUser(...args(), '--output', name);
      expect({ status, stdout }).toEqual({ status: name === '' ? 2 : 1, stdout: '' });
      expect(stderr).toMatch(/^vfio-user: [^\n]+\n$/);
      expect(stderr).toContain(what);
    }
    if (verb !== 'nvme read') expect(device.accesses.reads).toEqual([]);
  });

  test('a device that takes no more is a failure', async () => {
    const { status, stderr } = await vfioUser(...args(), '--output', '/dev/full');
    expect(status).toBe(1);
    expect(stderr).toMatch(/^vfio-user: \/dev\/full: ENOSPC[^\n]+\n$/);
  });

  test('a pipe, a device and stdout are written as they are', async () => {
    expect((await vfioUser(...args(), '--output', '/dev/null')).status).toBe(0);
    expect(statSync('/dev/null').isCharacterDevice()).toBe(true);
    const through = await vfioUser(...args(), '--output', '/dev/stdout');
    expect(through.status).toBe(0);
    expect(through.bytes.subarray(0, bytes().length).equals(bytes())).toBe(true);
  });
});

describe('--keep-partial', () => {
  test.each([false, true])('of a disk that is full (kept: %s) says what it has taken', async (isKept) => {
    writeFileSync(file, 'what was there');
    // SIGXFSZ ends the process otherwise; a block of ulimit is 1 KiB.
    const dump = `'${process.execPath}' '${MAIN}' dump ${socket} bar0 --length 1500 --output ${file}`;
    const shell = `trap '' XFSZ; ulimit -f 1; exec ${dump} ${isKept ? '--keep-partial' : ''}`;
    const child = spawn('bash', ['-c', shell], { stdio: 'pipe', env: environment() });
    const { status, stderr } = await outcomeOf(child);
    const fate = isKept
      ? `${file}.partial has the first 1 KiB`
      : 'what had been written was removed (--keep-partial keeps it)';
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: expect.stringMatching(/^vfio-user: .*EFBIG.*\n$/),
    });
    expect(stderr).toContain(fate);
    expect(readFileSync(file, 'latin1')).toBe('what was there');
    expect(existsSync(`${file}.partial`)).toBe(isKept);
    if (isKept) expect(statSync(`${file}.partial`).size).toBe(1024);
  });

  test.each(['dump', 'nvme read'])(
    '%s keeps what was read as FILE.partial, and follows no link there',
    async (verb) => {
      const { args, fail } = VERBS[verb]!;
      writeFileSync(scratch.path('victim'), 'untouched');
      symlinkSync('victim', `${file}.partial`);
      fail();
      const { status, stderr } = await vfioUser(...args(), '--output', file, '--keep-partial');
      expect(status).toBe(1);
      expect(stderr).toMatch(/; .*file\.partial has the first [^\n]+\n$/);
      expect(readFileSync(scratch.path('victim'), 'utf8')).toBe('untouched');
      expect(statSync(`${file}.partial`).size).toBeGreaterThan(0);
      expect(existsSync(file)).toBe(false);
      expect(left()).toEqual(['file.partial', 'victim']);
    },
  );
});

describe('a signal', () => {
  /** Runs until a read is not answered any more. */
  async function stuck(): Promise<ReturnType<typeof start>> {
    writeFileSync(file, 'before');
    endOfBar = { from: CHUNK, how: 'drop' };
    const waiting = new Promise<void>((resolve) => (onStuck = resolve));
    const child = start(['dump', socket, 'bar0', '--output', file, '--timeout', '60000']);
    await waiting;
    return child;
  }

  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
    '%s in the middle leaves what was there',
    async (signal) => {
      const { args } = VERBS['nvme read']!;
      writeFileSync(file, 'before');
      const reading = new Promise<void>((resolve) => {
        nvme.intercept = ({ queue, opcode, lba }) => {
          if (queue === 0 || opcode !== 2) return undefined;
          if (lba >= BigInt(BLOCKS / 2)) resolve();
          return { delayMs: 5 };
        };
      });
      const child = start([...args(), '--output', file]);
      const outcome = outcomeOf(child);
      await reading;
      child.kill(signal);
      const { status, stderr } = await outcome;
      expect(status).toBe(1);
      expect(stderr).toBe(
        'vfio-user: interrupted; what had been written was removed (--keep-partial keeps it) [EINTR]\n',
      );
      expect(readFileSync(file, 'utf8')).toBe('before');
      expect(left()).toEqual(['file']);
    },
  );

  test('a second one ends the process at once, and still nothing is left', async () => {
    const child = await stuck();
    child.kill('SIGINT');
    // The first one has been taken when the second one is one too many.
    const exited = once(child, 'exit');
    const again = setInterval(() => child.kill('SIGINT'), 100);
    const [code, signal] = (await exited) as [number | null, string | null];
    clearInterval(again);
    expect([code, signal]).toEqual([null, 'SIGINT']);
    expect(readFileSync(file, 'utf8')).toBe('before');
    expect(left()).toEqual(['file']);
  });
});
