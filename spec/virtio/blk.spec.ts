/** A block device driven over a real socket, in every way that a queue can be. */
import { describe, expect, test } from '@jest/globals';
import { MemoryStore } from '../../lib/emulator/index.js';
import { blkStatusName, VirtioBlk, type VirtioBlkOptions } from '../../lib/virtio/index.js';
import { connectedBlk, DISK_BYTES, errorOf, openedBlk, pattern, type BlkSetup } from './fixture.js';

const WAYS: [string, BlkSetup][] = [
  ['split', {}],
  ['packed', { driver: { ring: 'packed' } }],
  ['split, without indirect descriptors', { driver: { indirect: false, entries: 16 } }],
  ['packed, without indirect descriptors', { driver: { ring: 'packed', indirect: false, entries: 16 } }],
  ['split, without EVENT_IDX', { driver: { eventIndex: false, entries: 4 } }],
  ['packed, without EVENT_IDX', { driver: { ring: 'packed', eventIndex: false, entries: 5 } }],
  ['split, notified by message', { emulated: { mapNotifications: false } }],
  ['packed, notified by message', { emulated: { mapNotifications: false }, driver: { ring: 'packed' } }],
  ['split, by MSI-X', { driver: { completion: 'interrupt' } }],
  ['packed, by MSI-X', { driver: { completion: 'interrupt', ring: 'packed' } }],
  ['split, by INTx', { emulated: { vectors: 0 }, driver: { completion: 'interrupt', eventIndex: false } }],
  ['packed, by INTx', { emulated: { vectors: 0 }, driver: { completion: 'interrupt', ring: 'packed' } }],
  ['by one MSI-X vector', { emulated: { vectors: 1 }, driver: { completion: 'interrupt' } }],
  ['in short segments', { emulated: { sizeMax: 1024, segMax: 5 } }],
  ['packed, in short segments', { emulated: { sizeMax: 1024, segMax: 5 }, driver: { ring: 'packed' } }],
];

describe.each(WAYS)('a disk, %s', (_name, setup) => {
  test('reads what was written, by promises of all lengths', async () => {
    const { disk, emulated } = await openedBlk(setup);
    const lengths = [1, 2, 7, 8, 9, 64, 600];
    let lba = 3;
    await Promise.all(
      lengths.map(async (blocks, i) => {
        const at = lba;
        lba += blocks + 1;
        const data = pattern(blocks * 512, i + 1);
        await disk.write(at, data);
        expect((await disk.read(at, blocks)).equals(data)).toBe(true);
        expect(Buffer.from(await emulated.store.read(at * 512, data.length)).equals(data)).toBe(true);
      }),
    );
  });

  test('many at once, more than the queue has room for', async () => {
    const { disk } = await openedBlk(setup);
    const count = 60;
    await Promise.all(Array.from({ length: count }, (_, i) => disk.write(8 * i, pattern(4096, i + 1))));
    const read = await Promise.all(Array.from({ length: count }, (_, i) => disk.read(8 * i, 8)));
    for (const [i, bytes] of read.entries()) expect(bytes.equals(pattern(4096, i + 1))).toBe(true);
  });

  test('by submit and poll', async () => {
    const { disk } = await openedBlk({ ...setup, driver: { ...setup.driver, buffers: { count: 2 } } });
    const [queue] = disk.queues;
    for (let round = 0; round < 20; round++) {
      queue!.buffer(0).set(pattern(4096, round + 1));
      expect(queue!.submitWrite(round * 8, 8, 0, 7)).toBe(true);
      queue!.ring();
      await reported(queue!, 7);
      expect(queue!.submitRead(round * 8, 8, 1, 8)).toBe(true);
      queue!.ring();
      await reported(queue!, 8);
      expect(queue!.buffer(1).equals(pattern(4096, round + 1))).toBe(true);
    }
  });
});

async function reported(queue: VirtioBlk['queues'][number], tag: number): Promise<void> {
  while (queue.poll() === 0) await new Promise((resolve) => setImmediate(resolve));
  expect([queue.completedTags[0], blkStatusName(queue.completedStatus[0]!)]).toEqual([tag, 'OK']);
}

