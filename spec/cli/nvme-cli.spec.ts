/** The verbs of `vfio-user nvme` that are nvme-cli's: what they do, and what they refuse. Beside nvme itself: spec/decoders. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { readFileSync, writeFileSync } from 'node:fs';
import { MemoryStore, NvmeDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { HAS_SCRIPT, outcomeOf, Scratch, start, startOnTerminal, vfioUser } from './cli.js';

jest.setTimeout(120_000);

let scratch: Scratch;
let socket: string;
let server: EmulatorServer;
let device: NvmeDevice;

beforeEach(async () => {
  scratch = new Scratch();
  socket = scratch.path('nvme');
  device = new NvmeDevice({
    serialNumber: 'SPEC-1',
    namespaces: [{ store: new MemoryStore(8 << 20) }, { store: new MemoryStore(1 << 20), metadataSize: 8 }],
  });
  server = await serve(device, { path: socket });
});

afterEach(async () => {
  await server.close();
  await device.close();
  scratch.remove();
});

async function succeed(verb: string, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await vfioUser('nvme', verb, socket, ...args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

async function refuse(verb: string, ...args: string[]): Promise<{ status: number | null; stderr: string }> {
  const { status, stdout, stderr } = await vfioUser('nvme', verb, socket, ...args);
  expect(stdout).toBe('');
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  return { status, stderr };
}

/** The types of a tree's values, by key. */
function types(json: string): Record<string, string> {
  const tree = JSON.parse(json) as Record<string, unknown>;
  return Object.fromEntries(Object.entries(tree).map(([key, value]) => [key, typeof value]));
}

function file(name: string, bytes: Buffer): string {
  const path = scratch.path(name);
  writeFileSync(path, bytes);
  return path;
}

function held(offset: number, length: number): Buffer {
  return Buffer.from(device.namespaces[0]!.store.read(offset, length) as Buffer);
}

