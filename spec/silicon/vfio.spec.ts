/** Any function that vfio-pci has: `VFIO_USER_TEST_PCI` has the addresses. */
import { expect, test } from '@jest/globals';
import { connect, type Device, type MappedArea } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { PciCommand, PciConfig, findCapability } from '../../lib/pci/index.js';
import { KernelDevice } from '../../lib/vfio/index.js';
import { openFds } from '../support/fds.js';
import { describePci, openPci } from './pci-subjects.js';
import { PATIENT, cleanup } from './subjects.js';

const MSI_WINDOW = 0xfee0_0000n;
const PAGE = 4096;

/** The first mappable area of a device, mapped; undefined where it has none. */
function firstArea(device: Device): { bar: number; area: MappedArea } | undefined {
  const region = device.regions.slice(0, 6).find(({ mappable }) => mappable);
  if (region === undefined) return undefined;
  return { bar: region.index, area: region.map() };
}

async function mapAt(device: Device, iova: bigint): Promise<void> {
  const fd = native().memfd('spec', PAGE, false);
  try {
    await device.dma.map({ fd, size: PAGE, iova });
  } finally {
    native().closeFd(fd);
  }
}

describePci('VFIO_USER_TEST_PCI', 'vfio-pci', (address) => {
  test('has a config space, and the BARs that it speaks of', async () => {
    const device = await openPci(address);
    await device.enable();
    expect(device.config.vendorId).not.toBe(0xffff);
    const bars = device.config.bars.filter(({ kind, address: at }) => kind !== 'io' && at !== 0n);
    expect(bars.length).toBeGreaterThan(0);
    for (const { index } of bars) expect(device.bar(index).size).toBeGreaterThan(0);
  });

  test('has its message interrupts triggered without the device, and takes more of them later', async () => {
    const device = await openPci(address);
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

  test('has its pin triggered, masked and unmasked without the device', async () => {
    const device = await openPci(address);
    const { intx } = device.irqs;
    if (intx.count === 0) return;
    const [vector] = await intx.enable(1);
    for (let i = 0; i < 2; i++) {
      await intx.trigger();
      expect(await vector.wait()).toBe(1);
      await intx.mask();
      await intx.unmask();
    }
    await intx.disable();
  });

  test('tells of errors and of who wants it back, where it can', async () => {
    const device = await openPci(address);
    for (const index of [device.irqs.err, device.irqs.req]) {
      if (index.count === 0) continue;
      const [vector] = await index.enable(1);
      await index.trigger();
      expect(await vector.wait()).toBe(1);
      await index.disable();
    }
    expect(device.irqs.req.count).toBe(1);
  });

  test('has memory at addresses that the IOMMU takes, and refuses others with its ranges', async () => {
    const device = await openPci(address);
    await device.dma.alloc(PAGE);
    await device.dma.alloc(PAGE, { addressBits: 32 });
    await expect(mapAt(device, MSI_WINDOW)).rejects.toThrow(
      /^4096 bytes at 0xfee00000 are not within what the IOMMU takes: 0x0 to 0xfedfffff, and 0xfef00000 to 0x[0-9a-f]+$/,
    );
    await mapAt(device, MSI_WINDOW - BigInt(PAGE));
    await mapAt(device, 0xfef0_0000n);
    await device.dma.unmap(0xfef0_0000n, PAGE);
  });

  test('says what it took where the kernel unmaps nothing', () => {
    const device = new KernelDevice(address);
    cleanup(() => device.close());
    const nothing = { address: 0x1000_0000n, size: BigInt(PAGE) };
    expect(() => device.hardware.unmapDma(nothing)).toThrow(
      /^VFIO_IOMMU_UNMAP_DMA of 4096 bytes at 0x10000000: 0 were mapped$/,
    );
  });

  test('is read through a mapping as it is by message, but for the MSI-X table', async () => {
    const device = await openPci(address);
    await device.enable();
    const mapped = firstArea(device);
    if (mapped === undefined) return;
    const { bar, area } = mapped;
    expect(area.loadUInt32(0)).toBe(await device.bar(bar).readUInt32(area.offset));
    const table = findCapability(device.config.capabilities, 'msix')?.table;
    if (table === undefined) return;
    const has = ({ offset, size }: { offset: number; size: number }): boolean =>
      table.offset >= offset && table.offset < offset + size;
    expect(device.bar(table.bir).areas.some(has)).toBe(false);
  });

  test('refuses accesses by name while memory decoding is off', async () => {
    const device = await openPci(address);
    await device.enable();
    const mapped = firstArea(device);
    if (mapped === undefined) return;
    const { bar, area } = mapped;
    const { bytes } = area;
    const value = area.loadUInt32(0);
    await device.config.update(PciConfig.COMMAND, 2, PciCommand.MEMORY, 0);
    expect(() => area.loadUInt32(0)).toThrow(/memory decoding is off/);
    // A raw view must not end the process.
    expect(bytes[0]).toBe(0);
    await expect(device.bar(bar).readUInt32(area.offset)).rejects.toMatchObject({ code: 'EIO' });
    await device.config.update(PciConfig.COMMAND, 2, PciCommand.MEMORY, PciCommand.MEMORY);
    expect(area.loadUInt32(0)).toBe(value);
  });

  test('is reset, and has its interrupts and mappings afterwards; or says why it cannot be', async () => {
    const device = await openPci(address);
    await device.enable();
    if (!device.canReset) {
      await expect(device.reset()).rejects.toThrow(
        /^the device does not support reset: .*no way to be reset by itself, and a hot reset cannot be done: /,
      );
      return;
    }
    const area = firstArea(device)?.area;
    const index = device.irqs.msix.count > 0 ? device.irqs.msix : device.irqs.msi;
    const [vector] = await index.enable(1);
    for (let i = 0; i < 2; i++) {
      await device.reset();
      await index.trigger();
      expect(await vector.wait()).toBe(1);
      expect(area?.loadUInt32(0)).not.toBe(0xffff_ffff);
    }
    expect(device.config.command & PciCommand.MEMORY).not.toBe(0);
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
    await openPci(address);
  });
});

describePci('VFIO_USER_TEST_HOT_RESET', 'hot reset', (address) => {
  test('resets the bus', async () => {
    const device = await openPci(address, {}, 'hot');
    await device.enable();
    const [vector] = await (device.irqs.msix.count > 0 ? device.irqs.msix : device.irqs.msi).enable(1);
    await device.reset();
    await (device.irqs.msix.count > 0 ? device.irqs.msix : device.irqs.msi).trigger();
    expect(await vector.wait()).toBe(1);
    expect(device.config.vendorId).not.toBe(0xffff);
  });
});

describePci('VFIO_USER_TEST_ROOT_BUS', 'hot reset on the root bus', (address) => {
  test('is refused by name', async () => {
    const device = await openPci(address, {}, 'hot');
    expect(device.canReset).toBe(false);
    await expect(device.reset()).rejects.toThrow(`the device does not support reset: ${address}: `);
    await expect(device.reset()).rejects.toThrow(/on a bus that cannot be reset \(the root bus\)$/);
  });
});
