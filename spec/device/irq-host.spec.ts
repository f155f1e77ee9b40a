import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { RemoteError, VfioUserError } from '../../lib/errors.js';
import { openFds } from '../support/fds.js';
import { IrqDevice, turn, type IrqDeviceOptions } from './irq-device.js';

const EINVAL = 22;
const CONFIG = 7;
const COMMAND = 4;
const INTX_DISABLE = 0x400;
const READ_ONLY = 1;

/** Zeroes, with rows of bytes at the offsets given. */
function space(rows: Readonly<Record<number, string>>): Buffer {
  const bytes = Buffer.alloc(256);
  for (const [offset, row] of Object.entries(rows)) bytes.set(Buffer.from(row, 'hex'), Number(offset));
  return bytes;
}

/** Memory decoding and bus mastering on, no capabilities. */
const PLAIN = { 4: '06000000', 6: '0000' };
const LISTED = { ...PLAIN, 6: '1000', 0x34: '40' };
/** Four entries at 0x100 of BAR4. */
const MSIX_AT_40 = '1100030004010000' + '05000000';
const MSIX = space({ ...LISTED, 0x40: MSIX_AT_40 });
const MSIX_CONTROL = 0x42;
/** 64-bit address, eight vectors, mask bits: all masked. */
const MSI = space({ ...LISTED, 0x40: '05008601' + '00'.repeat(12) + 'ff00000000000000' });
/** 32-bit address, one vector. */
const SMALL_MSI = space({ ...LISTED, 0x40: '05000000' });

const IRQS = [{ count: 1 }, { count: 8 }, { count: 4 }, { count: 1 }, { count: 1 }];
const BARS = { 4: 0x1000 };

let device: IrqDevice;
let fdsBefore: number;

// The test runner itself opens and closes files while it starts.
beforeAll(() => turn(200));

beforeEach(() => {
  fdsBefore = openFds();
});

afterEach(async () => {
  device.close();
  await turn();
  expect(openFds()).toBe(fdsBefore);
});

async function open(config: Buffer, options: IrqDeviceOptions = {}): Promise<IrqDevice> {
  device = await IrqDevice.open({ irqs: IRQS, config, bars: BARS, ...options });
  return device;
}

function entry(vector: number): string[] {
  const at = 0x100 + 16 * vector;
  return [
    `BAR4 0x${at.toString(16)} = 0000e0fe`,
    `BAR4 0x${(at + 4).toString(16)} = 00000000`,
    `BAR4 0x${(at + 8).toString(16)} = 0${vector}000000`,
    `BAR4 0x${(at + 12).toString(16)} = 00000000`,
  ];
}

