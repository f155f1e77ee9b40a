/** The entropy driver as a stream, on the emulated device: what it asks for, what ends it, and what it gives back. */
import { describe, expect, jest, test } from '@jest/globals';
import { once } from 'node:events';
import {
  MemoryStore,
  onNthRequest,
  VirtioBlkDevice,
  VirtioRngDevice,
  type VirtioRngDeviceOptions,
  type VirtioVerdict,
} from '../../lib/emulator/index.js';
import { VirtioRng, type VirtioRngOptions } from '../../lib/virtio/index.js';
import { cleanup, errorOf, linked, until, type Link } from './fixture.js';

jest.setTimeout(20_000);

const RINGS = ['split', 'packed'] as const;
const COMPLETIONS = ['poll', 'interrupt'] as const;

/** Bytes that tell which one each is. */
function counter(): (length: number) => Uint8Array {
  let next = 0;
  return (length) => Uint8Array.from({ length }, () => next++ % 251);
}

interface Setup {
  emulated?: VirtioRngDeviceOptions;
  driver?: VirtioRngOptions;
}

async function opened(setup: Setup = {}): Promise<Link & { emulated: VirtioRngDevice; rng: VirtioRng }> {
  const emulated = new VirtioRngDevice(setup.emulated);
  const link = await linked(emulated);
  const rng = await VirtioRng.open(link.device, setup.driver);
  cleanup(() => rng.close().catch(() => undefined));
  return { emulated, rng, ...link };
}

/** What is there is taken before more is waited for: a listener hears of it at once, again and again. */
async function take(rng: VirtioRng, bytes: number): Promise<Buffer> {
  const taken: Buffer[] = [];
  for (let left = bytes; left > 0;) {
    if (rng.readableLength === 0) await once(rng, 'readable');
    const chunk = rng.read(Math.min(left, rng.readableLength)) as Buffer;
    taken.push(chunk);
    left -= chunk.length;
  }
  return Buffer.concat(taken);
}

/** The error that the stream ends with; it has given all back by then. */
async function endOf(rng: VirtioRng): Promise<Error> {
  const error = once(rng, 'error') as Promise<[Error]>;
  rng.resume();
  const [reason] = await error;
  if (!rng.closed) await once(rng, 'close');
  return reason;
}

describe.each(RINGS)('a stream of a device with a %s queue', (ring) => {
  test.each(COMPLETIONS)(
    'gives all that the device gives, in order, with completions by %s',
    async (completion) => {
      const source = counter();
      const { rng } = await opened({
        emulated: { source, maxBytes: 700 },
        driver: { ring, completion, requests: 1 },
      });
      expect(rng.driver.hasFeature(34)).toBe(ring === 'packed');
      const bytes = await take(rng, 3_000);
      expect(bytes.equals(counter()(3_000))).toBe(true);
      expect((await take(rng, 1))[0]).toBe(3_000 % 251);
    },
  );

  test('has several requests in flight, without indirect descriptors and EVENT_IDX too', async () => {
    const driver = { ring, indirect: false, eventIndex: false, requests: 8, highWaterMark: 16 << 10 };
    const { rng, emulated } = await opened({ driver });
    let bytes = 0;
    for await (const chunk of rng) {
      bytes += (chunk as Buffer).length;
      if (bytes > 100_000) break;
    }
    expect(emulated.requestCount).toBeGreaterThan(90);
    expect(rng.destroyed).toBe(true);
  });

  const lies: [string, VirtioVerdict][] = [
    ['names a request which is not in flight', { used: [{ id: 7 }] }],
    ['names a request beyond the queue', { used: [{ id: 0xfffe }] }],
    ['says that it gave more than there is room for', { used: [{ length: 1025 }] }],
    ['says that it gave 4 GiB', { used: [{ length: 0xffff_ffff }] }],
    ['gives nothing', 'silent'],
    ['has nothing to give', { status: 1 }],
  ];

  test.each(lies)('ends by name where the device %s', async (_name, verdict) => {
    const intercept = onNthRequest(1, verdict);
    const { rng } = await opened({ emulated: { intercept }, driver: { ring, requestBytes: 1024 } });
    expect(await endOf(rng)).toMatchObject({ code: 'ERR_VIRTIO_DEVICE' });
    expect(rng.driver.state).toBe('closed');
    expect(rng.read()).toBeNull();
  });

  test('ends in a TimeoutError where nothing comes, and the device is somebody else’s then', async () => {
    const { rng, device, emulated } = await opened({
      emulated: { intercept: () => 'hold' },
      driver: { ring, timeoutMs: 200 },
    });
    expect(await endOf(rng)).toMatchObject({ code: 'ETIMEDOUT' });
    emulated.intercept = undefined;
    const next = await VirtioRng.open(device, { ring });
    expect(await take(next, 16)).toHaveLength(16);
    await next.close();
  });

  test('goes on after a reset, which sends again what it interrupted, once', async () => {
    const intercept = onNthRequest(1, 'hold');
    const { rng, emulated } = await opened({ emulated: { intercept }, driver: { ring, requests: 1 } });
    const taking = take(rng, 64);
    await until(() => emulated.requestCount === 1);
    await rng.driver.reset();
    expect(await taking).toHaveLength(64);
    emulated.intercept = () => 'hold';
    let held = emulated.requestCount;
    const ended = endOf(rng);
    for (let i = 0; i < 2; i++) {
      await until(() => emulated.requestCount > held);
      held = emulated.requestCount;
      await rng.driver.reset().catch(() => undefined);
    }
    expect(await ended).toMatchObject({ code: 'ERR_VIRTIO_RESET' });
  });
});

