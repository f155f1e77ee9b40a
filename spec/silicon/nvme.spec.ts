/**
 * An NVMe controller: identification, I/O by interrupt and by polling, errors, reset. The same on each: emulated, in process and by
 * socket; SPDK's and QEMU's servers; `VFIO_USER_TEST_NVME` names others, in the guest those of vfio-pci.
 */
import { describe, expect, test } from '@jest/globals';
import { MemoryStore, NvmeDevice } from '../../lib/emulator/index.js';
import { NvmeController, type NvmeOptions } from '../../lib/nvme/index.js';
import { cleanup, nvmeSubjects } from './subjects.js';

function emulated(): NvmeDevice {
  const device = new NvmeDevice({ namespaces: [{ store: new MemoryStore(4 << 20) }] });
  cleanup(() => device.close());
  return device;
}

function pattern(length: number, seed: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 31 + (i >>> 8) * 7 + seed) & 0xff));
}

describe.each(nvmeSubjects(emulated))('NVMe, %s', (_name, open, isEmulated) => {
  async function opened(options?: NvmeOptions): Promise<NvmeController> {
    const device = await open();
    const controller = await NvmeController.open(device, options);
    cleanup(() => controller.close());
    return controller;
  }

  test('says what it is', async () => {
    const controller = await opened();
    expect(controller.state).toBe('live');
    expect(controller.identity.modelNumber).not.toBe('');
    expect((await controller.namespace()).blocks).toBeGreaterThan(1024);
  });

  test('reads what was written, and compares', async () => {
    const queue = await (await opened()).createQueue();
    const { blockSize } = queue.namespace;
    for (const [blocks, seed] of [
      [1, 1],
      [8, 2],
      [300, 3],
    ] as const) {
      const data = pattern(blocks * blockSize, seed);
      await queue.write(8, data);
      expect((await queue.read(8, blocks)).equals(data)).toBe(true);
      await queue.compare(8, data);
      await expect(queue.compare(8, pattern(blocks * blockSize, seed + 1))).rejects.toMatchObject({
        statusName: 'COMPARE_FAILURE',
      });
    }
    await queue.flush();
  });

  test('has many commands in flight', async () => {
    const queue = await (await opened()).createQueue();
    const { blockSize } = queue.namespace;
    const all = Array.from({ length: 40 }, (_, i) => pattern(blockSize, i));
    await Promise.all(all.map((data, i) => queue.write(i, data)));
    const back = await Promise.all(all.map((_, i) => queue.read(i, 1)));
    expect(back.every((data, i) => data.equals(all[i]!))).toBe(true);
  });

  test('is polled', async () => {
    const queue = await (await opened()).createQueue({ buffers: { count: 8, bytes: 4096 } });
    const blocks = 4096 / queue.namespace.blockSize;
    const data = pattern(4096, 5);
    await queue.write(0, data);
    for (let tag = 0; tag < 8; tag++) expect(queue.submitRead(0, blocks, tag, tag)).toBe(true);
    queue.ring();
    const deadline = performance.now() + 20_000;
    for (let done = 0; done < 8 && performance.now() < deadline; done += queue.poll()) {
      // An emulated controller works on this loop.
      await new Promise(setImmediate);
    }
    for (let tag = 0; tag < 8; tag++) expect(queue.buffer(tag).equals(data)).toBe(true);
  });

  test('goes on after a controller reset', async () => {
    const controller = await opened();
    const queue = await controller.createQueue();
    const data = pattern(queue.namespace.blockSize, 9);
    await queue.write(3, data);
    await controller.reset();
    expect((await queue.read(3, 1)).equals(data)).toBe(true);
  });

  test('is found as it should be by the next client', async () => {
    const first = await open();
    const controller = await NvmeController.open(first);
    const queue = await controller.createQueue();
    const data = pattern(queue.namespace.blockSize, 11);
    await queue.write(5, data);
    await first.close();
    const next = await (await opened()).createQueue();
    // An emulated one is a new one each time.
    if (!isEmulated) expect((await next.read(5, 1)).equals(data)).toBe(true);
  });

  test('is reset as a device', async () => {
    const device = await open();
    if (!device.canReset) return;
    await device.enable();
    await device.reset();
    const controller = await NvmeController.open(device);
    cleanup(() => controller.close());
    expect(controller.state).toBe('live');
  });
});
