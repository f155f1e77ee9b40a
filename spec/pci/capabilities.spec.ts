import { describe, expect, test } from '@jest/globals';
import {
  capabilityName,
  configReader,
  decodeCapabilities,
  findCapability,
  type Capability,
} from '../../lib/pci/index.js';
import { EDU, LIBVFIO_USER_LSPCI_SAMPLE, NVME, reader, withCapabilities } from './config-bytes.js';

interface Registers {
  device?: unknown;
  link?: unknown;
}

describe('a sound list', () => {
  test("is decoded in its order: libvfio-user's lspci sample", () => {
    const { capabilities, problems } = decodeCapabilities(configReader(LIBVFIO_USER_LSPCI_SAMPLE));
    expect(problems).toEqual([]);
    // What the registers of PCI Express say is in express-capability.spec.ts.
    const shown = capabilities.map(
      ({ device: _device, link: _link, ...rest }: Capability & Registers) => rest,
    );
    expect(shown).toEqual([
      {
        id: 0x01,
        name: 'Power Management',
        offset: 0x40,
        kind: 'power-management',
        version: 0,
        powerState: 0,
        noSoftReset: true,
        d1Support: false,
        d2Support: false,
        pmeClock: false,
        deviceSpecificInit: false,
        auxCurrentMilliamperes: 0,
        pmeSupport: 0,
        pmeEnabled: false,
        pmeStatus: false,
        dataSelect: 0,
        dataScale: 0,
        controlOffset: 0x44,
      },
      {
        id: 0x09,
        name: 'Vendor Specific',
        offset: 0x48,
        kind: 'vendor-specific',
        length: 16,
        bytes: new Uint8Array(Buffer.from('abcdefgh\0\0\0\0\0')),
      },
      {
        id: 0x10,
        name: 'PCI Express',
        offset: 0x58,
        kind: 'express',
        version: 0,
        deviceType: 0,
        deviceTypeName: 'Endpoint',
        slotImplemented: false,
        interruptMessageNumber: 0,
        flitModeSupported: false,
        maxPayloadSupported: 128,
        maxPayload: 128,
        maxReadRequest: 128,
        functionLevelReset: true,
        transactionsPending: false,
        linkCapabilities: { speedCode: 0, speed: null, width: 0 },
        linkStatus: { speedCode: 0, speed: null, width: 0 },
        slot: null,
        root: null,
        device2: null,
        link2: null,
      },
    ]);
  });

  test('MSI-X and PCI Express of an NVMe controller', () => {
    const { capabilities, problems } = decodeCapabilities(configReader(NVME));
    expect(problems).toEqual([]);
    expect(findCapability(capabilities, 'msix')).toEqual({
      id: 0x11,
      name: 'MSI-X',
      offset: 0x4c,
      kind: 'msix',
      enabled: true,
      functionMask: false,
      tableSize: 512,
      table: { bir: 4, offset: 0 },
      pba: { bir: 5, offset: 0 },
      controlOffset: 0x4e,
    });
    expect(findCapability(capabilities, 'express')).toMatchObject({
      version: 2,
      maxPayloadSupported: 512,
      maxPayload: 256,
      maxReadRequest: 512,
      functionLevelReset: true,
      linkCapabilities: { speedCode: 1, speed: 2.5, width: 4 },
      linkStatus: { speedCode: 3, speed: 8, width: 4 },
    });
    expect(findCapability(capabilities, 'msi')).toBeUndefined();
  });

  test('MSI with a 64-bit address', () => {
    const { capabilities } = decodeCapabilities(configReader(EDU));
    expect(findCapability(capabilities, 'msi')).toEqual({
      id: 0x05,
      name: 'MSI',
      offset: 0x40,
      kind: 'msi',
      enabled: true,
      vectorsCapable: 1,
      vectorsEnabled: 1,
      is64Bit: true,
      maskable: false,
      address: 0x1_fefe_e000n,
      data: 0x4021,
      offsets: { control: 0x42, address: 0x44, addressHigh: 0x48, data: 0x4c, mask: null, pending: null },
    });
  });

  test.each([
    ['32 bits', '0000', { addressHigh: null, data: 0x48, mask: null, pending: null }],
    ['32 bits, maskable', '0001', { addressHigh: null, data: 0x48, mask: 0x4c, pending: 0x50 }],
    ['64 bits', '8000', { addressHigh: 0x48, data: 0x4c, mask: null, pending: null }],
    ['64 bits, maskable', '8001', { addressHigh: 0x48, data: 0x4c, mask: 0x50, pending: 0x54 }],
  ])('the registers of MSI with %s', (_, control, offsets) => {
    const { capabilities } = decodeCapabilities(withCapabilities('40', { 0x40: `0500 ${control}` }));
    expect(findCapability(capabilities, 'msi')?.offsets).toMatchObject(offsets);
  });

  test('MSI counts its vectors in powers of two', () => {
    const { capabilities } = decodeCapabilities(withCapabilities('40', { 0x40: '0500 2a00' }));
    expect(findCapability(capabilities, 'msi')).toMatchObject({ vectorsCapable: 32, vectorsEnabled: 4 });
  });

  test('MSI-X: masked function, offsets without the BAR index', () => {
    const { capabilities } = decodeCapabilities(
      withCapabilities('40', { 0x40: '1100 0040 02200000 fa3f0000' }),
    );
    expect(findCapability(capabilities, 'msix')).toMatchObject({
      enabled: false,
      functionMask: true,
      tableSize: 1,
      table: { bir: 2, offset: 0x2000 },
      pba: { bir: 2, offset: 0x3ff8 },
    });
  });

  test('power management: D3hot, PME', () => {
    const { capabilities } = decodeCapabilities(withCapabilities('40', { 0x40: '0100 03fe 0381' }));
    expect(findCapability(capabilities, 'power-management')).toMatchObject({
      version: 3,
      powerState: 3,
      noSoftReset: false,
      d1Support: true,
      d2Support: true,
      pmeSupport: 0b11111,
      pmeEnabled: true,
      pmeStatus: true,
    });
  });

  test('MSI: the masked and the pending vectors, where there are such', () => {
    const rows = { 0x40: '0500 8001 00e0fefe 01000000 21400000 fe000000 02000080' };
    const { capabilities } = decodeCapabilities(withCapabilities('40', rows));
    expect(findCapability(capabilities, 'msi')).toMatchObject({ maskBits: 0xfe, pendingBits: 0x8000_0002 });
    const plain = decodeCapabilities(withCapabilities('40', { 0x40: '0500 8000' })).capabilities;
    expect(findCapability(plain, 'msi')).not.toHaveProperty('maskBits');
  });

  test('power management: clock, initialization, current and data', () => {
    const { capabilities } = decodeCapabilities(withCapabilities('40', { 0x40: '0100 eb01 0054' }));
    expect(findCapability(capabilities, 'power-management')).toMatchObject({
      version: 3,
      pmeClock: true,
      deviceSpecificInit: true,
      auxCurrentMilliamperes: 375,
      dataSelect: 10,
      dataScale: 2,
    });
  });

  test("a bridge's subsystem", () => {
    const { capabilities } = decodeCapabilities(withCapabilities('40', { 0x40: '0d00 0000 f41a 3412' }));
    expect(findCapability(capabilities, 'bridge-subsystem-id')).toEqual({
      id: 0x0d,
      name: 'Bridge Subsystem ID',
      offset: 0x40,
      kind: 'bridge-subsystem-id',
      subsystemVendorId: 0x1af4,
      subsystemId: 0x1234,
    });
  });

  test('an integrated endpoint has no link', () => {
    const { capabilities, problems } = decodeCapabilities(withCapabilities('f4', { 0xf4: '1000 9200' }));
    expect(findCapability(capabilities, 'express')).toMatchObject({
      deviceTypeName: 'Root complex integrated endpoint',
      linkStatus: null,
      linkCapabilities: null,
    });
    expect(problems).toEqual([]);
  });

  test('others have a name and an offset', () => {
    const { capabilities, problems } = decodeCapabilities(
      withCapabilities('fc', { 0xfc: '1350', 0x50: '1460', 0x60: '7e00' }),
    );
    expect(capabilities).toEqual([
      { id: 0x13, name: 'Advanced Features', offset: 0xfc, kind: 'other' },
      { id: 0x14, name: 'Enhanced Allocation', offset: 0x50, kind: 'other' },
      { id: 0x7e, name: 'Capability 0x7e', offset: 0x60, kind: 'other' },
    ]);
    expect(problems).toEqual([]);
    expect(capabilityName(0x07)).toBe('PCI-X');
  });

  test('nothing without the status bit', () => {
    const config = reader(256, { 0x34: '40', 0x40: '0100' });
    expect(decodeCapabilities(config)).toEqual({ capabilities: [], problems: [] });
  });

  test('as many as there can be: 48', () => {
    const rows: Record<number, string> = {};
    for (let offset = 0x40; offset < 0x100; offset += 4) {
      rows[offset] = `00${((offset + 4) & 0xff).toString(16).padStart(2, '0')}`;
    }
    const { capabilities, problems } = decodeCapabilities(withCapabilities('40', rows));
    expect(capabilities).toHaveLength(48);
    expect(problems).toEqual([]);
  });
});

