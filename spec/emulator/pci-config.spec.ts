/** The emulated configuration space: BAR sizing, what can be written, capabilities. */
import { describe, expect, test } from '@jest/globals';
import { msiCapability, msixCapability, PciConfigSpace, type PciBar } from '../../lib/emulator/index.js';
import { barSizeFromMask, configReader, decodeConfigSpace, findCapability } from '../../lib/pci/index.js';

const COMMAND = 4;
const BAR = (index: number) => 0x10 + 4 * index;

function space(bars: PciBar[] = [], more: Partial<ConstructorParameters<typeof PciConfigSpace>[0]> = {}) {
  return new PciConfigSpace({ vendorId: 0x1234, deviceId: 0x5678, classCode: 0x010802, bars, ...more });
}

function read32(config: PciConfigSpace, offset: number): number {
  return Buffer.from(config.read(offset, 4)).readUInt32LE();
}

function write32(config: PciConfigSpace, offset: number, value: number): void {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  config.write(offset, bytes);
}

function sizeOf(config: PciConfigSpace, index: number): bigint {
  write32(config, BAR(index), 0xffffffff);
  write32(config, BAR(index + 1), 0xffffffff);
  return barSizeFromMask(read32(config, BAR(index)), read32(config, BAR(index + 1)));
}

describe('a BAR', () => {
  test.each([
    [{ index: 0, size: 16 }, 0xfffffff0],
    [{ index: 0, size: 4096 }, 0xfffff000],
    [{ index: 0, size: 2 ** 31 }, 0x80000000],
    [{ index: 0, size: 1 << 20, prefetchable: true }, 0xfff00008],
    [{ index: 0, size: 32, kind: 'io' as const }, 0xffffffe1],
    [{ index: 0, size: 8192, kind: 'memory64' as const, prefetchable: true }, 0xffffe00c],
  ])('answers sizing of %j with its mask', (bar, mask) => {
    const config = space([bar]);
    expect(sizeOf(config, 0)).toBe(BigInt(bar.size));
    expect(read32(config, BAR(0))).toBe(mask);
  });

  test('of 64 bits answers in two registers', () => {
    const config = space([{ index: 2, size: 2 ** 36, kind: 'memory64' }]);
    expect(sizeOf(config, 2)).toBe(2n ** 36n);
    write32(config, BAR(2), 0);
    write32(config, BAR(3), 0x50);
    expect(config.barAddress(2)).toBe(0x50_0000_0000n);
  });

  test('that is not there reads zero', () => {
    const config = space([{ index: 1, size: 16 }]);
    expect(sizeOf(config, 2)).toBe(0n);
    expect(config.barAddress(2)).toBe(0n);
    expect(config.isBarEnabled(2)).toBe(false);
  });

  test('keeps an address, without the bits below its size', () => {
    const config = space([{ index: 0, size: 1 << 20 }]);
    write32(config, BAR(0), 0xfebfffff);
    expect(read32(config, BAR(0))).toBe(0xfeb00000);
    expect(config.barAddress(0)).toBe(0xfeb00000n);
  });

  test('answers when it has an address and its space is enabled', () => {
    const config = space([
      { index: 0, size: 4096 },
      { index: 1, size: 16, kind: 'io' },
    ]);
    write32(config, COMMAND, 3);
    expect([config.isBarEnabled(0), config.isBarEnabled(1)]).toEqual([false, false]);
    write32(config, BAR(0), 0x10000);
    write32(config, BAR(1), 0x100);
    expect([config.isBarEnabled(0), config.isBarEnabled(1)]).toEqual([true, true]);
    write32(config, COMMAND, 2);
    expect([config.isBarEnabled(0), config.isBarEnabled(1)]).toEqual([true, false]);
    write32(config, BAR(0), 0xffffffff);
    expect(config.isBarEnabled(0)).toBe(false);
  });

  test.each([
    ['a size that is no power of two', [{ index: 0, size: 48 }]],
    ['too small a size', [{ index: 0, size: 8 }]],
    ['too large a size for 32 bits', [{ index: 0, size: 2 ** 32 }]],
    ['64 bits without a second register', [{ index: 5, size: 16, kind: 'memory64' as const }]],
    [
      'a register that is the upper half of another',
      [
        { index: 0, size: 16, kind: 'memory64' as const },
        { index: 1, size: 16 },
      ],
    ],
    [
      'an upper half that is another BAR',
      [
        { index: 1, size: 16 },
        { index: 0, size: 16, kind: 'memory64' as const },
      ],
    ],
    ['a register that does not exist', [{ index: 6, size: 16 }]],
  ])('cannot have %s', (_what, bars) => {
    expect(() => space(bars)).toThrow(RangeError);
  });
});

describe('the header', () => {
  const config = () =>
    space([], {
      revisionId: 0x21,
      subsystemVendorId: 0xaaaa,
      subsystemId: 0xbbbb,
      interruptPin: 2,
      capabilities: [
        msiCapability(4),
        msixCapability(17, { bir: 4, offset: 0x2000 }, { bir: 5, offset: 0x3000 }),
      ],
    });

  test('decodes to what it was made of', () => {
    const { header, problems } = decodeConfigSpace(configReader(config().read(0, 256)));
    expect(problems).toEqual([]);
    expect(header).toMatchObject({
      vendorId: 0x1234,
      deviceId: 0x5678,
      revisionId: 0x21,
      classCode: { base: 1, sub: 8, progIf: 2 },
      subsystemVendorId: 0xaaaa,
      subsystemId: 0xbbbb,
      interruptPin: 2,
    });
  });

  test('has the capabilities in order', () => {
    const { capabilities } = decodeConfigSpace(configReader(config().read(0, 256)));
    expect(capabilities.map(({ id, offset }) => [id, offset])).toEqual([
      [5, 0x40],
      [0x11, 0x50],
    ]);
    expect(findCapability(capabilities, 'msi')).toMatchObject({
      vectorsCapable: 4,
      is64Bit: true,
      enabled: false,
    });
    expect(findCapability(capabilities, 'msix')).toMatchObject({
      tableSize: 17,
      table: { bir: 4, offset: 0x2000 },
      pba: { bir: 5, offset: 0x3000 },
    });
  });

  test('can be written where software may, and is as before after a reset', () => {
    const device = config();
    const before = Buffer.from(device.read(0, 256));
    let told = 0;
    device.onWrite = () => told++;
    device.write(0, Buffer.alloc(256, 0xff));
    expect(told).toBe(1);
    const changed = [...Buffer.from(device.read(0, 256)).entries()].filter(([i, byte]) => byte !== before[i]);
    expect(changed).toEqual(
      [
        [0x04, 0x07],
        [0x05, 0x05],
        [0x0c, 0xff],
        [0x3c, 0xff],
        [0x42, 0xf5],
        ...[0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d].map((at) => [at, 0xff]),
        [0x44, 0xfc],
        [0x53, 0xc0],
      ].sort(([a], [b]) => a! - b!),
    );
    expect([device.msiEnabled, device.msixEnabled]).toEqual([true, true]);
    device.reset();
    expect(Buffer.from(device.read(0, 256))).toEqual(before);
  });

  test.each([0, 3, 64])('cannot have %i MSI vectors', (vectors) => {
    expect(() => msiCapability(vectors)).toThrow(RangeError);
  });

  test.each([0, 2049, 1.5])('cannot have %d MSI-X vectors', (vectors) => {
    expect(() => msixCapability(vectors, { bir: 0, offset: 0 }, { bir: 0, offset: 0 })).toThrow(RangeError);
  });
});