describe('what a controller is', () => {
  test('id-ctrl has numbers, and strings for what is longer', async () => {
    const found = types(await succeed('id-ctrl', '-o', 'json'));
    expect(found).toMatchObject({
      vid: 'number',
      sn: 'string',
      tnvmcap: 'string',
      psds: 'object',
      oacs: 'number',
    });
    expect(JSON.parse(await succeed('id-ctrl', '--json'))).toMatchObject({
      sn: 'SPEC-1'.padEnd(20),
      ver: 0x20000,
      nn: 2,
    });
    expect(await succeed('id-ctrl')).toMatch(/^NVME Identify Controller:\nvid {7}: 0x1234\n/);
  });

  test('id-ns of a namespace, as bytes too', async () => {
    expect(JSON.parse(await succeed('id-ns', '-n', '2', '-o', 'json'))).toMatchObject({
      nsze: 2048,
      flbas: 2,
      mc: 2,
    });
    const { bytes } = await vfioUser('nvme', 'id-ns', socket, '--namespace-id', '2', '--raw-binary');
    expect(bytes).toHaveLength(4096);
    expect(await succeed('id-ns', '-n', '2')).toMatch(/lbaf {2}2 : ms:8 {3}lbads:9 {2}rp:0 \(in use\)\n/);
  });

  test('list of two controllers', async () => {
    const { stdout } = await vfioUser('nvme', 'list', socket, socket, '-o', 'json');
    const { Devices: devices } = JSON.parse(stdout) as { Devices: Record<string, unknown>[] };
    expect(devices.map(({ NameSpace }) => NameSpace)).toEqual([1, 2, 1, 2]);
    expect(devices[0]).toEqual({
      ...{ NameSpace: 1, DevicePath: socket, Firmware: '1.0', SerialNumber: 'SPEC-1' },
      ...{ ModelNumber: 'vfio-user emulated NVMe controller', UsedBytes: 8 << 20, MaximumLBA: 16_384 },
      ...{ PhysicalSize: 8 << 20, SectorSize: 512 },
    });
    expect(await succeed('list')).toMatch(/^Node +Generic +SN +Model +Namespace +Usage +Format +FW Rev\n-+ /);
  });

  test('smart-log, error-log, fw-log and get-log', async () => {
    expect(types(await succeed('smart-log', '-o', 'json'))).toMatchObject({
      ...{ critical_warning: 'number', temperature: 'number', power_cycles: 'string' },
    });
    const human = JSON.parse(await succeed('smart-log', '-H', '--json')) as Record<string, unknown>;
    expect(human['critical_warning']).toMatchObject({ value: 0, ro: 0 });
    await refuse('get-feature', '-f', '0x79');
    const { errors } = JSON.parse(await succeed('error-log', '-e', '2', '--json')) as { errors: unknown[] };
    expect(errors).toHaveLength(2);
    expect(errors[0]).toMatchObject({ error_count: 1, sqid: 0, status_field: 0x4002 });
    expect(JSON.parse(await succeed('fw-log', '--json'))).toEqual({
      nvme: { 'Active Firmware Slot (afi)': 1, 'Firmware Rev Slot 1': `${0x2020202020302e31n} (1.0.....)` },
    });
    expect(JSON.parse(await succeed('get-log', '-i', '3', '-l', '16', '--json'))).toMatchObject({
      data: '0100000000000000312e302020202020',
    });
  });

  test('show-regs neither resets nor enables', async () => {
    const before = device.commandCount;
    const registers = JSON.parse(await succeed('show-regs', '-o', 'json')) as Record<string, number>;
    expect(registers).toMatchObject({ vs: 0x20000, cc: 0, csts: 0, asq: 0 });
    expect(device.commandCount).toBe(before);
    const { bytes } = await vfioUser('nvme', 'show-regs', socket, '-o', 'binary');
    expect(bytes.readUInt32LE(8)).toBe(0x20000);
  });

  test('what a controller says does not steer the terminal', async () => {
    await using hostile = await serve(
      new NvmeDevice({ serialNumber: '\u001b[2J\u009b', namespaces: [{ store: new MemoryStore(1 << 20) }] }),
      { path: scratch.path('hostile') },
    );
    for (const args of [['id-ctrl'], ['id-ctrl', '-o', 'json'], ['list']]) {
      const { status, stdout } = await vfioUser('nvme', ...args, hostile.path!);
      expect(status).toBe(0);
      // eslint-disable-next-line no-control-regex
      expect(stdout).not.toMatch(/[\u001b\u009b]/);
    }
  });
});

