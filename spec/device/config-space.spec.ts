import { afterEach, describe, expect, test } from '@jest/globals';
import { connect } from '../../lib/device/connect.js';
import type { ConfigSpace } from '../../lib/device/config-space.js';
import type { Device } from '../../lib/device/device.js';
import { ScriptedDevice, type Answer } from '../support/scripted-device.js';
import { message, type Received } from '../support/scripted-peer.js';
import { until } from '../support/until.js';

const STATUS = 0x06;
const COMMAND = 0x04;
/** Bits of the command register that can be written. */
const COMMAND_BITS = 0x0547;
/** Bits of the status register that are cleared by writing ones. */
const STATUS_BITS = 0xf900;

let server: ScriptedDevice;

afterEach(() => server.close());

/** A config space as a device has one: read-only fields, command, status that is cleared by ones. */
async function open(
  flags = 3,
): Promise<{ config: ConfigSpace; device: Device; bytes: Buffer; close: () => Promise<void> }> {
  const bytes = Buffer.alloc(256);
  bytes.writeUInt16LE(0x1234, 0);
  bytes.writeUInt16LE(0x11e8, 2);
  const write = (offset: number, data: Buffer): void => {
    if (offset === COMMAND) bytes.writeUInt16LE(data.readUInt16LE(0) & COMMAND_BITS, COMMAND);
    else if (offset === STATUS) {
      bytes.writeUInt16LE(bytes.readUInt16LE(STATUS) & ~(data.readUInt16LE(0) & STATUS_BITS), STATUS);
    } else if (offset >= 0x10) data.copy(bytes, offset);
  };
  server = new ScriptedDevice({ regions: { 7: { size: 256, bytes, flags, write } } });
  const device = await connect(server.endpoint);
  server.log.length = 0;
  return { config: device.config, device, bytes, close: () => device.close() };
}

