/** The educational device, step by step as QEMU's documentation describes it. */
import { constants } from 'node:os';
import { describe, expect, test } from '@jest/globals';
import { EduDevice, EduDma, EduRegister, EduStatus, type EduOptions } from '../../lib/emulator/index.js';
import { configReader, decodeConfigSpace } from '../../lib/pci/index.js';
import { native, type NativeMapping } from '../../lib/native.js';
import {
  deviceResetRequest,
  dmaMapRequest,
  dmaReadReply,
  regionReadRequest,
  regionWriteRequest,
  setIrqsRequest,
} from '../support/wire.js';
import { cleanup, connected, eventFd, memory, until } from './fixture.js';
import type { RawClient } from './raw-client.js';

const { EINVAL } = constants.errno;
const PAGE = 4096;
const COMMAND = 4;
const BAR0 = 0x10;
const MSI_CONTROL = 0x42;

async function edu(options: EduOptions = {}): Promise<{ client: RawClient; device: EduDevice }> {
  const device = new EduDevice({ dmaDelayMs: 1, ...options });
  return { client: await connected(device), device };
}

async function armed(client: RawClient, index: number): Promise<{ count(): number }> {
  const event = eventFd();
  await client.answer(setIrqsRequest({ index, count: 1, flags: 0x24 }), [event.fd]);
  return event;
}

/** Client memory that the device reaches by mapping. */
async function mapped(client: RawClient, address: number | bigint): Promise<Buffer> {
  const fd = memory(2 * PAGE);
  await client.answer(dmaMapRequest({ address, size: 2 * PAGE }), [fd]);
  const mapping = native().map(fd, 0, 2 * PAGE, true, true) as NativeMapping;
  cleanup(() => mapping.close());
  return Buffer.from(mapping.view(0, 2 * PAGE) as ArrayBuffer);
}

/** Programs a transfer and waits until the device says that it is over. */
async function transfer(
  client: RawClient,
  source: number | bigint,
  destination: number | bigint,
  count: number | bigint,
  command: number,
): Promise<void> {
  await client.write64(0, EduRegister.DMA_SOURCE, source);
  await client.write64(0, EduRegister.DMA_DESTINATION, destination);
  await client.write64(0, EduRegister.DMA_COUNT, count);
  await client.write32(0, EduRegister.DMA_COMMAND, command);
  await until(async () => ((await client.read32(0, EduRegister.DMA_COMMAND)) & 1) === 0, 'the transfer');
}

describe('registers', () => {
  test('identify the device', async () => {
    const { client } = await edu();
    expect(await client.read32(0, EduRegister.IDENTIFICATION)).toBe(0x010000ed);
    const { header, capabilities, problems } = decodeConfigSpace(
      configReader(await client.readRegion(7, 0, 256)),
    );
    expect(problems).toEqual([]);
    expect(header).toMatchObject({ vendorId: 0x1234, deviceId: 0x11e8, revisionId: 0x10, interruptPin: 1 });
    expect(capabilities).toMatchObject([
      { kind: 'msi', offset: 0x40, vectorsCapable: 1, is64Bit: true, maskable: false },
    ]);
  });

  test('the liveness check inverts', async () => {
    const { client } = await edu();
    await client.write32(0, EduRegister.LIVENESS, 0x12345678);
    expect(await client.read32(0, EduRegister.LIVENESS)).toBe(0xedcba987);
  });

  test('where nothing is read all ones, also the buffer', async () => {
    const { client } = await edu();
    for (const offset of [0x0c, 0x60, 0x84, 0xa0, 0x40000, 0xffffc]) {
      expect(await client.read32(0, offset)).toBe(0xffffffff);
    }
  });

  test('below 0x80 take dwords only, above qwords too', async () => {
    const { client } = await edu();
    await client.write64(0, EduRegister.DMA_SOURCE, 0x1122334455667788n);
    expect(await client.readRegion(0, EduRegister.DMA_SOURCE, 8)).toEqual(
      Buffer.from('8877665544332211', 'hex'),
    );
    expect(await client.read32(0, EduRegister.DMA_SOURCE)).toBe(0x55667788);
    expect(await client.readRegion(0, 0, 8)).toEqual(Buffer.alloc(8, 0xff));
    await client.write64(0, EduRegister.FACTORIAL, 5);
    expect(await client.read32(0, EduRegister.FACTORIAL)).toBe(0);
  });

  test.each([
    ['a byte', { offset: 0, count: 1 }],
    ['a word', { offset: 4, count: 2 }],
    ['an unaligned dword', { offset: 2, count: 4 }],
  ])('refuse %s', async (_what, access) => {
    const { client } = await edu();
    expect(await client.refusal(regionReadRequest(access))).toBe(EINVAL);
    expect(await client.refusal(regionWriteRequest({ ...access, data: Buffer.alloc(access.count) }))).toBe(
      EINVAL,
    );
  });
});

