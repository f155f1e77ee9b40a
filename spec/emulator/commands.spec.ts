/** Each command and its malformed twins, byte for byte against a served device. */
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, test } from '@jest/globals';
import { RamDevice, type DeviceModel } from '../../lib/emulator/index.js';
import { native } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import {
  deviceFeatureRequest,
  deviceGetInfoRequest,
  deviceResetRequest,
  dmaMapRequest,
  dmaUnmapRequest,
  dirtyPagesRequest,
  irqInfoRequest,
  migDataReadRequest,
  migDataWriteRequest,
  payloadOf,
  regionInfoReply,
  regionInfoRequest,
  regionIoFdsRequest,
  regionReadRequest,
  regionWriteMultiRequest,
  regionWriteRequest,
  request,
  sparseMmap,
  versionRequest,
  wire,
} from '../support/wire.js';
import { cleanup, connected, memory, served } from './fixture.js';

const { EINVAL, EIO, ENOSYS, ENOTSUP } = constants.errno;

function ram(options?: ConstructorParameters<typeof RamDevice>[0]): RamDevice {
  const device = new RamDevice(options);
  cleanup(() => device.close());
  return device;
}

/** A device of one region, for what the real ones do not do. */
function plain(over: Partial<DeviceModel> = {}): DeviceModel {
  return { regions: [{ index: 2, size: 64, memory: { bytes: Buffer.alloc(64) } }], irqs: [], ...over };
}

/** Half of what the kernel lets a process have: all of that is the one client's. */
const MAPPINGS = Math.min(Number(readFileSync('/proc/sys/vm/max_map_count', 'latin1')) >>> 1, 65535);

describe('VERSION', () => {
  test('is answered with the limits, and with what was asked for and exists', async () => {
    const { client } = served(ram());
    const { major, minor, json, fds } = await client.negotiate({
      max_msg_fds: 8,
      max_data_xfer_size: 65536,
      max_dma_maps: 3,
      pgsizes: 8192,
      twin_socket: { supported: true },
      write_multiple: true,
      something_else: [1],
    });
    expect({ major, minor }).toEqual({ major: 0, minor: 2 });
    expect(json).toEqual({
      max_msg_fds: 16,
      max_data_xfer_size: 1048576,
      max_dma_maps: MAPPINGS,
      pgsizes: 4096,
      twin_socket: { supported: true, fd_index: 0 },
      write_multiple: true,
    });
    expect(fds).toHaveLength(1);
    native().closeFd(fds[0]!);
  });

  test('names nothing that the client did not propose', async () => {
    const { client } = served(ram());
    const { json, fds } = await client.negotiate();
    expect(json).toEqual({});
    expect(fds).toEqual([]);
  });

  test('names the limits that a client would break unless it knew them', async () => {
    const { client } = served(ram(), { maxDataXferSize: 4096, maxMsgFds: 0, maxDmaMaps: 2, pgsizes: 65536n });
    const { json } = await client.negotiate();
    expect(json).toEqual({ max_data_xfer_size: 4096, max_msg_fds: 0, max_dma_maps: 2, pgsizes: 65536 });
  });

  test('gives no twin socket to a client that takes no fds, or where it is switched off', async () => {
    const wanted = { twin_socket: { supported: true } };
    const { client: fdless } = served(ram());
    expect((await fdless.negotiate({ ...wanted, max_msg_fds: 0 })).json).not.toHaveProperty('twin_socket');
    const { client } = served(ram(), { twinSocket: false });
    expect((await client.negotiate(wanted)).json).not.toHaveProperty('twin_socket');
  });

  test.each([
    [0, 0],
    [1, 1],
    [2, 2],
    [9, 2],
  ])('answers minor %i with %i', async (proposed, agreed) => {
    const { client } = served(ram());
    const { payload } = await client.ask(versionRequest({ minor: proposed }));
    expect(payload.readUInt16LE(2)).toBe(agreed);
  });

  test('speaks an older minor when told to', async () => {
    const { client } = served(ram(), { minor: 0 });
    expect((await client.negotiate()).minor).toBe(0);
  });

  test('may come without version data', async () => {
    const { client } = served(ram());
    expect((await client.ask(versionRequest({ data: '' }))).flags).toBe(1);
  });

  test.each([
    ['another major version', versionRequest({ major: 1 })],
    ['no payload', request(1, Buffer.alloc(0))],
    ['a cut payload', request(1, Buffer.alloc(3))],
    ['version data that is no JSON', versionRequest({ data: '{"capabilities"' })],
    ['a capability of a wrong type', versionRequest({ data: { capabilities: { max_msg_fds: 'x' } } })],
    ['another command first', deviceGetInfoRequest()],
  ])('refuses %s and closes', async (_what, bytes) => {
    const { client, server } = served(ram());
    expect(await client.refusal(bytes)).toBe(EINVAL);
    await client.end();
    expect(await server.closed).toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
  });

  test('is refused the second time', async () => {
    const client = await connected(ram());
    expect(await client.refusal(versionRequest())).toBe(EINVAL);
    expect((await client.answer(deviceGetInfoRequest())).byteLength).toBe(16);
  });
});

