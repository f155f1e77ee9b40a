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

  test('a bridge has its subsystem in a capability', () => {
    const rows = { 0x06: '1000', 0x0e: '01', 0x34: '50', 0x50: '0160', 0x60: '0d00 0000 f41a 3412' };
    expect(decodeHeader(reader(256, rows))).toMatchObject({ subsystemVendorId: 0x1af4, subsystemId: 0x1234 });
    // Where the status register says that there are no capabilities there is none.
    expect(decodeHeader(reader(256, { ...rows, 0x06: '0000' }))).toMatchObject({ subsystemId: 0 });
    const cut = { 0x06: '1000', 0x0e: '01', 0x34: 'fc', 0xfc: '0d00 0000' };
    expect(decodeHeader(reader(256, cut))).toMatchObject({ subsystemVendorId: 0, subsystemId: 0 });
    // In a device the capability means nothing.
    expect(decodeHeader(reader(256, { ...rows, 0x0e: '00' }))).toMatchObject({ subsystemId: 0 });
  });

  test('a bridge passes on what its windows say', () => {
    const header = decodeHeader(
      reader(256, {
        0x0e: '01',
        0x18: '05 06 07 40 f1 f1 a022 c0c6 f0c6 c1f9 f1f9 3f380000 40380000 0200 0300',
        0x3e: '1a00',
      }),
    );
    expect(header.bridge).toEqual({
      primary: 5,
      secondary: 6,
      subordinate: 7,
      secondaryLatencyTimer: 0x40,
      secondaryStatus: 0x22a0,
      control: 0x1a,
    });
    expect(header.bridgeWindows).toEqual([
      { kind: 'io', base: 0x2_f000n, limit: 0x3_ffffn },
      { kind: 'memory', base: 0xc6c0_0000n, limit: 0xc6ff_ffffn },
      { kind: 'prefetchable', base: 0x383f_f9c0_0000n, limit: 0x3840_f9ff_ffffn },
    ]);
  });

  test('a window of a bridge that counts in 16 or 32 bits has no upper half', () => {
    const header = decodeHeader(
      reader(256, { 0x0e: '01', 0x1c: '20 10', 0x24: '0080 f08f ffffffff ffffffff ffff ffff' }),
    );
    expect(header.bridgeWindows).toEqual([
      // Closed: it ends before it begins.
      { kind: 'io', base: 0x2000n, limit: 0x1fffn },
      { kind: 'memory', base: 0n, limit: 0xf_ffffn },
      { kind: 'prefetchable', base: 0x8000_0000n, limit: 0x8fff_ffffn },
    ]);
  });

  test('a CardBus bridge has one BAR, buses, windows, and its pointer and subsystem in places of its own', () => {
    const header = decodeHeader(
      reader(256, {
        0x06: '1000',
        0x0e: '02',
        0x10: '00f0fffe a0000240 00 05 06 b0 000000c0 00f0ffc3 000000c8 00f0ffcb 0030 0000 fc30 0000 0134 0100 fc34 0100',
        0x3e: '0001',
        0x40: 'f41a 3412',
      }),
    );
    expect(header).toMatchObject({
      capabilitiesPointer: 0xa0,
      bars: [{ index: 0, kind: 'memory32', prefetchable: false, address: 0xfeff_f000n }],
      subsystemVendorId: 0x1af4,
      subsystemId: 0x1234,
      bridge: {
        primary: 0,
        secondary: 5,
        subordinate: 6,
        secondaryLatencyTimer: 0xb0,
        secondaryStatus: 0x4002,
      },
      problems: [],
    });
    expect(header.bridgeWindows).toEqual([
      { kind: 'prefetchable', base: 0xc000_0000n, limit: 0xc3ff_ffffn },
      { kind: 'memory', base: 0xc800_0000n, limit: 0xcbff_ffffn },
      { kind: 'io', base: 0x3000n, limit: 0x30ffn },
      { kind: 'io', base: 0x1_3400n, limit: 0x1_34ffn },
    ]);
  });

  test('a header of a type that is not defined has nothing but what all have', () => {
    const header = decodeHeader(
      reader(256, {
        0x00: '34127856',
        0x06: '1000',
        0x0e: '7f',
        0x10: '000000fe',
        0x2c: 'f41a3412',
      }),
    );
    expect(header).toMatchObject({
      vendorId: 0x1234,
      bars: [],
      capabilitiesPointer: 0,
      subsystemVendorId: 0,
      bridge: null,
      problems: [expect.stringMatching(/header type 0x7f/)],
    });
    expect(header.bridgeWindows).toBeUndefined();
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
    expect([config.size, config.getUInt8(3), config.getUInt16(0), config.getUInt32(0)]).toEqual([
      4, 4, 0x0201, 0x04030201,
    ]);
  });

  test('refuses what lies outside', () => {
    const config = configReader(Buffer.alloc(4));
    expect(() => config.getUInt8(4)).toThrow(outOfRange);
    expect(() => config.getUInt16(3)).toThrow(outOfRange);
    expect(() => config.getUInt32(-1)).toThrow(outOfRange);
  });
});
