/** What has to hold on any NVMe controller, whoever wrote it. The namespace's data is overwritten. */
import { expect } from '@jest/globals';
import type { Device } from '../../lib/index.js';
import { NvmeStatusError, type NvmeController, type NvmeQueue } from '../../lib/nvme/index.js';
import { errorOf, pattern } from '../nvme/fixture.js';

/** From one block to the controller's limit and beyond, in bytes. */
export function transferSizes(controller: NvmeController, blockSize: number): number[] {
  const most = controller.maxTransferBytes;
  const sizes = [
    blockSize,
    3 * blockSize,
    4096,
    8192,
    12_288,
    most - blockSize,
    most,
    most + blockSize,
    3 * most + 4096,
  ];
  return [...new Set(sizes)];
}

/** Writes at every size, aligned and not, through Buffers and DMA memory; what was written by size and place. */
export async function writeAll(
  device: Device,
  controller: NvmeController,
  queue: NvmeQueue,
): Promise<Map<number, Buffer>> {
  const { blockSize } = queue.namespace;
  const written = new Map<number, Buffer>();
  let lba = 1;
  for (const size of transferSizes(controller, blockSize)) {
    for (const offset of [undefined, 0, 4, 512, 4092]) {
      const data = pattern(size, lba + 1);
      if (offset === undefined) await queue.write(lba, data);
      else {
        const buffer = await device.dma.alloc(offset + size);
        data.copy(buffer.bytes, offset);
        await queue.write(lba, buffer, { offset });
        await buffer.free();
      }
      written.set(lba, data);
      lba += size / blockSize + 1;
    }
  }
  return written;
}

/** Reads back what `writeAll` wrote, through Buffers and DMA memory. */
export async function readAll(device: Device, queue: NvmeQueue, written: Map<number, Buffer>): Promise<void> {
  const { blockSize } = queue.namespace;
  for (const [lba, data] of written) {
    expect((await queue.read(lba, data.length / blockSize)).equals(data)).toBe(true);
    const buffer = await device.dma.alloc(data.length + 4);
    await queue.readInto(lba, buffer, { offset: 4 });
    expect(buffer.bytes.subarray(4).equals(data)).toBe(true);
    await buffer.free();
  }
}

/** Each queue has a part of the namespace to itself, and many commands in flight. */
export async function useAtOnce(queues: readonly NvmeQueue[]): Promise<void> {
  await Promise.all(
    queues.map(async (queue, q) => {
      const base = q * 4096;
      const data = Array.from({ length: 64 }, (_, i) => pattern(4096, 1 + q * 64 + i));
      await Promise.all(data.map((bytes, i) => queue.write(base + i * 8, bytes)));
      const back = await Promise.all(data.map((_, i) => queue.read(base + i * 8, 8)));
      for (const [i, bytes] of back.entries()) expect(bytes.equals(data[i]!)).toBe(true);
    }),
  );
}

/** The submit/poll face, for so many rounds of `depth` commands. */
export async function pollRounds(queue: NvmeQueue, depth: number, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < depth; i++) {
      queue.buffer(i).fill((round + i) & 0xff);
      expect(queue.submitWrite(i * 8, 8, i, i)).toBe(true);
    }
    queue.ring();
    await settle(queue, depth);
    for (let i = 0; i < depth; i++) {
      queue.buffer(i).fill(0);
      queue.submitRead(i * 8, 8, i, i);
    }
    queue.ring();
    await settle(queue, depth);
    for (let i = 0; i < depth; i++) {
      expect(queue.buffer(i).equals(Buffer.alloc(4096, (round + i) & 0xff))).toBe(true);
    }
  }
}

async function settle(queue: NvmeQueue, count: number): Promise<void> {
  for (let done = 0; done < count;) {
    const n = queue.poll();
    for (let i = 0; i < n; i++) expect(queue.completedStatus[i]).toBe(0);
    done += n;
    if (n === 0) await new Promise(setImmediate);
  }
}

/** Compare, write zeroes, deallocate, flush. */
export async function otherCommands(queue: NvmeQueue): Promise<void> {
  const data = pattern(64 * 512);
  await queue.write(0, data);
  await queue.compare(0, data);
  data[0]! ^= 1;
  const error = await errorOf(queue.compare(0, data));
  expect(error).toBeInstanceOf(NvmeStatusError);
  expect(error).toMatchObject({ statusName: 'COMPARE_FAILURE' });
  await queue.writeZeroes(3, 40);
  const after = await queue.read(0, 64);
  expect(after.subarray(3 * 512, 43 * 512).every((byte) => byte === 0)).toBe(true);
  expect(after.subarray(43 * 512).equals(data.subarray(43 * 512))).toBe(true);
  await queue.deallocate([
    { lba: 0, blocks: 8 },
    { lba: 100, blocks: 1000 },
  ]);
  await queue.flush();
}
