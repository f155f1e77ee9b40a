/** What a driver wants of a device before it drives it: structures where they are said to be, features, a status that obeys. */
import { describe, expect, test } from '@jest/globals';
import { MemoryStore, PciConfigSpace, PciDevice, VirtioBlkDevice } from '../../lib/emulator/index.js';
import { connect } from '../../lib/index.js';
import { decodeVirtioCapability } from '../../lib/pci/index.js';
import { VirtioBlk, virtioFeatureNames } from '../../lib/virtio/index.js';
import { cleanup, connectedBlk, errorOf, openedBlk } from './fixture.js';

/** struct virtio_pci_cap, by hand: length, type, BAR, id, padding, offset, length, and a multiplier. */
function capability(type: number, bar: number, offset: number, length: number, multiplier?: number) {
  const body = Buffer.alloc(multiplier === undefined ? 14 : 18);
  body[0] = body.length + 2;
  body[1] = type;
  body[2] = bar;
  body.writeUInt32LE(offset, 6);
  body.writeUInt32LE(length, 10);
  if (multiplier !== undefined) body.writeUInt32LE(multiplier, 14);
  return { id: 9, body, writable: Buffer.alloc(body.length) };
}

const COMMON = capability(1, 0, 0, 0x38);
const NOTIFY = capability(2, 0, 0x100, 4, 4);

/** A device of those capabilities, with a BAR 0 of 4 KiB in which all reads as 0. */
async function deviceWith(capabilities: ReturnType<typeof capability>[], deviceId = 0x1042) {
  class Model extends PciDevice {
    constructor() {
      super(
        new PciConfigSpace({ vendorId: 0x1af4, deviceId, bars: [{ index: 0, size: 4096 }], capabilities }),
        [],
      );
      const read = (_offset: number, count: number) => Buffer.alloc(count);
      this.addRegion({ index: 0, size: 4096, handler: { read, write: () => undefined } });
    }
  }
  const device = await connect({ model: new Model() });
  cleanup(() => device.close());
  return device;
}

describe('structures', () => {
  test.each<[string, ReturnType<typeof capability>[], RegExp]>([
    ['none', [], /no common configuration structure/],
    ['no notifications', [COMMON], /no notification structure/],
    ['a BAR that is reserved', [capability(1, 6, 0, 0x38), NOTIFY], /BAR 6 is reserved/],
    ['a BAR that is not there', [capability(1, 4, 0, 0x38), NOTIFY], /no BAR 4/],
    ['beyond the BAR', [capability(1, 0, 4060, 0x38), NOTIFY], /not within BAR 0, which has 4096 bytes/],
    ['of 4 GiB', [capability(1, 0, 0xffff_fffc, 0xffff_ffff), NOTIFY], /not within BAR 0/],
    ['too short', [capability(1, 0, 0, 0x20), NOTIFY], /it has 32 bytes, and needs 56/],
    ['not aligned', [capability(1, 0, 2, 0x38), NOTIFY], /not a multiple of 4/],
    ['cut', [{ id: 9, body: Buffer.from([6, 1, 0, 0]), writable: Buffer.alloc(4) }, NOTIFY], /too short/],
  ])('%s are refused by name', async (_name, capabilities, message) => {
    const error = await errorOf(VirtioBlk.open(await deviceWith(capabilities)));
    expect(error).toMatchObject({
      code: 'ERR_VFIO_USER_UNSUPPORTED',
      message: expect.stringMatching(message),
    });
  });

  test('of several the first that can be used counts', async () => {
    const device = await deviceWith([capability(1, 7, 0, 0x38), COMMON, NOTIFY]);
    expect((await errorOf(VirtioBlk.open(device))).message).toMatch(/does not offer VERSION_1/);
  });

  test.each([
    [0x1001, /transitional virtio device/],
    [0x1041, /of virtio type 1, not 2/],
    [0x10f0, /no virtio device/],
  ])('a device of another id is none: %s', async (deviceId, message) => {
    expect((await errorOf(VirtioBlk.open(await deviceWith([COMMON, NOTIFY], deviceId)))).message).toMatch(
      message,
    );
  });

  test('a capability is decoded as it stands, or not at all', () => {
    const { body } = NOTIFY;
    const bytes = body.subarray(1);
    expect(decodeVirtioCapability({ bytes, length: 20 })).toEqual({
      type: 2,
      typeName: 'Notify',
      bar: 0,
      id: 0,
      offset: 0x100,
      length: 4,
      notifyMultiplier: 4,
    });
    for (let cut = 0; cut < bytes.length; cut++)
      expect(decodeVirtioCapability({ bytes: bytes.subarray(0, cut), length: 20 })).toBeUndefined();
    expect(decodeVirtioCapability({ bytes, length: 16 })).toBeUndefined();
  });
});

describe('features', () => {
  test('a device without VERSION_1 is refused, with what it offers', async () => {
    const { device } = await connectedBlk({ emulated: { version1: false } });
    expect(await errorOf(VirtioBlk.open(device))).toMatchObject({
      code: 'ERR_VIRTIO_DEVICE',
      message: expect.stringMatching(/VERSION_1.*SEG_MAX.*INDIRECT_DESC/),
    });
  });

  test('ACCESS_PLATFORM is taken where it is offered', async () => {
    const { disk, emulated } = await openedBlk();
    expect(emulated.driverFeatures & (1n << 33n)).toBe(1n << 33n);
    expect(disk.hasFeature(33)).toBe(true);
    const without = await openedBlk({ emulated: { accessPlatform: false } });
    expect(without.disk.hasFeature(33)).toBe(false);
    await without.disk.read(0, 1);
  });

  test('have names, and numbers where they have none', () => {
    expect(virtioFeatureNames(2, (1n << 5n) | (1n << 32n) | (1n << 50n))).toEqual([
      'RO',
      'VERSION_1',
      'FEATURE_50',
    ]);
    expect(virtioFeatureNames(1, 1n << 5n)).toEqual(['MAC']);
  });
});

test('the common configuration is asked in accesses that SPDK takes', async () => {
  // The emulated one refuses every other.
  const emulated = new VirtioBlkDevice({ store: new MemoryStore(1 << 20) });
  cleanup(() => emulated.close());
  const device = await connect({ model: emulated });
  cleanup(() => device.close());
  await device.enable();
  await expect(device.bar(4).writeUInt64(0x20, 0n)).rejects.toThrow();
  await expect(device.bar(4).readUInt32(0x10)).rejects.toThrow();
  expect(await device.bar(4).readUInt16(0x12)).toBe(4);
});

test('a reset of the emulated device is done before what is written after it, also in one turn', async () => {
  const { device } = await connectedBlk();
  await device.enable();
  const common = device.bar(4);
  const STATUS = 0x14;
  for (let i = 0; i < 20; i++) {
    // In the device's socket at once, as from a client that is faster than the device's loop turns.
    const written = [common.writeUInt8(STATUS, 0), common.writeUInt8(STATUS, 1), common.writeUInt32(0, 1)];
    await Promise.all(written);
    expect([await common.readUInt8(STATUS), await common.readUInt32(0)]).toEqual([1, 1]);
  }
});
