/**
 * The block driver on SPDK's vfu_virtio_blk. Skipped unless VFIO_USER_SPDK_VIRTIO names the directory of a target's virtio
 * endpoints: `blk`, and `blkp` with packed rings, each a disk of at least 16 MiB that may be written.
 */
import { afterEach, describe, expect, test } from '@jest/globals';
import { join } from 'node:path';
import { connect, type Device } from '../../lib/index.js';
import { VirtioBlk, type VirtioBlkOptions } from '../../lib/virtio/index.js';
import { pattern } from '../nvme/fixture.js';

const DIRECTORY = process.env.VFIO_USER_SPDK_VIRTIO;
const describeSpdk = DIRECTORY === undefined ? describe.skip : describe;

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.close();
});

async function disk(
  name: string,
  options: VirtioBlkOptions = {},
): Promise<{ device: Device; disk: VirtioBlk }> {
  const device = await connect(join(DIRECTORY!, name), { timeoutMs: 10_000 });
  open.push(device);
  const made = await VirtioBlk.open(device, options);
  open.push(made);
  return { device, disk: made };
}

const WAYS: [string, string, VirtioBlkOptions][] = [
  ['split', 'blk', {}],
  ['split, without indirect descriptors', 'blk', { indirect: false }],
  ['split, by MSI-X', 'blk', { completion: 'interrupt' }],
  ['packed', 'blkp', { ring: 'packed' }],
  ['packed, without indirect descriptors', 'blkp', { ring: 'packed', indirect: false }],
  ['packed, by MSI-X', 'blkp', { ring: 'packed', completion: 'interrupt' }],
];

describeSpdk.each(WAYS)("SPDK's vfu_virtio_blk, %s", (_name, socket, options) => {
  test('says what it is', async () => {
    const { disk: blk } = await disk(socket, options);
    expect(blk.blockSize).toBe(512);
    expect(blk.sizeBytes).toBeGreaterThanOrEqual(16 << 20);
    expect(blk.featureNames).toEqual(expect.arrayContaining(['VERSION_1', 'SEG_MAX', 'MQ']));
    expect(blk.featureNames.includes('RING_PACKED')).toBe(options.ring === 'packed');
    expect(await blk.id()).toBe(socket);
    expect(blk.queues[0]!.notification).toBe('mapped');
  });

  test('reads what was written, in many requests at a time', async () => {
    const { disk: blk } = await disk(socket, { ...options, queues: 2 });
    expect(blk.queues).toHaveLength(2);
    const count = 300;
    await Promise.all(
      Array.from({ length: count }, (_, i) => blk.queues[i % 2]!.write(8 * i, pattern(4096, i + 1))),
    );
    for (let i = 0; i < count; i++)
      expect((await blk.queues[(i + 1) % 2]!.read(8 * i, 8)).equals(pattern(4096, i + 1))).toBe(true);
    const long = pattern(3 << 20, 99);
    await blk.write(11, long);
    expect((await blk.read(11, long.length / 512)).equals(long)).toBe(true);
    await blk.flush();
  });

  test('what one driver wrote another one reads, by submit and poll', async () => {
    const first = await disk(socket, options);
    await first.disk.write(100, pattern(4096, 7));
    await first.disk.writeZeroes(104, 1);
    await first.disk.close();
    await first.device.close();
    const { disk: second } = await disk(socket, { ...options, buffers: { count: 8 } });
    const [queue] = second.queues;
    for (let i = 0; i < 8; i++) expect(queue!.submitRead(100 + i, 1, i, i)).toBe(true);
    queue!.ring();
    let done = 0;
    while (done < 8) {
      const count = queue!.poll();
      for (let i = 0; i < count; i++) expect(queue!.completedStatus[i]).toBe(0);
      done += count;
      await new Promise((resolve) => setImmediate(resolve));
    }
    const want = pattern(4096, 7);
    want.fill(0, 4 * 512, 5 * 512);
    for (let i = 0; i < 8; i++)
      expect(
        queue!
          .buffer(i)
          .subarray(0, 512)
          .equals(want.subarray(512 * i, 512 * (i + 1))),
      ).toBe(true);
  });

  test('goes on after a reset of the device', async () => {
    const { disk: blk } = await disk(socket, options);
    await blk.write(0, pattern(512, 3));
    for (let i = 0; i < 3; i++) {
      const reading = blk.read(0, 1);
      await blk.reset();
      expect((await reading).equals(pattern(512, 3))).toBe(true);
    }
  });
});