describe('a malformed list ends where it stops making sense', () => {
  test.each([
    [
      'a first pointer into the header',
      withCapabilities('3c', {}),
      0,
      /first pointer \(0x3c\) leads below 0x40/,
    ],
    ['a first pointer of reserved bits', withCapabilities('04', {}), 0, /leads below 0x40/],
    [
      'a pointer into the header',
      withCapabilities('40', { 0x40: '0104' }),
      1,
      /pointer of 0x40 \(0x4\) leads below/,
    ],
    ['a capability that points at itself', withCapabilities('40', { 0x40: '0340' }), 1, /leads back/],
    ['a longer loop', withCapabilities('40', { 0x40: '0350', 0x50: '0460', 0x60: '0340' }), 3, /leads back/],
    ['all ones', withCapabilities('40', { 0x40: '0350', 0x50: 'ffff' }), 1, /no header at 0x50/],
    ['a pointer past a short space', reader(0x60, { 6: '1000', 0x34: '60' }), 0, /past the end at 0x60/],
  ])('%s', (_, config, count, problem) => {
    const { capabilities, problems } = decodeCapabilities(config);
    expect(capabilities).toHaveLength(count);
    expect(problems).toEqual([expect.stringMatching(problem)]);
  });

  test('reserved bits of a pointer are named and ignored', () => {
    const { capabilities, problems } = decodeCapabilities(
      withCapabilities('43', { 0x40: '0351', 0x50: '0400' }),
    );
    expect(capabilities.map(({ offset }) => offset)).toEqual([0x40, 0x50]);
    expect(problems).toEqual([
      expect.stringMatching(/first pointer \(0x43\) has reserved bits/),
      expect.stringMatching(/pointer of 0x40 \(0x51\) has reserved bits/),
    ]);
  });

  test('a loop that only its reserved bits hide is seen', () => {
    const { capabilities } = decodeCapabilities(withCapabilities('40', { 0x40: '0341' }));
    expect(capabilities).toHaveLength(1);
  });
});

