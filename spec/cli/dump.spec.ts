import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import {
  DeviceError,
  PciConfigSpace,
  PciDevice,
  RamDevice,
  serve,
  type EmulatorServer,
} from '../../lib/emulator/index.js';
import { connect } from '../../lib/index.js';
import { HAS_SCRIPT, Scratch, outcomeOf, startOnTerminal, vfioUser, type Outcome } from './cli.js';
import { DoomedServer } from './doomed-server.js';

jest.setTimeout(60_000);

const SIZE = 1 << 20;
const EIO = 5;

/** BAR0: byte n is n mod 251; what is in `broken` is answered with EIO. */
class LeakyDevice extends PciDevice {
  readonly bytes = Buffer.alloc(SIZE);
  readonly reads: [offset: number, count: number][] = [];
  broken: readonly [start: number, end: number][] = [];

  constructor() {
    super(
      new PciConfigSpace({
        vendorId: 0xcafe,
        deviceId: 2,
        classCode: 0xff0000,
        bars: [{ index: 0, size: SIZE }],
      }),
      [],
    );
    for (let i = 0; i < SIZE; i++) this.bytes[i] = i % 251;
    this.addRegion({
      index: 0,
      size: SIZE,
      handler: {
        read: (offset, count) => {
          this.reads.push([offset, count]);
          const isBroken = this.broken.some(([start, end]) => offset < end && start < offset + count);
          if (isBroken) throw new DeviceError(EIO, 'broken');
          return this.bytes.subarray(offset, offset + count);
        },
        write: () => {},
      },
    });
  }
}

let scratch: Scratch;
let socket: string;
let file: string;
let server: EmulatorServer;
let device: LeakyDevice;

beforeEach(async () => {
  scratch = new Scratch();
  socket = scratch.path('device');
  file = scratch.path('file');
  device = new LeakyDevice();
  server = await serve(device, { path: socket });
});

afterEach(async () => {
  await server.close();
  scratch.remove();
});

