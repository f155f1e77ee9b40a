/** What can be told of the kernel's VFIO without a device of it; spec/silicon runs on devices (`npm run test:vm`). */
import { describe, expect, test } from '@jest/globals';
import { existsSync } from 'node:fs';
import { connect } from '../../lib/index.js';
import { native, type NativeMapping } from '../../lib/native.js';
import { ProtocolError } from '../../lib/errors.js';
import { decodeIommuInfo } from '../../lib/vfio/iommu-info.js';
import { pciAddress } from '../../lib/vfio/pci-address.js';

const ENOTTY = 25;
const EBADF = 9;
const NO_FD = 0x7fff_ffff;

describe('an address', () => {
  test.each([
    ['0000:01:00.0', '0000:01:00.0'],
    ['01:00.0', '0000:01:00.0'],
    ['10000:E1:1F.7', '10000:e1:1f.7'],
  ])('%s', (text, whole) => expect(pciAddress('it', text)).toBe(whole));

  test.each(['', '1:00.0', '0000:01:20.0', '0000:01:00.8', '../x', '0000:01:00.0\n'])(
    'not %j',
    async (text) => {
      expect(() => pciAddress('it', text)).toThrow(/^it must be a PCI address such as 0000:01:00\.0, got /);
      await expect(connect(`pci:${text}`)).rejects.toThrow(TypeError);
      await expect(connect({ pci: text })).rejects.toThrow(TypeError);
    },
  );

  test('of no device is refused by name', async () => {
    const nobody = 'ffff:ff:1f.7';
    expect(existsSync(`/sys/bus/pci/devices/${nobody}`)).toBe(false);
    await expect(connect({ pci: nobody })).rejects.toMatchObject({
      code: 'ENODEV',
      message: expect.stringMatching(/^there is no PCI device ffff:ff:1f\.7/),
    });
  });

  test('cannot come back', async () => {
    await expect(connect({ pci: '0000:01:00.0' }, { reconnect: true })).rejects.toThrow(/reconnect needs/);
  });
});

describe('IOMMU_GET_INFO', () => {
  /** Page sizes; a capability with the ranges, and one with how many mappings are left. */
  function answer(): Buffer {
    const bytes = Buffer.alloc(24 + 16 + 32 + 12);
    bytes.writeUInt32LE(bytes.length, 0);
    bytes.writeUInt32LE(3, 4);
    bytes.writeBigUInt64LE(0x4020_1000n, 8);
    bytes.writeUInt32LE(24, 16);
    bytes.writeUInt16LE(1, 24);
    bytes.writeUInt32LE(72, 28);
    bytes.writeUInt32LE(2, 32);
    bytes.writeBigUInt64LE(0xfedf_ffffn, 48);
    bytes.writeBigUInt64LE(0xfef0_0000n, 56);
    bytes.writeBigUInt64LE(0x7f_ffff_ffffn, 64);
    bytes.writeUInt16LE(3, 72);
    bytes.writeUInt32LE(65_535, 80);
    return bytes;
  }

  test('says what the IOMMU can do', () => {
    expect(decodeIommuInfo(answer())).toEqual({
      pageSizes: 0x4020_1000n,
      ranges: [
        { first: 0n, last: 0xfedf_ffffn },
        { first: 0xfef0_0000n, last: 0x7f_ffff_ffffn },
      ],
      mappingsLeft: 65_535,
    });
  });

  test('may say nothing', () => {
    expect(decodeIommuInfo(Buffer.alloc(24))).toEqual({
      pageSizes: 4096n,
      ranges: undefined,
      mappingsLeft: undefined,
    });
  });

  test.each([
    ['a capability that lies outside', 16, 1000],
    ['one within the structure', 16, 8],
    ['a chain in a circle', 28, 24],
    ['more ranges than there are bytes', 32, 0xffff_ffff],
  ])('%s is refused', (_what, at, value) => {
    const bytes = answer();
    bytes.writeUInt32LE(value, at);
    expect(() => decodeIommuInfo(bytes)).toThrow(ProtocolError);
  });
});

describe('the addon', () => {
  const structure = Buffer.alloc(64);

  test('answers -errno for what is no fd of VFIO', () => {
    const event = native().eventfd(0);
    try {
      for (const [fd, errno] of [
        [event, ENOTTY],
        [NO_FD, EBADF],
      ] as const) {
        expect(native().vfioApiVersion(fd)).toBe(-errno);
        expect(native().vfioCheckExtension(fd, 3)).toBe(-errno);
        expect(native().vfioGroupStatus(fd)).toBe(-errno);
        expect(native().vfioSetContainer(fd, event)).toBe(-errno);
        expect(native().vfioSetIommu(fd, 3)).toBe(-errno);
        expect(native().vfioIommuInfo(fd, structure)).toBe(-errno);
        expect(native().vfioOpenDevice(fd, '0000:01:00.0')).toBe(-errno);
        expect(native().vfioDeviceInfo(fd, structure)).toBe(-errno);
        expect(native().vfioRegionInfo(fd, 0, structure)).toBe(-errno);
        expect(native().vfioIrqInfo(fd, 0, structure)).toBe(-errno);
        expect(native().vfioSetIrqs(fd, 0, 0, 2, 0x20, [event, -1])).toBe(-errno);
        expect(native().vfioReset(fd)).toBe(-errno);
        expect(native().vfioUnmapDma(fd, 0n, 4096)).toBe(-errno);
      }
    } finally {
      native().closeFd(event);
    }
  });

  test('refuses arguments that make no sense', () => {
    expect(() => native().vfioDeviceInfo(0, Buffer.alloc(8))).toThrow(/^into is too short/);
    expect(() => native().vfioRegionInfo(0, -1, structure)).toThrow(/^index is out of range/);
    expect(() => native().vfioIrqInfo(0, 0, [] as never)).toThrow(/^into /);
    expect(() => native().vfioSetIrqs(0, 0, 0, 3, 0x20, [1])).toThrow(/^fds is not as many/);
    expect(() => native().vfioSetIrqs(0, 0, 0, 1, 0x20, [-2])).toThrow(/^fd is out of range/);
    expect(() => native().vfioSetIrqs(0, 0, 0, 1, 0x20, ['x' as never])).toThrow(/^fd /);
    expect(() => native().vfioSetIrqs(0, 0, 0, 1, 0x1000, null)).toThrow(/^action is out of range/);
    expect(() => native().vfioUnmapDma(0, 1n << 64n, 4096)).toThrow(/^iova is not of 64 bits/);
    expect(() => native().vfioUnmapDma(0, 4096 as never, 4096)).toThrow(/^iova /);
    expect(() => native().vfioOpenDevice(0, 1 as never)).toThrow(/^name /);
  });

  test('maps no memory that is closed', () => {
    const fd = native().memfd('spec', 4096, false);
    const mapping = native().map(fd, 0, 4096, true, true) as NativeMapping;
    expect(mapping.mapForDma(fd, 0n, 3)).toBe(-ENOTTY);
    expect(() => mapping.mapForDma(fd, -1n, 3)).toThrow(/^iova is not of 64 bits/);
    mapping.close();
    expect(mapping.mapForDma(fd, 0n, 3)).toBe(-EBADF);
    native().closeFd(fd);
  });
});
