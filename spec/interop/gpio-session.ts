/** What a client does with rust-vmm's gpio example, and what it must see: of the program itself, and of a recording of it. */
import { expect } from '@jest/globals';
import type { Device } from '../../lib/index.js';
import { PciRegion } from '../../lib/protocol/index.js';

/** Each of them has a connection of its own. */
export const GPIO_SESSIONS: Readonly<Record<string, (device: Device) => Promise<void>>> = {
  'info: version, regions, interrupts': async (device) => {
    expect(device.negotiated).toMatchObject({ major: 0, minor: 0, twinSocket: false });
    expect(device.isPci).toBe(true);
    expect(device.info).toMatchObject({ numRegions: 9, numIrqs: 5 });
    const sizes = device.regions.map(({ size }) => size);
    expect(sizes).toEqual([0, 0, 256, 0, 0, 0, 0, 256, 0]);
    expect(device.irqs.intx).toMatchObject({ count: 1, supportsEventfd: true });
    expect(device.irqs.msi.count).toBe(0);
    expect(device.irqs.msix.count).toBe(0);
  },

  'config space': ({ config }) => {
    expect([config.vendorId, config.deviceId]).toEqual([0x494f, 0x0dc8]);
    expect(config.header.interruptPin).toBe(1);
    expect(config.bars[2]).toMatchObject({ index: 2, kind: 'io' });
    expect(config.getUInt32(0)).toBe(0x0dc8494f);
    return Promise.resolve();
  },

  'BAR2 reads: every third one is 1': async (device) => {
    await device.enable();
    const bar = device.bar(2);
    const values: number[] = [];
    for (let i = 0; i < 9; i++) values.push(await bar.readUInt8(0));
    expect(values).toEqual([0, 0, 1, 0, 0, 1, 0, 0, 1]);
    expect(bar.readUInt32Sync(0)).toBe(0);
    expect(await bar.read(1, 255)).toEqual(Buffer.alloc(255));
    await expect(bar.readUInt32(253)).rejects.toThrow(RangeError);
  },

  'its INTx eventfd fires at every third read': async (device) => {
    const [vector] = await device.irqs.intx.enable(1);
    const bar = device.bar(2);
    for (let third = 1; third <= 3; third++) {
      await bar.readUInt8(0);
      await bar.readUInt8(0);
      expect(vector.take()).toBe(0);
      await bar.readUInt8(0);
      expect(await vector.wait()).toBe(1);
      expect(vector.count).toBe(third);
    }
  },

  'ninety-nine reads in flight come back in order': async (device) => {
    const bar = device.bar(2);
    const values = await Promise.all(Array.from({ length: 99 }, () => bar.readUInt8(0)));
    expect(values).toEqual(Array.from({ length: 99 }, (_, i) => ((i + 1) % 3 === 0 ? 1 : 0)));
  },

  'a region that is not there is refused by us, not asked for': async (device) => {
    expect(() => device.bar(0)).toThrow(RangeError);
    await expect(device.region(PciRegion.ROM).read(0, 4)).rejects.toThrow(RangeError);
  },

  reset: async (device) => {
    await device.reset();
    expect(device.config.getUInt32(0)).toBe(0x0dc8494f);
  },
};
