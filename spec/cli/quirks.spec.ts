/** `--quirks FILE`: what `doctor` says of a server is respected by every other verb, and nonsense is refused. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { writeFileSync } from 'node:fs';
import {
  DeviceError,
  PciConfigSpace,
  PciDevice,
  serve,
  type EmulatorServer,
} from '../../lib/emulator/index.js';
import type { Quirks } from '../../lib/index.js';
import { Scratch, vfioUser, type Outcome } from './cli.js';

jest.setTimeout(90_000);

const SIZE = 4096;
const EINVAL = 22;

/** BAR0: byte n is n mod 251, and accesses have 4 bytes or are refused. */
class PickyDevice extends PciDevice {
  reads: [offset: number, count: number][] = [];

  constructor() {
    super(
      new PciConfigSpace({
        vendorId: 0xcafe,
        deviceId: 3,
        classCode: 0xff0000,
        bars: [{ index: 0, size: SIZE }],
      }),
      [],
    );
    const bytes = Buffer.from(Uint8Array.from({ length: SIZE }, (_, n) => n % 251));
    const check = (count: number): void => {
      if (count !== 4) throw new DeviceError(EINVAL, 'registers have 4 bytes');
    };
    this.addRegion({
      index: 0,
      size: SIZE,
      handler: {
        read: (offset, count) => {
          this.reads.push([offset, count]);
          check(count);
          return bytes.subarray(offset, offset + count);
        },
        write: (_offset, data) => check(data.length),
      },
    });
  }
}

let scratch: Scratch;
let socket: string;
let file: string;
let device: PickyDevice;
let server: EmulatorServer;
/** Commands by name, as they come; the connection ends at those that are `deadly`. */
let commands: string[];
let deadly: string[];

beforeEach(async () => {
  scratch = new Scratch();
  socket = scratch.path('device');
  file = scratch.path('quirks.json');
  device = new PickyDevice();
  commands = [];
  deadly = [];
  server = await serve(device, {
    path: socket,
    intercept: ({ name }) => {
      commands.push(name);
      return deadly.includes(name) ? 'close' : 'pass';
    },
  });
});

afterEach(async () => {
  await server.close();
  scratch.remove();
});

function quirks(value: Quirks): void {
  writeFileSync(file, JSON.stringify(value));
}

function mustNotSend(command: string): string {
  return `vfio-user: ${command} must not be sent to this server (quirk doNotSend) [ERR_VFIO_USER_UNSUPPORTED]\n`;
}

const quirky = (...args: string[]): Promise<Outcome> => vfioUser('--quirks', file, ...args);

describe('vfio-user --quirks', () => {
  test("takes a report of the doctor's: accesses are cut, and what is deadly is not sent", async () => {
    deadly = ['DEVICE_FEATURE'];
    const { stdout: report } = await vfioUser('doctor', socket, '--json');
    writeFileSync(file, report);
    expect(JSON.parse(report)).toMatchObject({
      quirks: { accessWidths: { bar0: [4] }, doNotSend: ['DEVICE_FEATURE'] },
    });

    const without = await vfioUser('dump', socket, 'bar0', '--length', '16', '--enable');
    expect(without.stderr).toMatch(/^vfio-user: REGION_READ: the server answered EINVAL/);
    device.reads = [];
    const dumped = await quirky('dump', socket, 'bar0', '--length', '16', '--enable');
    expect(dumped).toMatchObject({ status: 0, stderr: '' });
    expect(dumped.bytes.toString('hex')).toBe('000102030405060708090a0b0c0d0e0f');
    expect(device.reads).toEqual([0, 4, 8, 12].map((offset) => [offset, 4]));

    const lost = await vfioUser('migrate', 'state', socket);
    expect(lost.stderr).toMatch(/the server closed the connection/);
    commands = [];
    const refused = await quirky('migrate', 'state', socket);
    expect(refused).toMatchObject({ status: 1, stderr: mustNotSend('DEVICE_FEATURE') });
    expect(commands).not.toContain('DEVICE_FEATURE');
  });

  test('takes quirks alone, and sends no more than is needed', async () => {
    quirks({ doNotSend: ['DEVICE_RESET', 'DEVICE_GET_IRQ_INFO'] });
    expect(await quirky('reset', socket)).toMatchObject({ status: 1, stderr: mustNotSend('DEVICE_RESET') });
    expect(await quirky('info', socket)).toMatchObject({ status: 0, stderr: '' });
    expect(commands).not.toContain('DEVICE_RESET');
    expect(commands).not.toContain('DEVICE_GET_IRQ_INFO');
    expect(commands).toContain('DEVICE_GET_REGION_INFO');
  });

  test('says what cannot be cut, and sends nothing of it', async () => {
    quirks({ accessWidths: { bar0: [4] } });
    const { status, stderr } = await quirky('read', socket, 'bar0', '2', '--width', '2', '--enable');
    expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringMatching(/^vfio-user: [^\n]+\n$/) });
    expect(device.reads).toEqual([]);
  });
});

describe('a file that makes no sense', () => {
  /** What is said of it in one line, before anything is sent. */
  async function refusal(text: string): Promise<{ status: number | null; line: string }> {
    writeFileSync(file, text);
    const { status, stdout, stderr } = await quirky('read', socket, 'config', '0');
    expect(stdout).toBe('');
    expect(stderr).toMatch(/^vfio-user: [^\n]+\n$/);
    expect(commands).toEqual([]);
    return { status, line: stderr.slice('vfio-user: '.length, -1) };
  }

  test('one that is not there', async () => {
    const { status, stderr } = await quirky('read', socket, 'config', '0');
    expect(stderr).toBe(`vfio-user: ENOENT: no such file or directory, open '${file}'\n`);
    expect(status).toBe(1);
    expect(commands).toEqual([]);
  });

  test.each(['', '{', 'writeChunkBytes: 5'])('no JSON: %j', async (text) => {
    expect(await refusal(text)).toEqual({ status: 2, line: `${file} is no JSON` });
  });

  test.each([
    ['[]', 'quirks is an object'],
    ['null', 'quirks is an object'],
    ['{"format":1,"quirks":5}', 'quirks is an object'],
    ['{"accessWidth":{}}', 'no quirk is called accessWidth: there are writeChunkBytes, '],
    ['{"writeChunkBytes":"4096"}', 'quirks.writeChunkBytes is a positive integer, not 4096'],
    ['{"inFlight":0}', 'quirks.inFlight is a positive integer, not 0'],
    ['{"twinSocket":"no"}', 'quirks.twinSocket is true or false'],
    ['{"accessWidths":[4]}', 'quirks.accessWidths is an object with a list for each region'],
    ['{"accessWidths":{"bar0":4}}', 'quirks.accessWidths.bar0 is a list of 1, 2, 4 and 8'],
    ['{"accessWidths":{"bar0":[3]}}', 'quirks.accessWidths.bar0 is a list of 1, 2, 4 and 8'],
    ['{"accessWidths":{"bar9":[4]}}', 'quirks.accessWidths: bar9 is no region: '],
    ['{"doNotSend":"DEVICE_RESET"}', 'quirks.doNotSend is a list of commands'],
    ['{"doNotSend":["VERSION"]}', 'quirks.doNotSend: VERSION is none of DMA_MAP, '],
    ['{"format":1,"quirks":{"inFlight":-1}}', 'quirks.inFlight is a positive integer, not -1'],
  ])('%s', async (text, message) => {
    const { status, line } = await refusal(text);
    expect(line).toContain(`${file}: ${message}`);
    expect(status).toBe(2);
  });
});
