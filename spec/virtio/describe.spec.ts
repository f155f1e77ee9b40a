/** What devices of each type say of themselves, without a driver. */
import { expect, test } from '@jest/globals';
import {
  PciConfigSpace,
  PciDevice,
  VirtioNetDevice,
  VirtioRngDevice,
  VirtioScsiDevice,
  type DeviceModel,
} from '../../lib/emulator/index.js';
import { connect } from '../../lib/index.js';
import { describeVirtio } from '../../lib/virtio/index.js';
import { cleanup, errorOf } from './fixture.js';

const CONSOLE = 3;
const NETWORK = 1;

async function described(model: DeviceModel) {
  const device = await connect({ model });
  cleanup(() => device.close());
  return describeVirtio(device);
}

/** A device that has these features and this configuration, and no queues: registers alone, written here by hand. */
function scripted(type: number, features: bigint, config: Buffer | undefined): PciDevice {
  const common = Buffer.alloc(0x38);
  const structure = (kind: number, offset: number, length: number, multiplier: number[] = []) => {
    const body = Buffer.alloc(14 + 4 * multiplier.length);
    body.set([body.length + 2, kind, 0], 0);
    for (const [i, word] of [offset, length, ...multiplier].entries()) body.writeUInt32LE(word, 6 + 4 * i);
    return { id: 9, body, writable: Buffer.alloc(body.length) };
  };
  const capabilities = [structure(1, 0, 0x38), structure(2, 0x100, 4, [4])];
  if (config !== undefined) capabilities.push(structure(4, 0x200, config.length));
  const bars = [{ index: 0, size: 4096 }];
  class Scripted extends PciDevice {
    constructor() {
      super(new PciConfigSpace({ vendorId: 0x1af4, deviceId: 0x1040 + type, bars, capabilities }), []);
      this.addRegion({
        index: 0,
        size: 4096,
        handler: {
          read: (offset, count) => {
            const half = (features >> BigInt(32 * common.readUInt32LE(0))) & 0xffff_ffffn;
            common.writeUInt32LE(Number(half), 4);
            const bytes = Buffer.alloc(4096);
            bytes.set(common);
            bytes.set(config ?? [], 0x200);
            return bytes.subarray(offset, offset + count);
          },
          write: (offset, data) => {
            if (offset < common.length) common.set(data, offset);
          },
        },
      });
    }
  }
  return new Scripted();
}

function words16(...values: number[]): Buffer {
  return Buffer.from(Uint16Array.from(values).buffer);
}

test('an entropy device has no configuration', async () => {
  expect(await described(new VirtioRngDevice())).toMatchObject({
    type: 4,
    typeName: 'entropy',
    queues: [{ index: 0, entries: 256 }],
    config: null,
  });
});

test('network devices and SCSI hosts, emulated', async () => {
  const net = await described(new VirtioNetDevice({ mac: '52:54:00:00:00:07', mtu: 9000 }));
  expect(net.config).toEqual({
    ...{ mac: '52:54:00:00:00:07', isUp: true, queuePairs: 1, mtu: 9000 },
    ...{ speedMbps: null, duplex: null },
  });
  const scsi = await described(new VirtioScsiDevice());
  expect(scsi).toMatchObject({ typeName: 'SCSI host', config: { cdbBytes: 32, senseBytes: 96 } });
});

test('a network device with all fields, one with none, and one that has no idea', async () => {
  const config = words16(0x5452, 0x1200, 0x5634, 1, 8, 1400, 10_000, 0, 1);
  const all = (1n << 3n) | (1n << 5n) | (1n << 16n) | (1n << 22n) | (1n << 63n);
  expect((await described(scripted(NETWORK, all, config))).config).toEqual({
    ...{ mac: '52:54:00:12:34:56', isUp: true, queuePairs: 8, mtu: 1400 },
    ...{ speedMbps: 10_000, duplex: 'full' },
  });
  const none = { mac: null, isUp: null, queuePairs: 1, mtu: null, speedMbps: null, duplex: null };
  expect((await described(scripted(NETWORK, 1n << 32n, config))).config).toEqual(none);
  const unknown = words16(0, 0, 0, 0, 0, 0, 0xffff, 0xffff, 0xff);
  expect((await described(scripted(NETWORK, 1n << 63n, unknown))).config).toEqual(none);
});

test('a console: columns, rows and ports as its features have them', async () => {
  const config = words16(80, 25, 31, 0, 0, 0);
  expect((await described(scripted(CONSOLE, 0b111n, config))).config).toEqual({
    ...{ cols: 80, rows: 25, maxPorts: 31, emergencyWrite: true },
  });
  const plain = await described(scripted(CONSOLE, 1n << 32n, config));
  expect(plain).toMatchObject({ typeName: 'console', offered: ['VERSION_1'] });
  expect(plain.config).toEqual({ cols: null, rows: null, maxPorts: 1, emergencyWrite: false });
});

test('a configuration that is cut reads as 0; without one, the device is refused by name', async () => {
  const cut = await described(scripted(CONSOLE, 0b111n, words16(80)));
  expect(cut.config).toMatchObject({ cols: 80, rows: 0, maxPorts: 0 });
  const error = await errorOf(described(scripted(CONSOLE, 0n, undefined)));
  expect(error).toMatchObject({ message: expect.stringMatching(/no configuration structure/) });
});
