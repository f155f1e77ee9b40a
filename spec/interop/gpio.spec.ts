/** rust-vmm's gpio example: `cargo install vfio_user --example gpio`. VFIO_USER_GPIO names the program. */
import { describe, expect, jest, test } from '@jest/globals';
import type { Device } from '../../lib/index.js';
import { PciRegion } from '../../lib/protocol/index.js';
import { outcomeOf, start } from '../cli/cli.js';
import { ServerProcess } from './server-process.js';

jest.setTimeout(60_000);

const program = process.env['VFIO_USER_GPIO'] ?? '';
const withGpio = program === '' ? describe.skip : describe;

function serve(): ServerProcess {
  return new ServerProcess(program, (socket) => ['--socket-path', socket]);
}

async function withDevice(work: (device: Device) => Promise<void>): Promise<void> {
  await using server = serve();
  const device = await server.connect();
  try {
    await work(device);
  } finally {
    await device.close();
  }
  // It serves one client, and ends well when that one has gone.
  expect(await server.exited()).toBe(0);
}

withGpio("rust-vmm's gpio (VFIO_USER_GPIO names the program)", () => {
  test('info: version, regions, interrupts', () =>
    withDevice(async (device) => {
      expect(device.negotiated).toMatchObject({ major: 0, minor: 0, twinSocket: false });
      expect(device.isPci).toBe(true);
      expect(device.info).toMatchObject({ numRegions: 9, numIrqs: 5 });
      const sizes = device.regions.map(({ size }) => size);
      expect(sizes).toEqual([0, 0, 256, 0, 0, 0, 0, 256, 0]);
      expect(device.irqs.intx).toMatchObject({ count: 1, supportsEventfd: true });
      expect(device.irqs.msi.count).toBe(0);
      expect(device.irqs.msix.count).toBe(0);
    }));

  test('config space', () =>
    withDevice(async ({ config }) => {
      expect([config.vendorId, config.deviceId]).toEqual([0x494f, 0x0dc8]);
      expect(config.header.interruptPin).toBe(1);
      expect(config.bars[2]).toMatchObject({ index: 2, kind: 'io' });
      expect(await config.read(0, 4)).toBe(0x0dc8494f);
    }));

  test('BAR2 reads: every third one is 1', () =>
    withDevice(async (device) => {
      await device.enable();
      const bar = device.bar(2);
      const values: number[] = [];
      for (let i = 0; i < 9; i++) values.push(await bar.readUInt8(0));
      expect(values).toEqual([0, 0, 1, 0, 0, 1, 0, 0, 1]);
      expect(bar.readUInt32Sync(0)).toBe(0);
      expect(await bar.read(1, 255)).toEqual(Buffer.alloc(255));
      await expect(bar.readUInt32(253)).rejects.toThrow(RangeError);
    }));

  test('its INTx eventfd fires at every third read', () =>
    withDevice(async (device) => {
      const [vector] = await device.irqs.intx.enable(1);
      const bar = device.bar(2);
      for (let third = 1; third <= 3; third++) {
        await bar.readUInt8(0);
        await bar.readUInt8(0);
        expect(vector!.take()).toBe(0);
        await bar.readUInt8(0);
        expect(await vector!.wait()).toBe(1);
        expect(vector!.count).toBe(third);
      }
    }));

  test('a thousand reads in flight come back in order', () =>
    withDevice(async (device) => {
      const bar = device.bar(2);
      // It counts in eight bits.
      const values = await Promise.all(Array.from({ length: 999 }, () => bar.readUInt8(0)));
      expect(values).toEqual(Array.from({ length: 999 }, (_, i) => (((i + 1) & 0xff) % 3 === 0 ? 1 : 0)));
    }));

  test('a region that is not there is refused by us, not asked for', () =>
    withDevice(async (device) => {
      expect(() => device.bar(0)).toThrow(RangeError);
      await expect(device.region(PciRegion.ROM).read(0, 4)).rejects.toThrow(RangeError);
    }));

  test('reset', () =>
    withDevice(async (device) => {
      await device.reset();
      expect(await device.config.read(0, 4)).toBe(0x0dc8494f);
    }));

  test('the command line: info', async () => {
    await using server = serve();
    const { status, stdout } = await outcomeOf(start(['info', server.socket, '--wait', '--json']));
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      vendorId: 0x494f,
      deviceId: 0x0dc8,
      negotiated: { minor: 0 },
      irqs: expect.arrayContaining([expect.objectContaining({ index: 0, name: 'INTx', count: 1, flags: 1 })]),
    });
  });

  test('the command line: read', async () => {
    await using server = serve();
    const { status, stdout } = await outcomeOf(
      start(['read', server.socket, 'bar2', '0', '3', '--width', '1', '--format', 'hex', '--wait']),
    );
    expect({ status, stdout }).toEqual({ status: 0, stdout: '0x00\n0x00\n0x00\n' });
  });

  test('the command line: lspci reads a space of a server that answers minor 0', async () => {
    await using server = serve();
    const { status, stdout } = await outcomeOf(start(['lspci', server.socket, '--wait']));
    expect(status).toBe(0);
    expect(stdout).toMatch(/\n00: 4f 49 c8 0d /);
  });
});
