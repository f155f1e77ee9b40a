/** What a hostile driver writes into a virtqueue does not decide how much memory or time the emulated device takes. */
import { describe, expect, it } from '@jest/globals';
import type { ClientMemory } from '../../lib/emulator/device-model.js';
import { Chain, QueueFault, readTable } from '../../lib/emulator/virtio/chain.js';
import { SplitDeviceQueue } from '../../lib/emulator/virtio/split-device-queue.js';

const SIZE = 8;
const AVAILABLE = 0x1000n;

/** Zeros, with an available index that is always one ahead of what was taken. */
function endlessDriver(): ClientMemory {
  let index = 0;
  return {
    read: (address: bigint, length: number) => {
      const bytes = Buffer.alloc(length);
      if (address === AVAILABLE + 2n) bytes.writeUInt16LE(++index & 0xffff);
      return Promise.resolve(bytes);
    },
    write: () => Promise.resolve(),
  };
}

describe('a hostile driver of an emulated virtio device', () => {
  it('has no chain of more than 4,096 descriptors, empty ones too', () => {
    const chain = new Chain(endlessDriver(), 0, 1);
    const empty = { address: 0n, length: 0, flags: 0, link: 0 };
    for (let i = 0; i < 4096; i++) chain.append(empty);
    expect(() => chain.append(empty)).toThrow(QueueFault);
  });

  it('has no indirect table that is longer than that, and it is not read', async () => {
    await expect(readTable(endlessDriver(), { address: 0n, length: 4097 * 16 })).rejects.toThrow(QueueFault);
    await expect(readTable(endlessDriver(), { address: 0n, length: 4096 * 16 })).resolves.toHaveLength(4096);
  });

  it('does not have more requests under way than the queue has places', async () => {
    const place = { descriptors: 0n, driver: AVAILABLE, device: 0x2000n, size: SIZE };
    const queue = new SplitDeviceQueue(endlessDriver(), place, false);
    const first = await queue.take();
    for (let i = 1; i < SIZE; i++) await queue.take();
    await queue.use(first!, 0);
    await expect(queue.take()).resolves.toBeDefined();
    await expect(queue.take()).rejects.toThrow('more requests than the 8 that the queue has room for');
  });
});
