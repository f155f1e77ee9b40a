import { describe, expect, test } from '@jest/globals';
import { MemoryStore, type NvmeInterceptedCommand } from '../../lib/emulator/index.js';
import { ClosedError } from '../../lib/index.js';
import { NvmeStatusError, type NvmeQueue } from '../../lib/nvme/index.js';
import { errorOf, opened, pattern, type Setup } from './fixture.js';

async function withQueue(setup?: Setup) {
  const pair = await opened(setup);
  return { ...pair, queue: await pair.controller.createQueue() };
}

/** Every I/O command that the controller sees from now on. */
function watched(emulated: { intercept: ((command: NvmeInterceptedCommand) => void) | undefined }) {
  const commands: NvmeInterceptedCommand[] = [];
  emulated.intercept = (command) => void (command.queue > 0 && commands.push(command));
  return commands;
}

describe('read and write', () => {
  // One block to MDTS (128 KiB) and beyond, through bounce pages.
  test.each([1, 7, 8, 9, 16, 17, 255, 256, 257, 511, 1024, 3001])('%i blocks', async (blocks) => {
    const { queue } = await withQueue();
    const data = pattern(blocks * 512, blocks);
    await queue.write(5, data);
    expect((await queue.read(5, blocks)).equals(data)).toBe(true);
    const into = new Uint8Array(blocks * 512);
    await queue.readInto(5, into);
    expect(data.equals(into)).toBe(true);
    // The blocks around are as they were.
    expect((await queue.read(4, 1)).every((byte) => byte === 0)).toBe(true);
    expect((await queue.read(5 + blocks, 1)).every((byte) => byte === 0)).toBe(true);
  });

  describe.each([true, false])('SGLs: %s', (sgls) => {
    test.each([
      [0, 1],
      [0, 256],
      [0, 1000],
      [512, 8],
      [512, 256],
      [4, 8],
      [4, 256],
      [3584, 9],
      [4092, 257],
      [8192, 16],
    ])('DMA memory from offset %i, %i blocks', async (offset, blocks) => {
      const { queue, device } = await withQueue({ nvme: { sgls } });
      const buffer = await device.dma.alloc(offset + blocks * 512 + 64);
      const data = pattern(blocks * 512);
      data.copy(buffer.bytes, offset);
      await queue.write(100, buffer, { offset, blocks });
      expect((await queue.read(100, blocks)).equals(data)).toBe(true);
      buffer.bytes.fill(0xee);
      await queue.readInto(100, buffer, { offset, blocks });
      expect(buffer.bytes.subarray(offset, offset + blocks * 512).equals(data)).toBe(true);
      // Nothing beside it was touched.
      expect(buffer.bytes.subarray(0, offset).every((byte) => byte === 0xee)).toBe(true);
      expect(buffer.bytes.subarray(offset + blocks * 512).every((byte) => byte === 0xee)).toBe(true);
    });
  });

  test.each([512, 1024, 2048, 4096])('blocks of %i bytes', async (blockSize) => {
    const namespaces = [{ store: new MemoryStore(4 << 20), blockSize }];
    const { queue } = await withQueue({ emulated: { namespaces } });
    const data = pattern(37 * blockSize);
    await queue.write(3, data);
    expect((await queue.read(3, 37)).equals(data)).toBe(true);
  });

  test('the last block is there, the one after it is not', async () => {
    const { queue } = await withQueue();
    const { blocks } = queue.namespace;
    await queue.write(blocks - 1, pattern(512));
    expect((await queue.read(blocks - 1, 1)).equals(pattern(512))).toBe(true);
    await expect(queue.read(blocks, 1)).rejects.toThrow(RangeError);
    await expect(queue.read(blocks - 1, 2)).rejects.toThrow(RangeError);
  });

  test('beyond 2^32 blocks', async () => {
    const namespaces = [{ store: new MemoryStore(2 ** 44) }];
    const { queue } = await withQueue({ emulated: { namespaces } });
    const lba = 2 ** 33 + 12_345;
    await queue.write(lba, pattern(4096));
    expect((await queue.read(lba, 8)).equals(pattern(4096))).toBe(true);
    expect((await queue.read(12_345, 8)).every((byte) => byte === 0)).toBe(true);
  });

  test('are split where the controller’s limit is, and not before', async () => {
    const { queue, emulated } = await withQueue({ emulated: { mdts: 1 } });
    const commands = watched(emulated);
    await queue.read(10, 16);
    expect(commands).toHaveLength(1);
    commands.length = 0;
    await queue.read(10, 40);
    expect(commands.map(({ lba }) => lba)).toEqual([10n, 26n, 42n]);
  });

  test.each([
    ['without a limit, as far as the driver goes', 0, 4 << 20],
    ['with PRP lists of several pages', 10, 4 << 20, false],
    ['with a controller that has no SGLs', 10, 4 << 20, true, false],
    ['as far as it was told to go', 10, 1 << 16],
  ])('%s', async (_, mdts, maxTransferBytes, sgls = true, hasSgls = true) => {
    const namespaces = [{ store: new MemoryStore(16 << 20) }];
    const setup = { emulated: { namespaces, mdts, sgls: hasSgls }, nvme: { maxTransferBytes, sgls } };
    const { queue, emulated, device } = await withQueue(setup);
    const commands = watched(emulated);
    const data = pattern(4 << 20);
    await queue.write(1, data);
    expect(commands).toHaveLength((4 << 20) / maxTransferBytes);
    const buffer = await device.dma.alloc((4 << 20) + 4);
    await queue.readInto(1, buffer, { offset: 4, blocks: 8192 });
    expect(buffer.bytes.subarray(4).equals(data)).toBe(true);
  });

  test('force unit access', async () => {
    let flushes = 0;
    const store = new MemoryStore(1 << 20);
    store.flush = () => void flushes++;
    const { queue } = await withQueue({ emulated: { namespaces: [{ store }] } });
    await queue.write(0, Buffer.alloc(512));
    expect(flushes).toBe(0);
    await queue.write(0, Buffer.alloc(512), { forceUnitAccess: true });
    expect(flushes).toBe(1);
  });

  test('another namespace than the queue’s own', async () => {
    const namespaces = [
      { store: new MemoryStore(1 << 20) },
      { store: new MemoryStore(1 << 20), blockSize: 4096 },
    ];
    const { queue, controller } = await withQueue({ emulated: { namespaces } });
    const second = await controller.namespace(2);
    await queue.write(1, pattern(8192), { namespace: second });
    expect((await queue.read(1, 2, { namespace: second })).equals(pattern(8192))).toBe(true);
    expect((await queue.read(8, 8)).every((byte) => byte === 0)).toBe(true);
    await expect(controller.createQueue({ namespace: 2 })).resolves.toMatchObject({ namespace: { id: 2 } });
  });

  test('what makes no sense is refused before anything is sent', async () => {
    const { queue, emulated, device } = await withQueue();
    const commands = watched(emulated);
    await expect(queue.read(-1, 1)).rejects.toThrow(RangeError);
    await expect(queue.read(0.5, 1)).rejects.toThrow(RangeError);
    await expect(queue.read(0, 0)).rejects.toThrow(RangeError);
    await expect(queue.write(0, Buffer.alloc(0))).rejects.toThrow(RangeError);
    await expect(queue.write(0, Buffer.alloc(513))).rejects.toThrow(RangeError);
    await expect(queue.write(0, 'text' as unknown as Buffer)).rejects.toThrow(TypeError);
    const buffer = await device.dma.alloc(4096);
    await expect(queue.readInto(0, buffer, { offset: 2, blocks: 1 })).rejects.toThrow(RangeError);
    await expect(queue.readInto(0, buffer, { blocks: 9 })).rejects.toThrow(RangeError);
    await buffer.free();
    await expect(queue.readInto(0, buffer)).rejects.toThrow(ClosedError);
    await expect(queue.write(0, Buffer.alloc(1024), { offset: 0.5 })).rejects.toThrow(RangeError);
    expect(commands).toEqual([]);
  });
});

