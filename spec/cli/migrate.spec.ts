import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { RamDevice, serve, type EmulatorServer, type Intercept } from '../../lib/emulator/index.js';
import { MigrationState, connect } from '../../lib/index.js';
import { Scratch, outcomeOf, start, vfioUser, vfioUserWith, type Outcome } from './cli.js';
import { DoomedServer } from './doomed-server.js';

jest.setTimeout(60_000);

const RAM_SIZE = 1 << 16;
const { STOP, STOP_COPY, PRE_COPY } = MigrationState;

let scratch: Scratch;
let file: string;
let source: RamDevice;
let target: RamDevice;
const servers: EmulatorServer[] = [];

async function serveRam(name: string): Promise<RamDevice> {
  const device = new RamDevice({ sharedSize: 0, ramSize: RAM_SIZE, migration: 'pre-copy' });
  servers.push(await serve(device, { path: scratch.path(name) }));
  return device;
}

beforeEach(async () => {
  scratch = new Scratch();
  file = scratch.path('state');
  source = await serveRam('a');
  target = await serveRam('b');
  source.ram.fill('the state of a device ');
});

afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  scratch.remove();
});

const migrate = (...args: string[]) => vfioUser('migrate', ...args);

describe('vfio-user migrate', () => {
  test('saves into a file and restores from it', async () => {
    const saved = await migrate('save', scratch.path('a'), file);
    expect(saved).toMatchObject({ status: 0, stdout: '' });
    expect(saved.stderr).toMatch(/^saved \d+ bytes to .*state; the device is in state STOP\n$/);
    const restored = await migrate('restore', scratch.path('b'), file);
    expect(restored.stderr).toMatch(/^restored \d+ bytes from .*state; the device is in state RUNNING\n$/);
    expect(restored.status).toBe(0);
    expect(target.ram.equals(source.ram)).toBe(true);
  });

  test.each([[[]], [['move']]])('moves a running device: migrate %j SOURCE DESTINATION', async (word) => {
    const moved = await migrate(...word, scratch.path('a'), scratch.path('b'));
    expect(moved.stdout).toMatch(/^moved .* in \d+ ms, stopped for [\d.]+ ms; the destination runs\n$/);
    expect(moved).toMatchObject({ status: 0, stderr: '' });
    expect(target.ram.equals(source.ram)).toBe(true);
    expect((await migrate('state', scratch.path('a'))).stdout).toMatch(/^STOP,/);
    expect((await migrate('state', scratch.path('b'))).stdout).toMatch(/^RUNNING,/);
  });

  test('move --json, and the destination stays stopped', async () => {
    const options = ['--json', '--no-precopy', '--stay-stopped'];
    const moved = await migrate(scratch.path('a'), scratch.path('b'), ...options);
    const report = JSON.parse(moved.stdout) as Record<string, number>;
    expect(report).toMatchObject({ running: false });
    expect(report['stateBytes']).toBeGreaterThan(RAM_SIZE);
    expect((await migrate('state', scratch.path('b'))).stdout).toMatch(/^STOP,/);
  });

  test('move: a destination that cannot take it leaves the source running', async () => {
    const other = new RamDevice({ sharedSize: 0, ramSize: 2 * RAM_SIZE, migration: 'pre-copy' });
    servers.push(await serve(other, { path: scratch.path('c') }));
    const moved = await migrate(scratch.path('a'), scratch.path('c'));
    expect(moved).toMatchObject({ status: 1, stdout: '' });
    expect(moved.stderr).toMatch(/the source is in state RUNNING/);
    expect((await migrate('state', scratch.path('a'))).stdout).toMatch(/^RUNNING,/);
    expect((await migrate(scratch.path('a'))).status).toBe(2);
    expect((await migrate()).status).not.toBe(0);
  });

  test('streams through stdout and stdin', async () => {
    const saved = await migrate('save', scratch.path('a'), '-', '--resume', '--no-precopy');
    expect(saved.stderr).toMatch(/to stdout; the device is in state RUNNING\n$/);
    const child = start(['migrate', 'restore', scratch.path('b'), '-', '--stay-stopped']);
    child.stdin!.end(saved.bytes);
    const restored = await outcomeOf(child);
    expect(restored.stderr).toMatch(/from stdin; the device is in state STOP\n$/);
    expect(target.ram.equals(source.ram)).toBe(true);
  });

  test('says what a device can do, and where it is', async () => {
    expect((await migrate('state', scratch.path('a'))).stdout).toBe('RUNNING, can stop-copy and pre-copy\n');
  });

  test('does not touch a device for nothing', async () => {
    for (const [name, restored] of [
      ['stdin', await vfioUserWith('', 'migrate', 'restore', scratch.path('b'), '-')],
      ['.*empty', await emptyFile()],
    ] as const) {
      expect(restored.stderr).toMatch(
        new RegExp(`^vfio-user: ${name} is empty: there is nothing to restore\n$`),
      );
      expect(restored.status).toBe(2);
    }
    expect(target.migrationState).toBe(MigrationState.RUNNING);
  });

  async function emptyFile() {
    writeFileSync(scratch.path('empty'), '');
    return migrate('restore', scratch.path('b'), scratch.path('empty'));
  }

  test('tells the state that a rejected stream leaves the device in', async () => {
    writeFileSync(file, 'no state of any device');
    const { status, stderr } = await migrate('restore', scratch.path('b'), file);
    expect(stderr).toMatch(/^vfio-user: .*the device is in state (STOP|ERROR): [^\n]*\n$/);
    expect(status).toBe(1);
  });

  test('leaves no file where the device is lost', async () => {
    source.ram.fill(1);
    const gone = scratch.path('gone');
    const { status, stderr } = await migrate('save', gone, file);
    expect(status).toBe(1);
    expect(stderr).toContain(`vfio-user: connect: ENOENT (${gone} does not exist; is the server running?`);
    expect(existsSync(file)).toBe(false);
  });

  test.each([
    [['save', 'a'], /missing required argument 'FILE'/, 2],
    [['save', 'a', 'x', '--resume', '--stay-stopped'], /cannot be used with option '--resume'/, 2],
    [['restore', 'b', '/nonexistent/file'], /ENOENT/, 1],
    [['restore', 'b', '/'], /is a directory/, 2],
    [['save', 'plain', 'x'], /the device does not support migration/, 1],
    [['state', 'plain'], /the device does not support migration/, 1],
  ] as const)('says in a line what is wrong with %j', async ([verb, name, ...rest], message, expected) => {
    servers.push(await serve(new RamDevice({ sharedSize: 0 }), { path: scratch.path('plain') }));
    const { status, stderr } = await migrate(verb, scratch.path(name), ...rest);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^vfio-user: [^\n]+\n$/);
    expect(status).toBe(expected);
  });

  test.each([
    ['pre-copy', [], [PRE_COPY, STOP_COPY, STOP]],
    ['pre-copy', ['--no-precopy'], [STOP, STOP_COPY, STOP]],
    ['stop-copy', [], [STOP, STOP_COPY, STOP]],
  ] as const)('a device that can do %s, with %j: by way of %j', async (migration, more, way) => {
    const states: number[] = [];
    const device = new RamDevice({ sharedSize: 0, ramSize: RAM_SIZE, migration });
    const intercept: Intercept = ({ name, payload }) => {
      const isSet = name === 'DEVICE_FEATURE' && payload.readUInt32LE(4) === 0x20002;
      if (isSet) states.push(payload.readUInt32LE(8));
    };
    servers.push(await serve(device, { path: scratch.path('watched'), intercept }));
    expect(await migrate('save', scratch.path('watched'), file, ...more)).toMatchObject({ status: 0 });
    expect(states).toEqual(way);
  });

  test('opens the file before it stops the device', async () => {
    const { status, stderr } = await migrate('save', scratch.path('a'), '/nonexistent/state');
    expect(stderr).toMatch(/^vfio-user: ENOENT: [^\n]*\n$/);
    expect(status).toBe(1);
    expect(source.migrationState).toBe(MigrationState.RUNNING);
  });

  test.each([
    ['RUNNING', []],
    ['STOP', [MigrationState.STOP]],
  ])('a file that takes no more: the device is in %s, where it was', async (state, way) => {
    await using device = await connect(scratch.path('a'));
    for (const step of way) await device.migration.transition(step);
    await device.close();
    const { status, stderr } = await migrate('save', scratch.path('a'), '/dev/full');
    expect(stderr).toMatch(new RegExp(`^vfio-user: .*ENOSPC.*; the device is in state ${state}\n$`));
    expect(status).toBe(1);
  });

  test('a reader that goes: the device runs, and that is told', async () => {
    const child = start(['migrate', 'save', scratch.path('a'), '-'], ['ignore', 'pipe', 'pipe']);
    child.stdout!.destroy();
    expect(await outcomeOf(child)).toMatchObject({
      status: 141,
      stderr: 'vfio-user: the device is in state RUNNING\n',
    });
    expect(source.migrationState).toBe(MigrationState.RUNNING);
  });

  test('is interrupted: the device runs, and no file is there', async () => {
    let reads = 0;
    const device = new RamDevice({ sharedSize: 0, ramSize: 8 << 20, migration: 'pre-copy' });
    const saver: { child?: ChildProcess } = {};
    const intercept: Intercept = ({ name }) => {
      if (name !== 'MIG_DATA_READ' || ++reads !== 10) return 'pass';
      saver.child!.kill('SIGINT');
      return { delayMs: 200 };
    };
    servers.push(await serve(device, { path: scratch.path('slow'), intercept }));
    const child = start(['migrate', 'save', scratch.path('slow'), file], ['ignore', 'pipe', 'pipe']);
    saver.child = child;
    const { status, stderr } = await outcomeOf(child);
    expect(stderr).toMatch(/^vfio-user: interrupted; the device is in state RUNNING.*\n$/);
    expect(status).toBe(1);
    expect(device.migrationState).toBe(MigrationState.RUNNING);
    expect(existsSync(file)).toBe(false);
  });

  test('saves the same bytes with and without reading ahead where nothing runs', async () => {
    await migrate('save', scratch.path('a'), file, '--resume');
    const ahead = readFileSync(file);
    await migrate('save', scratch.path('a'), file, '--resume', '--no-precopy');
    expect(ahead.length).toBeGreaterThanOrEqual(readFileSync(file).length);
  });
});