describe('the factorial', () => {
  test.each([
    [0, 1],
    [1, 1],
    [5, 120],
    [12, 479001600],
    [13, 1932053504],
    [33, 2147483648],
    [34, 0],
    [0xffffffff, 0],
  ])('of %i is %i in 32 bits', async (of, result) => {
    const { client } = await edu();
    await client.write32(0, EduRegister.FACTORIAL, of);
    await until(async () => ((await client.read32(0, EduRegister.STATUS)) & 1) === 0, 'the factorial');
    expect(await client.read32(0, EduRegister.FACTORIAL)).toBe(result);
  });

  test('is computed while the status says so, and takes no other number meanwhile', async () => {
    const { client } = await edu({ factorialDelayMs: 60_000 });
    await client.write32(0, EduRegister.FACTORIAL, 4);
    expect(await client.read32(0, EduRegister.STATUS)).toBe(EduStatus.COMPUTING);
    await client.write32(0, EduRegister.FACTORIAL, 5);
    await client.write32(0, EduRegister.STATUS, 0);
    expect(await client.read32(0, EduRegister.STATUS)).toBe(EduStatus.COMPUTING);
    expect(await client.read32(0, EduRegister.FACTORIAL)).toBe(4);
  });

  test('interrupts at the end when asked to', async () => {
    const { client } = await edu();
    const intx = await armed(client, 0);
    await client.write32(0, EduRegister.STATUS, EduStatus.INTERRUPT_AFTER_FACTORIAL);
    await client.write32(0, EduRegister.FACTORIAL, 3);
    await until(async () => (await client.read32(0, EduRegister.INTERRUPT_STATUS)) === 1, 'the interrupt');
    expect(intx.count()).toBe(1);
    expect(await client.read32(0, EduRegister.STATUS)).toBe(EduStatus.INTERRUPT_AFTER_FACTORIAL);
  });
});

