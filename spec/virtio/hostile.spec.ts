/** Devices that lie, lose and dawdle: each call ends once and by name, and nothing is acknowledged that was not done. */
import { describe, expect, test } from '@jest/globals';
import { onNthRequest, type VirtioVerdict } from '../../lib/emulator/index.js';
import { VirtioDeviceError } from '../../lib/virtio/index.js';
import { cleanup, errorOf, openedBlk, pattern, until } from './fixture.js';

const OUT = 1;
const RINGS = ['split', 'packed'] as const;

describe.each(RINGS)('a %s queue of a device', (ring) => {
  const lies: [string, VirtioVerdict][] = [
    ['that names a request which is not in flight', { used: [{ id: 77 }] }],
    ['that names a request beyond the queue', { used: [{ id: 0xfffe }] }],
    ['that says that it wrote more than there is room for', { used: [{ length: 5000 }] }],
    ['that says that it wrote 4 GiB', { used: [{ length: 0xffff_ffff }] }],
    ['that gives a request back without its status', 'silent'],
  ];

  test.each(lies)('%s is believed in nothing', async (_name, verdict) => {
    const { disk, emulated } = await openedBlk({ driver: { ring, entries: 64 } });
    await disk.write(0, pattern(512));
    emulated.intercept = onNthRequest(2, verdict);
    const calls = await Promise.all(
      [
        errorOf(disk.write(8, pattern(4096))),
        errorOf(disk.read(0, 8)).catch(() => undefined),
        errorOf(disk.write(16, pattern(4096))).catch(() => undefined),
      ].map((call) => call.catch(() => undefined)),
    );
    const errors = calls.filter((error) => error !== undefined);
    expect(errors.length).toBeGreaterThan(0);
    for (const error of errors) expect(error).toBeInstanceOf(VirtioDeviceError);
    expect(await disk.closed).toMatchObject({ code: 'ERR_VIRTIO_DEVICE' });
    expect(disk.state).toBe('failed');
    expect(await errorOf(disk.read(0, 1))).toMatchObject({ code: 'ERR_VIRTIO_DEVICE' });
  });

  test('that gives a request back twice does not complete the next one with it', async () => {
    const { disk, emulated } = await openedBlk({ driver: { ring, entries: 64 } });
    emulated.intercept = onNthRequest(1, { used: [{}, {}] });
    const isLie = (error: unknown) => expect(error).toBeInstanceOf(VirtioDeviceError);
    // Both may be seen at once.
    await disk.write(0, pattern(512)).catch(isLie);
    emulated.intercept = () => 'hold';
    const error = await errorOf(disk.write(0, pattern(512, 2), { timeoutMs: 2_000 }));
    expect(error).toBeInstanceOf(VirtioDeviceError);
    expect(Buffer.from(await emulated.store.read(0, 512)).equals(pattern(512))).toBe(true);
  });

  test('whose used index jumps ahead ends in a named error', async () => {
    const { disk, emulated } = await openedBlk({ driver: { ring, entries: 64 } });
    emulated.intercept = onNthRequest(1, { jump: 9 });
    // It may be seen with the jump, or before it.
    await disk
      .write(0, pattern(512))
      .catch((error: unknown) => expect(error).toBeInstanceOf(VirtioDeviceError));
    await until(() => disk.queues[0]!.poll() === 0 && disk.state === 'failed').catch(() => undefined);
    expect(await errorOf(disk.read(0, 1))).toMatchObject({ code: 'ERR_VIRTIO_DEVICE' });
  });

  test('that changes descriptors afterwards changes nothing', async () => {
    const { disk, emulated } = await openedBlk({ driver: { ring, entries: 8 } });
    emulated.intercept = () => 'scribble';
    for (let i = 0; i < 30; i++) {
      await disk.write(i, pattern(512, i + 1));
      expect((await disk.read(i, 1)).equals(pattern(512, i + 1))).toBe(true);
    }
  });

  test.each<[string, VirtioVerdict]>([
    ['loses', 'lose'],
    ['holds', 'hold'],
  ])('that %s a write is reset, and goes on', async (_name, verdict) => {
    const { disk, emulated } = await openedBlk({ driver: { ring, timeoutMs: 300 } });
    emulated.intercept = onNthRequest(1, verdict, OUT);
    const error = await errorOf(disk.write(3, pattern(512)));
    expect(error).toMatchObject({ code: 'ETIMEDOUT' });
    await disk.write(4, pattern(512, 2));
    expect((await disk.read(4, 1)).equals(pattern(512, 2))).toBe(true);
    expect(disk.state).toBe('live');
  });

  test('a reset sends again what was in flight, once', async () => {
    const { disk, emulated } = await openedBlk({ driver: { ring } });
    emulated.intercept = onNthRequest(1, 'hold', OUT);
    const writing = disk.write(3, pattern(512));
    await until(() => emulated.requestCount === 1);
    await disk.reset();
    await writing;
    expect((await disk.read(3, 1)).equals(pattern(512))).toBe(true);
    emulated.intercept = ({ type }) => (type === OUT ? 'hold' : 'pass');
    const lost = errorOf(disk.write(5, pattern(512)));
    for (let i = 0; i < 2; i++) {
      const before = emulated.requestCount;
      await until(() => emulated.requestCount > before || disk.queues[0]!.inFlight > 0);
      await disk.reset();
    }
    expect(await lost).toMatchObject({ code: 'ERR_VIRTIO_RESET' });
  });

  test('an aborted write is answered when the device is done with it, and reads at once', async () => {
    const { disk, emulated } = await openedBlk({ driver: { ring, timeoutMs: 400 } });
    emulated.intercept = () => 'hold';
    const abort = new AbortController();
    const read = errorOf(disk.read(0, 1, { signal: abort.signal }));
    const write = errorOf(disk.write(0, pattern(512), { signal: abort.signal }));
    await until(() => disk.queues[0]!.inFlight === 2);
    const reason = new Error('no more');
    abort.abort(reason);
    expect(await read).toBe(reason);
    emulated.intercept = undefined;
    expect(await write).toBe(reason);
    await disk.write(0, pattern(512, 3));
  });

  test('the end of the connection ends all calls in the same turn', async () => {
    const { disk, emulated, cut } = await openedBlk({ driver: { ring, buffers: {} } });
    emulated.intercept = () => 'hold';
    const [queue] = disk.queues;
    queue!.submitRead(0, 1, 0, 1);
    queue!.ring();
    const calls = [disk.read(0, 1), disk.write(0, pattern(512)), disk.flush()].map(errorOf);
    await until(() => disk.queues[0]!.inFlight === 4);
    await cut();
    for (const error of await Promise.all(calls))
      expect(error).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    expect(disk.state).toBe('closed');
    expect(() => queue!.poll()).toThrow(expect.objectContaining({ code: 'ERR_VFIO_USER_CLOSED' }));
  });

  test('close waits for what is in flight, and ends what does not come', async () => {
    const { disk, emulated } = await openedBlk({ driver: { ring, timeoutMs: 300 } });
    emulated.intercept = onNthRequest(1, { delayMs: 50 }, OUT);
    const late = disk.write(0, pattern(512));
    const closing = disk.close();
    expect(await errorOf(disk.read(0, 1))).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    await late;
    await closing;
    expect(disk.isClosed).toBe(true);
  });

  test('submitted requests that a reset ended are reported as such', async () => {
    const { disk, emulated } = await openedBlk({ driver: { ring, buffers: { count: 4 } } });
    emulated.intercept = () => 'hold';
    const [queue] = disk.queues;
    for (let tag = 0; tag < 3; tag++) queue!.submitRead(tag, 1, tag, tag);
    queue!.ring();
    await until(() => emulated.requestCount === 3);
    emulated.intercept = undefined;
    await disk.reset();
    expect(queue!.poll()).toBe(3);
    expect([...queue!.completedStatus.subarray(0, 3)]).toEqual([0xfffe, 0xfffe, 0xfffe]);
    expect(new Set(queue!.completedTags.subarray(0, 3))).toEqual(new Set([0, 1, 2]));
  });
});

describe('a device', () => {
  test('that needs a reset is reset', async () => {
    const { disk, emulated } = await openedBlk({ driver: { completion: 'interrupt' } });
    emulated.needReset();
    await until(() => disk.state === 'resetting' || emulated.requestCount > 0).catch(() => undefined);
    await disk.write(0, pattern(512));
    expect((await disk.read(0, 1)).equals(pattern(512))).toBe(true);
  });

  test('that does not reset has failed, and its memory stays reserved', async () => {
    const { disk, emulated } = await openedBlk({ driver: { timeoutMs: 200 } });
    emulated.isResetStuck = true;
    cleanup(() => (emulated.isResetStuck = false));
    expect(await errorOf(disk.reset())).toMatchObject({
      code: 'ERR_VIRTIO_DEVICE',
      message: expect.stringContaining('does not reset'),
    });
    expect(disk.state).toBe('failed');
  });

  test('that comes back is set up again, and goes on', async () => {
    const { disk, device, emulated } = await openedBlk();
    await disk.write(0, pattern(512));
    await device.reset();
    await disk.reset();
    expect((await disk.read(0, 1)).equals(pattern(512))).toBe(true);
    expect(emulated.isClosed).toBe(false);
  });
});
