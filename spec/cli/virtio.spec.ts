import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { MemoryStore, serve, VirtioBlkDevice, type EmulatorServer } from '../../lib/emulator/index.js';
import { Scratch, vfioUser } from './cli.js';

jest.setTimeout(60_000);

let scratch: Scratch;
let socket: string;
let server: EmulatorServer;
let device: VirtioBlkDevice;

beforeEach(async () => {
  scratch = new Scratch();
  socket = scratch.path('blk');
  device = new VirtioBlkDevice({ store: new MemoryStore(8 << 20), queues: 2, accessPlatform: false });
  server = await serve(device, { path: socket });
});

afterEach(async () => {
  await server.close();
  await device.close();
  scratch.remove();
});

test('virtio info, for people: features by name, structures, queues, configuration, and what may make it silent', async () => {
  const { status, stdout, stderr } = await vfioUser('virtio', 'info', socket);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  for (const part of [
    /virtio block +at /,
    /\n +VERSION_1\n/,
    /\n +RING_PACKED\n/,
    /common configuration +BAR 4 +0x0/,
    /\n +1 +256 entries\n/,
    /capacity +16384\n/,
    /iommu_platform=on/,
  ])
    expect(stdout).toMatch(part);
});

test('virtio info, as JSON', async () => {
  const { stdout } = await vfioUser('virtio', 'info', socket, '--json');
  const report = JSON.parse(stdout) as Record<string, unknown>;
  expect(report).toMatchObject({
    socket,
    type: 2,
    typeName: 'block',
    notifyMultiplier: 4,
    queues: [
      { index: 0, entries: 256 },
      { index: 1, entries: 256 },
    ],
    config: { capacity: 16_384, blockSize: 512, queues: 2 },
  });
  expect(report['offered']).toEqual(expect.arrayContaining(['VERSION_1', 'SEG_MAX', 'INDIRECT_DESC']));
  expect(report['offered']).not.toContain('ACCESS_PLATFORM');
});

test('info decodes the capabilities of virtio', async () => {
  const { stdout } = await vfioUser('info', socket);
  expect(stdout).toMatch(/VirtIO: CommonCfg, BAR 4 at 0x0, 4 KiB/);
  expect(stdout).toMatch(/VirtIO: Notify, BAR 4 at 0x3000, 4 KiB, multiplier 4/);
});
