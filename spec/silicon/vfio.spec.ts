/** Any function that vfio-pci has: `VFIO_USER_TEST_PCI` has the addresses. Skipped where there is none. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { connect, type Device } from '../../lib/index.js';
import { openFds } from '../support/fds.js';
import { PATIENT } from './subjects.js';

const addresses = (process.env['VFIO_USER_TEST_PCI'] ?? '').split(' ').filter((one) => one !== '');

const opened: Device[] = [];

afterEach(async () => {
  for (const device of opened.splice(0)) await device.close();
});

async function open(pci: string): Promise<Device> {
  const device = await connect({ pci }, PATIENT);
  opened.push(device);
  return device;
}

(addresses.length === 0 ? describe.skip : describe).each(addresses.length === 0 ? ['none'] : addresses)(
  'vfio-pci, %s',
  (address) => {
    test('has a config space, and the BARs that it speaks of', async () => {
      const device = await open(address);
      await device.enable();
      expect(device.config.vendorId).not.toBe(0xffff);
      const bars = device.config.bars.filter(({ kind, address: at }) => kind !== 'io' && at !== 0n);
      expect(bars.length).toBeGreaterThan(0);
      for (const { index } of bars) expect(device.bar(index).size).toBeGreaterThan(0);
    });

    test('has its message interrupts triggered without the device, and takes more of them later', async () => {
      const device = await open(address);
      const index = device.irqs.msix.count > 0 ? device.irqs.msix : device.irqs.msi;
      const [first] = await index.enable(1);
      await index.trigger();
      expect(await first.wait()).toBe(1);
      if (index.count > 1) {
        const [second] = await index.enable({ start: 1, count: 1 });
        await index.trigger(1);
        expect(await second.wait()).toBe(1);
        await index.trigger(0);
        expect(await first.wait()).toBe(1);
      }
      await index.disable();
    });

    test('belongs to one at a time, and is given back whole', async () => {
      const before = openFds();
      const device = await connect({ pci: address }, PATIENT);
      await device.dma.alloc(1 << 20);
      await expect(connect({ pci: address }, PATIENT)).rejects.toThrow(
        /EBUSY \(another process has a device of this group/,
      );
      await device.close();
      expect(openFds()).toBe(before);
      await open(address);
    });
  },
);