describe('a stream', () => {
  test('asks for nothing before somebody reads, and for no more than there is room for', async () => {
    const { rng, emulated } = await opened({ driver: { highWaterMark: 3_000, requestBytes: 1_000 } });
    expect([emulated.requestCount, rng.bytesAsked]).toEqual([0, 0]);
    rng.read(0);
    await until(() => rng.readableLength === 3_000 && rng.bytesAsked === 0);
    expect(emulated.bytesGiven).toBe(3_000);
    expect(await take(rng, 10)).toHaveLength(10);
    await until(() => rng.readableLength === 3_000 && rng.bytesAsked === 0);
    expect(emulated.bytesGiven).toBe(3_010);
  });

  test('is destroyed at once, whatever the device holds, and the device is for another driver to have', async () => {
    const { rng, device, emulated } = await opened({
      emulated: { intercept: () => 'hold' },
      driver: { timeoutMs: 600_000 },
    });
    rng.resume();
    await until(() => emulated.requestCount > 0);
    await rng.close();
    expect(rng.driver.state).toBe('closed');
    expect(rng.errored).toBeNull();
    emulated.intercept = undefined;
    const next = await VirtioRng.open(device);
    expect(await take(next, 8)).toHaveLength(8);
    await next.close();
    await next.close();
  });

  test('hears of DEVICE_NEEDS_RESET, resets the device and goes on', async () => {
    let count = 0;
    const source = (length: number) => {
      if (++count === 2) throw new Error('no entropy');
      return Buffer.alloc(length, count);
    };
    const { rng } = await opened({
      emulated: { source },
      driver: { completion: 'interrupt', requests: 1, highWaterMark: 64 },
    });
    expect([...(await take(rng, 64))]).toEqual(Array<number>(64).fill(1));
    expect((await take(rng, 64)).every((byte) => byte > 2)).toBe(true);
    expect(rng.driver.state).toBe('live');
  });

  test('ends with the connection, and with its driver', async () => {
    const first = await opened();
    const ended = endOf(first.rng);
    await first.cut();
    expect(await ended).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    const second = await opened();
    const error = once(second.rng, 'error') as Promise<[Error]>;
    await second.rng.driver.close();
    expect((await error)[0]).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
  });

  test('is one driver, of an entropy device, with options that make sense', async () => {
    const { device, rng } = await opened();
    expect(await errorOf(VirtioRng.open(device))).toBeInstanceOf(TypeError);
    expect(() => structuredClone(rng)).toThrow(expect.objectContaining({ name: 'DataCloneError' }));
    expect(await errorOf(VirtioRng.open(device, { requestBytes: 4097 }))).toBeInstanceOf(RangeError);
    expect(await errorOf(VirtioRng.open(device, { requests: 0 }))).toBeInstanceOf(RangeError);
    expect(() => new VirtioRngDevice({ maxBytes: 0 })).toThrow(RangeError);
    const disk = await linked(new VirtioBlkDevice({ store: new MemoryStore(1 << 20) }));
    expect(await errorOf(VirtioRng.open(disk.device))).toMatchObject({ code: 'ERR_VFIO_USER_UNSUPPORTED' });
  });
});
