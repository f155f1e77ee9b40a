/** What the `quirks` option keeps from going over the wire. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { connect, OMISSIBLE_COMMANDS, UnsupportedError, type Device, type Quirks } from '../../lib/index.js';
import { Command } from '../../lib/protocol/index.js';
import { ScriptedDevice, type ScriptedDeviceOptions } from '../support/scripted-device.js';

const CONFIG = 7;
let server: ScriptedDevice | undefined;
let device: Device | undefined;

afterEach(async () => {
  await device?.close();
  server?.close();
  device = undefined;
});

async function open(quirks: Quirks, options: ScriptedDeviceOptions = {}): Promise<[Device, ScriptedDevice]> {
  server = new ScriptedDevice({
    regions: {
      0: { size: 4096, bytes: Buffer.from(Array.from({ length: 4096 }, (_, i) => i & 0xff)) },
      [CONFIG]: { size: 256, bytes: Buffer.alloc(256, 0x5a) },
    },
    irqs: [{ count: 1 }],
    ...options,
  });
  device = await connect(server.endpoint, { quirks });
  return [device, server];
}

describe('accessWidths', () => {
  test('only 4 bytes: longer accesses are cut, in order', async () => {
    const [{ regions }, peer] = await open({ accessWidths: { bar0: [4] } });
    peer.log.length = 0;
    expect(await regions[0]!.read(8, 12)).toEqual(
      Buffer.from([8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
    );
    expect(peer.takeAccesses(0)).toEqual(['read 0x8+4', 'read 0xc+4', 'read 0x10+4']);
    expect(await regions[0]!.readUInt64(8)).toBe(0x0f0e0d0c0b0a0908n);
    expect(peer.takeAccesses(0)).toEqual(['read 0x8+4', 'read 0xc+4']);
    await regions[0]!.writeUInt64(0, 0x1122334455667788n);
    expect(peer.takeAccesses(0)).toEqual(['write 0x0+4', 'write 0x4+4']);
    expect(peer.bytes(0).readBigUInt64LE(0)).toBe(0x1122334455667788n);
    await regions[0]!.readUInt32(4);
    regions[0]!.post(0, Buffer.alloc(8, 1));
    await regions[0]!.readUInt32(0);
    expect(peer.takeAccesses(0)).toEqual(['read 0x4+4', 'write 0x0+4', 'write 0x4+4', 'read 0x0+4']);
  });

  test('what cannot be cut is a RangeError, and nothing is sent', async () => {
    const [{ regions }, peer] = await open({ accessWidths: { '0': [4, 8] } });
    peer.log.length = 0;
    await expect(regions[0]!.readUInt8(0)).rejects.toThrow(/region 0 is accessed in 4, 8 bytes/);
    await expect(regions[0]!.read(2, 4)).rejects.toThrow(RangeError);
    await expect(regions[0]!.writeUInt16(0, 1)).rejects.toThrow(RangeError);
    expect(() => regions[0]!.readUInt16Sync(0)).toThrow(RangeError);
    expect(() => regions[0]!.post(0, Buffer.alloc(3))).toThrow(RangeError);
    expect(peer.log).toEqual([]);
    await regions[0]!.read(4, 20);
    expect(peer.takeAccesses(0)).toEqual(['read 0x4+4', 'read 0x8+8', 'read 0x10+8']);
  });

  test('other regions are not touched', async () => {
    const [{ config }, peer] = await open({ accessWidths: { bar0: [1] } });
    expect(peer.takeAccesses(CONFIG)).toEqual(['read 0x0+256']);
    expect(config.vendorId).toBe(0x5a5a);
  });

  test('one byte of config space at a time', async () => {
    const [{ config }, peer] = await open({ accessWidths: { config: [1] } });
    const accesses = peer.takeAccesses(CONFIG);
    expect(accesses).toHaveLength(256);
    expect(new Set(accesses.map((one) => one.split('+')[1]))).toEqual(new Set(['1']));
    await config.writeUInt16(4, 0x0102);
    expect(peer.takeAccesses(CONFIG).filter((one) => one.startsWith('write'))).toEqual([
      'write 0x4+1',
      'write 0x5+1',
    ]);
  });

  test('config space in dwords only: narrow writes take their neighbours along, and do not clear status', async () => {
    const [{ config }, peer] = await open({ accessWidths: { config: [4] } });
    expect(peer.takeAccesses(CONFIG)).toHaveLength(64);
    await config.writeUInt16(4, 0x0007);
    const [write] = peer.log.filter(({ command }) => command === Command.REGION_WRITE);
    expect(write!.payload.subarray(16)).toEqual(Buffer.from([7, 0, 0, 0]));
    expect(peer.takeAccesses(CONFIG).sort()).toEqual(['read 0x4+4', 'write 0x4+4']);
    await config.writeUInt8(0x3c, 9);
    expect(peer.takeAccesses(CONFIG).sort()).toEqual(['read 0x3c+4', 'write 0x3c+4']);
    expect(peer.bytes(CONFIG).subarray(0x3c, 0x40)).toEqual(Buffer.from([9, 0x5a, 0x5a, 0x5a]));
    expect(config.getUInt8(0x3c)).toBe(9);
  });
});

describe('doNotSend', () => {
  test('each command is refused before anything is sent', async () => {
    const [opened, peer] = await open({ doNotSend: OMISSIBLE_COMMANDS });
    expect(peer.count(Command.DEVICE_GET_IRQ_INFO)).toBe(0);
    expect(opened.irqs.intx.count).toBe(0);
    peer.log.length = 0;
    await expect(opened.reset()).rejects.toThrow(UnsupportedError);
    await expect(opened.dma.alloc(4096)).rejects.toThrow(UnsupportedError);
    await expect(opened.region(0).ioFds()).rejects.toThrow(/DEVICE_GET_REGION_IO_FDS must not be sent/);
    await expect(opened.features.get(1, 64)).rejects.toThrow(UnsupportedError);
    expect(peer.log).toEqual([]);
    await opened.region(0).readUInt32(0);
    expect(peer.takeAccesses(0)).toEqual(['read 0x0+4']);
  });

  test('REGION_WRITE_MULTI is refused where it must not be sent', async () => {
    const scripted = { capabilities: { write_multiple: true }, regions: { 0: { size: 64 } } };
    const [opened, peer] = await open({ doNotSend: ['REGION_WRITE_MULTI'] }, scripted);
    const write = { region: 0, offset: 0, data: Buffer.alloc(4) };
    await expect(opened.writeMulti([write])).rejects.toThrow(/REGION_WRITE_MULTI must not be sent/);
    expect(peer.count(Command.REGION_WRITE_MULTI)).toBe(0);
    await opened.close();
    peer.close();
  });
});

describe('what connect has an option for as well', () => {
  test('writeChunkBytes, inFlight and twinSocket', async () => {
    const [opened, peer] = await open({ writeChunkBytes: 1024, inFlight: 1, twinSocket: false });
    const proposal = peer.log[0]!.payload.toString('utf8', 4);
    expect(proposal).not.toContain('twin_socket');
    peer.log.length = 0;
    await opened.region(0).write(0, Buffer.alloc(4096));
    expect(peer.takeAccesses(0)).toEqual([
      'write 0x0+1024',
      'write 0x400+1024',
      'write 0x800+1024',
      'write 0xc00+1024',
    ]);
  });

  test('the option goes before the quirk', async () => {
    const peer = new ScriptedDevice({ regions: { 0: { size: 4096, bytes: Buffer.alloc(4096) } } });
    const opened = await connect(peer.endpoint, { quirks: { writeChunkBytes: 1024 }, writeChunkBytes: 4096 });
    peer.log.length = 0;
    await opened.region(0).write(0, Buffer.alloc(4096));
    expect(peer.takeAccesses(0)).toEqual(['write 0x0+4096']);
    await opened.close();
    peer.close();
  });
});

describe('quirks that make no sense are refused before a connection is made', () => {
  test.each<[string, unknown]>([
    ['a list', []],
    ['null', null],
    ['an unknown name', { accessWidth: {} }],
    ['a width of 3', { accessWidths: { bar0: [3] } }],
    ['no width', { accessWidths: { bar0: [] } }],
    ['an unknown region', { accessWidths: { bar6: [4] } }],
    ['a list of widths', { accessWidths: [4] }],
    ['an unknown command', { doNotSend: ['RESET'] }],
    ['a command that a device needs', { doNotSend: ['REGION_READ'] }],
    ['one command', { doNotSend: 'DEVICE_RESET' }],
    ['an inFlight of 0', { inFlight: 0 }],
    ['a chunk in text', { writeChunkBytes: '4096' }],
    ['a twinSocket in text', { twinSocket: 'no' }],
  ])('%s', async (_what, quirks) => {
    await expect(connect('/nowhere', { quirks: quirks as Quirks })).rejects.toThrow(/quirk/);
  });
});
