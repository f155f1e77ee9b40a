/** DMA memory in huge pages: arenas of ours, and a file of the caller's. Skipped where the machine has none to give. */
import { expect, test } from '@jest/globals';
import { connect, type Device } from '../../lib/index.js';
import { EduDevice, serve } from '../../lib/emulator/index.js';
import { native, type NativeMapping } from '../../lib/native.js';
import { HUGE_PAGE, freeHugePages } from '../support/huge-pages.js';

/** An abstract name: nothing to clean up. */
const PATH = `\0vfio-user-huge-pages-${process.pid}`;
const free = freeHugePages();
const testWith = free >= 3 ? test : test.skip;

/** The device copies 1,000 bytes into its own memory and out again, to another place of the buffer. */
async function copyThroughDevice(device: Device, buffer: { iova: bigint; bytes: Buffer }): Promise<void> {
  await device.enable();
  const bar0 = device.bar(0);
  const far = BigInt(HUGE_PAGE - 4096);
  buffer.bytes.fill(0x5a, 0, 1000);
  for (const [source, destination, command] of [
    [buffer.iova, 0x40000n, 1n],
    [0x40000n, buffer.iova + far, 3n],
  ] as const) {
    await bar0.writeUInt64(0x80, source);
    await bar0.writeUInt64(0x88, destination);
    await bar0.writeUInt64(0x90, 1000n);
    await bar0.writeUInt64(0x98, command);
    await bar0.waitFor(0x98, 1, 0);
  }
  const at = Number(far);
  expect(buffer.bytes.subarray(at, at + 1000).equals(Buffer.alloc(1000, 0x5a))).toBe(true);
  expect(buffer.bytes[at + 1000]).toBe(0);
}

testWith('`hugePages` allocates in them', async () => {
  await using _server = await serve(new EduDevice(), { path: PATH });
  await using device = await connect(PATH, { hugePages: true });
  const buffer = await device.dma.alloc(HUGE_PAGE, { addressBits: 28 });
  const left = freeHugePages();
  expect(left).toBeLessThan(free);
  await copyThroughDevice(device, buffer);
});

testWith("a file of the caller's in huge pages is mapped whole", async () => {
  const fd = native().memfd('spec', HUGE_PAGE, true);
  expect(fd).toBeGreaterThan(0);
  {
    await using _server = await serve(new EduDevice(), { path: PATH });
    await using device = await connect(PATH);
    const { iova } = await device.dma.map({ fd, size: HUGE_PAGE, addressBits: 28 });
    const mapping = native().map(fd, 0, HUGE_PAGE, true, true) as NativeMapping;
    await copyThroughDevice(device, { iova, bytes: Buffer.from(mapping.view(0, HUGE_PAGE) as ArrayBuffer) });
    mapping.close();
  }
  native().closeFd(fd);
});
