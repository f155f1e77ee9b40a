/**
 * What is mapped of hardware: a file that is not a regular one stands for it here, as for the library. spec/silicon has it on
 * vfio-pci.
 */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { closeSync, openSync } from 'node:fs';
import { DeviceError, PciConfigSpace, PciDevice } from '../../lib/emulator/index.js';
import { UnsupportedError, VfioUserError, connect, type Device, type MappedArea } from '../../lib/index.js';
import { PciCommand, PciConfig } from '../../lib/pci/index.js';

const EIO = 5;
const SIZE = 8192;
const CONFIG = 7;
const POWER_MANAGEMENT = 1;
const D3HOT = 3;
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

class Board extends PciDevice {
  /** Called while the device is being reset. */
  onReset: (() => void) | undefined;

  constructor(fd: number) {
    const power = { id: POWER_MANAGEMENT, body: Buffer.alloc(6), writable: Buffer.from([0, 0, 3, 0, 0, 0]) };
    const bars = [{ index: 0, size: SIZE }];
    super(new PciConfigSpace({ vendorId: 0x1234, deviceId: 1, bars, capabilities: [power] }), []);
    const handler = { read: (_at: number, count: number) => Buffer.alloc(count), write: () => undefined };
    this.addRegion({ index: 0, size: SIZE, handler, file: { fd, offset: 0 } });
  }

  override reset(): void {
    this.onReset?.();
    void super.reset();
  }
}

let board: Board;
let device: Device;
let area: MappedArea;

beforeEach(async () => {
  const fd = openSync('/dev/zero', 'r+');
  cleanups.push(() => closeSync(fd));
  board = new Board(fd);
  device = await connect({ model: board });
  cleanups.push(() => device.close());
  await device.enable();
  area = device.bar(0).map();
});

/** The error that an accessor throws while the device does not answer. */
function refusal(why: RegExp): unknown {
  return expect.objectContaining({ code: 'EIO', message: expect.stringMatching(why) });
}

