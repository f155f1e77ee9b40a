/** libvfio-user's samples (commit ca9943b). VFIO_USER_LVU_SAMPLES names the directory that they were built in. */
import { describe, expect, jest, test } from '@jest/globals';
import { once } from 'node:events';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  MigrationState,
  RemoteError,
  type ConnectOptions,
  type Device,
  type DmaBuffer,
} from '../../lib/index.js';
import { ServerProcess } from './server-process.js';

jest.setTimeout(60_000);

const samples = process.env['VFIO_USER_LVU_SAMPLES'] ?? '';
const withSamples = samples === '' ? describe.skip : describe;

function sample(name: string): ServerProcess {
  return new ServerProcess(path.join(samples, name), (socket) => ['-v', socket]);
}

async function withServer(
  work: (device: Device, server: ServerProcess) => Promise<void>,
  options?: ConnectOptions,
): Promise<void> {
  await using server = sample('server');
  const device = await server.connect(options);
  try {
    await work(device, server);
  } finally {
    await device.close();
  }
}

withSamples("libvfio-user's sample server (VFIO_USER_LVU_SAMPLES names the directory of the samples)", () => {
  test('info of all regions, interrupts and config space', () =>
    withServer(async (device) => {
      expect(device.negotiated).toMatchObject({ major: 0, minor: 2, twinSocket: true });
      expect(device.negotiated.capabilities.migration).toEqual({ pgsize: 4096 });
      expect(device.isPci && device.canReset).toBe(true);
      expect(device.regions.map(({ size }) => size)).toEqual([8, 0x3000, 0, 0, 0, 0, 0, 256, 0]);
      expect(device.regions[0]).toMatchObject({ readable: true, writable: true, mappable: false });
      expect(device.regions[1]).toMatchObject({
        mappable: true,
        areas: [
          { offset: 0, size: 0x1000 },
          { offset: 0x2000, size: 0x1000 },
        ],
      });
      expect(device.irqs.intx.count).toBe(1);
      expect(device.config.header).toMatchObject({
        vendorId: 0xdead,
        deviceId: 0xbeef,
        subsystemVendorId: 0xcafe,
        subsystemId: 0xbabe,
      });
      await device.reset();
    }));

  test('its BAR0 of 8 bytes: the time since what was written', () =>
    withServer(async (device) => {
      const bar = device.bar(0);
      const now = Math.floor(Date.now() / 1000);
      await bar.writeUInt64(0, BigInt(now + 1000));
      const past = BigInt.asIntN(64, await bar.readUInt64(0));
      expect(past).toBeGreaterThanOrEqual(-1000n);
      expect(past).toBeLessThan(-900n);
      expect(BigInt.asIntN(64, bar.readUInt64Sync(0))).toBeLessThan(-900n);
      // It takes 8 bytes or nothing; the connection goes on.
      await expect(bar.readUInt32(0)).rejects.toMatchObject({ name: 'RemoteError', code: 'EINVAL' });
      expect(() => bar.readUInt32Sync(4)).toThrow(RemoteError);
      expect(await bar.readUInt64(0)).toBeGreaterThan(1n << 63n);
    }));

  test('its sparse BAR1: what is stored in the mapping is read by message, and the other way round', () =>
    withServer(async (device) => {
      const bar = device.bar(1);
      using first = bar.map(0, 0x1000);
      using last = bar.map(0x2000, 0x1000);
      first.writeUInt32(0, 0x12345678);
      first.writeUInt32(4, 0x9abcdef0);
      expect(await bar.read(0, 8)).toEqual(Buffer.from('78563412f0debc9a', 'hex'));
      await bar.writeUInt32(0x2ffc, 0xcafebabe);
      expect(last.readUInt32(0xffc)).toBe(0xcafebabe);
      bar.writeUInt64Sync(0x10, 0x1122334455667788n);
      expect(first.readUInt64(0x10)).toBe(0x1122334455667788n);
      expect(() => bar.map(0x1000, 0x1000)).toThrow(RangeError);
    }));

  test('long transfers, in the order of their chunks', () =>
    withServer(async (device) => {
      const bar = device.bar(1);
      const bytes = Buffer.from(Array.from({ length: 0x3000 }, (_, i) => (i * 7) & 0xff));
      await bar.write(0, bytes);
      expect((await bar.read(0, 0x3000)).equals(bytes)).toBe(true);
      using last = bar.map(0x2000);
      expect(last.bytes.equals(bytes.subarray(0x2000))).toBe(true);
    }));

  test('thousands of concurrent reads, each with the right bytes', () =>
    withServer(async (device) => {
      const bar = device.bar(1);
      const config = device.region(7);
      const shadow = device.config.bytes();
      const bytes = Buffer.from(Array.from({ length: 1024 }, (_, i) => (i * 31) & 0xff));
      await bar.write(0, bytes);
      const reads: Promise<void>[] = [];
      for (let i = 0; i < 6000; i++) {
        // The sample answers BAR1 reads with its first bytes whatever the offset, so the length tells them apart.
        const length = 1 + (i % 1024);
        const offset = (i * 4) % 256;
        reads.push(
          i % 2 === 0
            ? bar.read(0, length).then((got) => expect(got.equals(bytes.subarray(0, length))).toBe(true))
            : config.readUInt32(offset).then((got) => expect(got).toBe(shadow.readUInt32LE(offset))),
        );
      }
      await Promise.all(reads);
      expect(device.counters).toMatchObject({ inFlight: 0, unknown: 0, late: 0 });
    }));

  test('offsets past the end are refused before anything is sent', () =>
    withServer(async (device) => {
      const { sent } = device.counters;
      await expect(device.bar(1).read(0x2fff, 2)).rejects.toThrow(RangeError);
      await expect(device.bar(0).writeUInt8(8, 0)).rejects.toThrow(RangeError);
      expect(device.counters.sent).toBe(sent);
    }));

  /**
   * When its timer fires, the sample signals INTx, stores to the second region that was mapped through its own mapping,
   * and then writes and reads the first one by message; it exits where bytes do not come back.
   */
  describe('its timer: interrupt by eventfd, then DMA', () => {
    const written = Buffer.concat([...'ABCD'].map((letter) => Buffer.alloc(1024, letter)));

    /** Large enough for a mapping of their own each. */
    const SIZE = 8 << 20;

    async function expectTransfer(device: Device, server: ServerProcess, share: boolean): Promise<void> {
      const byMessage = await device.dma.alloc(SIZE, { share });
      const byFd = await device.dma.alloc(SIZE);
      const [vector] = await device.irqs.intx.enable(1);
      // The next second would be the same second by the time that the sample looks.
      await device.bar(0).writeUInt64(0, BigInt(Math.floor(Date.now() / 1000) + 2));
      expect(await vector!.wait({ timeoutMs: 10_000 })).toBe(1);
      await arrives(byFd, written);
      await arrives(byMessage, written);
      // Four writes and two reads of the same bytes, all answered; it is alive and in step.
      await until(() => server.log.includes('MESSAGE success'));
      expect(server.log).toMatch(/DIRECT success/);
      expect(device.counters).toMatchObject({ served: 6, refused: 0, unknown: 0 });
      expect(await device.region(7).readUInt32(0)).toBe(0xbeefdead);
      await byFd.free();
      await byMessage.free();
    }

    async function arrives(buffer: DmaBuffer, bytes: Buffer): Promise<void> {
      await until(() => buffer.bytes.subarray(0, bytes.length).equals(bytes));
    }

    async function until(condition: () => boolean): Promise<void> {
      for (let tries = 0; !condition(); tries++) {
        if (tries === 1000) throw new Error('it did not come true');
        await sleep(10);
      }
    }

    test.each([
      ['with a twin socket, the memory shared', true, true],
      ['with a twin socket, no fd given', true, false],
      ['without a twin socket, the memory shared', false, true],
      ['without a twin socket, no fd given', false, false],
    ])('%s', (_title, twinSocket, share) =>
      withServer(
        async (device, server) => {
          expect(device.negotiated.twinSocket).toBe(twinSocket);
          await expectTransfer(device, server, share);
        },
        { twinSocket },
      ),
    );

    test('secureDma gives it nothing to map: it says so and ends, and that is told', async () => {
      await withServer(
        async (device, server) => {
          await device.dma.alloc(SIZE);
          await device.dma.alloc(SIZE);
          await device.irqs.intx.enable(1);
          await device.bar(0).writeUInt64(0, BigInt(Math.floor(Date.now() / 1000) + 2));
          expect(await device.closed).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
          await until(() => /vfu_sgl_get failed/.test(server.log));
          await expect(device.bar(0).readUInt64(0)).rejects.toThrow('closed');
        },
        { secureDma: true },
      );
    });
  });
});