describe('features', () => {
  test('all that there are, one, its default, and what can be done with it', async () => {
    const text = await succeed('get-feature');
    expect(text.split('\n').filter((line) => line.startsWith('get-feature:'))).toHaveLength(11);
    expect(await succeed('get-feature', '-f', '6')).toBe(
      'get-feature:0x06 (Volatile Write Cache), Current value:0x00000001\n',
    );
    expect(JSON.parse(await succeed('get-feature', '-f', '6', '-s', '3', '--json'))).toEqual({
      'feature: 0x06': { name: 'Volatile Write Cache', 'Supported capabilities': '0x00000004' },
      'Feature: 0x06: select': ['changeable'],
    });
  });

  test('set-feature with a value, and with data', async () => {
    // A controller that is enabled again has its defaults: what is set is seen in what was sent.
    const seen: [number, bigint][] = [];
    device.intercept = ({ queue, opcode, lba }) => {
      if (queue === 0 && opcode === 9) seen.push([opcode, lba]);
      return 'pass';
    };
    expect(await succeed('set-feature', '-f', '4', '-v', '0x150')).toMatch(
      /^set-feature:0x04 .*value:0x00000150, /,
    );
    expect(seen.at(-1)).toEqual([9, (0x150n << 32n) | 4n]);
    const data = file('time', Buffer.from('0102030405060000', 'hex'));
    expect(await succeed('set-feature', '-f', '0x0e', '-d', data)).toContain('01 02 03 04 05 06 00 00');
    expect((await refuse('set-feature', '-f', '4', '-v', '1', '--save')).stderr).toContain(
      'FEATURE_NOT_SAVEABLE',
    );
  });

  test.each([
    [['set-feature', '-f', '0', '-v', '1'], '--feature-id is 1 to 255'],
    [['set-feature', '-f', '4'], '--value says what the feature is to be'],
    [['set-feature', '-f', '4', '-v', '0x100000000'], '--value has 32 bits'],
    [['set-feature', '-f', '0x0e', '-v', '0x1000000000000'], '48 bits'],
    [['set-feature', '-f', '0x0e', '-d', 'SHORT'], 'the command takes 8'],
    [['set-feature', '-v', '1'], "required option '-f, --feature-id <id>'"],
    [['get-feature', '-f', '256'], 'It is at most 255'],
    [['get-feature', '-f', '6', '-l', '3'], '--data-len is a multiple of 4'],
    [['get-feature', '-f', '6', '-s', '5'], '--sel is 0 to 3, or 8'],
  ])('%j: wrong usage', async ([verb, ...args], message) => {
    file('SHORT', Buffer.alloc(7));
    const { status, stderr } = await refuse(
      verb!,
      ...args.map((arg) => (arg === 'SHORT' ? scratch.path(arg) : arg)),
    );
    expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringContaining(message) });
  });
});

describe('blocks', () => {
  test('write-zeroes, dsm, compare, flush', async () => {
    const data = Buffer.alloc(4096, 'zzz');
    await device.namespaces[0]!.store.write(0, data);
    expect(await succeed('compare', '-c', '7', '-d', file('same', data))).toBe('compare: Success\n');
    expect(JSON.parse(await succeed('write-zeroes', '-s', '1', '-c', '0', '--json'))).toEqual({
      nsid: 1,
      status: 'success',
    });
    expect(held(512, 512).equals(Buffer.alloc(512))).toBe(true);
    expect(held(1024, 512).equals(data.subarray(1024, 1536))).toBe(true);
    expect(await succeed('dsm', '-s', '0,6', '-b', '1,2', '--ad')).toBe('NVMe DSM: success\n');
    expect(held(0, 512).equals(Buffer.alloc(512)) && held(3072, 1024).equals(Buffer.alloc(1024))).toBe(true);
    expect(await succeed('flush', '-n', '0xffffffff')).toBe('NVMe Flush: success\n');
    const { status, stderr } = await refuse('compare', '-c', '7', '-d', scratch.path('same'));
    expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringContaining('COMPARE_FAILURE') });
  });

  test('metadata of a namespace, there and back', async () => {
    const [data, metadata] = [file('data', Buffer.alloc(1024, 'd')), file('meta', Buffer.alloc(16, 'm'))];
    const write = ['-o', '1', '-n', '2', '-6', '1', '-l', '1024', '-m', '16', '-i', data, '-M', metadata];
    await vfioUser('nvme', 'io-passthru', socket, ...write);
    const out = scratch.path('out');
    const read = ['-o', '2', '-n', '2', '-6', '1', '-l', '1024', '-m', '16', '-M', out, '-b'];
    const { status, bytes } = await vfioUser('nvme', 'io-passthru', socket, ...read);
    expect({ status, same: bytes.equals(Buffer.alloc(1024, 'd')) }).toEqual({ status: 0, same: true });
    expect(readFileSync(out, 'utf8')).toBe('m'.repeat(16));
    expect(await succeed('compare', '-n', '2', '-c', '1', '-d', data, '-M', metadata, '-y', '16')).toBe(
      'compare: Success\n',
    );
  });

  test.each([
    [['dsm'], '--slbs and --blocks say which ranges'],
    [['dsm', '-s', '0', '-b', '0x100000000'], '--blocks: a number has 32 bits'],
    [['dsm', '-s', '0,x'], 'A number is decimal'],
    [['dsm', '-s', Array.from({ length: 257 }, () => '0').join()], 'at most 256 ranges'],
    [['write-zeroes', '-c', '65536'], 'It is at most 65535'],
    [['write-zeroes', '-r', '0x100000000'], '--ref-tag has 32 bits'],
    [['compare', '-d', 'ODD'], 'the command takes 512'],
    [['compare', '-d', 'ODD', '-z', '100'], '--data-size: 1 blocks have 512 bytes'],
    [['compare', '-M', 'ODD'], '--metadata and --metadata-size go together'],
    [['flush', '-n', '0'], 'It is at least 1'],
  ])('%j: wrong usage', async ([verb, ...args], message) => {
    file('ODD', Buffer.alloc(100));
    const { status, stderr } = await refuse(
      verb!,
      ...args.map((arg) => (arg === 'ODD' ? scratch.path(arg) : arg)),
    );
    expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringContaining(message) });
  });

  test('blocks that there are not', async () => {
    const { status, stderr } = await refuse('write-zeroes', '-s', '16384');
    expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringContaining('LBA_OUT_OF_RANGE') });
  });
});

