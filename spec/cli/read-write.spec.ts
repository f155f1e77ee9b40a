import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import {
  DeviceError,
  EduDevice,
  PciConfigSpace,
  PciDevice,
  serve,
  type DeviceModel,
  type EmulatorServer,
} from '../../lib/emulator/index.js';
import { Scratch, vfioUser } from './cli.js';
import { PatternDevice } from './emulator.js';

jest.setTimeout(60_000);

let scratch: Scratch;
let socket: string;
let server: EmulatorServer | undefined;
let device: PatternDevice;

beforeEach(async () => {
  scratch = new Scratch();
  device = new PatternDevice();
  await serveOnly(device);
});

afterEach(async () => {
  await server?.close();
  scratch.remove();
});

async function serveOnly(model: DeviceModel): Promise<void> {
  await server?.close();
  socket = scratch.path('device');
  server = await serve(model, { path: socket });
}

async function succeed(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await vfioUser(...args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

describe('read', () => {
  test('one register of 32 bits where nothing is said', async () => {
    expect(await succeed('read', socket, 'bar0', '0x10')).toBe('0x13121110\n');
    expect(device.accesses.reads).toEqual([[16, 4]]);
  });

  test.each([
    ['1', '0x10'],
    ['2', '0x1110'],
    ['4', '0x13121110'],
    ['8', '0x1716151413121110'],
  ])('one register of %s bytes', async (width, text) => {
    expect(await succeed('read', socket, '0', '16', '--width', width)).toBe(`${text}\n`);
    expect(device.accesses.reads).toEqual([[16, Number(width)]]);
  });

  test('several registers, each in an access of its own and in order', async () => {
    const text = await succeed('read', socket, 'bar0', '0', '16', '--width', '4', '--format', 'hex');
    expect(text).toBe('0x03020100\n0x07060504\n0x0b0a0908\n0x0f0e0d0c\n');
    expect(device.accesses.reads).toEqual([0, 4, 8, 12].map((offset) => [offset, 4]));
  });

  test('a dump of many bytes, in one access', async () => {
    expect(await succeed('read', socket, 'bar0', '0x41', '20')).toBe(
      '00000041  41 42 43 44 45 46 47 48  49 4a 4b 4c 4d 4e 4f 50  |ABCDEFGHIJKLMNOP|\n' +
        `00000051  51 52 53 54${' '.repeat(37)}  |QRST|\n`,
    );
    expect(device.accesses.reads).toEqual([[0x41, 20]]);
  });

  test('raw bytes, more than one message', async () => {
    const { status, bytes } = await vfioUser('read', socket, 'bar0', '1', '200000', '--format', 'raw');
    expect(status).toBe(0);
    expect(bytes.equals(device.bytes.subarray(1, 200001))).toBe(true);
  });

  test('to a file, raw', async () => {
    const file = scratch.path('out');
    expect(await succeed('read', socket, 'bar0', '0', '70000', '--output', file)).toBe('');
    expect(readFileSync(file).equals(device.bytes.subarray(0, 70000))).toBe(true);
  });

  test('a failing read leaves the file that was there', async () => {
    const file = scratch.path('out');
    writeFileSync(file, 'precious');
    const { status } = await vfioUser('read', socket, 'bar0', '0x40000', '16', '--output', file);
    expect(status).toBe(1);
    expect(readFileSync(file, 'utf8')).toBe('precious');
  });

  test('JSON', async () => {
    const text = await succeed('read', socket, 'bar0', '0', '16', '--width', '8', '--format', 'json');
    expect(JSON.parse(text)).toEqual({
      region: 'bar0',
      offset: 0,
      length: 16,
      width: 8,
      values: ['0x706050403020100', '0xf0e0d0c0b0a0908'],
      bytes: '000102030405060708090a0b0c0d0e0f',
    });
  });

  test('config space, no access across a dword', async () => {
    const text = await succeed('read', socket, 'config', '1', '6', '--format', 'json');
    expect(JSON.parse(text)).toMatchObject({ region: 'config', bytes: 'ca0100000000' });
  });
});

describe('write', () => {
  test.each([
    [[], '04030201'],
    [['--width', '8'], '0403020100000000'],
  ])('a value, little-endian, with %j', async (options, written) => {
    expect(await succeed('write', socket, 'bar0', '8', '0x01020304', ...options)).toBe('');
    expect(device.accesses.writes).toEqual([[8, written]]);
  });

  test('a decimal value of one byte', async () => {
    await succeed('write', socket, 'bar0', '0', '200', '--width', '1');
    expect(device.accesses.writes).toEqual([[0, 'c8']]);
  });

  test('a file', async () => {
    const file = scratch.path('in');
    const bytes = Buffer.alloc(150_001, 'vfio-user');
    writeFileSync(file, bytes);
    await succeed('write', socket, 'bar0', '3', '--input', file);
    expect(device.bytes.subarray(3, 3 + bytes.length).equals(bytes)).toBe(true);
    expect(device.bytes[3 + bytes.length]).toBe((3 + bytes.length) % 251);
  });

  test('a file, in accesses of a width', async () => {
    const file = scratch.path('in');
    writeFileSync(file, 'abcdefgh');
    await succeed('write', socket, 'bar0', '0x20', '--input', file, '--width', '4');
    expect(device.accesses.writes).toEqual([
      [0x20, '61626364'],
      [0x24, '65666768'],
    ]);
  });
});

describe('--enable', () => {
  test('does what a host does first', async () => {
    await serveOnly(new EduDevice({ strict: true }));
    const { status, stderr } = await vfioUser('read', socket, 'bar0', '0');
    expect(status).toBe(1);
    expect(stderr).toMatch(
      /^vfio-user: REGION_READ: the server answered EINVAL; .*memory space is off in its command register, and --enable turns it on\n$/,
    );
    expect(await succeed('read', socket, 'bar0', '0', '--enable')).toBe('0x010000ed\n');
    await succeed('write', socket, 'bar0', '4', '0x12345678', '--enable');
    expect(await succeed('read', socket, 'bar0', '4', '--enable')).toBe('0xedcba987\n');
  });
});

/** As hardware does it: a BAR answers while its kind of space is on, and aligned dwords alone. */
class GatedDevice extends PciDevice {
  constructor() {
    const bars = [
      { index: 0, size: 4096 },
      { index: 1, size: 256, kind: 'io' as const },
    ];
    super(new PciConfigSpace({ vendorId: 0x1234, deviceId: 0x5678, bars }), []);
    for (const [{ index, size }, bit] of [
      [bars[0]!, 2],
      [bars[1]!, 1],
    ] as const) {
      const read = (offset: number, count: number): Buffer => {
        if ((this.config.command & bit) === 0 || offset % 4 !== 0)
          throw new DeviceError(constants.errno.EINVAL);
        return Buffer.alloc(count, 0x5a);
      };
      this.addRegion({ index, size, handler: { read, write: () => undefined } });
    }
  }
}

describe('--enable is recommended where it is what is missing', () => {
  test.each([
    ['bar0', 0, 'memory'],
    ['bar1', 0, 'I/O'],
    ['bar0', 1, 'memory'],
    ['bar1', 2, 'I/O'],
  ])('%s with %i in the command register', async (region, bits, space) => {
    const gated = new GatedDevice();
    await serveOnly(gated);
    await succeed('config', socket, `COMMAND=${bits}`);
    const { stderr } = await vfioUser('read', socket, region, '0');
    expect(stderr).toBe(
      `vfio-user: REGION_READ: the server answered EINVAL; ${space} space is off in its command register, and --enable ` +
        'turns it on\n',
    );
  });

  test.each([
    [['read', 'bar0', '2', '--width', '2'], 2],
    [['read', 'bar1', '2', '--width', '2'], 1],
  ])('and not by %j, whose space is on', async ([verb, ...rest], bits) => {
    await serveOnly(new GatedDevice());
    await succeed('config', socket, `COMMAND=${bits}`);
    const { stderr } = await vfioUser(verb!, socket, ...rest);
    expect(stderr).toBe('vfio-user: REGION_READ: the server answered EINVAL\n');
  });
});

describe('refused before the device is touched', () => {
  test.each([
    [['read', 'bar0', '0x40000'], 'bar0: [0x40000, 0x40004) is out of bounds (size 0x40000) [RangeError]'],
    [['read', 'bar0', '0x3fffd'], 'bar0: [0x3fffd, 0x40001) is out of bounds (size 0x40000) [RangeError]'],
    [
      ['write', 'bar0', '0x3ffff', '1'],
      'bar0: [0x3ffff, 0x40003) is out of bounds (size 0x40000) [RangeError]',
    ],
    [['read', 'bar1', '0'], 'the device has no bar1 [RangeError]'],
    [['read', '77', '0'], 'the device has regions 0 to 8, not 77 [RangeError]'],
  ])('%j', async ([verb, ...rest], message) => {
    const { status, stdout, stderr } = await vfioUser(verb!, socket, ...rest);
    expect({ status, stdout, stderr }).toEqual({ status: 1, stdout: '', stderr: `vfio-user: ${message}\n` });
    expect(device.accesses).toEqual({ reads: [], writes: [] });
  });
});