describe('interrupts', () => {
  test('INTx comes when the line rises, and again after it was acknowledged', async () => {
    const { client } = await edu();
    const intx = await armed(client, 0);
    await client.write32(0, EduRegister.RAISE_INTERRUPT, 0x10);
    await client.write32(0, EduRegister.RAISE_INTERRUPT, 0x02);
    expect(await client.read32(0, EduRegister.INTERRUPT_STATUS)).toBe(0x12);
    expect((await client.read32(7, COMMAND)) >>> 16).toBe(0x18);
    expect(intx.count()).toBe(1);
    await client.write32(0, EduRegister.ACKNOWLEDGE_INTERRUPT, 0x10);
    await client.write32(0, EduRegister.RAISE_INTERRUPT, 0x04);
    expect(intx.count()).toBe(0);
    await client.write32(0, EduRegister.ACKNOWLEDGE_INTERRUPT, 0xffffffff);
    expect((await client.read32(7, COMMAND)) >>> 16).toBe(0x10);
    await client.write32(0, EduRegister.RAISE_INTERRUPT, 0x80000000);
    expect(await client.read32(0, EduRegister.INTERRUPT_STATUS)).toBe(0x80000000);
    expect(intx.count()).toBe(1);
  });

  test('INTx waits while the command register disables it', async () => {
    const { client } = await edu();
    const intx = await armed(client, 0);
    await client.write32(7, COMMAND, 0x400);
    await client.write32(0, EduRegister.RAISE_INTERRUPT, 1);
    expect(intx.count()).toBe(0);
    await client.write32(7, COMMAND, 0);
    expect(intx.count()).toBe(1);
  });

  test('MSI comes with each raise once config space enables it, and INTx does not', async () => {
    const { client } = await edu();
    const intx = await armed(client, 0);
    const msi = await armed(client, 1);
    await client.writeRegion(7, MSI_CONTROL, Buffer.from([1, 0]));
    await client.write32(0, EduRegister.RAISE_INTERRUPT, 1);
    await client.write32(0, EduRegister.RAISE_INTERRUPT, 1);
    expect([intx.count(), msi.count()]).toEqual([0, 2]);
  });

  test('MSI comes to a host that has only sent SET_IRQS for it, unless the device is strict', async () => {
    for (const [strict, count] of [
      [false, 2],
      [true, 0],
    ] as const) {
      const { client } = await edu({ strict });
      const msi = await armed(client, 1);
      if (strict) await client.write32(7, BAR0, 0x1000_0000);
      if (strict) await client.write32(7, COMMAND, 6);
      await client.write32(0, EduRegister.RAISE_INTERRUPT, 1);
      await client.write32(0, EduRegister.RAISE_INTERRUPT, 1);
      expect(msi.count()).toBe(count);
    }
  });

  test('INTx comes again when it is unmasked while the line is still raised', async () => {
    const { client } = await edu();
    const intx = await armed(client, 0);
    const unmask = setIrqsRequest({ index: 0, count: 1, flags: 0x11 });
    await client.write32(0, EduRegister.RAISE_INTERRUPT, 1);
    expect(intx.count()).toBe(1);
    await client.write32(0, EduRegister.RAISE_INTERRUPT, 2);
    await client.write32(0, EduRegister.ACKNOWLEDGE_INTERRUPT, 1);
    await client.answer(unmask);
    expect(intx.count()).toBe(1);
    await client.write32(0, EduRegister.ACKNOWLEDGE_INTERRUPT, 2);
    await client.answer(unmask);
    expect(intx.count()).toBe(0);
  });

  test('nothing raised interrupts nobody', async () => {
    const { client } = await edu();
    const intx = await armed(client, 0);
    await client.write32(0, EduRegister.RAISE_INTERRUPT, 0);
    expect(intx.count()).toBe(0);
  });
});

describe('DMA', () => {
  test('goes to the buffer and back, as in the documentation', async () => {
    const { client } = await edu();
    const bytes = await mapped(client, 0x100000);
    bytes.write('a hundred bytes, or nearly so', 0);
    await transfer(client, 0x100000, 0x40000, 100, EduDma.START);
    await transfer(client, 0x40000, 0x100000 + 100, 100, EduDma.START | EduDma.FROM_DEVICE);
    expect(bytes.subarray(100, 200).equals(bytes.subarray(0, 100))).toBe(true);
  });

  test('interrupts at the end when asked to', async () => {
    const { client } = await edu();
    await mapped(client, 0);
    const intx = await armed(client, 0);
    await transfer(client, 0, 0x40000, 8, EduDma.START | EduDma.INTERRUPT);
    expect(await client.read32(0, EduRegister.INTERRUPT_STATUS)).toBe(0x100);
    expect(intx.count()).toBe(1);
  });

  test('goes by message where the memory has no fd', async () => {
    const { client, device } = await edu();
    await client.answer(dmaMapRequest({ address: 0x3000 }));
    const started = transfer(client, 0x3000, 0x40ffc, 4, EduDma.START);
    client.reply(await client.command(11), dmaReadReply({ address: 0x3000, data: [1, 2, 3, 4] }));
    await started;
    expect([...device.buffer.subarray(-4)]).toEqual([1, 2, 3, 4]);
    expect(device.lastDmaError).toBeUndefined();
  });

  test('cuts addresses to the mask', async () => {
    const { client, device } = await edu();
    const low = await mapped(client, 0x1000);
    low.write('low');
    await transfer(client, 0x10001000, 0x40000, 3, EduDma.START);
    expect(device.buffer.toString('latin1', 0, 3)).toBe('low');
  });

  test('reaches all of memory with a wider mask', async () => {
    const { client, device } = await edu({ dmaMask: 2n ** 64n - 1n });
    const high = await mapped(client, 0x7f00_0000_0000n);
    high.write('high');
    await transfer(client, 0x7f00_0000_0000n, 0x40000, 4, EduDma.START);
    expect(device.buffer.toString('latin1', 0, 4)).toBe('high');
  });

  test.each([
    ['before the buffer', 0x3fffc, 8],
    ['behind the buffer', 0x40ffc, 8],
    ['past 64 bits', 0x40000, 2n ** 64n - 1n],
  ])('moves nothing %s, and ends all the same', async (_what, destination, count) => {
    const { client, device } = await edu();
    await mapped(client, 0);
    await transfer(client, 0, destination, count, EduDma.START);
    expect(device.lastDmaError).toMatchObject({ code: 'EINVAL' });
  });

  test('ends all the same where nothing is mapped', async () => {
    const { client, device } = await edu();
    await transfer(client, 0, 0x40000, 8, EduDma.START);
    expect(device.lastDmaError).toMatchObject({ code: 'EFAULT' });
  });

  test('takes no other values while it runs, and does not start without the bit', async () => {
    const { client } = await edu({ dmaDelayMs: 60_000 });
    await mapped(client, 0);
    await client.write32(0, EduRegister.DMA_COMMAND, 6);
    expect(await client.read32(0, EduRegister.DMA_COMMAND)).toBe(0);
    await client.write64(0, EduRegister.DMA_SOURCE, 0x10);
    await client.write32(0, EduRegister.DMA_COMMAND, 1);
    await client.write64(0, EduRegister.DMA_SOURCE, 0x20);
    await client.write32(0, EduRegister.DMA_COMMAND, 3);
    expect(await client.read32(0, EduRegister.DMA_SOURCE)).toBe(0x10);
    expect(await client.read32(0, EduRegister.DMA_COMMAND)).toBe(1);
  });
});