describe('DEVICE_GET_INFO', () => {
  test('says PCI, RESET, 9 regions and 5 interrupt types', async () => {
    const client = await connected(ram());
    expect(await client.answer(deviceGetInfoRequest())).toEqual(wire().u32(16).u32(3).u32(9).u32(5).build());
  });

  test('says RESET only of a device that has one, and counts regions behind those of PCI', async () => {
    const region = { index: 9, size: 16, memory: { bytes: Buffer.alloc(16) } };
    const client = await connected(plain({ regions: [region], irqs: [{ index: 6, count: 1 }] }));
    expect(await client.answer(deviceGetInfoRequest())).toEqual(wire().u32(16).u32(2).u32(10).u32(7).build());
  });

  test.each([
    ['a cut payload', request(4, Buffer.alloc(15))],
    ['an argsz of less than the structure', deviceGetInfoRequest({ argsz: 15 })],
  ])('refuses %s', async (_what, bytes) => {
    const client = await connected(ram());
    expect(await client.refusal(bytes)).toBe(EINVAL);
  });
});

describe('DEVICE_GET_REGION_INFO', () => {
  test('tells the size and flags of each region, 0 of those that are not there', async () => {
    const client = await connected(ram({ ramSize: 0x2000 }));
    const sizes: [number, number][] = [];
    for (let index = 0; index < 9; index++) {
      const { payload, fds } = await client.ask(regionInfoRequest({ index, argsz: 256 }));
      fds.forEach((fd) => native().closeFd(fd));
      sizes.push([Number(payload.readBigUInt64LE(16)), payload.readUInt32LE(4)]);
    }
    const none = [0, 0];
    expect(sizes).toEqual([
      [0x1000, 3],
      [0x10000, 15],
      [0x2000, 3],
      none,
      [0x10000, 3],
      none,
      none,
      [256, 3],
      none,
    ]);
  });

  test('brings the fd and the areas of a region that can be mapped', async () => {
    const device = ram();
    const client = await connected(device);
    const { payload, fds } = await client.ask(regionInfoRequest({ index: 1, argsz: 80 }));
    const capabilities = sparseMmap([
      [0x1000, 0x1000],
      [0x2000, 0xe000],
    ]);
    expect(payload).toEqual(payloadOf(regionInfoReply({ index: 1, flags: 15, size: 0x10000, capabilities })));
    const mapping = native().map(fds[0]!, 0x1000, 0x1000, true, true);
    if (typeof mapping === 'number') throw new Error(`mmap: errno ${-mapping}`);
    device.shared!.bytes.write('hello', 0x1000);
    const seen = Buffer.alloc(5);
    mapping.copyOut(0, seen, 0, 5);
    expect(seen.toString()).toBe('hello');
    mapping.close();
    native().closeFd(fds[0]!);
  });

  test('says how much it takes where argsz is too small: no capabilities, no fd', async () => {
    const client = await connected(ram());
    const payload = await client.answer(regionInfoRequest({ index: 1, argsz: 32 }));
    expect(payload).toEqual(
      payloadOf(regionInfoReply({ index: 1, argsz: 80, flags: 7, capOffset: 0, size: 0x10000 })),
    );
  });

  test('says nothing of mapping to a client that takes no fds', async () => {
    const client = await connected(ram(), {}, { max_msg_fds: 0 });
    expect(await client.answer(regionInfoRequest({ index: 1, argsz: 256 }))).toEqual(
      payloadOf(regionInfoReply({ index: 1, flags: 3, size: 0x10000 })),
    );
  });

  test('maps a region as a whole where no areas are named', async () => {
    const { shared } = ram();
    const regions = [{ index: 0, size: shared!.size, memory: shared! }];
    const client = await connected(plain({ regions }));
    const { payload, fds } = await client.ask(regionInfoRequest({ argsz: 32 }));
    expect(payload).toEqual(payloadOf(regionInfoReply({ flags: 7, size: shared!.size })));
    expect(fds).toHaveLength(1);
    native().closeFd(fds[0]!);
  });

  test.each([
    ['an index that does not exist', regionInfoRequest({ index: 9 })],
    ['a cut payload', request(5, Buffer.alloc(31))],
    ['an argsz of less than the structure', regionInfoRequest({ argsz: 31 })],
  ])('refuses %s', async (_what, bytes) => {
    const client = await connected(ram());
    expect(await client.refusal(bytes)).toBe(EINVAL);
  });
});