describe('passthrough', () => {
  test('admin and I/O, as bytes, as JSON, and not at all', async () => {
    const { bytes, stderr } = await vfioUser(
      'nvme',
      'admin-passthru',
      socket,
      '-o',
      '6',
      '--cdw10',
      '1',
      '-l',
      '4096',
      '-b',
    );
    expect(bytes.readUInt16LE(0)).toBe(0x1234);
    expect(stderr).toBe('Admin Command Identify is Success and result: 0x00000000\n');
    const json = await succeed('admin-passthru', '-o', '0x0a', '-4', '6', '--json');
    expect(JSON.parse(json)).toEqual({ result: '0x00000001' });
    const before = device.commandCount;
    const dry = await vfioUser(
      'nvme',
      'io-passthru',
      '/nonexistent',
      '-o',
      '2',
      '-n',
      '1',
      '-l',
      '512',
      '--dry-run',
    );
    expect(dry).toMatchObject({ status: 0, stderr: '' });
    expect(dry.stdout).toMatch(/^opcode {7}: 02\nflags {8}: 00\nnsid {9}: 00000001\n/);
    expect(device.commandCount).toBe(before);
  });

  test.each([
    [
      'admin-passthru',
      ['-o', '6', '-4', '1', '-l', '512'],
      'Identify gives 4096 bytes: receive must be at least that',
    ],
    ['admin-passthru', ['-o', '2', '-4', '0x7f0002', '-l', '256'], 'gives 512 bytes'],
    ['admin-passthru', ['-o', '8', '-l', '64'], '--data-len: opcode 0x08 transfers no data'],
    ['admin-passthru', ['-o', '6', '-w'], '--write: opcode 0x06 transfers nothing that way'],
    ['admin-passthru', ['-o', '6', '-f', '1'], '--flags is 0'],
    ['admin-passthru', ['-o', '6', '-m', '8', '-M', 'x'], '--metadata-len is for io-passthru'],
    ['admin-passthru', ['-o', '256'], 'It is at most 255'],
    ['admin-passthru', [], "required option '-o, --opcode <n>'"],
    ['io-passthru', ['-o', '2', '-n', '1', '-l', '1024'], '1 blocks: 512 bytes are transferred, got 1024'],
    ['io-passthru', ['-o', '2', '-n', '1'], '1 blocks: 512 bytes are transferred, got 0'],
    [
      'io-passthru',
      ['-o', '2', '-n', '2', '-l', '512', '-m', '64', '-M', 'x'],
      'the metadata of 1 blocks: 8 bytes',
    ],
    ['io-passthru', ['-o', '0xc3', '-n', '1', '-l', '512'], 'goes both ways: --read or --write says which'],
    ['io-passthru', ['-o', '2', '-n', '1', '-l', '1G'], '--data-len and --metadata-len are at most'],
    [
      'io-passthru',
      ['-o', '9', '-n', '1', '-4', '1', '-l', '16', '-i', 'SHORT'],
      'Dataset Management: 32 bytes',
    ],
  ])('%s %j: wrong usage', async (verb, args, message) => {
    file('SHORT', Buffer.alloc(16));
    const { status, stderr } = await refuse(
      verb,
      ...args.map((arg) => (arg === 'SHORT' ? scratch.path(arg) : arg)),
    );
    expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringContaining(message) });
  });

  test('a status is an error with its name', async () => {
    const { status, stderr } = await refuse('admin-passthru', '-o', '0xc0');
    expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringContaining('INVALID_OPCODE') });
  });
});