describe('a strict device', () => {
  test('answers when its BAR has an address and memory space is enabled', async () => {
    const { client } = await edu({ strict: true });
    const read = regionReadRequest({ count: 4 });
    expect(await client.refusal(read)).toBe(EINVAL);
    await client.write32(7, COMMAND, 2);
    expect(await client.refusal(read)).toBe(EINVAL);
    await client.write32(7, BAR0, 0xffffffff);
    expect(await client.read32(7, BAR0)).toBe(0xfff00000);
    expect(await client.refusal(read)).toBe(EINVAL);
    await client.write32(7, BAR0, 0xe0000000);
    expect(await client.read32(0, EduRegister.IDENTIFICATION)).toBe(0x010000ed);
    await client.write32(7, COMMAND, 0);
    expect(await client.refusal(read)).toBe(EINVAL);
  });

  test('does DMA as a bus master only', async () => {
    const { client, device } = await edu({ strict: true });
    await mapped(client, 0);
    await client.write32(7, BAR0, 0xe0000000);
    await client.write32(7, COMMAND, 2);
    await transfer(client, 0, 0x40000, 8, EduDma.START);
    expect(device.lastDmaError).toBeDefined();
    await client.write32(7, COMMAND, 6);
    await transfer(client, 0, 0x40000, 8, EduDma.START);
    expect(device.lastDmaError).toBeUndefined();
  });
});

test('a reset ends what runs and clears the registers', async () => {
  const { client } = await edu({ dmaDelayMs: 500, factorialDelayMs: 500 });
  const intx = await armed(client, 0);
  await client.write32(0, EduRegister.LIVENESS, 1);
  await client.write32(0, EduRegister.STATUS, EduStatus.INTERRUPT_AFTER_FACTORIAL);
  await client.write32(0, EduRegister.FACTORIAL, 3);
  await client.write32(0, EduRegister.DMA_COMMAND, EduDma.START | EduDma.INTERRUPT);
  await client.answer(deviceResetRequest());
  await new Promise((resolve) => setTimeout(resolve, 700));
  for (const register of [
    EduRegister.LIVENESS,
    EduRegister.FACTORIAL,
    EduRegister.STATUS,
    EduRegister.INTERRUPT_STATUS,
    EduRegister.DMA_COMMAND,
  ]) {
    expect(await client.read32(0, register)).toBe(0);
  }
  expect(intx.count()).toBe(0);
});