describe('the shadow', () => {
  test('is read without a round trip, as bytes, words and fields', async () => {
    const { config, close } = await open();
    expect([config.vendorId, config.deviceId, config.command]).toEqual([0x1234, 0x11e8, 0]);
    expect([config.getUInt8(1), config.getUInt16(2), config.getUInt32(0)]).toEqual([
      0x12, 0x11e8, 0x11e81234,
    ]);
    expect(server.log).toEqual([]);
    expect(() => config.getUInt32(253)).toThrow(/offset must be an integer from 0 to 252, got 253/);
    await close();
  });

  test('read methods ask the device and update the shadow', async () => {
    const { config, bytes, close } = await open();
    bytes.writeUInt16LE(0x0008, STATUS);
    expect(config.getUInt16(STATUS)).toBe(0);
    expect(await config.status()).toBe(8);
    expect(config.getUInt16(STATUS)).toBe(8);
    bytes.writeUInt32LE(0xdead_beef, 0x10);
    expect(config.getUInt32(0x10)).toBe(0);
    const values = [config.read(0x10, 1), config.read(0x10, 2), config.read(0x10, 4)];
    expect(await Promise.all(values)).toEqual([0xef, 0xbeef, 0xdead_beef]);
    expect(config.getUInt32(0x10)).toBe(0xdead_beef);
    // Aliases of what reads the shadow.
    const aliases = [config.readUInt8(0x10), config.readUInt16(0x10), config.readUInt32(0x10)];
    expect(aliases).toEqual([0xef, 0xbeef, 0xdead_beef]);
    expect(await config.read(COMMAND, 4)).toBe(0x0008_0000);
    expect(server.takeAccesses(7)).toEqual([
      'read 0x6+2',
      'read 0x10+1',
      'read 0x10+2',
      'read 0x10+4',
      'read 0x4+4',
    ]);
    await close();
  });

  test('registers that the device changes by itself are volatile', async () => {
    const { config, close } = await open();
    expect([config.isVolatile(STATUS, 2), config.isVolatile(COMMAND, 4), config.isVolatile(0x0f, 1)]).toEqual(
      [true, true, true],
    );
    expect([config.isVolatile(0, 4), config.isVolatile(COMMAND, 2), config.isVolatile(0x10, 4)]).toEqual([
      false,
      false,
      false,
    ]);
    await close();
  });

  test('a write goes through and is read back: read-only bits stay what they are', async () => {
    const { config, close } = await open();
    await config.writeUInt16(COMMAND, 0xffff);
    expect(config.command).toBe(COMMAND_BITS);
    expect(server.takeAccesses(7)).toEqual(['write 0x4+2', 'read 0x4+2']);
    expect(server.roundTrips).toBe(5);
    await config.writeUInt32(0, 0);
    expect(config.vendorId).toBe(0x1234);
    await config.writeUInt8(0x3c, 11);
    expect(config.getUInt8(0x3c)).toBe(11);
    await close();
  });

  test('bits that are cleared by ones are seen cleared', async () => {
    const { config, bytes, close } = await open();
    bytes.writeUInt16LE(0xf910, STATUS);
    expect(await config.status()).toBe(0xf910);
    await config.writeUInt16(STATUS, 0x8100);
    expect(config.getUInt16(STATUS)).toBe(0x7810);
    await close();
  });

  test('an update changes the bits under its mask, reading first, and writes only what differs', async () => {
    const { config, bytes, close } = await open();
    bytes.writeUInt16LE(0x0101, COMMAND);
    await config.update(COMMAND, 2, 0x0006, 0xffff);
    expect(config.command).toBe(0x0107);
    expect(server.takeAccesses(7)).toEqual(['read 0x4+2', 'write 0x4+2', 'read 0x4+2']);
    await config.update(COMMAND, 2, 0x0006, 0x0006);
    expect(server.takeAccesses(7)).toEqual(['read 0x4+2']);
    await config.update(0x10, 4, 0xffffffff, 0x80000001);
    expect(config.getUInt32(0x10)).toBe(0x80000001);
    await close();
  });

  test('updates at the same time do not undo each other', async () => {
    const { config, close } = await open();
    await Promise.all([1, 2, 4, 0x40, 0x100].map((bit) => config.update(COMMAND, 2, bit, bit)));
    expect(config.command).toBe(0x147);
    await close();
  });

  test('refresh reads all again, and what was decoded is decoded again', async () => {
    const { config, bytes, close } = await open();
    expect(config.bars).toHaveLength(6);
    expect(config.header.revisionId).toBe(0);
    bytes.writeUInt8(7, 8);
    expect(config.header.revisionId).toBe(0);
    await config.refresh();
    expect(config.header.revisionId).toBe(7);
    expect(server.takeAccesses(7)).toEqual(['read 0x0+256']);
    await close();
  });

  test.each<[string, (config: ConfigSpace) => Promise<unknown>]>([
    ['an offset past the end', (c) => c.read(256, 1)],
    ['an offset past the end, of 32 bits', (c) => c.read(256, 4)],
    ['an offset that is not aligned', (c) => c.write(2, 4, 0)],
    ['a width of 8', (c) => c.read(0, 8 as 4)],
    ['a negative offset', (c) => c.update(-4, 4, 1, 1)],
    ['a value too large', (c) => c.writeUInt8(0x3c, 256)],
    ['a negative value', (c) => c.writeUInt32(0x10, -1)],
  ])('%s is refused before anything is sent', async (_, call) => {
    const { config, close } = await open();
    await expect(call(config)).rejects.toThrow(RangeError);
    expect(server.log).toEqual([]);
    await close();
  });

  test('a space that cannot be written refuses it before anything is sent', async () => {
    const { config, close } = await open(1);
    await expect(config.writeUInt8(0x3c, 1)).rejects.toThrow(/cannot be written/);
    expect(server.log).toEqual([]);
    await close();
  });
});

