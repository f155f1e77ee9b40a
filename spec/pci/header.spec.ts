import { describe, expect, test } from '@jest/globals';
import { configReader, decodeHeader, PciCommand, PciHeaderType, PciStatus } from '../../lib/pci/index.js';
import { EDU, NVME, reader } from './config-bytes.js';

describe('decodeHeader', () => {
  test('reads every register of a type 0 header', () => {
    const header = decodeHeader(
      reader(256, {
        0x00: '5a10 3412 0704 9002 a5 02 08 01 10 40 80 8f',
        0x10: '01c00000 08000090 0c0000a0 02000000 00000000 00000000',
        0x28: '78563412 f41a 0100 010000f0 dc',
        0x3c: '0b 02 18 28',
      }),
    );
    expect(header).toEqual({
      vendorId: 0x105a,
      deviceId: 0x1234,
      command: PciCommand.IO | PciCommand.MEMORY | PciCommand.BUS_MASTER | PciCommand.INTX_DISABLE,
      status: PciStatus.CAPABILITIES_LIST | PciStatus.FAST_BACK_TO_BACK | 0x0200,
      revisionId: 0xa5,
      classCode: { base: 1, sub: 8, progIf: 2, name: 'Non-volatile memory controller (NVMe)' },
      cacheLineSize: 16,
      latencyTimer: 64,
      headerType: PciHeaderType.DEVICE,
      multifunction: true,
      bist: 0x8f,
      bars: [
        { index: 0, kind: 'io', prefetchable: false, address: 0xc000n },
        { index: 1, kind: 'memory32', prefetchable: true, address: 0x9000_0000n },
        { index: 2, kind: 'memory64', prefetchable: true, address: 0x2_a000_0000n },
        { index: 4, kind: 'memory32', prefetchable: false, address: 0n },
        { index: 5, kind: 'memory32', prefetchable: false, address: 0n },
      ],
      cardbusCisPointer: 0x12345678,
      subsystemVendorId: 0x1af4,
      subsystemId: 1,
      expansionRomAddress: 0xf0000001,
      capabilitiesPointer: 0xdc,
      interruptLine: 11,
      interruptPin: 2,
      minGrant: 0x18,
      maxLatency: 0x28,
      bridge: null,
      problems: [],
    });
  });

  test('knows devices that servers offer', () => {
    expect(decodeHeader(configReader(EDU))).toMatchObject({
      vendorId: 0x1234,
      deviceId: 0x11e8,
      revisionId: 0x10,
      subsystemVendorId: 0x1af4,
      subsystemId: 0x1100,
      problems: [],
    });
    expect(decodeHeader(configReader(NVME))).toMatchObject({
      vendorId: 0x4e58,
      classCode: { name: 'Non-volatile memory controller (NVMe)' },
      problems: [],
    });
  });

  test('recognises a bridge, whose registers stand elsewhere', () => {
    const header = decodeHeader(
      reader(256, {
        0x00: '3412 7856',
        0x0a: '04 06',
        0x0e: '01',
        0x10: '00000090 00000000 01 02 05',
        0x28: 'ffffffff ffffffff',
        0x38: '010000e0 00 01 ff ff',
      }),
    );
    expect(header).toMatchObject({
      headerType: PciHeaderType.BRIDGE,
      classCode: { name: 'PCI-to-PCI bridge' },
      bridge: { primary: 1, secondary: 2, subordinate: 5 },
      expansionRomAddress: 0xe000_0001,
      cardbusCisPointer: 0,
      subsystemId: 0,
      minGrant: 0,
      problems: [],
    });
    expect(header.bars.map(({ index }) => index)).toEqual([0, 1]);
  });

  test('a pointer to capabilities counts only when the status register says that there are any', () => {
    expect(decodeHeader(reader(256, { 0x34: '40' })).capabilitiesPointer).toBe(0);
  });

  test('a CardBus bridge has its pointer at 0x14 and no BARs that are decoded', () => {
    const header = decodeHeader(reader(256, { 0x06: '1000', 0x0e: '02', 0x14: 'a0', 0x34: '40' }));
    expect(header).toMatchObject({ capabilitiesPointer: 0xa0, bars: [], problems: [] });
  });

  test.each([
    ['an absent device', reader(256, { 0x00: 'ffffffff' }), /no device answers/],
    ['an undefined header type', reader(256, { 0x0e: '07' }), /header type 0x7/],
    ['a reserved interrupt pin', reader(256, { 0x3d: '05' }), /interrupt pin 5/],
    ['a space that is too short', reader(16, { 0x00: '34127856' }), /16 bytes/],
  ])('%s is a problem, not an error', (_, config, problem) => {
    expect(decodeHeader(config).problems).toEqual([expect.stringMatching(problem)]);
  });

  test('what a short space does not have is 0', () => {
    expect(decodeHeader(reader(3, { 0x00: '341278' }))).toMatchObject({
      vendorId: 0x1234,
      deviceId: 0,
      subsystemId: 0,
      capabilitiesPointer: 0,
    });
  });

  test('sees later changes: the bytes are not copied', () => {
    const bytes = Buffer.from(EDU);
    const config = configReader(bytes);
    bytes.writeUInt16LE(PciCommand.MEMORY, 0x04);
    expect(decodeHeader(config).command).toBe(PciCommand.MEMORY);
  });
});

// Errors of Node's own are not of the test's realm, so instanceof says nothing.
const outOfRange = expect.objectContaining({ name: 'RangeError' });

describe('configReader', () => {
  test('is little-endian and respects a view on a larger buffer', () => {
    const config = configReader(Buffer.from('ff01020304ff', 'hex').subarray(1, 5));
    expect([config.size, config.readUInt8(3), config.readUInt16(0), config.readUInt32(0)]).toEqual([
      4, 4, 0x0201, 0x04030201,
    ]);
  });

  test('refuses what lies outside', () => {
    const config = configReader(Buffer.alloc(4));
    expect(() => config.readUInt8(4)).toThrow(outOfRange);
    expect(() => config.readUInt16(3)).toThrow(outOfRange);
    expect(() => config.readUInt32(-1)).toThrow(outOfRange);
  });
});