describe('vfio-user dump', () => {
  test('copies a region into a file', async () => {
    const { status, stdout, stderr } = await vfioUser('dump', socket, 'bar0', '--output', file);
    expect({ status, stdout, stderr }).toEqual({
      status: 0,
      stdout: `${file} has 1 MiB of bar0\n`,
      stderr: '',
    });
    expect(readFileSync(file).equals(device.bytes)).toBe(true);
    expect(existsSync(`${file}.partial`)).toBe(false);
  });

  test.each([[[]], [['--output', '-']]])('writes raw bytes to a pipe (%j)', async (options) => {
    const { bytes } = await vfioUser(
      'dump',
      socket,
      'bar0',
      '--offset',
      '0x10',
      '--length',
      '300',
      ...options,
    );
    expect(bytes.equals(device.bytes.subarray(0x10, 0x10 + 300))).toBe(true);
  });

  test('reads registers in accesses of their width', async () => {
    await vfioUser('dump', socket, 'bar0', '--length', '16', '--width', '4', '--output', file);
    expect(device.reads).toEqual([0, 4, 8, 12].map((offset) => [offset, 4]));
  });

  describe('--mapped', () => {
    const PAGE = 4096;

    /** BAR1 can be mapped but for its first page; reads of what can be mapped are not answered well. */
    async function withRam(check: (path: string, bytes: Buffer) => Promise<void>): Promise<void> {
      const ram = new RamDevice();
      const path = scratch.path('ram');
      const asked: number[] = [];
      await using _server = await serve(ram, {
        path,
        intercept: ({ command, payload }) => {
          if (command !== 9 || payload.readUInt32LE(8) !== 1) return undefined;
          asked.push(Number(payload.readBigUInt64LE(0)));
          return asked.at(-1)! >= PAGE ? { errno: EIO } : undefined;
        },
      });
      const { size } = ram.regions.find(({ index }) => index === 1)!;
      const bytes = Buffer.from(Array.from({ length: size }, (_, i) => (i * 7) % 253));
      await using own = await connect(path);
      await own.region(1).write(0, bytes);
      await own.close();
      await check(path, bytes);
      expect(asked.every((offset) => offset < PAGE)).toBe(true);
    }

    test('copies what can be mapped, and asks for the rest', async () => {
      await withRam(async (path, bytes) => {
        const { status, stderr } = await vfioUser('dump', path, 'bar1', '--mapped', '--output', file);
        expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
        expect(readFileSync(file).equals(bytes)).toBe(true);
      });
    });

    test('begins and ends anywhere', async () => {
      await withRam(async (path, bytes) => {
        const stretch = ['--offset', String(PAGE - 20), '--length', '100'];
        const outcome = await vfioUser('dump', path, 'bar1', '--mapped', '--sparse', ...stretch);
        expect(outcome.bytes.equals(bytes.subarray(PAGE - 20, PAGE + 80))).toBe(true);
      });
    });

    test('says where there is nothing to map', async () => {
      const { status, stderr } = await vfioUser('dump', socket, 'bar0', '--mapped');
      expect(status).toBe(2);
      expect(stderr).toContain('nothing there can be mapped');
    });
  });

  test('leaves the file that was there, and no part of a new one, where it fails', async () => {
    device.broken = [[0x30000, 0x31000]];
    writeFileSync(file, 'before');
    const { status, stderr } = await vfioUser('dump', socket, 'bar0', '--output', file);
    expect(stderr).toBe(
      'vfio-user: REGION_READ: the server answered EIO; --sparse goes on where something cannot be read; ' +
        'what had been written was removed (--keep-partial keeps it)\n',
    );
    expect(status).toBe(1);
    expect(readFileSync(file, 'utf8')).toBe('before');
    expect(readdirSync(scratch.directory).sort()).toEqual(['device', 'file']);
  });

  test('keeps what was read, where it is told to, and hints at --sparse', async () => {
    device.broken = [[0x30000, 0x31000]];
    const args = ['dump', socket, 'bar0', '--output', file, '--keep-partial', '--enable'];
    const { stderr } = await vfioUser(...args);
    expect(stderr).toMatch(
      /--sparse goes on where something cannot be read; .*file\.partial has the first 192 KiB\n$/,
    );
    expect(readFileSync(`${file}.partial`).equals(device.bytes.subarray(0, 0x30000))).toBe(true);
    expect(existsSync(file)).toBe(false);
  });

  test('goes on with --sparse, and lists what it could not read', async () => {
    device.broken = [
      [0x30000, 0x32000],
      [0xffff0, 0x100000],
    ];
    const { status, stdout, stderr } = await vfioUser('dump', socket, 'bar0', '--output', file, '--sparse');
    expect(stderr).toBe(
      'vfio-user: bar0: 0x30000 to 0x31fff could not be read: EIO\n' +
        'vfio-user: bar0: 0xff000 to 0xfffff could not be read: EIO\n',
    );
    expect({ status, stdout }).toEqual({
      status: 0,
      stdout: `${file} has 1 MiB of bar0, 12 KiB of it could not be read\n`,
    });
    const expected = Buffer.from(device.bytes).fill(0xff, 0x30000, 0x32000).fill(0xff, 0xff000);
    expect(readFileSync(file).equals(expected)).toBe(true);
  });

  test('finds registers that cannot be read one by one, and fills them with another byte', async () => {
    device.broken = [[8, 12]];
    const args = ['dump', socket, 'bar0', '--length', '16', '--width', '4', '--sparse', '--fill', '0'];
    const { bytes, stderr } = await vfioUser(...args);
    expect(bytes.toString('hex')).toBe('0001020304050607000000000c0d0e0f');
    expect(stderr).toBe('vfio-user: bar0: 0x8 to 0xb could not be read: EIO\n');
  });

  test('fails where nothing can be read at all', async () => {
    device.broken = [[0, SIZE]];
    const { status, stderr } = await vfioUser('dump', socket, 'bar0', '--length', '4096', '--sparse');
    expect(stderr).toMatch(/the server answered EIO; .*--enable turns it on/);
    expect(status).toBe(1);
  });

  test.each([
    [['rom'], /the device has no rom/, 1],
    [['bar0', '--offset', '0x100000'], /bar0: \[0x100000, 0x100001\) is out of bounds \(size 0x100000\)/, 1],
    [['bar7'], /'bar7' is invalid for argument 'REGION'/, 2],
    [['bar0', '--length', '6', '--width', '4'], /length 6 is not a multiple of --width 4/, 2],
    [['bar0', '--fill', '256'], /A byte is at most 255/, 2],
    [['bar0', '--output', '/nonexistent/file'], /ENOENT/, 1],
  ] as const)('says in a line what is wrong with %j', async (args, message, expected) => {
    const { status, stderr } = await vfioUser('dump', socket, ...args);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^vfio-user: [^\n]+\n$/);
    expect(status).toBe(expected);
  });

  (HAS_SCRIPT ? test : test.skip)('shows lines and a bar on a terminal (needs script)', async () => {
    const lines = await outcomeOf(startOnTerminal(['dump', socket, 'bar0', '--length', '32']));
    expect(lines.stdout).toMatch(/^00000000 {2}00 01 02 03 .*\|\r\n00000010 {2}10 11/);
    const bar = await outcomeOf(startOnTerminal(['dump', socket, 'bar0', '--width', '4', '--output', file]));
    expect(bar.stdout).toMatch(/\[[=-]+\] \d+% {2}\d+ of 1048576 bytes/);
  });
});

