/** `vfio-user virtio bench`: what it has of `nvme bench`, on virtio disks. */
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { buildProgram } from '../../lib/cli/program.js';
import { MemoryStore, serve, VirtioBlkDevice, type EmulatorServer } from '../../lib/emulator/index.js';
import { Scratch, vfioUser } from './cli.js';

jest.setTimeout(60_000);

const READ = 0;
const WRITE = 1;

let scratch: Scratch;
let sockets: string[];
let servers: EmulatorServer[];
let devices: VirtioBlkDevice[];

beforeEach(async () => {
  scratch = new Scratch();
  sockets = [scratch.path('a'), scratch.path('b')];
  devices = sockets.map(() => new VirtioBlkDevice({ store: new MemoryStore(8 << 20), queues: 2 }));
  servers = await Promise.all(devices.map((device, i) => serve(device, { path: sockets[i]! })));
});

afterEach(async () => {
  for (const server of servers) await server.close();
  for (const device of devices) await device.close();
  scratch.remove();
});

async function bench(...args: string[]): Promise<Record<string, unknown>> {
  const { status, stdout, stderr } = await vfioUser('virtio', 'bench', ...args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return JSON.parse(stdout) as Record<string, unknown>;
}

test('a mix, by several queues of several disks, packed: counted as the devices count, and checked', async () => {
  const counts = [0, 0];
  for (const device of devices) device.intercept = ({ type }) => void (counts[type!] = counts[type!]! + 1);
  const options = ['--rw', 'randrw', '--rwmixread', '70', '--queues', '2', '--qd', '4', '--seconds', '0.3'];
  const report = await bench(...sockets, ...options, '--ring', 'packed', '--verify', '--json');
  expect(report).toMatchObject({ queues: 2, devices: 2, rwmixread: 70, ring: 'packed', verified: true });
  expect(report).not.toHaveProperty('nsid');
  expect([report['totalReads'], report['totalWrites']]).toEqual([counts[READ], counts[WRITE]]);
  expect(report['iops']).toBeGreaterThan(0);
});

test('so much in all by promises, an answer by interrupt: a sweep as fio', async () => {
  const options = ['--total', '256K', '--ramp', '0', '--api', 'promise', '--completion', 'interrupt'];
  const report = await bench(sockets[0]!, ...options, '--sweep', 'qd=1,4', '--output-format', 'fio');
  const jobs = report['jobs'] as { jobname: string; read: { total_ios: number } }[];
  expect(jobs.map(({ jobname }) => jobname)).toEqual(['randread-qd1', 'randread-qd4']);
  for (const { read } of jobs) expect(read.total_ios).toBeGreaterThanOrEqual(64);
});

test('a disk that answers what was not written there: the check says so', async () => {
  let reads = 0;
  devices[0]!.intercept = ({ type }) => {
    if (type === READ && ++reads === 3) void devices[0]!.store.clear(0, 8 << 20);
  };
  const { status, stderr } = await vfioUser('virtio', 'bench', sockets[0]!, '--seconds', '5', '--verify');
  expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringContaining('verification failed') });
});

test.each([
  [['--queues', '3'], '--queues is at most 2'],
  [['--size', '1000'], '--size is whole blocks of 512 bytes'],
  [['--size', '5M'], '--size is at most 4194304'],
  [['--qd', '257'], '--qd is at most 256'],
  [['--completion', 'interrupt'], '--completion interrupt is for --api promise'],
])('%j: wrong usage', async (options, message) => {
  expect(await usageError(sockets[0]!, ...options)).toContain(message);
});

test('the same disk twice: wrong usage', async () => {
  expect(await usageError(sockets[0]!, sockets[0]!)).toContain('each SOCKET once');
});

/** In this process: starting one takes longer than the rest. */
async function usageError(...args: string[]): Promise<string> {
  const program = await buildProgram();
  const failure = await program.parseAsync(['virtio', 'bench', ...args], { from: 'user' }).then(
    () => new Error('it did not fail'),
    (error: unknown) => error as Error,
  );
  expect(failure.name).toBe('UsageError');
  return failure.message;
}
