/** DMA mappings and dirty pages with libvfio-user's `server` sample, of the libraries that `lvu-sample.ts` names. */
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import type { Device, DmaMapping } from '../../lib/index.js';
import { native, type NativeMapping } from '../../lib/native.js';
import {
  OWN_MAPPING,
  WRITTEN,
  arrives,
  describeServers,
  expectTransfer,
  setTimer,
  until,
  withServer,
} from './lvu-sample.js';

jest.setTimeout(60_000);

const PAGE = 4096;
const MAPS = 64;

/** A file of the caller's, and a view of it. */
let fd: number;
let mapping: NativeMapping;
let bytes: Buffer;

beforeEach(() => {
  fd = native().memfd('spec', (MAPS + 1) * PAGE, false);
  mapping = native().map(fd, 0, (MAPS + 1) * PAGE, true, true) as NativeMapping;
  bytes = Buffer.from(mapping.view(0, (MAPS + 1) * PAGE) as ArrayBuffer);
});

afterEach(() => {
  mapping.close();
  native().closeFd(fd);
});

const page = (i: number) => ({
  fd,
  offset: i * PAGE,
  size: PAGE,
  iova: 0x10_0000n + BigInt(i) * 0x1_0000n,
});

const pageOf = (i: number): Buffer => bytes.subarray(i * PAGE, (i + 1) * PAGE);

/** A transaction of that many maps. */
function mapAll(device: Device, count: number): Promise<DmaMapping[]> {
  return device.dma.transaction((tx) => Array.from({ length: count }, (_, i) => tx.map(page(i))));
}

const times = (log: string, what: string): number => log.split(what).length - 1;

