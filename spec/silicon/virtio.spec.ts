/** A virtio entropy device (Virtio 1.2, sections 4.1 and 5.4): one queue, DMA to memory, an interrupt. */
import { expect, test } from '@jest/globals';
import type { Device, Region } from '../../lib/index.js';
import { VirtioRng } from '../../lib/virtio/index.js';
import { describePci, openPci } from './pci-subjects.js';

const VENDOR_CAPABILITY = 9;
const [COMMON, NOTIFY] = [1, 2];
/** Registers of the common configuration, section 4.1.4.3. */
const Register = {
  deviceFeatureSelect: 0,
  deviceFeature: 4,
  driverFeatureSelect: 8,
  driverFeature: 12,
  status: 20,
  queueSelect: 22,
  queueSize: 24,
  queueVector: 26,
  queueEnable: 28,
  queueNotifyOffset: 30,
  queueDescriptors: 32,
  queueDriver: 40,
  queueDevice: 48,
};
const [ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK] = [1, 2, 4, 8];
/** VERSION_1 and ACCESS_PLATFORM, features 32 and 33: the device's addresses are those of the IOMMU. */
const MODERN = 3;
const QUEUE_SIZE = 8;
const [DRIVER_AT, DEVICE_AT, DATA_AT] = [1024, 2048, 4096];
const WANTED = 64;
const DEVICE_WRITES = 2;

interface Place {
  bar: Region;
  offset: number;
  /** Of the capability in config space. */
  at: number;
}

/** Where a structure is: the vendor-specific capability of that type. */
function place(device: Device, type: number): Place {
  const { config } = device;
  const at = config.capabilities.find(
    ({ id, offset }) => id === VENDOR_CAPABILITY && config.getUInt8(offset + 3) === type,
  )!.offset;
  return { bar: device.bar(config.getUInt8(at + 4)), offset: config.getUInt32(at + 8), at };
}

describePci('VFIO_USER_TEST_VIRTIO_RNG', 'virtio-rng', (address) => {
  test('fills memory, and says so by MSI-X', async () => {
    const device = await openPci(address);
    await device.enable();
    const { bar, offset } = place(device, COMMON);
    const reset = () => bar.writeUInt8(offset + Register.status, 0);
    const status = (bits: number) => bar.writeUInt8(offset + Register.status, bits);
    await reset();
    await status(ACKNOWLEDGE | DRIVER);
    await bar.writeUInt32(offset + Register.deviceFeatureSelect, 1);
    expect((await bar.readUInt32(offset + Register.deviceFeature)) & MODERN).toBe(MODERN);
    await bar.writeUInt32(offset + Register.driverFeatureSelect, 1);
    await bar.writeUInt32(offset + Register.driverFeature, MODERN);
    await status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    expect((await bar.readUInt8(offset + Register.status)) & FEATURES_OK).toBe(FEATURES_OK);

    const [vector] = await device.irqs.msix.enable(1);
    const memory = await device.dma.alloc(8192);
    await bar.writeUInt16(offset + Register.queueSelect, 0);
    await bar.writeUInt16(offset + Register.queueSize, QUEUE_SIZE);
    await bar.writeUInt16(offset + Register.queueVector, 0);
    expect(await bar.readUInt16(offset + Register.queueVector)).toBe(0);
    for (const [register, at] of [
      [Register.queueDescriptors, 0],
      [Register.queueDriver, DRIVER_AT],
      [Register.queueDevice, DEVICE_AT],
    ] as const) {
      const value = memory.iova + BigInt(at);
      await bar.writeUInt32(offset + register, Number(value & 0xffff_ffffn));
      await bar.writeUInt32(offset + register + 4, Number(value >> 32n));
    }
    await bar.writeUInt16(offset + Register.queueEnable, 1);
    await status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);

    const { bytes } = memory;
    bytes.writeBigUInt64LE(memory.iova + BigInt(DATA_AT), 0);
    bytes.writeUInt32LE(WANTED, 8);
    bytes.writeUInt16LE(DEVICE_WRITES, 12);
    bytes.writeUInt16LE(1, DRIVER_AT + 2);
    const notify = place(device, NOTIFY);
    const queue = await bar.readUInt16(offset + Register.queueNotifyOffset);
    const multiplier = device.config.getUInt32(notify.at + 16);
    await notify.bar.writeUInt16(notify.offset + queue * multiplier, 0);

    expect(await vector.wait({ timeoutMs: 60_000 })).toBeGreaterThan(0);
    expect(bytes.readUInt16LE(DEVICE_AT + 2)).toBe(1);
    const written = bytes.readUInt32LE(DEVICE_AT + 8);
    expect(written).toBeGreaterThan(0);
    expect(bytes.subarray(DATA_AT, DATA_AT + written).some((byte) => byte !== 0)).toBe(true);
    await reset();
  });

  test.each(['poll', 'interrupt'] as const)(
    'gives random bytes to VirtioRng, with completions by %s',
    async (completion) => {
      const device = await openPci(address);
      const rng = await VirtioRng.open(device, { completion, timeoutMs: 60_000 });
      expect(rng.driver.featureNames).toEqual(expect.arrayContaining(['VERSION_1', 'ACCESS_PLATFORM']));
      const chunks: Buffer[] = [];
      for await (const chunk of rng) {
        chunks.push(chunk as Buffer);
        if (chunks.reduce((sum, { length }) => sum + length, 0) >= 10_000) break;
      }
      // Of so many random bytes each value is there.
      expect(new Set(Buffer.concat(chunks)).size).toBe(256);
      await rng.close();
      expect(rng.driver.state).toBe('closed');
    },
  );
});
