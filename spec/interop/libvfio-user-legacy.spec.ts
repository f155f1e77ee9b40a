/**
 * DIRTY_PAGES, and DMA_UNMAP with a bitmap, which the specification had until 2022 and libvfio-user until September 2023.
 * VFIO_USER_LVU_LEGACY_SERVER names the `server` sample of the last library with them (commit 1569a37a), which marks what
 * it writes; VFIO_USER_LVU_OLD_SERVER that of the library in QEMU 7.2 (commit 0b28d205), which writes by message alone.
 */
import { describe, expect, jest, test } from '@jest/globals';
import type { Device } from '../../lib/index.js';
import { OWN_MAPPING, expectTransfer, setTimer, start, until, withServer } from './lvu-sample.js';

jest.setTimeout(60_000);

const PAGE = 4096;

const legacy = process.env['VFIO_USER_LVU_LEGACY_SERVER'] ?? '';
const old = process.env['VFIO_USER_LVU_OLD_SERVER'] ?? '';
const withLegacy = legacy === '' ? describe.skip : describe;
const withOld = old === '' ? describe.skip : describe;

/** The names of the commands that were sent since the last call. */
function commands(): { trace: (line: string) => void; take: () => string[] } {
  const names: string[] = [];
  return {
    trace: (line) => {
      const name = /→ #\d+ (\S+)/.exec(line)?.[1];
      if (name !== undefined) names.push(name);
    },
    take: () => names.splice(0),
  };
}

withLegacy("libvfio-user's sample of 2023 (VFIO_USER_LVU_LEGACY_SERVER names it)", () => {
  test('what it wrote through its mapping, and by message, is one report', () =>
    withServer({ program: legacy }, async (device, server) => {
      const byMessage = await device.dma.alloc(OWN_MAPPING, { share: false });
      const byFd = await device.dma.alloc(OWN_MAPPING);
      const { dirty } = device.dma;
      // What was written before it is watched is not reported.
      await expectTransfer(device, server, byMessage, byFd);
      await dirty.start();
      expect(dirty.method).toBe('legacy');
      expect(dirty.serverPageSize).toBe(PAGE);
      expect(await dirty.report()).toEqual([]);
      await expectTransfer(device, server, byMessage, byFd);
      const both = [byMessage, byFd]
        .map(({ iova }) => ({ iova, length: PAGE }))
        .sort((a, b) => Number(a.iova - b.iova));
      expect(await dirty.report()).toEqual(both);
      expect(await dirty.report()).toEqual([]);
      await dirty.stop();
      await dirty.start();
      expect(await dirty.report()).toEqual([]);
      expect(device.counters.unknown).toBe(0);
    }));

  test('what is unmapped brings its bitmap with it: DMA_UNMAP', async () => {
    const { trace, take } = commands();
    await withServer(
      { program: legacy },
      async (device, server) => {
        const byMessage = await device.dma.alloc(OWN_MAPPING, { share: false });
        const byFd = await device.dma.alloc(OWN_MAPPING);
        await device.dma.dirty.start({ ranges: [{ iova: byFd.iova, length: OWN_MAPPING }] });
        await expectTransfer(device, server, byMessage, byFd);
        take();
        await byFd.free();
        expect(take()).toEqual(['DMA_UNMAP']);
        expect(await device.dma.dirty.report()).toEqual([{ iova: byFd.iova, length: PAGE }]);
        expect(server.log).toMatch(/removing DMA region .* flags=0x1/);
      },
      { trace },
    );
  });

  test('a range that is less than a mapping, of which it knows the whole alone', () =>
    withServer({ program: legacy }, async (device, server) => {
      const byMessage = await device.dma.alloc(OWN_MAPPING);
      const byFd = await device.dma.alloc(OWN_MAPPING);
      await device.dma.dirty.start({ ranges: [{ iova: byFd.iova, length: 1 }] });
      await expectTransfer(device, server, byMessage, byFd);
      expect(await device.dma.dirty.report()).toEqual([{ iova: byFd.iova, length: PAGE }]);
    }));

  // While writes are watched unmapAll unmaps one by one: only then is what was written last told with each.
  test('all at once: what each was written last is in the report', () =>
    withServer({ program: legacy }, async (device, server) => {
      const byMessage = await device.dma.alloc(OWN_MAPPING);
      const byFd = await device.dma.alloc(OWN_MAPPING);
      await device.dma.dirty.start();
      await expectTransfer(device, server, byMessage, byFd);
      await device.dma.unmapAll();
      await until(() => server.log.match(/removing DMA region/g)?.length === 2);
      const iovas = (await device.dma.dirty.report()).map(({ iova }) => iova);
      expect(new Set(iovas)).toEqual(new Set([byMessage.iova, byFd.iova]));
    }));
});

withOld("libvfio-user's sample of QEMU 7.2 (VFIO_USER_LVU_OLD_SERVER names it)", () => {
  async function withOldServer(work: (device: Device) => Promise<void>): Promise<void> {
    await using server = start(old);
    const device = await server.connect();
    try {
      expect(device.negotiated).toMatchObject({ minor: 1, twinSocket: false });
      await work(device);
    } finally {
      await device.close();
    }
  }

  /** It writes a page to the first region, and reads it back. */
  async function transfer(device: Device, bytes: Buffer): Promise<void> {
    const { served } = device.counters;
    bytes.fill(0);
    await setTimer(device);
    await until(() => device.counters.served === served + 2);
    expect(bytes.subarray(0, PAGE)).toEqual(Buffer.alloc(PAGE, 'A'));
  }

  test.each([
    ['whose fd is withheld', false],
    ['that it could map', true],
  ])('DIRTY_PAGES is started, asked and stopped; what it wrote to memory %s is in the report', (_, share) =>
    withOldServer(async (device) => {
      const buffer = await device.dma.alloc(OWN_MAPPING, { share });
      const mapped = await device.dma.alloc(OWN_MAPPING);
      await device.irqs.intx.enable(1);
      const { dirty } = device.dma;
      await dirty.start();
      expect(dirty.method).toBe('legacy');
      expect(await dirty.report()).toEqual([]);
      await transfer(device, buffer.bytes);
      expect(await dirty.report()).toEqual([{ iova: buffer.iova, length: PAGE }]);
      // Its bitmap of what is unmapped comes with DMA_UNMAP: nothing was written there.
      await mapped.free();
      expect(await dirty.report()).toEqual([]);
      await transfer(device, buffer.bytes);
      await buffer.free();
      expect(await dirty.report()).toEqual([{ iova: buffer.iova, length: PAGE }]);
      await dirty.stop();
      expect(device.counters.unknown).toBe(0);
    }),
  );
});
