/** A device that is closed, or whose server goes, while everything is under way: all of it ends once, by name. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { connect } from '../../lib/device/connect.js';
import type { Device } from '../../lib/device/device.js';
import { ClosedError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { message, words } from '../support/scripted-peer.js';
import { ScriptedDevice } from '../support/scripted-device.js';
import { openFds } from '../support/fds.js';

const MIB = 1 << 20;

let server: ScriptedDevice;
let device: Device;
let before: number;
let isSilent = false;

afterEach(async () => {
  await device.close();
  server.close();
  await turn(5);
  expect(openFds()).toBe(before);
});

function turn(ms = 2): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function open(): Promise<void> {
  await turn(20);
  before = openFds();
  isSilent = false;
  server = new ScriptedDevice({
    regions: { 0: { size: 4 * MIB }, 7: { size: 64 } },
    irqs: [{ count: 1 }, { count: 0 }, { count: 8 }],
  });
  server.twist = (_asked, answer) => (isSilent ? undefined : answer);
  device = await connect(server.endpoint, { timeoutMs: 20_000 });
}

/** Who closes: we, or the server. */
const ENDS: [string, () => void][] = [
  ['we close it', () => void device.close()],
  ['the server goes', () => server.close()],
];

describe.each(ENDS)('when %s', (_, end) => {
  test('calls, queued ones among them, are rejected once', async () => {
    await open();
    isSilent = true;
    const calls: Promise<unknown>[] = Array.from({ length: 400 }, (_, i) =>
      device.region(0).readUInt32(i * 4),
    );
    calls.push(device.region(0).read(0, 3 * MIB), device.reset(), device.fence());
    const settled = Promise.allSettled(calls);
    await turn();
    end();
    for (const outcome of await settled) {
      expect(outcome.status).toBe('rejected');
      expect((outcome as PromiseRejectedResult).reason).toBeInstanceOf(ClosedError);
    }
    await expect(device.region(0).readUInt32(0)).rejects.toThrow(ClosedError);
  });

  test('a transaction and memory that is being mapped end, and nothing of it is left', async () => {
    await open();
    isSilent = true;
    const transaction = device.dma.transaction((tx) => [tx.alloc(8192), tx.alloc(8 * MIB)].length);
    const alloc = device.dma.alloc(16 * MIB);
    const all = Promise.allSettled([transaction, alloc]);
    await turn();
    end();
    for (const outcome of await all) expect(outcome).toMatchObject({ status: 'rejected' });
  });

  test('vectors that are being enabled, waited on and iterated over end', async () => {
    await open();
    const [vector] = await device.irqs.byIndex(2).enable(1);
    const waiting = vector.wait({ timeoutMs: 20_000 });
    const iterated = (async () => {
      const counts: number[] = [];
      for await (const count of vector) counts.push(count);
      return counts;
    })();
    isSilent = true;
    const enabling = device.irqs.intx.enable(1);
    const all = Promise.allSettled([waiting, iterated, enabling]);
    await turn();
    end();
    // Where the server goes, its interrupts may still be on their way: the device has to be closed for them to end.
    await device.closed;
    await device.close();
    const [wait, , enable] = await all;
    expect(wait).toMatchObject({ status: 'rejected', reason: expect.any(ClosedError) });
    expect(enable).toMatchObject({ status: 'rejected', reason: expect.any(ClosedError) });
  });

  test('requests of the server, one of them half here, are given up', async () => {
    await open();
    const { iova } = await device.dma.alloc(MIB);
    const write = message(9, 12, 0, 0, Buffer.concat([words([iova], [BigInt(MIB)]), Buffer.alloc(MIB)]));
    server.peer.setReading(false);
    const reads = Array.from({ length: 30 }, (_, i) => message(i, 11, 0, 0, words([iova], [BigInt(MIB)])));
    for (const read of reads) server.peer.send(read);
    await turn(5);
    const sending = server.peer.sendAll(write.subarray(0, MIB / 2)).catch(() => undefined);
    await turn(5);
    end();
    await device.closed;
    server.close();
    await sending;
  });
});

test('a device is closed in a listener, in a decoder’s turn and twice', async () => {
  await open();
  const [vector] = await device.irqs.byIndex(2).enable(1);
  vector.onInterrupt(() => void device.close());
  const call = device
    .region(0)
    .readUInt32(0)
    .then(() => device.close());
  await call;
  await Promise.all([device.close(), device.close()]);
  expect(device.closed).toBe(device.closed);
  await expect(device.closed).resolves.toBeInstanceOf(ClosedError);
});

test('a synchronous call on a device that is closed is refused by name', async () => {
  await open();
  await device.close();
  expect(() => device.region(0).readUInt32Sync(0)).toThrow(ClosedError);
  expect(() => device.region(0).post(0, Buffer.alloc(4))).toThrow(ClosedError);
});

test('a file that goes to the server is not another’s by the time that it is sent', async () => {
  await open();
  isSilent = true;
  const fd = native().memfd('spec', 4096, false);
  const mapping = device.dma.map({ fd, size: 4096 });
  mapping.catch(() => undefined);
  await device.close();
  await expect(mapping).rejects.toThrow(ClosedError);
  native().closeFd(fd);
});
