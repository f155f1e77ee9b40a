/** QEMU's e1000e (Intel 82574L): registers by message and mapped, and MSI-X that the device itself raises. */
import { expect, test } from '@jest/globals';
import { describePci, openPci } from './pci-subjects.js';

/** Intel 82574 datasheet, section 10: registers of BAR 0. */
const [CTRL, STATUS, EERD, ICR, ICS, IMS, IVAR, RDBAL] = [0, 8, 0x14, 0xc0, 0xc8, 0xd0, 0xe4, 0x2800];
const RX_QUEUE_0 = 1 << 20;
const OTHER = 1 << 24;
const VALID = 8;
const BASE_LOW_MASK = 0xffff_fff0;

describePci('VFIO_USER_TEST_E1000E', 'e1000e', (address) => {
  test('has registers, by message and mapped', async () => {
    const device = await openPci(address);
    await device.enable();
    expect([device.config.vendorId, device.config.deviceId]).toEqual([0x8086, 0x10d3]);
    const bar = device.bar(0);
    using area = bar.map();
    for (const register of [CTRL, STATUS]) {
      expect(area.loadUInt32(register)).toBe(await bar.readUInt32(register));
    }
    await bar.writeUInt32(RDBAL, 0x1234_5670);
    expect(area.loadUInt32(RDBAL) & BASE_LOW_MASK).toBe(0x1234_5670);
    area.storeUInt32(RDBAL, 0x0765_4320);
    expect(await bar.readUInt32(RDBAL)).toBe(0x0765_4320);
  });

  test('has a MAC address in its EEPROM', async () => {
    const device = await openPci(address);
    await device.enable();
    const bar = device.bar(0);
    await bar.writeUInt32(EERD, 1);
    const value = await bar.waitFor(EERD, 2, 2, { timeoutMs: 60_000 });
    // QEMU's begin with 52:54.
    expect(value >>> 16).toBe(0x5452);
  });

  test('raises two MSI-X vectors by itself, again after a reset', async () => {
    const device = await openPci(address);
    await device.enable();
    const bar = device.bar(0);
    const [first, second] = await device.irqs.msix.enable(2);
    for (let i = 0; i < 2; i++) {
      await bar.writeUInt32(IVAR, VALID | 0 | ((VALID | 1) << 16));
      await bar.writeUInt32(IMS, RX_QUEUE_0 | OTHER);
      await bar.writeUInt32(ICS, RX_QUEUE_0);
      expect(await first.wait({ timeoutMs: 60_000 })).toBeGreaterThan(0);
      await bar.writeUInt32(ICS, OTHER);
      expect(await second!.wait({ timeoutMs: 60_000 })).toBeGreaterThan(0);
      // What is not acknowledged is not raised again; QEMU's remembers it beyond a reset.
      await bar.writeUInt32(ICR, RX_QUEUE_0 | OTHER);
      await device.reset();
    }
  });
});