describe('MSI-X', () => {
  test('INTx off, eventfds, table, enable bit: in this order', async () => {
    const { irqs } = await open(MSIX);
    await irqs.msix.enable(2);
    expect(device.takeLog()).toEqual([
      'config 0x4 = 0604',
      'SET_IRQS EVENTFD|TRIGGER 2: 0+2, 2 fds',
      ...entry(0),
      ...entry(1),
      'config 0x42 = 0380',
    ]);
  });

  test('the function mask is cleared', async () => {
    const masked = Buffer.from(MSIX);
    masked.writeUInt16LE(0x4003, MSIX_CONTROL);
    const { irqs } = await open(masked);
    await irqs.msix.enable();
    expect(device.memory(CONFIG).readUInt16LE(MSIX_CONTROL)).toBe(0x8003);
  });

  test('more vectors: what stands already is written again, the enable bit stays', async () => {
    const { irqs } = await open(MSIX);
    await irqs.msix.enable(1);
    device.takeLog();
    await irqs.msix.enable(3);
    expect(device.takeLog()).toEqual([
      'SET_IRQS EVENTFD|TRIGGER 2: 1+2, 2 fds',
      ...entry(0),
      ...entry(1),
      ...entry(2),
    ]);
  });

  test('disable takes the enable bit back before the server is told', async () => {
    const { irqs } = await open(MSIX);
    await irqs.msix.enable(2);
    device.takeLog();
    await irqs.msix.disable();
    expect(device.takeLog()).toEqual(['config 0x42 = 0300', 'SET_IRQS NONE|TRIGGER 2: 0+0']);
  });

  test('a table that the server refuses is left alone, from then on', async () => {
    const { irqs } = await open(MSIX);
    device.fate = (line) => (line.startsWith('BAR4') ? EINVAL : undefined);
    const [vector] = await irqs.msix.enable(3);
    const writes = device.takeLog().filter((line) => line.startsWith('BAR4'));
    expect(writes).toEqual(entry(0));
    expect(device.memory(CONFIG).readUInt16LE(MSIX_CONTROL)).toBe(0x8003);
    device.signal(2, 0);
    await expect(vector.wait()).resolves.toBe(1);
    await irqs.msix.enable(4);
    await irqs.restore();
    expect(device.takeLog().some((line) => line.startsWith('BAR4'))).toBe(false);
  });

  test('refused while memory decoding is off it is tried again', async () => {
    const off = Buffer.from(MSIX);
    off.writeUInt16LE(0, COMMAND);
    const { irqs, config } = await open(off);
    device.fate = (line) => (line.startsWith('BAR4') ? EINVAL : undefined);
    await irqs.msix.enable(1);
    device.fate = () => undefined;
    await config!.writeUInt16(COMMAND, 2 | INTX_DISABLE);
    device.takeLog();
    await irqs.msix.enable(1);
    expect(device.takeLog()).toEqual(entry(0));
  });

  test.each([
    ['in a BAR that is too small', { 4: 0x120 }, MSIX_AT_40],
    ['in a BAR that is not there', {}, MSIX_AT_40],
    ['in BAR 7, which cannot be', BARS, '1100030007010000' + '05000000'],
  ])('a table %s is not written', async (_where, bars, capability) => {
    const { irqs } = await open(space({ ...LISTED, 0x40: capability }), { bars });
    await irqs.msix.enable(4);
    expect(device.takeLog()).toEqual([
      'config 0x4 = 0604',
      'SET_IRQS EVENTFD|TRIGGER 2: 0+4, 4 fds',
      'config 0x42 = 0380',
    ]);
  });

  test("has no more interrupts than the table's entries, whatever the server reports", async () => {
    const { irqs } = await open(MSIX, { irqs: [{ count: 1 }, { count: 0 }, { count: 2048 }] });
    expect(irqs.msix).toMatchObject({ count: 4, reportedCount: 2048 });
    await expect(irqs.msix.enable(5)).rejects.toThrow(/MSI-X has 4 interrupts, .*reports 2048/);
    await expect(irqs.msix.mask(4)).rejects.toBeInstanceOf(RangeError);
    expect(device.log).toEqual([]);
    await expect(irqs.msix.enable(5, { host: false })).resolves.toHaveLength(5);
  });

  test('without a capability only the eventfds go out', async () => {
    const { irqs } = await open(space(PLAIN));
    expect(irqs.msix.count).toBe(4);
    await irqs.msix.enable();
    expect(device.takeLog()).toEqual(['config 0x4 = 0604', 'SET_IRQS EVENTFD|TRIGGER 2: 0+1, 1 fds']);
  });
});

describe('MSI', () => {
  test('address, data, mask bits and as many vectors as the next power of two', async () => {
    const { irqs } = await open(MSI);
    await irqs.msi.enable(3);
    expect(device.takeLog()).toEqual([
      'config 0x4 = 0604',
      'SET_IRQS EVENTFD|TRIGGER 1: 0+3, 3 fds',
      'config 0x44 = 0000e0fe',
      'config 0x48 = 00000000',
      'config 0x4c = 0000',
      'config 0x50 = f8000000',
      'config 0x42 = a701',
    ]);
  });

  test('a range counts by its last vector', async () => {
    const { irqs } = await open(MSI);
    await irqs.msi.enable({ start: 7 });
    expect(device.memory(CONFIG).readUInt16LE(0x42)).toBe(0x01b7);
    expect(device.memory(CONFIG).readUInt32LE(0x50)).toBe(0x7f);
  });

  test('more vectors: disabled while its registers change', async () => {
    const { irqs } = await open(MSI);
    await irqs.msi.enable();
    device.takeLog();
    await irqs.msi.enable(2);
    const control = device.takeLog().filter((line) => line.startsWith('config 0x42'));
    expect(control).toEqual(['config 0x42 = 8601', 'config 0x42 = 9701']);
  });

  test('with a 32-bit address, without mask bits', async () => {
    const { irqs } = await open(SMALL_MSI);
    await irqs.msi.enable();
    expect(device.takeLog().slice(2)).toEqual([
      'config 0x44 = 0000e0fe',
      'config 0x48 = 0000',
      'config 0x42 = 0100',
    ]);
    await irqs.msi.disable();
    expect(device.takeLog()).toEqual(['config 0x42 = 0000', 'SET_IRQS NONE|TRIGGER 1: 0+0']);
  });

  test('a device without the capability has none, whatever the server reports', async () => {
    const { irqs } = await open(MSIX);
    expect(irqs.msi).toMatchObject({ count: 0, reportedCount: 8 });
    await expect(irqs.msi.enable()).rejects.toBeInstanceOf(RangeError);
    await expect(irqs.msi.enable(8, { host: false })).resolves.toHaveLength(8);
  });

  test('has no more than the capability says, and no more than the server takes', async () => {
    const { irqs } = await open(SMALL_MSI);
    expect(irqs.msi.count).toBe(1);
    device.close();
    const few = await open(MSI, { irqs: [{ count: 1 }, { count: 2 }] });
    expect(few.irqs.msi.count).toBe(2);
  });
});

