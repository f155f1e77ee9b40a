import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { once } from 'node:events';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { EduDevice, MemoryStore, NvmeDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { pattern } from '../nvme/fixture.js';
import { outcomeOf, Scratch, start, vfioUser } from './cli.js';
import { until } from '../support/until.js';

jest.setTimeout(60_000);

let scratch: Scratch;
let socket: string;
let server: EmulatorServer | undefined;
let device: NvmeDevice;

beforeEach(async () => {
  scratch = new Scratch();
  socket = scratch.path('nvme');
  device = new NvmeDevice({
    serialNumber: 'SPEC-1',
    namespaces: [{ store: new MemoryStore(8 << 20) }, { store: new MemoryStore(1 << 20), blockSize: 4096 }],
  });
  server = await serve(device, { path: socket });
});

afterEach(async () => {
  await server?.close();
  await device.close();
  scratch.remove();
});

async function succeed(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await vfioUser('nvme', ...args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

async function fail(...args: string[]): Promise<{ status: number | null; stderr: string }> {
  const { status, stdout, stderr } = await vfioUser('nvme', ...args);
  expect(stdout).toBe('');
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  return { status, stderr };
}

/** What the namespace has. */
function held(namespace: number, offset: number, length: number): Buffer {
  return Buffer.from(device.namespaces[namespace - 1]!.store.read(offset, length) as Buffer);
}

describe('nvme identify', () => {
  test('for people', async () => {
    const text = await succeed('identify', socket);
    for (const part of [/serial number +SPEC-1\n/, /version +2\.0\.0\n/, /longest transfer +128 KiB\n/]) {
      expect(text).toMatch(part);
    }
    expect(text).toMatch(/Namespace 1\n +size +16384 blocks of 512 bytes, 8 MiB\n/);
    expect(text).toMatch(/Namespace 2\n +size +256 blocks of 4 KiB, 1 MiB\n/);
  });

  test('as JSON', async () => {
    expect(JSON.parse(await succeed('identify', socket, '--json'))).toMatchObject({
      socket,
      version: '2.0.0',
      maxTransferBytes: 131_072,
      maxQueues: 16,
      controller: { serialNumber: 'SPEC-1', vendorId: 0x1234, namespaces: 2 },
      namespaces: [
        { id: 1, blockSize: 512, blocks: 16_384, size: 16_384 },
        { id: 2, blockSize: 4096, blocks: 256 },
      ],
    });
  });

  test('one namespace; and one that is not there', async () => {
    const report = JSON.parse(await succeed('identify', socket, '--nsid', '2', '--json')) as {
      namespaces: unknown[];
    };
    expect(report.namespaces).toMatchObject([{ id: 2 }]);
    const { status, stderr } = await fail('identify', socket, '--nsid', '5');
    expect(status).toBe(1);
    expect(stderr).toContain('INVALID_NAMESPACE_OR_FORMAT');
  });

  test('a device that is no NVMe controller', async () => {
    const path = scratch.path('edu');
    await using edu = await serve(new EduDevice(), { path });
    expect(edu.path).toBe(path);
    expect((await fail('identify', path)).stderr).toContain('is not an NVMe controller');
  });

  test("SPDK's directory for a socket", async () => {
    const directory = scratch.path('spdk');
    mkdirSync(directory);
    await using other = await serve(device, { path: `${directory}/cntrl` });
    expect(other.path).toBe(`${directory}/cntrl`);
    expect(await succeed('identify', directory)).toContain('SPEC-1');
  });
});

describe('nvme smart', () => {
  test('for people, and as JSON', async () => {
    await succeed('write', socket, '--input', file('data', pattern(4096)));
    const text = await succeed('smart', socket);
    expect(text).toMatch(/critical warnings +none\n/);
    expect(text).toMatch(/temperature +311 K \(38 °C\)\n/);
    expect(text).toMatch(/host write commands +1\n/);
    expect(JSON.parse(await succeed('smart', socket, '--json'))).toMatchObject({
      temperatureKelvin: 311,
      hostWriteCommands: 1,
      dataUnitsWritten: 1,
    });
  });
});

/** A file with that in it. */
function file(name: string, bytes: Buffer): string {
  const path = scratch.path(name);
  writeFileSync(path, bytes);
  return path;
}

describe('nvme write and read', () => {
  test('a file, there and back', async () => {
    const data = pattern(3 << 20);
    await succeed('write', socket, '--lba', '100', '--input', file('in', data));
    expect(held(1, 51_200, data.length).equals(data)).toBe(true);
    const out = scratch.path('out');
    await succeed('read', socket, '--lba', '100', '--blocks', String(data.length / 512), '--output', out);
    expect(readFileSync(out).equals(data)).toBe(true);
  });

  test('stdin and stdout', async () => {
    const data = pattern(2_500_000);
    const child = start(['nvme', 'write', socket, '--nsid', '2', '--lba', '3', '--pad']);
    child.stdin!.on('error', () => undefined);
    child.stdin!.end(data.subarray(0, 700_000));
    expect(await outcomeOf(child)).toMatchObject({ status: 0, stderr: '' });
    expect(held(2, 3 * 4096, 700_000).equals(data.subarray(0, 700_000))).toBe(true);
    const { status, bytes } = await vfioUser(
      'nvme',
      'read',
      socket,
      '--nsid',
      '2',
      '--lba',
      '3',
      '--blocks',
      '171',
    );
    expect(status).toBe(0);
    expect(bytes.subarray(0, 700_000).equals(data.subarray(0, 700_000))).toBe(true);
    expect(bytes.subarray(700_000).equals(Buffer.alloc(171 * 4096 - 700_000))).toBe(true);
  });

  test('- is a standard stream', async () => {
    const data = pattern(8192);
    const child = start(['nvme', 'write', socket, '--input', '-']);
    child.stdin!.end(data);
    expect(await outcomeOf(child)).toMatchObject({ status: 0, stdout: '', stderr: '' });
    const { status, bytes } = await vfioUser('nvme', 'read', socket, '--blocks', '16', '--output', '-');
    expect({ status, same: bytes.equals(data) }).toEqual({ status: 0, same: true });
  });

  test('a stream that ends within a block says what has been written', async () => {
    const data = pattern((1 << 20) + 100);
    const child = start(['nvme', 'write', socket]);
    child.stdin!.on('error', () => undefined);
    child.stdin!.end(data);
    const { status, stderr } = await outcomeOf(child);
    expect(status).toBe(2);
    expect(stderr).toContain('no whole number of blocks of 512 bytes: --pad fills the last one');
    expect(stderr).toContain('the first 2048 blocks have been written');
    expect(held(1, 0, 1 << 20).equals(data.subarray(0, 1 << 20))).toBe(true);
    expect(held(1, 1 << 20, 512).equals(Buffer.alloc(512))).toBe(true);
  });

  test('the whole namespace where nothing is said', async () => {
    const out = scratch.path('all');
    await succeed('read', socket, '--nsid', '2', '--output', out);
    expect(statSync(out).size).toBe(1 << 20);
  });

  test.each([
    ['parts of blocks', ['write', '--input', 'ODD'], 'no whole number of blocks'],
    [
      'more than there is room for',
      ['write', '--lba', '16383', '--input', 'EVEN'],
      'LBA range [16383, 16385) is out of range',
    ],
    [
      'blocks beyond the end',
      ['read', '--lba', '16384', '--blocks', '1', '--output', 'OUT'],
      'LBA range [16384, 16385) is out of range',
    ],
    ['nothing', ['write', '--input', 'EMPTY'], 'is empty'],
    ['a number that is none', ['read', '--lba', 'x'], 'A number is decimal'],
  ])('%s: wrong usage', async (_, [verb, ...options], message) => {
    file('ODD', pattern(1000));
    file('EVEN', pattern(1024));
    file('EMPTY', Buffer.alloc(0));
    const args = options.map((option) => (/^[A-Z]+$/.test(option) ? scratch.path(option) : option));
    const { status, stderr } = await fail(verb!, socket, ...args);
    expect(status).toBe(2);
    expect(stderr).toContain(message);
  });

  test('more on stdin than there is room for', async () => {
    const child = start(['nvme', 'write', socket, '--nsid', '2', '--lba', '200']);
    child.stdin!.on('error', () => undefined);
    child.stdin!.end(pattern(2 << 20));
    const { status, stderr } = await outcomeOf(child);
    expect(status).toBe(2);
    expect(stderr).toContain('more data than room');
  });

  test('an error of the controller is told by its name', async () => {
    device.intercept = ({ queue }) => (queue > 0 ? { status: 0x281 } : 'pass');
    const { status, stderr } = await fail('read', socket, '--blocks', '1', '--output', scratch.path('out'));
    expect(status).toBe(1);
    expect(stderr).toMatch(/UNRECOVERED_READ_ERROR/);
  });
});

interface Report {
  iops: number;
  seconds: number;
  count: number;
  totalIos: number;
  totalReads: number;
  totalWrites: number;
  latencyUs: Record<'mean' | 'p50' | 'p99' | 'p999' | 'max', number> & {
    sampled: { count: number; every: number };
    curve: [number, number][];
  };
  userSeconds: number;
}

describe('nvme bench', () => {
  test.each([
    ['--rw', 'randread', '--api', 'poll'],
    ['--rw', 'randwrite', '--api', 'poll', '--size', '16K', '--qd', '4'],
    ['--rw', 'randwrite', '--api', 'poll', '--page-offset', '1024'],
    ['--rw', 'randwrite', '--api', 'poll', '--page-offset', '0'],
    ['--rw', 'read', '--api', 'promise'],
    ['--rw', 'write', '--api', 'promise', '--completion', 'interrupt', '--qd', '1'],
    ['--rw', 'randread', '--api', 'promise', '--nsid', '2', '--size', '128K', '--qd', '3'],
  ])('%s %s %s %s', async (...options) => {
    const text = await succeed('bench', socket, '--seconds', '0.3', '--verify', '--json', ...options);
    const report = JSON.parse(text) as Report;
    const value = (name: string) => options[options.indexOf(name) + 1];
    expect(report).toMatchObject({
      rw: value('--rw'),
      api: value('--api'),
      verified: true,
      doorbell: 'mapped',
    });
    expect(report.iops).toBeGreaterThan(0);
    expect(report.seconds).toBeGreaterThanOrEqual(0.29);
    const { mean, p50, p99, p999, max, sampled } = report.latencyUs;
    expect(mean).toBeGreaterThan(0);
    expect([p50, p99, p999, max]).toEqual([p50, p99, p999, max].sort((a, b) => a - b));
    expect(sampled.count).toBeGreaterThan(0);
    // A curve rises, and ends before it would have to say more than there are samples for.
    expect(report.latencyUs.curve.length).toBeGreaterThan(1);
    expect(report.latencyUs.curve).toEqual([...report.latencyUs.curve].sort(([a], [b]) => a - b));
    expect(report.latencyUs.curve.map(([, us]) => us)).toEqual(
      report.latencyUs.curve.map(([, us]) => us).sort((a, b) => a - b),
    );
    expect(report.userSeconds).toBeGreaterThan(0);
  });

  test('counts what the controller counts', async () => {
    const before = device.commandCount;
    const report = JSON.parse(
      await succeed('bench', socket, '--seconds', '0.2', '--qd', '7', '--json'),
    ) as Report;
    expect(device.commandCount - before).toBe(report.totalIos);
    expect(report.totalIos).toBeGreaterThanOrEqual(report.count);
  });

  test.each(['randwrite', 'randread'])('counts what is stamped and checked too: %s', async (rw) => {
    const counts = { 1: 0, 2: 0 };
    device.intercept = ({ queue, opcode }) => {
      if (queue > 0 && (opcode === 1 || opcode === 2)) counts[opcode]++;
      return 'pass';
    };
    const options = ['--seconds', '0.2', '--rw', rw, '--verify', '--json'];
    const report = JSON.parse(await succeed('bench', socket, ...options)) as Report;
    expect(report).toMatchObject({ totalWrites: counts[1], totalReads: counts[2] });
    expect(report.totalIos).toBe(counts[1] + counts[2]);
  });

  test('for people', async () => {
    const text = await succeed('bench', socket, '--seconds', '0.2', '--qd', '2', '--rw', 'read');
    expect(text).toMatch(/^\d+ read transfers of 4096 bytes a second at depth 2 \(poll\), [\d.]+ MB\/s\n/);
    expect(text).toMatch(/latency in µs: mean [\d.]+, median [\d.]+, 99 % /);
  });

  test('answers that are wrong are noticed', async () => {
    // From the first read after the namespace was prepared, blocks have lost what was written.
    let reads = 0;
    device.intercept = ({ queue, opcode }) => {
      if (queue > 0 && opcode === 2 && ++reads === 50) void device.namespaces[0]!.store.clear(0, 8 << 20);
      return 'pass';
    };
    const { status, stderr } = await fail('bench', socket, '--seconds', '5', '--verify');
    expect(status).toBe(1);
    expect(stderr).toContain('verification failed');
  });

  test.each([
    [['--size', '1000'], 'whole blocks'],
    [['--size', '1M'], 'at most 131072'],
    [['--qd', '1024'], '--qd is at most 1023'],
    [['--page-offset', '3'], '--page-offset: buffers.pageOffset must be a multiple of 4, got 3'],
    [['--page-offset', '4096'], '--page-offset: buffers.pageOffset must be an integer from 0 to 4092'],
    [['--page-offset', '4', '--api', 'promise'], '--page-offset is for --api poll'],
    [['--api', 'poll', '--completion', 'interrupt'], 'for --api promise'],
    [['--seconds', '-1'], '--seconds is a number'],
    [['--rw', 'trim'], 'Allowed choices'],
  ])('%j: wrong usage', async (options, message) => {
    const { status, stderr } = await fail('bench', socket, ...options);
    expect(status).toBe(2);
    expect(stderr).toContain(message);
  });

  test('a controller that goes away ends it', async () => {
    const child = start(['nvme', 'bench', socket, '--seconds', '30']);
    const outcome = outcomeOf(child);
    await until(() => device.commandCount >= 200);
    await server!.close();
    const { status, stderr } = await outcome;
    expect(status).toBe(1);
    expect(stderr).toContain('the connection has ended');
  });
});

describe('emulate nvme', () => {
  test('a namespace in a file, that is there the next time', async () => {
    const path = scratch.path('disk');
    const at = scratch.path('emulated');
    const data = pattern(8192);
    for (const options of [['--size', '4M'], []]) {
      const child = start([
        'emulate',
        'nvme',
        '--socket',
        at,
        '--file',
        path,
        '--block-size',
        '4096',
        ...options,
      ]);
      await once(child.stdout!, 'data');
      if (options.length > 0) await succeed('write', at, '--lba', '5', '--input', file('data', data));
      const { bytes } = await vfioUser('nvme', 'read', at, '--lba', '5', '--blocks', '2');
      expect(bytes.equals(data)).toBe(true);
      child.kill('SIGTERM');
      await once(child, 'exit');
    }
    expect(statSync(path).size).toBe(4 << 20);
  });

  test.each([
    [[], 'wants a --size'],
    [['--size', '0'], 'at least 1'],
    [['--size', '1M', '--block-size', '1000'], 'blockSize must be 512'],
  ])('%j: wrong usage', async (options, message) => {
    const { status, stderr } = await vfioUser('emulate', 'nvme', '--socket', scratch.path('x'), ...options);
    expect(status).toBe(2);
    expect(stderr).toContain(message);
  });
});