/** What the sample sends in PRE_COPY its other half does not take, and it ends where PRE_COPY is left for RUNNING. */
withSamples("migration of libvfio-user's sample server (VFIO_USER_LVU_SAMPLES)", () => {
  test('to a second process, with the interrupt delivered by the destination', async () => {
    await using from = sample('server');
    await using to = sample('server');
    await using source = await from.connect();
    await using destination = await to.connect();
    expect(await source.migration.support()).toEqual({ stopCopy: true, preCopy: true });
    const bytes = Buffer.from(Array.from({ length: 0x1000 }, (_, i) => (i * 13) & 0xff));
    await source.bar(1).write(0, bytes);
    // Its timer's DMA needs memory at the destination.
    await destination.dma.alloc(8 << 20);
    await destination.dma.alloc(8 << 20);
    const [vector] = await destination.irqs.intx.enable(1);
    await source.bar(0).writeUInt64(0, BigInt(Math.floor(Date.now() / 1000) + 3));
    await pipeline(source.migration.save({ preCopy: false }), destination.migration.restore());
    expect(await source.migration.state()).toBe(MigrationState.STOP);
    expect(await destination.migration.state()).toBe(MigrationState.RUNNING);
    expect((await destination.bar(1).read(0, 0x1000)).equals(bytes)).toBe(true);
    expect(await vector!.wait({ timeoutMs: 15_000 })).toBe(1);
  });

  test('a stream that is destroyed half way: the sample goes on', () =>
    withServer(async (device) => {
      // It refuses to run again without a time to wait for.
      await device.bar(0).writeUInt64(0, BigInt(Math.floor(Date.now() / 1000) + 60));
      const stream = device.migration.save({ preCopy: false, chunkBytes: 1024 });
      await once(stream, 'readable');
      stream.destroy();
      await once(stream, 'close');
      expect(await device.migration.state()).toBe(MigrationState.RUNNING);
      expect(await device.region(7).readUInt32(0)).toBe(0xbeefdead);
    }));
});

