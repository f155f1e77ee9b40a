/**
 * Writes that want no reply (No_reply), with servers that others wrote: see gpio.spec.ts, qemu.spec.ts and spdk.spec.ts
 * for where they come from. libvfio-user's sample has its own in libvfio-user-dma.spec.ts. None of them offers
 * write_multiple, so REGION_WRITE_MULTI is never sent to them.
 */
import { describe, expect, jest, test } from '@jest/globals';
import { join } from 'node:path';
import { connect, type Device } from '../../lib/index.js';
import { ServerProcess } from './server-process.js';

jest.setTimeout(60_000);

const gpio = process.env['VFIO_USER_GPIO'] ?? '';
const qemu = process.env['VFIO_USER_QEMU'] ?? '';
const spdk = process.env['VFIO_USER_SPDK'] ?? '';

const run = (program: string) => (program === '' ? test.skip : test);

async function expectFence(device: Device, received: number): Promise<void> {
  expect(await device.fence({ timeoutMs: 20_000 })).toBe(0);
  // One reply: the fence's. And nobody is out of step.
  expect(device.counters.received).toBe(received + 1);
  expect(device.counters).toMatchObject({ unknown: 0, late: 0, inFlight: 0 });
  expect(device.negotiated.capabilities.writeMultiple).toBe(false);
}

describe('posted writes', () => {
  run(gpio)("rust-vmm's gpio (VFIO_USER_GPIO names the program)", async () => {
    await using server = new ServerProcess(gpio, (socket) => ['--socket-path', socket]);
    const device = await server.connect();
    try {
      await device.enable();
      const bar = device.bar(2);
      const { received } = device.counters;
      for (let i = 0; i < 500; i++) bar.post(0, Buffer.of(i & 0xff));
      await expectFence(device, received);
      const values = [await bar.readUInt8(0), await bar.readUInt8(0), await bar.readUInt8(0)];
      expect(values).toEqual([0, 0, 1]);
    } finally {
      await device.close();
    }
    expect(await server.exited()).toBe(0);
  });

  run(qemu)("QEMU's edu (VFIO_USER_QEMU names the program)", async () => {
    await using server = new ServerProcess(qemu, (path) => [
      ...['-machine', 'x-remote,vfio-user=on,auto-shutdown=off'],
      ...['-nodefaults', '-display', 'none', '-device', 'edu,id=d'],
      '-object',
      JSON.stringify({
        'qom-type': 'x-vfio-user-server',
        id: 'v',
        device: 'd',
        socket: { type: 'unix', path },
      }),
    ]);
    await using device = await server.connect();
    await device.enable();
    const bar = device.bar(0);
    const { received } = device.counters;
    for (let i = 1; i <= 500; i++) bar.postUInt32(4, i);
    await expectFence(device, received);
    // Liveness: the inverse of what was written last.
    expect(await bar.readUInt32(4)).toBe(~500 >>> 0);
    bar.postUInt32(8, 5);
    expect(await bar.waitFor(0x20, 1, 0)).toBe(0);
    expect(await bar.readUInt32(8)).toBe(120);
  });

  run(spdk)("SPDK's target (VFIO_USER_SPDK names its directory)", async () => {
    await using device = await connect(join(spdk, 'malloc', 'cntrl'), { waitForSocket: true });
    const bar = device.bar(0);
    // The controller is off: AQA, ASQ and ACQ are registers like memory.
    const { received } = device.counters;
    for (let i = 1; i <= 500; i++) {
      bar.postUInt32(0x24, (i << 16) | i);
      bar.postUInt32(0x28, i << 12);
    }
    await expectFence(device, received);
    expect(await bar.readUInt32(0x24)).toBe((500 << 16) | 500);
    expect(await bar.readUInt64(0x28)).toBe(500n << 12n);
    expect(await bar.readUInt32(0x1c)).toBe(0);
  });
});
