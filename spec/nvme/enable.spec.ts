/** A controller that does not come up, and whether it could have reached the memory of its queues. */
import { expect, test } from '@jest/globals';
import { PciConfigSpace, PciDevice, serveFd } from '../../lib/emulator/index.js';
import { connect, type ConnectOptions, type Device } from '../../lib/index.js';
import { NvmeController, NvmeControllerError } from '../../lib/nvme/index.js';
import { socketPair } from '../emulator/raw-client.js';
import { cleanup, errorOf, opened } from './fixture.js';

const BAR_BYTES = 16_384;
const CC = 0x14;
const CSTS = 0x1c;

/** A controller that never looks at memory: CC.EN is answered with these bits of CSTS. */
class Aloof extends PciDevice {
  constructor(enabled: number) {
    super(
      new PciConfigSpace({
        vendorId: 0x1b36,
        deviceId: 0x0010,
        classCode: 0x010802,
        bars: [{ index: 0, size: BAR_BYTES }],
      }),
      [],
    );
    const registers = Buffer.alloc(BAR_BYTES);
    // CAP: 64 entries, contiguous, ready within 500 ms, the NVM command set. VS: 1.4.
    registers.writeBigUInt64LE((1n << 37n) | (1n << 24n) | (1n << 16n) | 63n, 0);
    registers.writeUInt32LE(0x10400, 8);
    this.addRegion({
      index: 0,
      size: BAR_BYTES,
      handler: {
        read: (offset, count) => registers.subarray(offset, offset + count),
        write: (offset, data) => {
          data.copy(registers, offset);
          registers.writeUInt32LE((registers[CC]! & 1) === 0 ? 0 : enabled, CSTS);
        },
      },
    });
  }
}

async function aloof(enabled: number, options: ConnectOptions): Promise<Device> {
  const [ours, theirs] = socketPair();
  const server = serveFd(new Aloof(enabled), theirs);
  const device = await connect({ fd: ours }, options);
  cleanup(async () => {
    await device.close();
    await server.close();
  });
  return device;
}

const REASON =
  /has no file of its queues' memory \(secureDma,.*as SPDK does; connect over a Unix socket and without secureDma/;

test.each([
  ['a fatal status', 2, /CSTS\.CFS/],
  ['no answer to a command', 1, /TimeoutError|no answer|within/],
])('with secureDma, %s of a controller that never asks for memory has a reason', async (_, enabled, what) => {
  const device = await aloof(enabled, { secureDma: true });
  const error = await errorOf(NvmeController.open(device, { timeoutMs: 100 }));
  expect(error).toBeInstanceOf(NvmeControllerError);
  expect(error.message).toMatch(what);
  expect(error.message).toMatch(REASON);
});

test('where the memory is shared, that is not the reason', async () => {
  const device = await aloof(2, {});
  const error = await errorOf(NvmeController.open(device));
  expect(error.message).toMatch(/CSTS\.CFS/);
  expect(error.message).not.toMatch(/secureDma/);
});

test('a controller that asks by message works with secureDma', async () => {
  const { controller, device } = await opened({ connect: { secureDma: true } });
  expect(device.counters.served).toBeGreaterThan(0);
  expect(await controller.namespaceIds()).toEqual([1]);
  const buffer = await device.dma.alloc(4096);
  expect(buffer.shared).toBe(false);
});