describe('DEVICE_GET_REGION_IO_FDS', () => {
  test('has no sub-regions to offer', async () => {
    const client = await connected(ram());
    expect(await client.answer(regionIoFdsRequest({ argsz: 512, index: 1 }))).toEqual(
      wire().u32(16).u32(0).u32(1).u32(0).build(),
    );
  });

  test.each([
    ['an index that does not exist', regionIoFdsRequest({ index: 12 })],
    ['flags', regionIoFdsRequest({ flags: 1 })],
  ])('refuses %s', async (_what, bytes) => {
    const client = await connected(ram());
    expect(await client.refusal(bytes)).toBe(EINVAL);
  });
});

describe('DEVICE_GET_IRQ_INFO', () => {
  test('tells counts and flags, 0 of what is not there', async () => {
    const client = await connected(ram({ vectors: 7 }));
    const found: [number, number][] = [];
    for (let index = 0; index < 5; index++) {
      const payload = await client.answer(irqInfoRequest({ index }));
      expect(payload.readUInt32LE(8)).toBe(index);
      found.push([payload.readUInt32LE(12), payload.readUInt32LE(4)]);
    }
    expect(found).toEqual([
      [1, 3],
      [0, 0],
      [7, 3],
      [0, 0],
      [0, 0],
    ]);
  });

  test.each([
    ['an index that does not exist', irqInfoRequest({ index: 5 })],
    ['a cut payload', request(7, Buffer.alloc(12))],
    ['an argsz of less than the structure', irqInfoRequest({ argsz: 8 })],
  ])('refuses %s', async (_what, bytes) => {
    const client = await connected(ram());
    expect(await client.refusal(bytes)).toBe(EINVAL);
  });
});

describe('REGION_READ and REGION_WRITE', () => {
  test('reach memory, and echo what was asked', async () => {
    const device = ram();
    const client = await connected(device);
    const data = Buffer.from('0123456789');
    const access = wire().u64(0x123).u32(2).u32(10).build();
    expect(await client.answer(regionWriteRequest({ offset: 0x123, region: 2, data }))).toEqual(access);
    expect(device.ram.toString('latin1', 0x123, 0x12d)).toBe('0123456789');
    expect(await client.answer(regionReadRequest({ offset: 0x123, region: 2, count: 10 }))).toEqual(
      Buffer.concat([access, data]),
    );
  });

  test('carry a mebibyte at once', async () => {
    const device = ram();
    const client = await connected(device);
    for (let at = 0; at < device.ram.byteLength; at += 4) device.ram.writeUInt32LE(at, at);
    const read = await client.readRegion(2, 0, 1 << 20);
    expect(read.equals(device.ram)).toBe(true);
  });

  test('carry no bytes at all', async () => {
    const client = await connected(ram());
    expect(await client.answer(regionReadRequest({ region: 2, offset: 1 << 20, count: 0 }))).toEqual(
      wire()
        .u64(1 << 20)
        .u32(2)
        .u32(0)
        .build(),
    );
  });

  test.each([
    ['a read past the end', regionReadRequest({ region: 2, offset: (1 << 20) - 3, count: 4 })],
    ['a write past the end', regionWriteRequest({ region: 2, offset: (1 << 20) - 3, data: [1, 2, 3, 4] })],
    ['an offset far out', regionReadRequest({ region: 2, offset: 2n ** 63n, count: 4 })],
    ['an offset of 2^53-1', regionReadRequest({ region: 2, offset: 2n ** 53n - 1n, count: 4 })],
    ['a region without bytes', regionReadRequest({ region: 3, count: 4 })],
    ['a region that does not exist', regionReadRequest({ region: 4096, count: 4 })],
    ['a cut read', request(9, Buffer.alloc(15))],
    ['a read with data', regionReadRequest({ region: 2, data: [1] })],
    ['a write with less data than it says', regionWriteRequest({ region: 2, count: 5, data: [1, 2, 3, 4] })],
    ['a write with more data than it says', regionWriteRequest({ region: 2, count: 3, data: [1, 2, 3, 4] })],
  ])('refuse %s', async (_what, bytes) => {
    const client = await connected(ram());
    expect(await client.refusal(bytes)).toBe(EINVAL);
  });

  test('refuse more than a mebibyte where there would be as much', async () => {
    const client = await connected(ram({ ramSize: 1 << 21 }));
    expect(await client.refusal(regionReadRequest({ region: 2, count: (1 << 20) + 1 }))).toBe(EINVAL);
  });

  test('keep to the limit that was negotiated', async () => {
    const client = await connected(ram(), { maxDataXferSize: 512 });
    expect(await client.readRegion(2, 0, 512)).toHaveLength(512);
    expect(await client.refusal(regionReadRequest({ region: 2, count: 513 }))).toBe(EINVAL);
    expect(await client.refusal(regionWriteRequest({ region: 2, data: Buffer.alloc(513) }))).toBe(EINVAL);
  });

  test('keep to the flags of the region', async () => {
    const bytes = Buffer.alloc(8);
    const client = await connected(
      plain({
        regions: [
          { index: 0, size: 8, flags: 1, memory: { bytes } },
          { index: 1, size: 8, flags: 2, memory: { bytes } },
        ],
      }),
    );
    expect(await client.refusal(regionWriteRequest({ region: 0, data: [1] }))).toBe(EINVAL);
    expect(await client.refusal(regionReadRequest({ region: 1, count: 1 }))).toBe(EINVAL);
    await client.writeRegion(1, 0, Buffer.from([9]));
    expect(await client.readRegion(0, 0, 1)).toEqual(Buffer.from([9]));
  });

  test('answer EIO, and tell, where the device is at fault', async () => {
    const errors: unknown[] = [];
    const handler = {
      read: () => Buffer.alloc(3),
      write: () => {
        throw new TypeError('a mistake');
      },
    };
    const regions = [{ index: 0, size: 8, handler }];
    const client = await connected(plain({ regions }), { onError: (error) => errors.push(error) });
    expect(await client.refusal(regionReadRequest({ count: 4 }))).toBe(EIO);
    expect(await client.refusal(regionWriteRequest({ data: [1] }))).toBe(EIO);
    expect(errors.map((error) => (error as Error).message)).toEqual([
      'region 0: what read(0, 4) returns must have 4 bytes, got 3',
      'a mistake',
    ]);
  });
});