withSamples("libvfio-user's shadow_ioeventfd_server (VFIO_USER_LVU_SAMPLES)", () => {
  test('offers a shadow ioeventfd, and goes on after it was rung', async () => {
    await using server = new ServerProcess(path.join(samples, 'shadow_ioeventfd_server'), (socket) => [
      socket,
    ]);
    const device = await server.connect();
    try {
      const [doorbell] = [...(await device.bar(0).ioFds())];
      expect(doorbell).toMatchObject({ kind: 'shadow-ioeventfd' });
      doorbell!.write(0xbeef);
      expect(await device.region(7).readUInt16(0)).toBe(0x4e58);
    } finally {
      await device.close();
    }
  });
});

withSamples("libvfio-user's gpio-pci-idio-16 (VFIO_USER_LVU_SAMPLES)", () => {
  test('disconnect and connect again: the pins are as they were', async () => {
    await using server = sample('gpio-pci-idio-16');
    // Bit n of the input says whether pin n was set a multiple of three times.
    let times = 0;
    for (let client = 0; client < 5; client++) {
      await using device = await server.connect();
      expect([device.config.vendorId, device.config.deviceId]).toEqual([0x494f, 0x0dc8]);
      const bar = device.bar(2);
      expect(await bar.readUInt8(1)).toBe(times % 3 === 0 ? 0xff : 0xfe);
      await bar.writeUInt8(0, 0x01);
      times++;
      expect(await bar.readUInt8(1)).toBe(times % 3 === 0 ? 0xff : 0xfe);
      expect(bar.readUInt8Sync(1)).toBe(times % 3 === 0 ? 0xff : 0xfe);
    }
  });
});
