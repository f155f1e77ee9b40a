/** DMA addresses where the IOMMU says which it takes: chosen within, refused outside, by name. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { DeviceError, PciConfigSpace, PciDevice, type EmulatorOptions } from '../../lib/emulator/index.js';
import type { Hardware } from '../../lib/emulator/device-model.js';
import { DmaBatchError, RemoteError, connect, type Device } from '../../lib/index.js';
import { native } from '../../lib/native.js';

const ENOMEM = 12;
const EINVAL = 22;
const MIB = 1 << 20;
const MSI = 0xfee0_0000n;
/** What an Intel IOMMU with 39 bits says: a hole for MSI. */
const INTEL = [
  { first: 0n, last: 0xfedf_ffffn },
  { first: 0xfef0_0000n, last: 0x7f_ffff_ffffn },
];

type Range = { first: bigint; last: bigint };

const opened: Device[] = [];

afterEach(async () => {
  for (const device of opened.splice(0)) await device.close();
});

/** What a device's memory is given to, as an IOMMU: it knows what is mapped, and can refuse. */
class Board extends PciDevice {
  readonly mapped = new Map<bigint, bigint>();
  refuse: (() => void) | undefined;
  readonly hardware: Hardware;

  constructor(addresses: readonly Range[] | undefined) {
    super(new PciConfigSpace({ vendorId: 0x1234, deviceId: 1 }), []);
    this.hardware = {
      addresses,
      mapDma: (_memory, { address, size }) => {
        this.refuse?.();
        this.mapped.set(address, size);
      },
      unmapDma: ({ address, size }) => {
        if (this.mapped.get(address) !== size) throw new DeviceError(EINVAL, 'nothing was mapped there');
        this.mapped.delete(address);
      },
      setIrqs: () => undefined,
      quiesce: () => undefined,
    };
  }
}

async function open(
  addresses: readonly Range[] | undefined,
  options: EmulatorOptions = {},
): Promise<{ board: Board; device: Device }> {
  const board = new Board(addresses);
  const device = await connect({ model: board, options });
  opened.push(device);
  return { board, device };
}

/** Memory of a file, at an address. */
async function mapAt(device: Device, iova: bigint, size: number): Promise<void> {
  const fd = native().memfd('spec', size, false);
  try {
    await device.dma.map({ fd, size, iova });
  } finally {
    native().closeFd(fd);
  }
}

function isWithin(ranges: readonly Range[], first: bigint, size: number): boolean {
  return ranges.some((range) => first >= range.first && first + BigInt(size) - 1n <= range.last);
}

describe('addresses that are chosen', () => {
  test.each([
    ['of an Intel IOMMU', INTEL, 64],
    ['of an Intel IOMMU, for a device of 32 bits', INTEL, 32],
    ['of one that has nothing above 4 GiB', [{ first: 0n, last: 0x7fff_ffffn }], 64],
    ['that do not begin on a page', [{ first: 0x10_0001n, last: 0x100_0ffen }], 64],
    ['of which only the highest remain', [{ first: 0x7f_f000_0000n, last: 0x7f_ffff_ffffn }], 64],
  ] as const)('%s, lie within', async (_name, ranges, addressBits) => {
    const { device } = await open(ranges);
    for (let i = 0; i < 3; i++) {
      const { iova } = await device.dma.alloc(2 * MIB, { addressBits });
      expect(isWithin(ranges, iova, 2 * MIB)).toBe(true);
    }
  });

  test('go round a hole', async () => {
    const hole = { first: 0x1_0000_0000n, last: 0x1_0040_0fffn };
    const ranges = [
      { first: 0x1_0000_0000n, last: hole.first + BigInt(2 * MIB) - 1n },
      { first: hole.last + 1n, last: 0x1_0100_0000n },
    ];
    const { board, device } = await open(ranges);
    await device.dma.alloc(2 * MIB);
    await device.dma.alloc(6 * MIB);
    expect([...board.mapped].every(([address, size]) => isWithin(ranges, address, Number(size)))).toBe(true);
  });

  test('that have run out are said, with the ranges', async () => {
    const { device } = await open([{ first: 0n, last: 0xff_ffffn }]);
    await expect(device.dma.alloc(64 * MIB)).rejects.toThrow(
      /^no 67108864 bytes of DMA addresses are free below 2\^47, and the IOMMU takes 0x0 to 0xffffff$/,
    );
  });

  test('are on pages of the IOMMU', async () => {
    const { board, device } = await open(INTEL, { pgsizes: 2n << 20n });
    const buffer = await device.dma.alloc(4096);
    expect(board.mapped.size).toBe(1);
    expect(buffer.iova % BigInt(2 * MIB)).toBe(0n);
    await expect(mapAt(device, 0x2000_1000n, 2 * MIB)).rejects.toThrow(/multiple of 2097152/);
    await expect(mapAt(device, 0x2000_0000n, 4096)).rejects.toThrow(/multiple of 2097152/);
    await mapAt(device, 0x2000_0000n, 2 * MIB);
  });
});

describe('addresses that are asked for', () => {
  test.each([
    ['in the hole', MSI, 4096],
    ['partly in it', MSI - 4096n, 8192],
    ['across it', MSI - 4096n, 2 * MIB],
    ['beyond the last', 0x80_0000_0000n, 4096],
  ])('%s are refused with the ranges', async (_where, iova, size) => {
    const { board, device } = await open(INTEL);
    const error = await mapAt(device, iova, size).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(RangeError);
    expect((error as Error).message).toBe(
      `${size} bytes at 0x${iova.toString(16)} are not within what the IOMMU takes: 0x0 to 0xfedfffff, and 0xfef00000 to 0x7fffffffff`,
    );
    expect(board.mapped.size).toBe(0);
  });

  test.each([0n, MSI - 4096n, 0xfef0_0000n, 0x7f_ffff_f000n])('0x%s are taken', async (iova) => {
    const { board, device } = await open(INTEL);
    await mapAt(device, iova, 4096);
    expect(board.mapped.get(iova)).toBe(4096n);
    await device.dma.unmap(iova, 4096);
    expect(board.mapped.size).toBe(0);
  });

  test('are anybody’s where nothing is said', async () => {
    const { board, device } = await open(undefined);
    await mapAt(device, MSI, 4096);
    expect(board.mapped.has(MSI)).toBe(true);
  });
});

test('what the IOMMU says when it refuses is in the error', async () => {
  const { board, device } = await open(INTEL);
  board.refuse = () => {
    throw new DeviceError(ENOMEM, 'RLIMIT_MEMLOCK is 65536');
  };
  const error = await device.dma.alloc(4096).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(RemoteError);
  expect(error).toMatchObject({
    code: 'ENOMEM',
    message: 'DMA_MAP: the server answered ENOMEM (RLIMIT_MEMLOCK is 65536)',
  });
});

test('an unmap that finds nothing is an error, and what was there before stays', async () => {
  const { board, device } = await open(INTEL);
  await mapAt(device, 0x1000n, 4096);
  board.mapped.clear();
  await expect(device.dma.unmap(0x1000n, 4096)).rejects.toThrow(
    /^DMA_UNMAP: the server answered EINVAL \(nothing was mapped there\)$/,
  );
});

test('of several that are unmapped together, one that fails keeps no other', async () => {
  const { board, device } = await open(INTEL);
  for (const iova of [0x1000n, 0x2000n, 0x3000n]) await mapAt(device, iova, 4096);
  board.mapped.delete(0x2000n);
  await expect(device.dma.unmapAll()).rejects.toThrow(DmaBatchError);
  expect(board.mapped.size).toBe(0);
});