describe('vfio-user dump, whose server is killed meanwhile', () => {
  const CHUNK = 1 << 16;
  /** Of its two sockets either may be seen to end first. */
  const LOST = /^vfio-user: REGION_READ: the server closed the connection/;
  let doomed: DoomedServer | undefined;

  afterEach(() => doomed?.kill());

  /** Of BAR2, whose bytes are 0, after so many chunks of it; config space is read when the device is opened. */
  async function dumpOfLost(chunks: number, ...options: string[]): Promise<Outcome> {
    const path = scratch.path('doomed');
    const ram = { sharedSize: 0, ramSize: SIZE };
    doomed = await DoomedServer.start({ path, ram, size: CHUNK, command: 'REGION_READ', answered: chunks });
    const [outcome] = await Promise.all([
      vfioUser('dump', path, 'bar2', '--enable', ...options),
      doomed.killInTheMiddle(),
    ]);
    expect(outcome.stderr).toMatch(LOST);
    expect(outcome.stderr).toMatch(/^[^\n]+\[ERR_VFIO_USER_CLOSED\]\n$/);
    expect(outcome.status).toBe(1);
    return outcome;
  }

  test.each([[[]], [['--sparse']]])(
    'says so in a line, and leaves nothing that looks whole (%j)',
    async (more) => {
      const { stdout, stderr } = await dumpOfLost(3, '--output', file, ...more);
      expect(stderr).toContain('; what had been written was removed (--keep-partial keeps it) [');
      expect(stdout).toBe('');
      expect(readdirSync(scratch.directory).sort()).toEqual(['device', 'doomed']);
    },
  );

  test('leaves the file that was there, and says nothing of bytes where there were none', async () => {
    writeFileSync(file, 'before');
    const { stdout, stderr } = await dumpOfLost(0, '--output', file);
    expect(stderr).not.toContain('written');
    expect(stdout).toBe('');
    expect(readFileSync(file, 'utf8')).toBe('before');
    expect(readdirSync(scratch.directory).sort()).toEqual(['device', 'doomed', 'file']);
  });

  test('keeps what was read, under another name, where it is told to', async () => {
    const { stderr } = await dumpOfLost(3, '--output', file, '--keep-partial');
    expect(stderr).toContain(`; ${file}.partial has the first 192 KiB [`);
    expect(readFileSync(`${file}.partial`).equals(Buffer.alloc(3 * CHUNK))).toBe(true);
    expect(existsSync(file)).toBe(false);
  });

  test('a pipe has what was read, and the exit status tells', async () => {
    const { bytes } = await dumpOfLost(3);
    expect(bytes.equals(Buffer.alloc(3 * CHUNK))).toBe(true);
  });
});
