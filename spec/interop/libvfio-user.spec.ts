/** libvfio-user's samples. VFIO_USER_LVU_SAMPLES names the directory that they were built in, of commit ca9943b. */
import { describe, expect, jest, test } from '@jest/globals';
import { once } from 'node:events';
import path from 'node:path';
import { Readable, Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { MigrationState, RemoteError, type Device } from '../../lib/index.js';
import {
  OWN_MAPPING,
  SAMPLES,
  arrives,
  describeServers,
  expectTransfer,
  setTimer,
  start,
  until,
  withServer,
} from './lvu-sample.js';
import { ServerProcess } from './server-process.js';

jest.setTimeout(60_000);

const withSamples = SAMPLES === '' ? describe.skip : describe;

describeServers("libvfio-user's sample server", (sample) => {
  const { bar1Size } = sample;

  test('info of all regions, interrupts and config space', () =>
    withServer(sample, async (device) => {
      expect(device.negotiated).toMatchObject({ major: 0, minor: 2, twinSocket: true });
      expect(device.negotiated.capabilities.migration).toEqual({ pgsize: 4096 });
      expect(device.isPci && device.canReset).toBe(true);
      expect(device.regions.map(({ size }) => size)).toEqual([8, bar1Size, 0, 0, 0, 0, 0, 256, 0]);
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
    withServer(sample, async (device) => {
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
    withServer(sample, async (device) => {
      const bar = device.bar(1);
      using first = bar.map(0, 0x1000);
      using last = bar.map(0x2000, 0x1000);
      first.storeUInt32(0, 0x12345678);
      first.storeUInt32(4, 0x9abcdef0);
      expect(await bar.read(0, 8)).toEqual(Buffer.from('78563412f0debc9a', 'hex'));
      await bar.writeUInt32(0x2ffc, 0xcafebabe);
      expect(last.loadUInt32(0xffc)).toBe(0xcafebabe);
      bar.writeUInt64Sync(0x10, 0x1122334455667788n);
      expect(first.loadUInt64(0x10)).toBe(0x1122334455667788n);
      expect(() => bar.map(0x1000, 0x1000)).toThrow(RangeError);
    }));

  test('long transfers, in the order of their chunks', () =>
    withServer(sample, async (device) => {
      const bar = device.bar(1);
      const bytes = Buffer.from(Array.from({ length: bar1Size }, (_, i) => (i * 7) & 0xff));
      await bar.write(0, bytes);
      expect((await bar.read(0, bar1Size)).equals(bytes)).toBe(true);
      using last = bar.map(0x2000, 0x1000);
      expect(last.bytes.equals(bytes.subarray(0x2000, 0x3000))).toBe(true);
    }));

  test('thousands of concurrent reads, each with the right bytes', () =>
    withServer(sample, async (device) => {
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
    withServer(sample, async (device) => {
      const { sent } = device.counters;
      await expect(device.bar(1).read(bar1Size - 1, 2)).rejects.toThrow(RangeError);
      await expect(device.bar(0).writeUInt8(8, 0)).rejects.toThrow(RangeError);
      expect(device.counters.sent).toBe(sent);
    }));

  describe('its timer: interrupt by eventfd, then DMA', () => {
    test.each([
      ['with a twin socket, the memory shared', true, true],
      ['with a twin socket, no fd given', true, false],
      ['without a twin socket, the memory shared', false, true],
      ['without a twin socket, no fd given', false, false],
    ])('%s', (_title, twinSocket, share) =>
      withServer(
        sample,
        async (device, server) => {
          expect(device.negotiated.twinSocket).toBe(twinSocket);
          const byMessage = await device.dma.alloc(OWN_MAPPING, { share });
          const byFd = await device.dma.alloc(OWN_MAPPING);
          await expectTransfer(device, server, byMessage, byFd);
          // All answered; it is alive and in step.
          expect(server.log).toMatch(/DIRECT success/);
          expect(device.counters).toMatchObject({ served: 6, refused: 0, unknown: 0 });
          expect(await device.region(7).readUInt32(0)).toBe(0xbeefdead);
          await byFd.free();
          await byMessage.free();
        },
        { twinSocket },
      ),
    );

    test('secureDma gives it nothing to map: it says so and ends, and that is told', async () => {
      await withServer(
        sample,
        async (device, server) => {
          await device.dma.alloc(OWN_MAPPING);
          await device.dma.alloc(OWN_MAPPING);
          await device.irqs.intx.enable(1);
          await setTimer(device);
          expect(await device.closed).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
          await until(() => /vfu_sgl_get failed/.test(server.log));
          await expect(device.bar(0).readUInt64(0)).rejects.toThrow('closed');
        },
        { secureDma: true },
      );
    });
  });
});

describeServers("migration of libvfio-user's sample server", (sample) => {
  /** It refuses to run again without a time to wait for. */
  async function keepFromTimer(device: Device): Promise<void> {
    await device.bar(0).writeUInt64(0, BigInt(Math.floor(Date.now() / 1000) + 60));
  }

  test('to a second process, with the interrupt delivered by the destination', async () => {
    await using from = start(sample.program);
    await using to = start(sample.program);
    await using source = await from.connect();
    await using destination = await to.connect();
    expect(await source.migration.support()).toEqual({ stopCopy: true, preCopy: true });
    const bytes = Buffer.from(Array.from({ length: 0x1000 }, (_, i) => (i * 13) & 0xff));
    await source.bar(1).write(0, bytes);
    // Its timer's DMA needs memory at the destination.
    const byMessage = await destination.dma.alloc(OWN_MAPPING);
    const byFd = await destination.dma.alloc(OWN_MAPPING);
    const [sources] = await source.irqs.intx.enable(1);
    const [vector] = await destination.irqs.intx.enable(1);
    await source.bar(0).writeUInt64(0, BigInt(Math.floor(Date.now() / 1000) + 3));
    await pipeline(source.migration.save(), destination.migration.restore());
    expect(await source.migration.state()).toBe(MigrationState.STOP);
    expect(await destination.migration.state()).toBe(MigrationState.RUNNING);
    expect((await destination.bar(1).read(0, 0x1000)).equals(bytes)).toBe(true);
    expect(await vector.wait({ timeoutMs: 15_000 })).toBe(1);
    await arrives(byFd.bytes);
    await arrives(byMessage.bytes);
    expect(sources.take()).toBe(0);
  });

  /** It ends where STOP_COPY is left before all has been read. */
  const ends: [string, (save: Readable, abort: AbortController) => Promise<unknown>][] = [
    [
      'destroy()',
      async (save) => {
        await once(save, 'readable');
        save.destroy();
      },
    ],
    [
      'destroy(error)',
      async (save) => {
        await once(save, 'readable');
        save.on('error', () => undefined).destroy(new Error('mine'));
      },
    ],
    [
      'a loop that is left',
      async (save) => {
        for await (const _chunk of save) break;
      },
    ],
    [
      'a consumer that fails',
      (save) => pipeline(save, new Writable({ write: (_c, _e, done) => done(new Error('full')) })),
    ],
    [
      'its signal',
      async (save, abort) => {
        save.on('error', () => undefined);
        await once(save, 'readable');
        abort.abort();
      },
    ],
    [
      'nothing but that',
      async (save) => {
        save.on('error', () => undefined);
        await once(save, 'readable');
      },
    ],
  ];

  test.each(ends)('a stream that is broken off by %s, and close(): the sample ran on', (_title, end) =>
    withServer(sample, async (device, server) => {
      await keepFromTimer(device);
      const abort = new AbortController();
      const save = device.migration.save({ chunkBytes: 1024, signal: abort.signal });
      await end(save, abort).catch(() => undefined);
      await device.close();
      // It ends with its client, and by an assertion otherwise.
      expect(await server.exited()).toBe(0);
      const states = [...server.log.matchAll(/transition to device state (\d)/g)].map(([, state]) => state);
      // In its own numbers: stopped, running.
      expect(states.slice(-2)).toEqual(['0', '1']);
    }),
  );

  test('one save at a time, and the next one is whole', () =>
    withServer(sample, async (device) => {
      await keepFromTimer(device);
      const first = device.migration.save({ chunkBytes: 1024 });
      await once(first, 'readable');
      await expect(buffer(device.migration.save())).rejects.toThrow(/a save of this device is under way/);
      const bytes = await buffer(first);
      await device.migration.transition(MigrationState.RUNNING);
      for await (const _chunk of device.migration.save({ chunkBytes: 1024 })) break;
      expect((await buffer(device.migration.save())).byteLength).toBe(bytes.byteLength);
    }));

  test('a restore that is broken off, and another one: the second is whole', async () => {
    await using from = start(sample.program);
    await using to = start(sample.program);
    await using source = await from.connect();
    await using destination = await to.connect();
    const bytes = Buffer.from(Array.from({ length: 0x1000 }, (_, i) => (i * 13) & 0xff));
    await source.bar(1).write(0, bytes);
    await keepFromTimer(source);
    const state = await buffer(source.migration.save());
    const half = destination.migration.restore();
    half.on('error', () => undefined);
    await new Promise((resolve) => half.write(state.subarray(0, 0x1800), resolve));
    half.destroy(new Error('mine'));
    await new Promise((resolve) => half.once('close', resolve));
    expect(await destination.migration.state()).not.toBe(MigrationState.RESUMING);
    await pipeline(Readable.from([state]), destination.migration.restore());
    expect((await destination.bar(1).read(0, 0x1000)).equals(bytes)).toBe(true);
  });

  /**
   * The sample takes exactly BAR1 and BAR0 once, and what it gives in PRE_COPY is BAR1 once more: it refuses the end of
   * its own stream. Its own client throws away what it read in PRE_COPY.
   */
  test('with PRE_COPY its other half refuses the stream, and the error says so', async () => {
    await using from = start(sample.program);
    await using to = start(sample.program);
    await using source = await from.connect();
    await using destination = await to.connect();
    await source.bar(0).writeUInt64(0, BigInt(Math.floor(Date.now() / 1000) + 60));
    const save = source.migration.save({ preCopy: true, chunkBytes: 0x1000 });
    await expect(pipeline(save, destination.migration.restore())).rejects.toMatchObject({
      name: 'MigrationError',
      state: 'STOP',
      message: expect.stringMatching(/MIG_DATA_WRITE: the server answered EINVAL.*transition\(RUNNING\)/),
    });
  });
});

withSamples("libvfio-user's shadow_ioeventfd_server (VFIO_USER_LVU_SAMPLES)", () => {
  test('offers a shadow ioeventfd, and goes on after it was rung', async () => {
    await using server = new ServerProcess(path.join(SAMPLES, 'shadow_ioeventfd_server'), (socket) => [
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
    await using server = start(path.join(SAMPLES, 'gpio-pci-idio-16'));
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