describe('a malformed capability', () => {
  test.each([
    ['power management', 'fc', '0100 0300', /Power Management at 0xfc: its 8 bytes/],
    ['MSI', 'f4', '0500 8001', /MSI at 0xf4: its 24 bytes/],
    ['MSI-X', 'f8', '1100 0000', /MSI-X at 0xf8: its 12 bytes/],
    ['PCI Express', 'f8', '1000 0200', /PCI Express at 0xf8: its 12 bytes/],
  ])('%s that reaches past the end keeps its name only', (_, pointer, row, problem) => {
    const offset = parseInt(pointer, 16);
    const { capabilities, problems } = decodeCapabilities(withCapabilities(pointer, { [offset]: row }));
    expect(capabilities).toEqual([expect.objectContaining({ offset, kind: 'other' })]);
    expect(problems).toEqual([expect.stringMatching(problem)]);
  });

  test('the extended space is no place for it', () => {
    const bytes = Buffer.alloc(4096, 0);
    bytes[0x06] = 0x10;
    bytes[0x34] = 0xf8;
    bytes[0xf8] = 0x11;
    const { capabilities, problems } = decodeCapabilities(configReader(bytes));
    expect(capabilities[0]?.kind).toBe('other');
    expect(problems).toHaveLength(1);
  });

  test('PCI Express without room for link registers loses them only', () => {
    const { capabilities, problems } = decodeCapabilities(withCapabilities('f0', { 0xf0: '1000 0200' }));
    expect(findCapability(capabilities, 'express')).toMatchObject({
      linkCapabilities: null,
      linkStatus: null,
    });
    expect(problems).toHaveLength(1);
  });

  test('vendor bytes are clipped to the space', () => {
    const { capabilities, problems } = decodeCapabilities(
      withCapabilities('f8', { 0xf8: '0900 ff 0102030405' }),
    );
    expect(findCapability(capabilities, 'vendor-specific')).toMatchObject({
      length: 255,
      bytes: Uint8Array.of(1, 2, 3, 4, 5),
    });
    expect(problems).toEqual([expect.stringMatching(/its 255 bytes reach past the end/)]);
  });

  test('a vendor length below its header is named', () => {
    const { capabilities, problems } = decodeCapabilities(withCapabilities('40', { 0x40: '0900 02 ff' }));
    expect(findCapability(capabilities, 'vendor-specific')?.bytes).toEqual(new Uint8Array());
    expect(problems).toEqual([expect.stringMatching(/length 2 is less than its header/)]);
  });

  test('MSI vector counts that are reserved are held at 32', () => {
    const { capabilities, problems } = decodeCapabilities(withCapabilities('40', { 0x40: '0500 7e00' }));
    expect(findCapability(capabilities, 'msi')).toMatchObject({ vectorsCapable: 32, vectorsEnabled: 32 });
    expect(problems).toHaveLength(2);
  });

  test('MSI-X in a BAR that does not exist is named', () => {
    const { capabilities, problems } = decodeCapabilities(
      withCapabilities('40', { 0x40: '1100 0000 06000000 07000000' }),
    );
    expect(findCapability(capabilities, 'msix')).toMatchObject({ table: { bir: 6 }, pba: { bir: 7 } });
    expect(problems).toHaveLength(2);
  });
});