describe('REGION_WRITE_MULTI', () => {
  const ask = { write_multiple: true };

  test('writes in order', async () => {
    const device = ram();
    const client = await connected(device, {}, ask);
    const writes = [
      { region: 2, offset: 0, data: [1, 2, 3, 4, 5, 6, 7, 8] },
      { region: 2, offset: 2, data: [9] },
      { region: 0, offset: 4, data: [1, 0, 0, 0] },
    ];
    expect(await client.answer(regionWriteMultiRequest(writes))).toEqual(wire().u64(3).build());
    expect([...device.ram.subarray(0, 8)]).toEqual([1, 2, 9, 4, 5, 6, 7, 8]);
    expect(await client.read32(0, 4)).toBe(1);
  });

  test('stops at the first that fails, and says how many were done', async () => {
    const device = ram();
    const client = await connected(device, {}, ask);
    const good = { region: 2, offset: 0, data: [7] };
    const bad = { region: 3, offset: 0, data: [7] };
    expect(await client.answer(regionWriteMultiRequest([good, bad, good]))).toEqual(wire().u64(1).build());
    expect(await client.refusal(regionWriteMultiRequest([bad, good]))).toBe(EINVAL);
  });

  test.each([
    ['a count of 0', regionWriteMultiRequest([{ region: 2, offset: 0, data: [1], count: 0 }])],
    ['a count of 9', regionWriteMultiRequest([{ region: 2, offset: 0, data: [1], count: 9 }])],
    ['fewer writes than it says', regionWriteMultiRequest([{ region: 2, offset: 0, data: [1] }], 2)],
    ['a huge number of writes', regionWriteMultiRequest([], 2n ** 40n)],
    ['a cut payload', request(15, Buffer.alloc(7))],
  ])('refuses %s', async (_what, bytes) => {
    const client = await connected(ram(), {}, ask);
    expect(await client.refusal(bytes)).toBe(EINVAL);
  });

  test('is ENOTSUP where it was not negotiated', async () => {
    const one = regionWriteMultiRequest([{ region: 2, offset: 0, data: [1] }]);
    expect(await (await connected(ram())).refusal(one)).toBe(ENOTSUP);
    expect(await (await connected(ram(), { writeMultiple: false }, ask)).refusal(one)).toBe(ENOTSUP);
  });
});

