import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { readFileSync, writeFileSync } from 'node:fs';
import { MemoryStore, serve, VirtioBlkDevice, type EmulatorServer } from '../../lib/emulator/index.js';
import { pattern } from '../nvme/fixture.js';
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
  expect(stdout).toMatch(/Vendor Specific: VirtIO: CommonCfg\n +BAR=4 offset=00000000 size=00001000\n/);
  expect(stdout).toMatch(
    /Vendor Specific: VirtIO: Notify\n +BAR=4 offset=00003000 size=00001000 multiplier=00000004\n/,
  );
});

test.each(['split', 'packed'])(
  'virtio write and read, with %s queues: a file goes in and comes out',
  async (ring) => {
    const data = pattern(1_300_000);
    writeFileSync(scratch.path('in'), data);
    const written = await vfioUser(
      'virtio',
      'write',
      socket,
      '--lba',
      '5',
      '--input',
      scratch.path('in'),
      '--pad',
      '--ring',
      ring,
    );
    expect({ status: written.status, stderr: written.stderr }).toEqual({ status: 0, stderr: '' });
    const whole = Math.ceil(data.length / 512);
    const args = ['--lba', '5', '--blocks', `${whole}`, '--output', scratch.path('out'), '--ring', ring];
    const { status, stderr } = await vfioUser('virtio', 'read', socket, ...args);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const out = readFileSync(scratch.path('out'));
    expect(out.length).toBe(whole * 512);
    expect(out.subarray(0, data.length).equals(data)).toBe(true);
    expect(Buffer.from(await device.store.read(5 * 512, data.length)).equals(data)).toBe(true);
  },
);

test('virtio read and write refuse what does not fit', async () => {
  const read = await vfioUser('virtio', 'read', socket, '--lba', '16384', '--output', scratch.path('out'));
  expect(read.stderr).toMatch(/LBA 16384 is out of range \(the disk has 16384 blocks\)/);
  writeFileSync(scratch.path('in'), 'text');
  const write = await vfioUser('virtio', 'write', socket, '--input', scratch.path('in'));
  expect(write.stderr).toMatch(/--pad fills the last one/);
});
