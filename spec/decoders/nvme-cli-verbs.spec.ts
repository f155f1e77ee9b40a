/**
 * The verbs that are nvme-cli's beside nvme(1) 2.3 of Debian 12, on the same controller: one after the other, as a controller
 * has one host. Keys differ between versions, so another one is skipped. `VFIO_USER_SPDK` names SPDK's, too.
 */
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { connect } from '../../lib/index.js';
import { MemoryStore, NvmeDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { NvmeController } from '../../lib/nvme/index.js';
import { outcomeOf, Scratch, start } from '../cli/cli.js';
import { NvmeCliBridge, type Asked } from '../support/nvme-cli-bridge.js';
import { canPreload, compilePreload } from '../support/preload.js';

jest.setTimeout(120_000);

const NVME = process.env['VFIO_USER_NVME_CLI'] || 'nvme';
const VERSION = '2.3';
const version = spawnSync(NVME, ['version'], { encoding: 'utf8' }).stdout ?? '';
const CAN_COMPARE = canPreload && new RegExp(`^nvme version ${VERSION.replace('.', '\\.')} `).test(version);
const SPDK = process.env['VFIO_USER_SPDK'];

/** Fields whose values change from one moment to the next, or are of whoever drives the controller. */
const MOVING =
  /^(host_(read|write)_commands|data_units_(read|written)|num_err_log_entries|controller_busy_time|power_on_hours)$/;

let scratch: Scratch;
let library: string;

beforeAll(() => {
  scratch = new Scratch();
  if (CAN_COMPARE) library = compilePreload('nvme-device', scratch.path('.'));
});

afterAll(() => scratch.remove());

interface Subject {
  /** Named as nvme names the device that it was given. */
  socket: string;
  close: () => Promise<void>;
}

async function emulated(): Promise<Subject> {
  const device = new NvmeDevice({
    serialNumber: 'PARITY "1"',
    modelNumber: 'model \\ of a spec',
    namespaces: [
      { store: new MemoryStore(8 << 20) },
      {
        store: new MemoryStore(4 << 20),
        blockSize: 4096,
        metadataSize: 8,
        nguid: '00112233445566778899aabbccddeeff',
      },
    ],
  });
  const directory = scratch.path('emulated');
  spawnSync('mkdir', ['-p', directory]);
  const socket = path.join(directory, 'null');
  const server: EmulatorServer = await serve(device, { path: socket });
  return {
    socket,
    close: async () => {
      await server.close();
      await device.close();
    },
  };
}

function spdk(): Promise<Subject> {
  const directory = scratch.path('spdk');
  spawnSync('mkdir', ['-p', directory]);
  const socket = path.join(directory, 'null');
  symlinkSync(path.join(SPDK ?? '', 'malloc', 'cntrl'), socket);
  return Promise.resolve({ socket, close: () => Promise.resolve() });
}

interface Said {
  status: number | null;
  stdout: string;
  stderr: string;
  asked: Asked[];
}

/** What nvme says, and asks for. */
async function nvme(socket: string, args: readonly string[], input?: Buffer): Promise<Said> {
  await using device = await connect(socket, { waitForSocket: true });
  await using controller = await NvmeController.open(device);
  const bridge = await NvmeCliBridge.open(controller, library, scratch.path(`bridge-${Math.random()}`));
  try {
    const { status, stdout, stderr } = await bridge.run(NVME, args, input);
    return { status, stdout, stderr, asked: bridge.asked };
  } finally {
    bridge.close();
  }
}

async function ours(
  socket: string,
  [verb, ...rest]: readonly string[],
  input?: Buffer,
): Promise<Omit<Said, 'asked'>> {
  const child = start(['nvme', verb!, socket, ...rest]);
  child.stdin!.on('error', () => undefined);
  child.stdin!.end(input);
  return outcomeOf(child);
}

type Tree = Record<string, unknown>;

/** Keys, with the types of their values, in order. */
function shape(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(shape);
  if (typeof value !== 'object' || value === null) return typeof value;
  return Object.entries(value).map(([key, item]) => [key, shape(item)]);
}

/** Whole numbers as text: some have more digits than a number. */
function parsed(text: string): Tree {
  return JSON.parse(text.replace(/^(\s*"[^"]*":)(-?\d{16,})(,?)$/gm, '$1"digits $2"$3')) as Tree;
}

function still(tree: Tree): Tree {
  return Object.fromEntries(Object.entries(tree).filter(([key]) => !MOVING.test(key)));
}

/** SPDK's controllers have another CNTLID for each connection; in bytes it stands at 78. */
function steady(text: string): string {
  return text
    .replace(/^(\s*"cntlid":)\d+|^(cntlid +: )\w+/m, '$1$2')
    .replace(/^([^]{4}SPDK[^]{70})[^]{2}/, '$1');
}

const SUBJECTS: [string, () => Promise<Subject>][] = [
  ['the emulated one', emulated],
  ...(SPDK === undefined ? [] : [["SPDK's", spdk] as [string, () => Promise<Subject>]]),
];

(CAN_COMPARE ? describe : describe.skip).each(SUBJECTS)('as nvme-cli 2.3 has it, on %s', (name, open) => {
  let subject: Subject;
  beforeAll(async () => {
    subject = await open();
  });
  afterAll(() => subject.close());

  /** Those that answer the same each time: every byte of what is printed. */
  test.each([
    ['id-ctrl', '-o', 'json'],
    ['id-ctrl'],
    ['id-ctrl', '-o', 'binary'],
    ['id-ns', '-n', '1', '-o', 'json'],
    ['id-ns', '--namespace-id=1'],
    ['fw-log', '--output-format=json'],
    ['fw-log'],
    ['get-feature', '-f', '6'],
    ['get-feature', '-f', '0x0b', '-s', '1'],
    ['get-feature', '-f', '4', '-s', '3'],
    ['get-log', '-i', '3', '-l', '64'],
    ['get-log', '-i', '3', '-l', '512', '-b'],
    ['admin-passthru', '-o', '6', '-4', '1', '-l', '4096', '-r'],
    ['admin-passthru', '--opcode=6', '--cdw10=1', '--data-len=4096', '-r', '-b'],
    ['flush', '-n', '1'],
    ['dsm', '-n', '1', '-s', '0,16', '-b', '8,8', '-d'],
    ['io-passthru', '-o', '2', '-n', '1', '-l', '512', '-r', '-b'],
  ])('%s %s %s %s', async (...args) => {
    const theirs = await nvme(subject.socket, args);
    const mine = await ours(subject.socket, args);
    expect({ status: mine.status, stdout: steady(mine.stdout) }).toEqual({
      status: theirs.status,
      stdout: steady(theirs.stdout),
    });
    expect(theirs.status).toBe(0);
  });

  test('smart-log: keys, types, values, and every byte but for what counts', async () => {
    const theirs = await nvme(subject.socket, ['smart-log', '-o', 'json']);
    const mine = await ours(subject.socket, ['smart-log', '-o', 'json']);
    expect(shape(parsed(mine.stdout))).toEqual(shape(parsed(theirs.stdout)));
    expect(still(parsed(mine.stdout))).toEqual(still(parsed(theirs.stdout)));
    const moving = /^(Data Units|host_|num_err|controller_busy|power_on).*$/gm;
    const [ourText, theirText] = [
      await ours(subject.socket, ['smart-log']),
      await nvme(subject.socket, ['smart-log']),
    ];
    expect(ourText.stdout.replace(moving, '')).toBe(theirText.stdout.replace(moving, ''));
  });

  test('error-log: keys, types and values', async () => {
    // An error for the log, of a feature that there is not.
    await ours(subject.socket, ['get-feature', '-f', '0x79']);
    const theirs = await nvme(subject.socket, ['error-log', '-e', '4', '-o', 'json']);
    const mine = await ours(subject.socket, ['error-log', '-e', '4', '-o', 'json']);
    expect(shape(parsed(mine.stdout))).toEqual(shape(parsed(theirs.stdout)));
    if (name === 'the emulated one') expect(mine.stdout).toBe(theirs.stdout);
  });

  test('show-regs: keys and types, and the values of registers that are nobody’s', async () => {
    const theirs = parsed((await nvme(subject.socket, ['show-regs', '-o', 'json'])).stdout);
    const mine = parsed((await ours(subject.socket, ['show-regs', '-o', 'json'])).stdout);
    expect(Object.keys(mine)).toEqual(Object.keys(theirs));
    for (const key of ['cap', 'vs', 'intms', 'nssr', 'cmbloc', 'cmbsz'])
      expect([key, mine[key]]).toEqual([key, theirs[key]]);
    for (const [key, value] of Object.entries(mine)) {
      const [type] = String(typeof value).split(' ');
      // A 64-bit register that is not there reads as ones, which has more digits than a number.
      if (theirs[key] !== 'digits 18446744073709551615')
        expect([key, type]).toEqual([key, typeof theirs[key]]);
    }
  });

  test('a command that the controller refuses ends with an error', async () => {
    const theirs = await nvme(subject.socket, ['get-feature', '-f', '0x79']);
    const mine = await ours(subject.socket, ['get-feature', '-f', '0x79']);
    expect(theirs.status).not.toBe(0);
    expect({ status: mine.status, stdout: mine.stdout }).toEqual({ status: 1, stdout: theirs.stdout });
    expect(mine.stderr).toContain('INVALID_FIELD');
  });
});

(CAN_COMPARE ? describe : describe.skip)('as nvme-cli 2.3 changes it', () => {
  let subject: Subject;
  beforeAll(async () => {
    subject = await emulated();
  });
  afterAll(() => subject.close());

  test('metadata, and more formats: id-ns of the second namespace, every byte', async () => {
    for (const more of [['-o', 'json'], []]) {
      const args = ['id-ns', '-n', '2', ...more];
      expect((await ours(subject.socket, args)).stdout).toBe((await nvme(subject.socket, args)).stdout);
    }
    const { lbafs } = JSON.parse((await ours(subject.socket, ['id-ns', '-n', '2', '--json'])).stdout) as {
      lbafs: { ms: number; ds: number }[];
    };
    expect(lbafs).toContainEqual({ ms: 8, ds: 12, rp: 0 });
  });

  test('one writes zeroes, the other compares; and the other way round', async () => {
    const data = Buffer.alloc(1024, 'written');
    const file = scratch.path('data');
    writeFileSync(file, data);
    const write = ['write', '-n', '1', '-s', '4', '-c', '1', '-z', '1024', '-d', file];
    expect((await nvme(subject.socket, write)).status).toBe(0);
    const compare = ['compare', '-n', '1', '-s', '4', '-c', '1', '-z', '1024', '-d', file];
    expect((await ours(subject.socket, compare)).status).toBe(0);
    expect((await nvme(subject.socket, compare)).status).toBe(0);
    const zeroes = ['write-zeroes', '-n', '1', '-s', '4', '-c', '1'];
    const [mine, theirs] = [await ours(subject.socket, zeroes), await nvme(subject.socket, zeroes)];
    expect(mine.stdout).toBe(theirs.stdout);
    expect(await ours(subject.socket, compare)).toMatchObject({ status: 1, stdout: '' });
    expect((await nvme(subject.socket, compare)).status).not.toBe(0);
  });

  test('set-feature: what is printed, and what is there afterwards', async () => {
    for (const [run, value] of [
      [nvme, '0'],
      [ours, '0'],
    ] as const) {
      const { stdout } = await run(subject.socket, ['set-feature', '-f', '6', '-v', value]);
      expect(stdout).toBe(
        'set-feature:0x06 (Volatile Write Cache), value:00000000, cdw12:00000000, save:0\n',
      );
    }
    const timestamp = ['set-feature', '-f', '0x0e', '-v', '0x123456789a'];
    const [mine, theirs] = [await ours(subject.socket, timestamp), await nvme(subject.socket, timestamp)];
    // The line before the data has dword 11, which nvme fills in as well; it also ends the letters with what its stack has.
    const data = ({ stdout }: { stdout: string }) =>
      stdout
        .split('\n')
        .slice(1)
        .map((line) => line.split('"')[0]);
    expect(data(mine)).toEqual(data(theirs));
  });

  test('format: one formats, the other sees it', async () => {
    const format = ['format', '-n', '1', '-b', '4096', '--force'];
    const theirs = await nvme(subject.socket, format);
    const sees = async () =>
      JSON.parse((await ours(subject.socket, ['id-ns', '-n', '1', '--json'])).stdout) as { flbas: number };
    expect((await sees()).flbas).toBe(1);
    const back = ['format', '-n', '1', '-l', '0', '--force'];
    const mine = await ours(subject.socket, back);
    expect(mine).toMatchObject({ status: 0, stdout: theirs.stdout });
    expect((await sees()).flbas).toBe(0);
  });
});