describe('other commands', () => {
  test('compare', async () => {
    const { queue } = await withQueue();
    const data = pattern(300 * 512);
    await queue.write(0, data);
    await queue.compare(0, data);
    data[299 * 512]! ^= 1;
    const error = await errorOf(queue.compare(0, data));
    expect(error).toBeInstanceOf(NvmeStatusError);
    expect(error).toMatchObject({ sct: 2, sc: 0x85, statusName: 'COMPARE_FAILURE', command: 'compare' });
  });

  test('write zeroes, more than one command takes', async () => {
    const namespaces = [{ store: new MemoryStore(64 << 20) }];
    const { queue } = await withQueue({ emulated: { namespaces } });
    await queue.write(0, Buffer.alloc(1024, 1));
    await queue.write(99_999, Buffer.alloc(1024, 1));
    await queue.writeZeroes(1, 99_999);
    expect((await queue.read(0, 2)).indexOf(0)).toBe(512);
    expect((await queue.read(99_999, 2)).indexOf(1)).toBe(512);
  });

  test('deallocate, more ranges than one command takes', async () => {
    const { queue, emulated } = await withQueue();
    await queue.write(0, Buffer.alloc(2 << 20, 1));
    const commands = watched(emulated);
    await queue.deallocate(Array.from({ length: 300 }, (_, i) => ({ lba: 10 * i, blocks: 5 })));
    expect(commands.map(({ opcode }) => opcode)).toEqual([9, 9]);
    const after = await queue.read(0, 3000);
    for (let i = 0; i < 300; i++) {
      expect(after[i * 5120]).toBe(0);
      expect(after[i * 5120 + 5 * 512]).toBe(1);
    }
    await queue.deallocate([]);
    await expect(queue.deallocate([{ lba: 0, blocks: 1e9 }])).rejects.toThrow(RangeError);
  });

  test('flush', async () => {
    let flushes = 0;
    const store = new MemoryStore(1 << 20);
    store.flush = () => void flushes++;
    const { queue } = await withQueue({ emulated: { namespaces: [{ store }] } });
    await queue.flush();
    expect(flushes).toBe(1);
  });
});