describe('format and reset', () => {
  test('format erases, and changes the blocks', async () => {
    await device.namespaces[0]!.store.write(0, Buffer.alloc(512, 'x'));
    expect(await succeed('format', '-n', '1', '-b', '4096', '--force')).toBe(
      'Success formatting namespace:1\n',
    );
    expect(device.namespaces[0]).toMatchObject({ blockSize: 4096, blocks: 2048 });
    expect(held(0, 512).equals(Buffer.alloc(512))).toBe(true);
    expect(
      JSON.parse(await succeed('format', '-n', '0xffffffff', '-l', '3', '--force', '-r', '--json')),
    ).toMatchObject({
      status: 'success',
    });
    expect(device.namespaces.map(({ metadataSize }) => metadataSize)).toEqual([8, 8]);
  });

  test('without a terminal it wants --force, and nothing is done', async () => {
    const { status, stderr } = await refuse('format', '-n', '1');
    expect({ status, stderr }).toEqual({
      status: 2,
      stderr: expect.stringContaining('--force goes on without asking'),
    });
    expect(device.namespaces[0]!.blockSize).toBe(512);
  });

  (HAS_SCRIPT ? test : test.skip).each([
    ['yes\n', 4096, 0],
    ['no\n', 512, 2],
  ])('on a terminal it asks: %j', async (answer, blockSize, status) => {
    const child = startOnTerminal(['nvme', 'format', socket, '-n', '1', '-b', '4096']);
    child.stdout!.on('data', (text: Buffer) => {
      if (text.toString().includes('Type yes')) child.stdin!.write(answer);
    });
    expect((await outcomeOf(child)).status).toBe(status);
    expect(device.namespaces[0]!.blockSize).toBe(blockSize);
  });

  test.each([
    [['-l', '0', '-b', '512'], '--lbaf and --block-size exclude each other'],
    [['-b', '1000'], '--block-size is a power of two'],
    [['-n', '1', '-b', '2048'], 'no format with blocks of 2048 bytes'],
    [['-n', '0xffffffff', '-b', '512'], '--block-size is of one namespace'],
    [['-l', '64'], 'It is at most 63'],
    [['-s', '3'], '--ses is 0, 1 or 2'],
  ])('%j: wrong usage', async (args, message) => {
    const { status, stderr } = await refuse('format', ...args, '--force');
    expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringContaining(message) });
  });

  test('a format that there is not, and one that the controller refuses', async () => {
    expect((await refuse('format', '-n', '1', '-l', '9', '--force')).stderr).toContain('INVALID_FORMAT');
    device.intercept = ({ queue, opcode }) => (queue === 0 && opcode === 0x80 ? { status: 0x84 } : 'pass');
    expect((await refuse('format', '-n', '1', '-l', '0', '--force')).stderr).toContain('FORMAT_IN_PROGRESS');
  });

  test('reset', async () => {
    expect(await succeed('reset')).toBe('the controller was reset\n');
    const child = start(['nvme', 'reset', scratch.path('nowhere')]);
    expect((await outcomeOf(child)).status).toBe(1);
  });
});