describeServers("DMA with libvfio-user's sample server", (sample) => {
  test('64 maps in one transaction; the device reaches them; 64 unmaps in another', () =>
    withServer(sample, async (device, server) => {
      const mappings = await mapAll(device, MAPS);
      expect(mappings.every(({ isClosed }) => !isClosed)).toBe(true);
      await until(() => times(server.log, 'mapped DMA region') === MAPS);
      // The first one by message, the second one by its fd, and no other.
      await device.irqs.intx.enable(1);
      await setTimer(device);
      await arrives(pageOf(1));
      await arrives(pageOf(0));
      expect(bytes.subarray(2 * PAGE).every((byte) => byte === 0)).toBe(true);
      await device.dma.transaction((tx) => {
        for (const one of mappings) tx.unmap(one);
      });
      expect(mappings.every(({ isClosed }) => isClosed)).toBe(true);
      await until(() => times(server.log, 'removing DMA region') === MAPS);
      // All of its places are free again.
      await mapAll(device, MAPS);
      expect(device.counters.unknown).toBe(0);
    }));

  test('one of 64 that fails: it is told, and the others are undone', () =>
    withServer(sample, async (device, server) => {
      const old = await device.dma.map(page(MAPS));
      // It cannot be mapped by anyone, and the server says so.
      const unmappable = native().eventfd(0);
      const failed: unknown = await device.dma
        .transaction((tx) => {
          tx.unmap(old);
          for (let i = 0; i < MAPS - 1; i++) tx.map(page(i));
          tx.map({ ...page(MAPS - 1), offset: 0, fd: unmappable });
        })
        .catch((error: unknown) => error);
      native().closeFd(unmappable);
      expect(failed).toMatchObject({
        name: 'DmaBatchError',
        message: expect.stringMatching(/1 of 65 failed, the rest was undone: .*ENODEV/),
        failures: [{ operation: 'DMA_MAP', iova: page(MAPS - 1).iova, size: PAGE }],
        undoFailures: [],
      });
      expect(old.isClosed).toBe(false);
      // First the old one, and in the end the 63 that it had taken.
      await until(() => times(server.log, 'removing DMA region') === MAPS);
      // 63 have gone, the old one is there.
      expect((await mapAll(device, MAPS - 1)).every(({ isClosed }) => !isClosed)).toBe(true);
      await old.unmap();
      await device.dma.map(page(MAPS));
    }));

  test('more maps than it takes, where it does not say how many: named, and undone', () =>
    withServer(sample, async (device) => {
      expect(device.negotiated.capabilities.maxDmaMaps).toBe(65_535);
      const all = mapAll(device, MAPS + 1);
      if (sample.maxMaps > MAPS) {
        expect(await all).toHaveLength(MAPS + 1);
        return;
      }
      await expect(all).rejects.toMatchObject({ failures: [{ iova: page(MAPS).iova }], undoFailures: [] });
      await mapAll(device, MAPS);
    }));

  test('buffers of a transaction are there for the device when it is committed', () =>
    withServer(sample, async (device, server) => {
      const [byMessage, byFd] = await device.dma.transaction((tx) => [
        tx.alloc(OWN_MAPPING),
        tx.alloc(OWN_MAPPING),
      ]);
      await expectTransfer(device, server, byMessage, byFd);
    }));

  test.each([
    ['whose fd is withheld', false],
    ['that the server could map, too', true],
  ])('dirty pages: what it wrote through its mapping, and by message to memory %s', (_title, share) =>
    withServer(sample, async (device, server) => {
      const byMessage = await device.dma.alloc(OWN_MAPPING, { share });
      const byFd = await device.dma.alloc(OWN_MAPPING);
      const { dirty } = device.dma;
      await dirty.start();
      expect(dirty.method).toBe('logging');
      expect(dirty.serverPageSize).toBe(PAGE);
      expect(await dirty.report()).toEqual([]);
      const both = [byMessage, byFd]
        .map(({ iova }) => ({ iova, length: PAGE }))
        .sort((a, b) => Number(a.iova - b.iova));
      await expectTransfer(device, server, byMessage, byFd);
      expect(await dirty.report()).toEqual(both);
      expect(await dirty.report()).toEqual([]);
      // What is written and then unmapped is reported once more.
      await expectTransfer(device, server, byMessage, byFd);
      await byFd.free();
      expect(await dirty.report()).toEqual(both);
      await dirty.stop();
      await expect(dirty.report()).rejects.toThrow(TypeError);
    }),
  );

  test('dirty pages of a range alone, though it knows whole mappings only', () =>
    withServer(sample, async (device, server) => {
      const byMessage = await device.dma.alloc(OWN_MAPPING, { share: false });
      const byFd = await device.dma.alloc(OWN_MAPPING);
      await device.dma.dirty.start({ ranges: [{ iova: byFd.iova, length: 2 * PAGE }] });
      await expectTransfer(device, server, byMessage, byFd);
      expect(await device.dma.dirty.report()).toEqual([{ iova: byFd.iova, length: PAGE }]);
    }));

  test('unmap while the device is idle: what is mapped there next is what it reaches', () =>
    withServer(sample, async (device, server) => {
      const first = [await device.dma.map(page(0)), await device.dma.map(page(1))];
      await device.irqs.intx.enable(1);
      await setTimer(device);
      await arrives(pageOf(1));
      await arrives(pageOf(0));
      await until(() => server.log.includes('MESSAGE success'));
      for (const one of first) await one.unmap();
      await until(() => times(server.log, 'removing DMA region') === 2);
      bytes.fill(0);
      // Other memory at the same addresses.
      const second = await Promise.all(
        [0, 1].map((i) => device.dma.map({ ...page(i + 2), iova: page(i).iova })),
      );
      expect(second.map(({ iova }) => iova)).toEqual(first.map(({ iova }) => iova));
      await setTimer(device);
      await arrives(pageOf(3));
      await arrives(pageOf(2));
      expect(bytes.subarray(0, 2 * PAGE).every((byte) => byte === 0)).toBe(true);
      await device.dma.unmapAll();
      expect(second.every(({ isClosed }) => isClosed)).toBe(true);
      // At once: VFIO_DMA_UNMAP_FLAG_ALL.
      await until(() => /removing DMA region .* flags=0x2/.test(server.log));
      expect(await device.region(7).readUInt32(0)).toBe(0xbeefdead);
    }));

  test('DMA on the twin socket is served by a synchronous register write that waits', () =>
    withServer(sample, async (device, server) => {
      expect(device.negotiated.twinSocket).toBe(true);
      const byMessage = await device.dma.alloc(OWN_MAPPING, { share: false });
      const byFd = await device.dma.alloc(OWN_MAPPING);
      const [vector] = await device.irqs.intx.enable(1);
      await setTimer(device);
      // The event loop does not turn from here on: nothing but the synchronous writes can serve what it asks. It waits for
      // its first answer when the first of them comes, and answers that one when all are there.
      const bar = device.bar(1);
      const pause = new Int32Array(new SharedArrayBuffer(4));
      const deadline = Date.now() + 10_000;
      let writes = 0;
      while (device.counters.served < 6 && Date.now() < deadline) {
        Atomics.wait(pause, 0, 0, 20);
        bar.writeUInt32Sync(0, ++writes);
      }
      expect(device.counters).toMatchObject({ served: 6, refused: 0, unknown: 0 });
      expect(byMessage.bytes.subarray(0, WRITTEN.length).equals(WRITTEN)).toBe(true);
      expect(byFd.bytes.subarray(0, WRITTEN.length).equals(WRITTEN)).toBe(true);
      expect(bar.readUInt32Sync(0)).toBe(writes);
      expect(await vector.wait({ timeoutMs: 5_000 })).toBe(1);
      await until(() => server.log.includes('MESSAGE success'));
    }));

  test('posted writes are done in their order, unanswered, and a fence says when', () =>
    withServer(sample, async (device) => {
      const bar = device.bar(1);
      const { received } = device.counters;
      for (let i = 1; i <= 1000; i++) bar.postUInt32(0, i);
      expect(await device.fence()).toBe(0);
      // One reply: the fence's.
      expect(device.counters.received).toBe(received + 1);
      expect(await bar.readUInt32(0)).toBe(1000);
      // BAR0 takes 8 bytes: this one fails, and the server keeps that to itself.
      device.bar(0).postUInt32(0, 1);
      expect(await device.fence()).toBe(0);
      expect(device.counters).toMatchObject({ unknown: 0, inFlight: 0 });
    }));
});
