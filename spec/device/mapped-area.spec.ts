import { afterEach, describe, expect, test } from '@jest/globals';
import { connect } from '../../lib/device/connect.js';
import type { Device } from '../../lib/device/device.js';
import { RamDevice, serveFd } from '../../lib/emulator/index.js';
import { UnsupportedError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { ScriptedDevice } from '../support/scripted-device.js';
import { sparseMmapFds } from '../support/wire.js';

const PAGE = 4096;
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

/** The emulator's RAM device, whose BAR1 is shared but for its first page, in two areas. */
async function ram(): Promise<{ device: Device; shared: Buffer }> {
  const [ours, theirs] = native().socketPair() as [number, number];
  const model = new RamDevice();
  cleanups.push(() => model.close());
  const server = serveFd(model, theirs);
  cleanups.push(() => server.close());
  const device = await connect({ fd: ours });
  cleanups.push(() => device.close());
  return { device, shared: model.shared!.bytes };
}

describe('a mapped area', () => {
  test('is the server’s own memory, in both directions and without a message', async () => {
    const { device, shared } = await ram();
    const area = device.bar(1).map();
    expect([area.offset, area.size]).toEqual([PAGE, PAGE]);
    const { sent } = device.counters;
    area.bytes.write('from the client', 16);
    expect(shared.toString('latin1', PAGE + 16, PAGE + 31)).toBe('from the client');
    shared.write('from the server', PAGE + 64);
    expect(area.bytes.toString('latin1', 64, 79)).toBe('from the server');
    expect(device.counters.sent).toBe(sent);
    expect((await device.bar(1).read(PAGE + 64, 15)).toString()).toBe('from the server');
  });

  test('has ordered accessors, words and copies of the same bytes', async () => {
    const { device, shared } = await ram();
    const area = device.bar(1).map(2 * PAGE + 8, 64);
    area.writeUInt32(4, 0xfedcba98);
    expect(area.readUInt32(4)).toBe(0xfedcba98);
    expect(area.u32[1]).toBe(0xfedcba98);
    expect(shared.readUInt32LE(2 * PAGE + 12)).toBe(0xfedcba98);
    area.writeUInt64(8, 0x1122334455667788n);
    expect(area.readUInt64(8)).toBe(0x1122334455667788n);
    expect(area.u64[1]).toBe(0x1122334455667788n);
    area.copyIn(16, Buffer.from('copied'));
    const out = Buffer.alloc(6);
    area.copyOut(16, out);
    expect(out.toString()).toBe('copied');
    expect(Buffer.from(area.window(16, 6)).toString()).toBe('copied');
  });

  test('ends with close, and with the device: views are detached, calls are refused', async () => {
    const { device } = await ram();
    const first = device.bar(1).map(PAGE, 64);
    const second = device.bar(1).map();
    const [bytes, words, window] = [first.bytes, second.u32, second.window(0, 8)];
    first.close();
    first.close();
    expect(bytes).toHaveLength(0);
    expect(() => first.readUInt32(0)).toThrow(UnsupportedError);
    expect(() => first.copyOut(0, Buffer.alloc(1))).toThrow(UnsupportedError);
    expect(second.closed).toBe(false);
    await device.close();
    expect(second.closed).toBe(true);
    expect(words).toHaveLength(0);
    expect(window.byteLength).toBe(0);
    expect(() => second.bytes).toThrow(UnsupportedError);
  });

  test.each<[string, number | undefined, number | undefined]>([
    ['outside all areas', 0, 64],
    ['over the border of two', PAGE + 64, PAGE],
    ['past the last', 63 * 1024, 4096],
    ['nothing', PAGE, 0],
    ['a negative offset', -1, 1],
    ['a length that is none', PAGE, 1.5],
  ])('%s is refused', async (_, offset, length) => {
    const { device } = await ram();
    expect(() => device.bar(1).map(offset, length)).toThrow(RangeError);
  });

  test('of a region that cannot be mapped is refused', async () => {
    const { device } = await ram();
    expect(device.bar(2).mappable).toBe(false);
    expect(() => device.bar(2).map()).toThrow(/no mappable area/);
  });

  test('refuses what is outside of it or not aligned', async () => {
    const { device } = await ram();
    const area = device.bar(1).map(PAGE, 64);
    const calls: (() => unknown)[] = [
      () => area.readUInt32(62),
      () => area.readUInt32(2),
      () => area.readUInt64(4),
      () => area.writeUInt64(64, 0n),
      () => area.readUInt32(-4),
      () => area.readUInt32(NaN),
      () => area.window(0, 65),
      () => area.window(10, -5),
      () => area.window(0, 1.5),
      () => area.copyOut(1, Buffer.alloc(64)),
      () => area.copyIn(64, Buffer.alloc(1)),
    ];
    for (const call of calls) expect(call).toThrow(RangeError);
  });
});

test('areas with fds of their own show each its file, from where it begins there', async () => {
  const files = [0, 1].map((i) => {
    const fd = native().memfd('spec', 4 * PAGE, false);
    cleanups.push(() => native().closeFd(fd));
    const mapping = native().map(fd, 0, 4 * PAGE, true, true);
    if (typeof mapping === 'number') throw new Error(`mmap: errno ${-mapping}`);
    Buffer.from(mapping.view(0, 4 * PAGE) as ArrayBuffer).fill(i + 1);
    mapping.copyIn(PAGE + 2, Buffer.from([0xa0 + i]), 0, 1);
    mapping.close();
    return fd;
  });
  const capabilities = sparseMmapFds([
    [0, PAGE, PAGE, 1],
    [PAGE, PAGE + 2, 64, 0],
  ]);
  const server = new ScriptedDevice({
    flags: 1,
    numRegions: 1,
    regions: { 0: { size: 4 * PAGE, flags: 7, capabilities, fds: files } },
  });
  cleanups.push(() => server.close());
  const device = await connect(server.endpoint);
  cleanups.push(() => device.close());
  expect([...device.region(0).map(0).bytes.subarray(0, 4)]).toEqual([2, 2, 0xa1, 2]);
  const odd = device.region(0).map(PAGE);
  expect([...odd.bytes.subarray(0, 2)]).toEqual([0xa0, 1]);
  // Its memory begins between words.
  expect(() => odd.u32).toThrow(UnsupportedError);
  expect(() => odd.readUInt32(0)).toThrow(UnsupportedError);
});