describe('a disk', () => {
  test('says what it is', async () => {
    const { disk } = await openedBlk({ emulated: { id: 'serial-7', blockSize: 4096 } });
    expect([disk.blockSize, disk.blocks, disk.sizeBytes]).toEqual([4096, DISK_BYTES / 4096, DISK_BYTES]);
    expect(await disk.id()).toBe('serial-7');
    expect(disk.featureNames).toEqual(
      expect.arrayContaining(['VERSION_1', 'ACCESS_PLATFORM', 'INDIRECT_DESC', 'EVENT_IDX', 'MQ', 'FLUSH']),
    );
    expect(disk.featureNames).not.toContain('RING_PACKED');
    expect(disk.offeredNames).toContain('RING_PACKED');
    expect(disk.state).toBe('live');
    expect(disk.queues[0]!.notification).toBe('mapped');
  });

  test('is flushed, zeroed and discarded', async () => {
    const { disk, emulated } = await openedBlk({ emulated: { maxRangeSectors: 5, maxRanges: 2 } });
    await disk.write(0, pattern(64 * 512));
    await disk.flush();
    const requests = emulated.requestCount;
    await disk.writeZeroes(1, 23, { unmap: true });
    // 5 sectors a range, 2 ranges a request.
    expect(emulated.requestCount - requests).toBe(3);
    await disk.discard([
      { lba: 30, blocks: 2 },
      { lba: 40, blocks: 1 },
    ]);
    const bytes = await disk.read(0, 64);
    const want = pattern(64 * 512);
    want.fill(0, 512, 24 * 512);
    want.fill(0, 30 * 512, 32 * 512);
    want.fill(0, 40 * 512, 41 * 512);
    expect(bytes.equals(want)).toBe(true);
  });

  test('takes DMA buffers as they are', async () => {
    const { disk, device } = await openedBlk();
    const buffer = await device.dma.alloc(1 << 20);
    pattern(1 << 20).copy(buffer.bytes);
    await disk.write(100, buffer, { offset: 4096, blocks: 1000 });
    const other = await device.dma.alloc(1 << 20);
    await disk.readInto(100, other, { blocks: 1000 });
    expect(other.bytes.subarray(0, 512_000).equals(buffer.bytes.subarray(4096, 516_096))).toBe(true);
  });

  test('has several queues', async () => {
    const { disk } = await openedBlk({ emulated: { queues: 3 }, driver: { queues: 8 } });
    expect(disk.queues.map(({ index }) => index)).toEqual([0, 1, 2]);
    await Promise.all(disk.queues.map((queue, i) => queue.write(i, pattern(512, i + 1))));
    for (const [i, queue] of disk.queues.entries())
      expect((await queue.read(2 - i, 1)).equals(pattern(512, 3 - i))).toBe(true);
  });

  test('that is read-only refuses writes before they are sent', async () => {
    const { disk, emulated } = await openedBlk({ emulated: { readOnly: true } });
    expect(disk.isReadOnly).toBe(true);
    for (const call of [
      () => disk.write(0, Buffer.alloc(512)),
      () => disk.writeZeroes(0, 1),
      () => disk.discard([]),
    ])
      expect(await errorOf(call())).toMatchObject({ code: 'ERR_VFIO_USER_UNSUPPORTED' });
    expect(emulated.requestCount).toBe(0);
    await disk.read(0, 1);
  });

  test('refuses blocks that it has not, and data that does not fit', async () => {
    const { disk } = await openedBlk();
    const { blocks } = disk;
    for (const call of [
      () => disk.read(blocks, 1),
      () => disk.read(blocks - 1, 2),
      () => disk.read(-1, 1),
      () => disk.read(0, 0),
      () => disk.read(0.5, 1),
      () => disk.write(0, Buffer.alloc(511)),
      () => disk.write(0, Buffer.alloc(512), { blocks: 2 }),
      () => disk.discard([{ lba: blocks, blocks: 1 }]),
      () => disk.writeZeroes(0, blocks + 1),
    ]) {
      expect(await errorOf(call())).toBeInstanceOf(RangeError);
    }
    expect(await errorOf(disk.write(0, 'text' as unknown as Buffer))).toBeInstanceOf(TypeError);
  });

  test('that grows says so', async () => {
    const { disk, emulated } = await openedBlk({ driver: { completion: 'interrupt' } });
    emulated.replaceStore(new MemoryStore(2 * DISK_BYTES));
    expect((await disk.refresh()).capacity).toBe((2 * DISK_BYTES) / 512);
    expect(disk.blocks).toBe((2 * DISK_BYTES) / 512);
  });

  test('has an answer of the device to what fails', async () => {
    const { disk, emulated } = await openedBlk();
    emulated.intercept = ({ type }) => (type === 1 ? { status: 1 } : type === 4 ? { status: 2 } : 'pass');
    expect(await errorOf(disk.write(0, Buffer.alloc(512)))).toMatchObject({
      code: 'ERR_VIRTIO_IOERR',
      status: 1,
      request: 'write',
    });
    expect(await errorOf(disk.flush())).toMatchObject({ code: 'ERR_VIRTIO_UNSUPP' });
    await disk.read(0, 1);
  });

  test('has one driver at a time, and another one after it', async () => {
    const { device } = await connectedBlk();
    const disk = await VirtioBlk.open(device);
    expect(await errorOf(VirtioBlk.open(device))).toBeInstanceOf(TypeError);
    await disk.write(5, pattern(512));
    await disk.close();
    expect(await errorOf(disk.read(0, 1))).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    const again = await VirtioBlk.open(device, { ring: 'packed' });
    expect((await again.read(5, 1)).equals(pattern(512))).toBe(true);
    await again.close();
  });

  test.each<[VirtioBlkOptions]>([
    [{ entries: 1 }],
    [{ queues: 0 }],
    [{ maxTransferBytes: 512 }],
    [{ timeoutMs: 0 }],
  ])('options that make no sense: %j', async (options) => {
    const { device } = await connectedBlk();
    expect(await errorOf(VirtioBlk.open(device, options))).toBeInstanceOf(RangeError);
  });
});
