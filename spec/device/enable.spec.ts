import { afterEach, expect, test } from '@jest/globals';
import { connect } from '../../lib/device/connect.js';
import type { Device } from '../../lib/device/device.js';
import {
  PciConfigSpace,
  PciDevice,
  serveFd,
  type EmulatorServer,
  type PciBar,
} from '../../lib/emulator/index.js';
import { UnsupportedError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';

let server: EmulatorServer;
let device: Device;
let model: Bars;
/** Dwords that were written to config space: `0x10 = ffffffff`. */
let writes: string[];
/** Sees each of them. */
let onWrite: ((line: string) => void) | undefined;

/** A device of nothing but BARs. */
class Bars extends PciDevice {
  constructor(bars: readonly PciBar[]) {
    super(new PciConfigSpace({ vendorId: 1, deviceId: 2, bars }), []);
    for (const { index, size } of bars) {
      const handler = { read: (_: number, count: number) => Buffer.alloc(count), write: () => undefined };
      this.addRegion({ index, size, handler });
    }
  }
}

async function open(...bars: PciBar[]): Promise<void> {
  model = new Bars(bars);
  writes = [];
  onWrite = undefined;
  const [ours, theirs] = native().socketPair() as [number, number];
  server = serveFd(model, theirs, {
    intercept: ({ command, payload }) => {
      if (command !== 10) return;
      const value = payload.readUIntLE(16, payload.readUInt32LE(12)).toString(16);
      const line = `0x${payload.readUInt32LE(0).toString(16)} = ${value}`;
      writes.push(line);
      onWrite?.(line);
    },
  });
  device = await connect({ fd: ours });
}

afterEach(async () => {
  await device.close();
  await server.close();
});

test('BARs are sized with decoding off, assigned, and then decoding and bus mastering are on', async () => {
  await open(
    { index: 0, size: 0x10000 },
    { index: 1, size: 32, kind: 'io' },
    { index: 2, size: 1 << 20, kind: 'memory64' },
  );
  await device.config.writeUInt16(4, 3);
  writes.length = 0;
  await device.enable();
  expect(writes[0]).toBe('0x4 = 0');
  expect(writes.at(-1)).toBe('0x4 = 7');
  expect(writes.filter((line) => line.endsWith('ffffffff')).map((line) => line.slice(0, 4))).toEqual([
    '0x10',
    '0x14',
    '0x18',
    '0x1c',
  ]);
  for (const [index, size] of [
    [0, 0x10000n],
    [1, 32n],
    [2, 1n << 20n],
  ] as const) {
    expect(model.config.isBarEnabled(index)).toBe(true);
    expect(model.config.barAddress(index) % size).toBe(0n);
    expect(device.config.bars.find((bar) => bar.index === index)?.address).toBe(
      model.config.barAddress(index),
    );
  }
  expect(model.config.barAddress(2)).toBeGreaterThan(0xffffffffn);
  expect(device.config.command).toBe(7);
});

test('BARs that have an address keep it, and a second time changes nothing', async () => {
  await open({ index: 0, size: 4096 }, { index: 1, size: 4096 });
  await device.config.writeUInt32(0x10, 0x80001000);
  await device.enable();
  expect(model.config.barAddress(0)).toBe(0x80001000n);
  expect(model.config.barAddress(1)).not.toBe(0x80001000n);
  writes.length = 0;
  await device.enable();
  expect(writes).toEqual([]);
});

test('a device without BARs has its command bits set', async () => {
  await open();
  await device.enable();
  expect(writes).toEqual(['0x4 = 7']);
});

test('what does not fit the addresses is said', async () => {
  await open({ index: 0, size: 2 ** 31 });
  await expect(device.enable()).rejects.toThrow(UnsupportedError);
});

test('after a reset it is done again, and only where it was done before', async () => {
  await open({ index: 0, size: 4096 });
  await device.reset();
  expect(model.config.command).toBe(0);
  await device.enable();
  const address = model.config.barAddress(0);
  await device.reset();
  expect(model.config.barAddress(0)).toBe(address);
  expect(model.config.isBarEnabled(0)).toBe(true);
  expect(device.config.command).toBe(7);
});

const THREE: PciBar[] = [
  { index: 0, size: 0x10000 },
  { index: 1, size: 32, kind: 'io' },
  { index: 2, size: 1 << 20, kind: 'memory64' },
];

function expectEnabled(): void {
  for (const { index, size } of THREE) {
    const address = model.config.barAddress(index);
    expect(model.config.isBarEnabled(index)).toBe(true);
    expect(address).toBeGreaterThan(0n);
    expect(address % BigInt(size)).toBe(0n);
    expect([1n << 32n, 1n << 64n]).not.toContain(address + BigInt(size));
  }
}

test('several at once, and beside a reset, size no BAR while another one does', async () => {
  await open(...THREE);
  const others: Promise<void>[] = [];
  onWrite = () => {
    if (others.length < 12) others.push(others.length % 4 === 3 ? device.reset() : device.enable());
  };
  await device.enable();
  await Promise.all(others);
  expectEnabled();
});

test.each(['0x10', '0x14', '0x18', '0x1c'])(
  'broken off while %s is sized: done the next time',
  async (register) => {
    await open(...THREE);
    const abort = new AbortController();
    onWrite = (line) => {
      if (line === `${register} = ffffffff`) abort.abort(new Error('no more'));
    };
    await expect(device.enable({ signal: abort.signal })).rejects.toThrow('no more');
    onWrite = undefined;
    await device.enable();
    expectEnabled();
  },
);
