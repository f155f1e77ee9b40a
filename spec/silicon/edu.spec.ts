/** QEMU's educational device: registers, interrupts of each kind, DMA both ways, reset. `VFIO_USER_TEST_EDU` names others. */
import { describe, expect, test } from '@jest/globals';
import {
  EduDevice,
  EduDma,
  EduIrq,
  EduRegister,
  EduStatus,
  EDU_BUFFER_ADDRESS,
} from '../../lib/emulator/index.js';
import type { Device } from '../../lib/index.js';
import { until } from '../support/until.js';
import { subjects } from './subjects.js';

const EDU_ADDRESS_BITS = 28;

describe.each(subjects('VFIO_USER_TEST_EDU', () => new EduDevice({ dmaDelayMs: 1 })))(
  'edu, %s',
  (_name, open) => {
    async function enabled(): Promise<Device> {
      const device = await open();
      await device.enable();
      return device;
    }

    test('is what it says it is', async () => {
      const device = await enabled();
      expect([device.config.vendorId, device.config.deviceId]).toEqual([0x1234, 0x11e8]);
      expect(await device.bar(0).readUInt32(EduRegister.IDENTIFICATION)).toBe(0x0100_00ed);
    });

    test('inverts its liveness register', async () => {
      const bar = (await enabled()).bar(0);
      await bar.writeUInt32(EduRegister.LIVENESS, 0x1234_5678);
      expect(await bar.readUInt32(EduRegister.LIVENESS)).toBe(0xedcb_a987);
    });

    test('computes a factorial', async () => {
      const bar = (await enabled()).bar(0);
      await bar.writeUInt32(EduRegister.FACTORIAL, 10);
      await until(async () => ((await bar.readUInt32(EduRegister.STATUS)) & EduStatus.COMPUTING) === 0);
      expect(await bar.readUInt32(EduRegister.FACTORIAL)).toBe(3_628_800);
    });

    test('refuses what lies outside of its regions', async () => {
      const bar = (await enabled()).bar(0);
      await expect(bar.readUInt32(bar.size)).rejects.toThrow(RangeError);
    });

    test('interrupts by MSI', async () => {
      const device = await enabled();
      const [vector] = await device.irqs.msi.enable(1);
      await device.bar(0).writeUInt32(EduRegister.RAISE_INTERRUPT, 0x10);
      expect(await vector.wait()).toBeGreaterThan(0);
      expect(await device.bar(0).readUInt32(EduRegister.INTERRUPT_STATUS)).toBe(0x10);
      await device.bar(0).writeUInt32(EduRegister.ACKNOWLEDGE_INTERRUPT, 0x10);
      await device.irqs.msi.disable();
    });

    test('interrupts by INTx, again after each acknowledgement', async () => {
      const device = await enabled();
      const { intx } = device.irqs;
      const [vector] = await intx.enable(1);
      for (const bit of [1, 2]) {
        await device.bar(0).writeUInt32(EduRegister.RAISE_INTERRUPT, bit);
        expect(await vector.wait()).toBeGreaterThan(0);
        await device.bar(0).writeUInt32(EduRegister.ACKNOWLEDGE_INTERRUPT, bit);
        await intx.unmask();
      }
      await intx.disable();
    });

    test('has its interrupt triggered without the device', async () => {
      const device = await enabled();
      const [vector] = await device.irqs.msi.enable(1);
      await device.irqs.msi.trigger();
      expect(await vector.wait()).toBe(1);
    });

    test('reads and writes memory', async () => {
      const device = await enabled();
      const bar = device.bar(0);
      const buffer = await device.dma.alloc(8192, { addressBits: EDU_ADDRESS_BITS });
      const [vector] = await device.irqs.msi.enable(1);
      const transfer = async (source: bigint, destination: bigint, command: number): Promise<void> => {
        await bar.writeUInt64(EduRegister.DMA_SOURCE, source);
        await bar.writeUInt64(EduRegister.DMA_DESTINATION, destination);
        await bar.writeUInt64(EduRegister.DMA_COUNT, 1024n);
        await bar.writeUInt64(EduRegister.DMA_COMMAND, BigInt(command | EduDma.START | EduDma.INTERRUPT));
        await vector.wait();
        await bar.writeUInt32(EduRegister.ACKNOWLEDGE_INTERRUPT, EduIrq.DMA);
      };
      const pattern = Buffer.from(Uint8Array.from({ length: 1024 }, (_, i) => (i * 7) & 0xff));
      buffer.bytes.set(pattern);
      await transfer(buffer.iova, BigInt(EDU_BUFFER_ADDRESS), 0);
      await transfer(BigInt(EDU_BUFFER_ADDRESS), buffer.iova + 4096n, EduDma.FROM_DEVICE);
      expect(buffer.bytes.subarray(4096, 5120).equals(pattern)).toBe(true);
    });

    test('gives back memory, which can be mapped again', async () => {
      const device = await enabled();
      for (let i = 0; i < 3; i++) {
        const buffer = await device.dma.alloc(4 << 20);
        buffer.bytes[0] = i;
        await buffer.close();
      }
    });
  },
);