describe('INTx', () => {
  test('is off while its eventfd changes, then on: a level that is asserted is signalled', async () => {
    const { irqs } = await open(space(PLAIN));
    await irqs.intx.enable();
    expect(device.takeLog()).toEqual([
      'config 0x4 = 0604',
      'SET_IRQS EVENTFD|TRIGGER 0: 0+1, 1 fds',
      'config 0x4 = 0600',
    ]);
    await irqs.intx.disable();
    expect(device.takeLog()).toEqual(['config 0x4 = 0604', 'SET_IRQS NONE|TRIGGER 0: 0+0']);
  });

  test('makes room for MSI-X, registers included, and takes it back', async () => {
    const { irqs } = await open(MSIX);
    await irqs.intx.enable();
    device.takeLog();
    await irqs.msix.enable();
    expect(device.takeLog().slice(0, 3)).toEqual([
      'config 0x4 = 0604',
      'SET_IRQS NONE|TRIGGER 0: 0+0',
      'SET_IRQS EVENTFD|TRIGGER 2: 0+1, 1 fds',
    ]);
    await irqs.intx.enable();
    expect(device.takeLog().slice(-4)).toEqual([
      'config 0x42 = 0300',
      'SET_IRQS NONE|TRIGGER 2: 0+0',
      'SET_IRQS EVENTFD|TRIGGER 0: 0+1, 1 fds',
      'config 0x4 = 0600',
    ]);
  });
});

describe('where the registers are left alone', () => {
  test('host: false sends SET_IRQS and nothing else', async () => {
    const { irqs } = await open(MSIX);
    await irqs.msix.enable(2, { host: false });
    await irqs.restore();
    await irqs.msix.disable();
    expect(device.takeLog()).toEqual([
      'SET_IRQS EVENTFD|TRIGGER 2: 0+2, 2 fds',
      'SET_IRQS EVENTFD|TRIGGER 2: 0+2, 2 fds',
      'SET_IRQS NONE|TRIGGER 2: 0+0',
    ]);
  });

  test('ERR and REQ have none', async () => {
    const { irqs } = await open(MSIX);
    await irqs.err.enable();
    await irqs.err.disable();
    expect(device.takeLog()).toEqual([
      'SET_IRQS EVENTFD|TRIGGER 3: 0+1, 1 fds',
      'SET_IRQS NONE|TRIGGER 3: 0+0',
    ]);
  });

  test('a config space that is read-only', async () => {
    const { irqs } = await open(MSIX, { configFlags: READ_ONLY });
    await irqs.msix.enable();
    expect(device.takeLog()).toEqual(['SET_IRQS EVENTFD|TRIGGER 2: 0+1, 1 fds']);
  });
});

describe('registers that fail', () => {
  test('before the eventfds: nothing is enabled', async () => {
    const { irqs } = await open(MSIX);
    device.fate = (line) => (line.startsWith('config') ? EINVAL : undefined);
    await expect(irqs.msix.enable()).rejects.toBeInstanceOf(RemoteError);
    expect(device.held).toBe(0);
    expect(irqs.msix.vectors).toEqual([]);
  });

  test('after them: they are taken back, and the error says so', async () => {
    const { irqs } = await open(MSIX);
    device.fate = (line) => (line.startsWith('config 0x42') ? EINVAL : undefined);
    const error = await irqs.msix.enable(2).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(VfioUserError);
    expect(error).toMatchObject({
      code: 'EINVAL',
      message: expect.stringMatching(/MSI-X vectors 0 to 1 were disabled again/),
    });
    expect(device.held).toBe(0);
    expect(irqs.msix.enabled).toBe(false);
  });

  test('a disable that fails there still tells the server', async () => {
    const { irqs } = await open(MSIX);
    const [vector] = await irqs.msix.enable();
    device.fate = (line) => (line.startsWith('config') ? EINVAL : undefined);
    await expect(irqs.msix.disable()).rejects.toBeInstanceOf(RemoteError);
    expect(device.held).toBe(0);
    expect(vector.isClosed).toBe(true);
  });
});

test('restore repeats all of it after a reset', async () => {
  const { irqs, config } = await open(MSIX);
  const vectors = await irqs.msix.enable(2);
  MSIX.copy(device.memory(CONFIG));
  device.memory(4).fill(0xff);
  await config!.refresh();
  device.takeLog();
  await irqs.restore();
  expect(device.takeLog()).toEqual([
    'config 0x4 = 0604',
    'SET_IRQS EVENTFD|TRIGGER 2: 0+2, 2 fds',
    ...entry(0),
    ...entry(1),
    'config 0x42 = 0380',
  ]);
  device.signal(2, 1, 2);
  await expect(vectors[1]!.wait()).resolves.toBe(2);
});