describe('many at once', () => {
  test('more commands than the queue is deep wait for their turn', async () => {
    const { controller } = await opened();
    const queue = await controller.createQueue({ entries: 4 });
    await Promise.all(Array.from({ length: 200 }, (_, i) => queue.write(i, Buffer.alloc(512, i))));
    const back = await Promise.all(Array.from({ length: 200 }, (_, i) => queue.read(i, 1)));
    for (const [i, bytes] of back.entries()) expect(bytes.equals(Buffer.alloc(512, i))).toBe(true);
  });

  test('more data than there are bounce pages', async () => {
    const { queue } = await withQueue();
    const data = pattern(4 << 20);
    await queue.write(0, data);
    const parts = await Promise.all(Array.from({ length: 16 }, (_, i) => queue.read(i * 512, 512)));
    expect(Buffer.concat(parts).equals(data)).toBe(true);
  });

  test.each(['poll', 'interrupt'] as const)('on several queues, completions by %s', async (completion) => {
    const { controller } = await opened();
    const queues: NvmeQueue[] = [];
    for (let i = 0; i < 4; i++) queues.push(await controller.createQueue({ completion, entries: 8 }));
    const work = async (queue: NvmeQueue, base: number) => {
      for (let i = 0; i < 40; i++) {
        const data = pattern(4096, base + i + 1);
        await queue.write(base + i * 8, data);
        expect((await queue.read(base + i * 8, 8)).equals(data)).toBe(true);
      }
    };
    await Promise.all(queues.flatMap((queue, i) => [work(queue, i * 1000), work(queue, i * 1000 + 500)]));
  });

  test('one interrupt vector for several queues', async () => {
    const { controller } = await opened({ emulated: { vectors: 2 } });
    const queues = [];
    for (let i = 0; i < 3; i++) queues.push(await controller.createQueue({ completion: 'interrupt' }));
    const all = await Promise.all(queues.map((queue) => queue.read(0, 8)));
    expect(all.map(({ byteLength }) => byteLength)).toEqual([4096, 4096, 4096]);
  });
});

describe('memory that is reached by message', () => {
  test('commands, queues and data', async () => {
    const { queue } = await withQueue({ connect: { secureDma: true } });
    const data = pattern(300 * 512);
    await queue.write(0, data);
    expect((await queue.read(0, 300)).equals(data)).toBe(true);
  });
});
