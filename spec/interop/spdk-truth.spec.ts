/**
 * What SPDK's target has acknowledged is on its disk, whatever ended the connection, and another disk gets nothing.
 * VFIO_USER_SPDK names the directory with `malloc/cntrl` of a running target, whose namespace is overwritten, and
 * `null/cntrl`, another controller; VFIO_USER_SPDK_RPC its RPC socket, VFIO_USER_SPDK_NULL the block device behind the
 * latter, where that is not null0.
 */
import { describe, expect, jest, test } from '@jest/globals';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ioCounts, resizeNull } from '../../bench/spdk-rpc.js';
import { ClosedError, connect, type ConnectOptions, type Device } from '../../lib/index.js';
import { NvmeController, NvmeControllerError, type NvmeQueue } from '../../lib/nvme/index.js';
import { proxy } from '../../lib/proxy/index.js';
import { Scratch } from '../cli/cli.js';
import { cleanup, errorOf, until } from '../nvme/fixture.js';

jest.setTimeout(120_000);

const directory = process.env['VFIO_USER_SPDK'] ?? '';
const rpc = process.env['VFIO_USER_SPDK_RPC'] ?? '';
const nullDevice = process.env['VFIO_USER_SPDK_NULL'] ?? 'null0';
const withSpdk = directory === '' ? describe.skip : describe;
const withRpc = directory === '' || rpc === '' ? describe.skip : describe;

const BLOCK = 512;
const WRITES = 64;
const BLOCKS_EACH = 64;

async function opened(name: string, options: ConnectOptions = {}) {
  const device = await connect(join(directory, name, 'cntrl'), { waitForSocket: true, ...options });
  cleanup(() => device.close());
  const controller = await NvmeController.open(device);
  return { device, controller, queue: await controller.createQueue({ entries: 32 }) };
}

/** Writes to places that do not overlap, each with a byte of its own; which of them were acknowledged. */
function startWrites(queue: NvmeQueue, byte: number) {
  const acknowledged: number[] = [];
  const errors: unknown[] = [];
  const calls = Array.from({ length: WRITES }, (_, i) =>
    queue.write(i * BLOCKS_EACH, Buffer.alloc(BLOCKS_EACH * BLOCK, byte)).then(
      () => void acknowledged.push(i),
      (error: unknown) => void errors.push(error),
    ),
  );
  return { acknowledged, errors, ended: Promise.all(calls) };
}

withSpdk("SPDK's target (VFIO_USER_SPDK names its directory)", () => {
  test.each<[string, (parts: { device: Device; controller: NvmeController }) => Promise<void>]>([
    ['device.close()', ({ device }) => device.close()],
    ['dma.unmapAll()', ({ device }) => device.dma.unmapAll()],
    ['controller.reset()', ({ controller }) => controller.reset()],
    ['controller.close()', ({ controller }) => controller.close()],
  ])('writes in flight at %s: what was acknowledged is on the disk', async (_name, end) => {
    for (let round = 0; round < 8; round++) {
      const byte = 1 + Math.floor(Math.random() * 255);
      const { device, controller, queue } = await opened('malloc');
      const writes = startWrites(queue, byte);
      await sleep(round / 2);
      await end({ device, controller });
      await writes.ended;
      expect(writes.acknowledged.length + writes.errors.length).toBe(WRITES);
      for (const error of writes.errors) expect(error).toBeInstanceOf(ClosedError);
      await controller.close();
      await device.close();

      const second = await opened('malloc');
      for (const i of writes.acknowledged) {
        const data = await second.queue.read(i * BLOCKS_EACH, BLOCKS_EACH);
        expect(data.every((one) => one === byte)).toBe(true);
      }
      await second.controller.close();
      await second.device.close();
    }
  });
});

withRpc("SPDK's target, and its own count (VFIO_USER_SPDK_RPC names its RPC socket)", () => {
  test('another controller under the same path gets nothing', async () => {
    const scratch = new Scratch();
    const path = scratch.path('front');
    const before = await ioCounts(rpc, nullDevice);
    let front = await proxy({ listen: path, connect: join(directory, 'malloc', 'cntrl') });
    const device = await connect(path, { reconnect: true });
    try {
      const controller = await NvmeController.open(device);
      const queue = await controller.createQueue({ entries: 8 });
      await queue.write(0, Buffer.alloc(4096, 3));
      const writes = startWrites(queue, 4);
      await until(() => writes.acknowledged.length > 0);
      // Until the loss is noticed, the doorbells that are mapped are the first controller's, which goes on.
      const lost = once(device, 'lost');
      await front.close();
      front = await proxy({ listen: path, connect: join(directory, 'null', 'cntrl') });
      await lost;
      await writes.ended;
      for (const error of writes.errors) expect(error).toBeInstanceOf(NvmeControllerError);
      const late = await errorOf(queue.write(0, Buffer.alloc(512)));
      expect(late.message).toContain('the controller is another one than before: its serial number was');
      expect(controller.state).toBe('failed');
      await controller.close();
    } finally {
      await device.close();
      await front.close();
      scratch.remove();
    }
    expect((await ioCounts(rpc, nullDevice)).writes).toBe(before.writes);
  });

  test('a namespace that grows is told of, and its queues go on', async () => {
    const { device, controller, queue } = await opened('null');
    const { blocks } = queue.namespace;
    const event = controller.adminCommand({ opcode: 0x0c }, { timeoutMs: 30_000 });
    const sizeMiB = (blocks * BLOCK) / 2 ** 20 + 16;
    await resizeNull(rpc, nullDevice, sizeMiB);
    // A notice, Namespace Attribute Changed, log page 04h.
    expect((await event).result).toBe(0x0004_0002);
    await queue.write(0, Buffer.alloc(4096));
    const grown = await controller.namespace(1, { refresh: true });
    expect(grown.blocks).toBe((sizeMiB * 2 ** 20) / BLOCK);
    await controller.close();
    await device.close();
  });
});