describe('what a write left unknown', () => {
  const READ = 9;
  const WRITE = 10;
  const BAR0 = 0x10;
  const refusal = ({ id, command }: Received): Answer => ({
    bytes: message(id, command, 0x21, 5, Buffer.alloc(0)),
    fds: [],
  });

  /** The accesses to BAR0 that `enable` makes: it reads first what the shadow does not know. */
  async function readByEnable(device: Device): Promise<string[]> {
    server.log.length = 0;
    await device.enable();
    return server.takeAccesses(7).filter((access) => access.includes('0x10'));
  }

  test('an aborted write is read again, whatever became of it', async () => {
    const { config, device, bytes, close } = await open();
    const stop = new AbortController();
    const writing = config.writeUInt32(BAR0, 0x1234, { signal: stop.signal });
    stop.abort();
    await expect(writing).rejects.toMatchObject({ name: 'AbortError' });
    await until(() => config.getUInt32(BAR0) === 0x1234);
    expect(bytes.readUInt32LE(BAR0)).toBe(0x1234);
    expect(await readByEnable(device)).toEqual([]);
    await close();
  });

  test('as long as reading fails the shadow has what was written', async () => {
    const { config, device, bytes, close } = await open();
    server.twist = (asked, answer) => (asked.command === READ ? refusal(asked) : answer);
    await expect(config.writeUInt8(BAR0, 7)).rejects.toMatchObject({ code: 'EIO', command: 'REGION_READ' });
    expect(config.getUInt8(BAR0)).toBe(7);
    await expect(config.read(BAR0, 1)).rejects.toMatchObject({ code: 'EIO' });
    // The device made something else of it.
    bytes[BAR0] = 6;
    server.twist = undefined;
    expect(config.getUInt8(BAR0)).toBe(7);
    expect(await readByEnable(device)).toEqual(['read 0x10+4']);
    expect(await readByEnable(device)).toEqual([]);
    expect(config.getUInt8(BAR0)).toBe(6);
    await close();
  });

  test('a server that refuses is asked once, and not again and again', async () => {
    const { config, close } = await open();
    server.twist = (asked, answer) => (asked.command === READ ? refusal(asked) : answer);
    await expect(config.writeUInt8(BAR0, 7)).rejects.toMatchObject({ code: 'EIO' });
    for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(server.takeAccesses(7)).toEqual(['write 0x10+1', 'read 0x10+1', 'read 0x10+4']);
    await close();
  });

  test('a refused write rejects when what there is has been read', async () => {
    const { config, device, bytes, close } = await open();
    server.twist = (asked, answer) => (asked.command === WRITE ? refusal(asked) : answer);
    await expect(config.writeUInt8(BAR0, 7)).rejects.toMatchObject({ code: 'EIO', command: 'REGION_WRITE' });
    server.twist = undefined;
    expect(config.getUInt8(BAR0)).toBe(bytes[BAR0]);
    expect(await readByEnable(device)).toEqual([]);
    await close();
  });

  test('a read that was sent before a write has not seen it', async () => {
    const { config, device, bytes, close } = await open();
    const held: Received[] = [];
    server.twist = (asked, answer) => {
      if (asked.command === READ && held.length === 0) {
        held.push(asked);
        return undefined;
      }
      return asked.command === READ ? refusal(asked) : answer;
    };
    const refreshing = config.refresh();
    await until(() => held.length === 1);
    const before = Buffer.from(bytes);
    await expect(config.writeUInt8(BAR0, 7)).rejects.toMatchObject({ code: 'EIO' });
    // It is tried once more by itself.
    await until(() => server.count(READ) === 3);
    server.twist = undefined;
    server.peer.send(
      message(held[0]!.id, READ, 1, 0, Buffer.concat([held[0]!.payload.subarray(0, 16), before])),
    );
    await refreshing;
    expect(await readByEnable(device)).toEqual(['read 0x10+4']);
    expect(config.getUInt8(BAR0)).toBe(7);
    await close();
  });

  test('a reset that is aborted leaves nothing of what was before', async () => {
    const { config, device, bytes, close } = await open();
    await config.writeUInt16(COMMAND, 7);
    const RESET = 13;
    server.twist = (asked, answer) => {
      if (asked.command === RESET) bytes.writeUInt16LE(0, COMMAND);
      return asked.command === RESET ? undefined : answer;
    };
    const stop = new AbortController();
    const resetting = device.reset({ signal: stop.signal });
    await until(() => bytes.readUInt16LE(COMMAND) === 0);
    stop.abort();
    await expect(resetting).rejects.toMatchObject({ name: 'AbortError' });
    expect(await config.read(COMMAND, 2)).toBe(0);
    expect(config.command).toBe(0);
    await close();
  });
});