describe('DEVICE_RESET', () => {
  test('takes registers and config space back', async () => {
    const client = await connected(ram());
    await client.write32(0, 4, 0xabcd);
    await client.write32(7, 4, 6);
    expect(await client.answer(deviceResetRequest())).toHaveLength(0);
    expect(await client.read32(0, 4)).toBe(0);
    expect((await client.read32(7, 4)) & 0xffff).toBe(0);
  });

  test('refuses a payload, and a device that has none', async () => {
    expect(await (await connected(ram())).refusal(request(13, Buffer.alloc(1)))).toBe(EINVAL);
    expect(await (await connected(plain())).refusal(deviceResetRequest())).toBe(ENOTSUP);
  });
});

describe('DEVICE_FEATURE and migration data', () => {
  const offering = plain({
    feature: ({ feature, operations, data }) =>
      feature === 1 ? Buffer.from([operations >>> 16, data.length]) : undefined,
    migrationData: { read: (size) => Buffer.alloc(Math.min(size, 5), 0x77), write: async () => {} },
  });

  test('are ENOTSUP unless the device offers them', async () => {
    const client = await connected(ram());
    expect(await client.refusal(deviceFeatureRequest())).toBe(ENOTSUP);
    expect(await client.refusal(migDataReadRequest({ size: 16 }))).toBe(ENOTSUP);
    expect(await client.refusal(migDataWriteRequest({ data: [1] }))).toBe(ENOTSUP);
  });

  test('are answered by a device that does', async () => {
    const client = await connected(offering);
    expect(await client.answer(deviceFeatureRequest({ flags: 0x10001, argsz: 64 }))).toEqual(
      wire().u32(10).u32(0x10001).bytes([1, 0]).build(),
    );
    expect(await client.answer(deviceFeatureRequest({ flags: 0x20001, data: [4, 5] }))).toEqual(
      wire().u32(10).u32(0x20001).bytes([4, 5]).build(),
    );
    expect(await client.answer(deviceFeatureRequest({ flags: 0x70001 }))).toEqual(
      wire().u32(8).u32(0x70001).build(),
    );
    expect(await client.answer(migDataReadRequest({ size: 16 }))).toEqual(
      wire().u32(13).u32(5).bytes(Buffer.alloc(5, 0x77)).build(),
    );
    expect(await client.answer(migDataWriteRequest({ data: [1, 2] }))).toHaveLength(0);
  });

  test.each([
    ['a value that argsz has no room for', deviceFeatureRequest({ flags: 0x10001, argsz: 8 })],
    ['get and set at once', deviceFeatureRequest({ flags: 0x30001 })],
    ['no operation', deviceFeatureRequest({ flags: 1 })],
    ['a cut payload', request(16, Buffer.alloc(7))],
    ['more migration data than a message carries', migDataReadRequest({ size: (1 << 20) + 1 })],
    ['migration data shorter than it says', migDataWriteRequest({ size: 3, data: [1] })],
  ])('refuse %s', async (_what, bytes) => {
    expect(await (await connected(offering)).refusal(bytes)).toBe(EINVAL);
  });
});

describe('other commands', () => {
  test.each([
    [0, ENOSYS],
    [11, EINVAL],
    [12, EINVAL],
    [19, ENOSYS],
    [65535, ENOSYS],
  ])('%i is refused', async (command, errno) => {
    const client = await connected(ram());
    expect(await client.refusal(request(command, Buffer.alloc(16)))).toBe(errno);
    expect(await client.refusal(dirtyPagesRequest())).toBe(ENOTSUP);
  });

  test('with fds that they have no use for are carried out, and the fds closed', async () => {
    const client = await connected(ram());
    const fd = memory(4096);
    const before = openFds();
    expect(await client.answer(deviceGetInfoRequest(), [fd])).toHaveLength(16);
    expect(await client.answer(regionReadRequest({ region: 2, count: 4 }), [fd, fd])).toHaveLength(20);
    const { address, size } = { address: 0x10000, size: 4096 };
    await client.answer(dmaMapRequest({ address, size }), [fd]);
    await client.answer(dmaUnmapRequest({ address, size }), [fd]);
    expect(openFds()).toBe(before);
  });

  test('with more fds than VERSION allowed are refused, and the fds closed', async () => {
    const client = await connected(ram(), { maxMsgFds: 1 });
    const fd = memory(4096);
    const before = openFds();
    expect(await client.refusal(deviceGetInfoRequest(), [fd, fd])).toBe(EINVAL);
    expect(openFds()).toBe(before);
  });
});