function errorOf(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe('registers', () => {
  test('are loaded and stored in every width', () => {
    area.storeUInt8(1, 0xfe);
    area.storeUInt16(2, 0xfedc);
    area.storeUInt32(4, 0xfedc_ba98);
    area.storeUInt64(8, 0xfedc_ba98_7654_3210n);
    expect(area.loadUInt8(1)).toBe(0xfe);
    expect(area.loadUInt16(2)).toBe(0xfedc);
    expect(area.loadUInt32(4)).toBe(0xfedc_ba98);
    expect(area.loadUInt64(8)).toBe(0xfedc_ba98_7654_3210n);
    expect(area.bytes.subarray(0, 16).toString('hex')).toBe('00fedcfe98badcfe1032547698badcfe');
  });

  test.each([
    ['an offset that is not aligned', () => area.loadUInt16(1), RangeError],
    ['an offset outside', () => area.loadUInt8(SIZE), RangeError],
    ['a word that is partly outside', () => area.storeUInt64(SIZE - 4, 0n), RangeError],
    ['a value that is too large', () => area.storeUInt8(0, 256), RangeError],
    ['a negative value', () => area.storeUInt16(0, -1), RangeError],
    ['a fraction', () => area.storeUInt32(0, 0.5), RangeError],
    ['a number for a bigint', () => area.storeUInt64(0, 1 as never), TypeError],
  ])('%s is refused', (_what, run, kind) => expect(run).toThrow(kind));

  test('are copied, whatever the alignment', () => {
    const data = Buffer.from(Uint8Array.from({ length: 23 }, (_, i) => 0xf0 ^ i));
    for (let at = 0; at < 4; at++) {
      area.copyIn(64 + at, data);
      const back = Buffer.alloc(data.length);
      area.copyOut(64 + at, back);
      expect(back.equals(data)).toBe(true);
    }
  });

  test('are no more once the area is closed', () => {
    area.close();
    expect(() => area.loadUInt8(0)).toThrow(UnsupportedError);
    expect(() => area.storeUInt16(0, 1)).toThrow(UnsupportedError);
  });
});

describe('while memory decoding is off', () => {
  const off = () => device.config.update(PciConfig.COMMAND, 2, PciCommand.MEMORY, 0);
  const on = () => device.config.update(PciConfig.COMMAND, 2, PciCommand.MEMORY, PciCommand.MEMORY);

  test('accessors refuse by name, and go on afterwards', async () => {
    const { bytes } = area;
    bytes[0] = 7;
    await off();
    for (const run of [
      () => area.loadUInt8(0),
      () => area.loadUInt16(0),
      () => area.loadUInt32(0),
      () => area.loadUInt64(0),
      () => area.storeUInt8(0, 1),
      () => area.storeUInt32(0, 1),
      () => area.copyOut(0, Buffer.alloc(4)),
      () => area.copyIn(0, Buffer.alloc(4)),
    ]) {
      expect(errorOf(run)).toBeInstanceOf(VfioUserError);
      expect(errorOf(run)).toEqual(refusal(/memory decoding is off in the COMMAND register/));
    }
    // Raw views cannot refuse: they show nothing, and keep nothing.
    expect(bytes[0]).toBe(0);
    bytes[1] = 9;
    await on();
    expect(area.loadUInt8(1)).toBe(0);
    area.storeUInt8(1, 5);
    expect(bytes[1]).toBe(5);
  });

  test.each([
    ['region.write', () => device.region(CONFIG).write(PciConfig.COMMAND, Buffer.from([0, 0]))],
    ['region.writeUInt32', () => device.region(CONFIG).writeUInt32(PciConfig.COMMAND, 0)],
    ['region.writeUInt16Sync', () => device.region(CONFIG).writeUInt16Sync(PciConfig.COMMAND, 0)],
    ['region.post', () => device.region(CONFIG).post(PciConfig.COMMAND, Buffer.from([0]))],
    ['config.writeUInt8', () => device.config.writeUInt8(PciConfig.COMMAND, 0)],
  ])('however it was turned off: %s', async (_how, turnOff) => {
    await Promise.resolve(turnOff());
    expect(errorOf(() => area.loadUInt32(0))).toEqual(refusal(/memory decoding/));
    await device.enable();
    expect(area.loadUInt32(0)).toBe(0);
  });

  test('what is mapped then waits for it', async () => {
    await off();
    using late = device.bar(0).map(0, 4096);
    expect(errorOf(() => late.loadUInt32(0))).toEqual(refusal(/memory decoding/));
    await device.enable();
    expect(late.loadUInt32(0)).toBe(0);
  });

  test('a write elsewhere changes nothing', async () => {
    await device.config.writeUInt8(PciConfig.CACHE_LINE_SIZE, 16);
    expect(area.loadUInt32(0)).toBe(0);
  });
});

test('without power accessors refuse by name', async () => {
  const { controlOffset } = device.config.capabilities.find((one) => one.kind === 'power-management')!;
  await device.config.update(controlOffset, 2, D3HOT, D3HOT);
  expect(errorOf(() => area.loadUInt32(0))).toEqual(refusal(/not in the power state D0/));
  await device.config.update(controlOffset, 2, D3HOT, 0);
  expect(area.loadUInt32(0)).toBe(0);
});

test('while the device is being reset accessors refuse by name', async () => {
  let during: unknown;
  board.onReset = () => (during = errorOf(() => area.loadUInt32(0)));
  await device.reset();
  expect(during).toEqual(refusal(/it is being reset/));
  expect(area.loadUInt32(0)).toBe(0);
});

test('a reset that fails leaves the registers where they were', async () => {
  board.onReset = () => {
    throw new DeviceError(EIO, 'no');
  };
  await expect(device.reset()).rejects.toThrow(/^DEVICE_RESET: the server answered EIO \(no\)$/);
  expect(area.loadUInt32(0)).toBe(0);
});

test('memory of a server’s file is not taken away', async () => {
  const { RamDevice } = await import('../../lib/emulator/index.js');
  const ram = new RamDevice();
  cleanups.push(() => ram.close());
  const plain = await connect({ model: ram });
  cleanups.push(() => plain.close());
  using shared = plain.bar(1).map();
  shared.storeUInt16(2, 0xabcd);
  shared.storeUInt8(4, 0xef);
  await plain.config.update(PciConfig.COMMAND, 2, PciCommand.MEMORY, 0);
  expect([shared.loadUInt16(2), shared.loadUInt8(4)]).toEqual([0xabcd, 0xef]);
});