describe('vfio-user migrate save, whose server is killed meanwhile', () => {
  /** Of its two sockets either may be seen to end first. */
  const LOST = /^vfio-user: MIG_DATA_READ: the server closed the connection/;
  let doomed: DoomedServer | undefined;

  afterEach(() => doomed?.kill());

  /** After so many pieces of its state, of 1 MiB at most. */
  async function saveOfLost(pieces: number, ...args: string[]): Promise<Outcome> {
    const path = scratch.path('doomed');
    const ram = { sharedSize: 0, ramSize: 8 << 20, migration: 'pre-copy' };
    doomed = await DoomedServer.start({ path, ram, command: 'MIG_DATA_READ', answered: pieces });
    const [outcome] = await Promise.all([migrate('save', path, ...args), doomed.killInTheMiddle()]);
    expect(outcome.stderr).toMatch(LOST);
    expect(outcome.stderr).toMatch(/^[^\n]+\[ERR_VFIO_USER_CLOSED\]\n$/);
    expect(outcome.status).toBe(1);
    return outcome;
  }

  test.each([[[]], [['--no-precopy']]])(
    'leaves the file that was there, and no part of a new one (%j)',
    async (more) => {
      writeFileSync(file, 'before');
      const { stdout, stderr } = await saveOfLost(3, file, ...more);
      expect(stderr).toContain('; what had been written was removed (--keep-partial keeps it) [');
      expect(stdout).toBe('');
      expect(readFileSync(file, 'utf8')).toBe('before');
      expect(readdirSync(scratch.directory).sort()).toEqual(['a', 'b', 'doomed', 'state']);
    },
  );

  test('says nothing of bytes where there were none', async () => {
    const { stderr } = await saveOfLost(0, file);
    expect(stderr).not.toContain('written');
    expect(readdirSync(scratch.directory).sort()).toEqual(['a', 'b', 'doomed']);
  });

  test('keeps what was read, under another name, where it is told to', async () => {
    const { stderr } = await saveOfLost(3, file, '--no-precopy', '--keep-partial');
    expect(stderr).toContain(`; ${file}.partial has the first 3 MiB [`);
    expect(readFileSync(`${file}.partial`)).toHaveLength(3 << 20);
    expect(existsSync(file)).toBe(false);
  });

  test('a pipe has what was read, and the exit status tells', async () => {
    const { bytes } = await saveOfLost(3, '-', '--no-precopy');
    expect(bytes).toHaveLength(3 << 20);
  });
});
