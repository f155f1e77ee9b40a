import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type Device, type Region } from '../../lib/index.js';
import {
  defineDevice,
  DeviceError,
  serve,
  type DeviceDefinition,
  type DeviceHandle,
} from '../../lib/emulator/index.js';
import {
  bindRegisters,
  checkRegisters,
  RegisterMap,
  RegisterMapError,
  type RegisterMapData,
} from '../../lib/registers/index.js';
import { UART_SVD } from '../registers/uart.js';
import { until } from '../support/until.js';

jest.setTimeout(30_000);

const id = { vendorId: 0x1234, deviceId: 0xd00d };

/** A register of 32 bits whose fields are all of one access. */
function field(name: string, lsb: number, more: object): object {
  return { name, lsb, ...more };
}

const POLICIES = {
  format: 'vfio-user-registers/1',
  name: 'policies',
  blocks: [
    {
      name: 'P',
      children: [
        {
          name: 'MIX',
          offset: 0,
          reset: 0xa5a5_0000,
          fields: [
            field('RW', 0, { bits: 4, access: 'RW' }),
            field('RO', 4, { bits: 4, access: 'RO' }),
            field('WO', 8, { bits: 4, access: 'WO' }),
            field('ONCE', 12, { bits: 4, access: 'RW', once: true }),
          ],
        },
        {
          name: 'ACT',
          offset: 4,
          reset: 0x0f0f_0f0f,
          fields: [
            field('W1C', 0, { bits: 4, access: 'W1C' }),
            field('W1S', 4, { bits: 4, access: 'W1S' }),
            field('W1T', 8, { bits: 4, access: 'W1T' }),
            field('W0C', 12, { bits: 4, access: 'W0C' }),
            field('W0S', 16, { bits: 4, access: 'W0S' }),
            field('W0T', 20, { bits: 4, access: 'W0T' }),
            field('WC', 24, { bits: 4, access: 'WC' }),
            field('WS', 28, { bits: 4, access: 'WS' }),
          ],
        },
        {
          name: 'READ',
          offset: 8,
          reset: 0xff,
          fields: [
            field('RC', 0, { bits: 4, access: 'RC' }),
            field('PLAIN', 4, { bits: 4, access: 'RO' }),
            field('RS', 8, { bits: 4, access: 'RS' }),
          ],
        },
        {
          name: 'CMD',
          offset: 0xc,
          fields: [
            field('GO', 0, { access: 'RW', selfClearing: true }),
            field('MODE', 1, {
              bits: 2,
              values: [
                { name: 'SLOW', value: 0 },
                { name: 'FAST', value: 2 },
              ],
            }),
          ],
        },
        { name: 'WIDE', offset: 0x10, bits: 64, reset: '0x1122334455667788' },
        { name: 'SMALL', offset: 0x18, bits: 16, reset: 0xbeef },
        {
          name: 'FIFO',
          offset: 0x1c,
          fields: [field('RX', 0, { bits: 8, access: 'RO' }), field('TX', 0, { bits: 8, access: 'WO' })],
        },
        {
          name: 'CH',
          offset: 0x40,
          count: 3,
          stride: 8,
          children: [
            { name: 'CTRL', offset: 0, fields: [field('START', 0, { selfClearing: true })] },
            { name: 'LEN', offset: 4 },
          ],
        },
      ],
    },
  ],
} as unknown as RegisterMapData;

let device: Device | undefined;

afterEach(async () => {
  await device?.close();
  device = undefined;
});

/** BAR 0 of a device of this definition, in this process. */
async function open(more: Partial<DeviceDefinition> = {}): Promise<Region> {
  device = await connect({ model: defineDevice({ id, map: POLICIES, ...more }) });
  await device.enable();
  return device.bar(0);
}

describe('storage and access', () => {
  test('values after a reset are the map’s, of every width', async () => {
    const bar = await open();
    expect(await bar.readUInt32(0)).toBe(0xa5a5_0000);
    expect(await bar.readUInt64(0x10)).toBe(0x1122_3344_5566_7788n);
    expect(await bar.readUInt16(0x18)).toBe(0xbeef);
    expect(await bar.readUInt8(0x13)).toBe(0x55);
  });

  test('RW keeps, RO does not, WO is not read, and what has no field stays', async () => {
    const bar = await open();
    await bar.writeUInt32(0, 0xffff_ffff);
    expect(await bar.readUInt32(0)).toBe(0xa5a5_f00f);
  });

  test('what is written once is kept until a reset', async () => {
    const bar = await open();
    await bar.writeUInt32(0, 0x3000);
    await bar.writeUInt32(0, 0x7000);
    expect((await bar.readUInt32(0)) & 0xf000).toBe(0x3000);
    await device!.reset();
    expect((await bar.readUInt32(0)) & 0xf000).toBe(0);
    await bar.writeUInt32(0, 0x7000);
    expect((await bar.readUInt32(0)) & 0xf000).toBe(0x7000);
  });

  test('ones and zeros act as their fields say', async () => {
    const bar = await open();
    await bar.writeUInt32(4, 0x3333_3333);
    // W1C f→c, W1S 0→3, W1T f→c, W0C 0, W0S f, W0T 0→c, WC 0, WS f
    expect(await bar.readUInt32(4)).toBe(0xf0cf_0c3c);
  });

  test('a read clears and sets, and a part of a register its own bits', async () => {
    const bar = await open();
    expect(await bar.readUInt8(9)).toBe(0);
    expect(await bar.readUInt32(8)).toBe(0xfff);
    expect(await bar.readUInt32(8)).toBe(0xff0);
  });

  test('fields that share bits have a value each', async () => {
    const written: unknown[] = [];
    const bar = await open({
      on: { 'FIFO.TX': (own, value) => void written.push(value, own.get('FIFO.RX'), own.get('FIFO.TX')) },
    });
    await bar.writeUInt32(0x1c, 0x41);
    expect(written).toEqual([0x41, 0, 0x41]);
    expect(await bar.readUInt32(0x1c)).toBe(0);
  });

  test('accesses across registers and beside them are what their bytes are', async () => {
    const bar = await open();
    const bytes = await bar.read(0x16, 8);
    expect(bytes.toString('hex')).toBe('2211efbe00000000');
    await bar.write(0x16, Buffer.from('aabbccdd', 'hex'));
    expect(await bar.readUInt64(0x10)).toBe(0xbbaa_3344_5566_7788n);
    expect(await bar.readUInt16(0x18)).toBe(0xddcc);
    expect(await bar.readUInt32(0x800)).toBe(0);
  });

  test('checkRegisters finds nothing, of this map and of an SVD', async () => {
    const bar = await open();
    const map = RegisterMap.from(POLICIES);
    const report = await checkRegisters(bindRegisters(map.block('P'), bar).registers());
    expect(report.findings.map(({ message }) => message)).toEqual([]);
    expect(report.tested.reset).toBeGreaterThan(3);
    await device!.close();
    const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));
    try {
      const file = path.join(directory, 'uart.svd');
      writeFileSync(file, UART_SVD);
      for (const given of [file, pathToFileURL(file)]) {
        const uart = defineDevice({ id, map: given, bars: [{ index: 2, block: 'UART', offset: 0x100 }] });
        device = await connect({ model: uart });
        expect(await device.region(2).readUInt32(0x104)).toBe(0x100);
        await device.close();
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe('behaviour', () => {
  test('is told of what was written, what was there and which element', async () => {
    const calls: unknown[] = [];
    const bar = await open({
      on: {
        'CH[*].CTRL.START': (own, value, { name, indexes, previous }) => {
          const [index] = indexes;
          calls.push([name, value, previous, own.get(`CH[${index}].CTRL.START`)]);
        },
        'CMD.MODE': (_own, value, { previous }) => void calls.push([previous, value]),
        'ACT.W1C': (_own, value) => void calls.push(['W1C', value]),
        WIDE: (_own, value) => void calls.push(['WIDE', value]),
      },
    });
    await bar.writeUInt32(0x48, 1);
    await bar.writeUInt32(0x48, 0);
    await bar.writeUInt32(0xc, 4);
    await bar.writeUInt32(4, 0x5);
    await bar.writeUInt32(4, 0xf000);
    await bar.writeUInt64(0x10, 1n << 63n);
    expect(calls).toEqual([
      ['CH[1].CTRL.START', 1, 0, 1],
      [0, 2],
      ['W1C', 5],
      ['WIDE', 1n << 63n],
    ]);
    expect(await bar.readUInt32(0x48)).toBe(0);
  });

  test('answers reads, at once and later', async () => {
    let count = 0;
    const bar = await open({
      on: {
        SMALL: { read: () => ++count },
        'READ.PLAIN': { read: async () => sleep(1, 7) },
      },
    });
    expect(await bar.readUInt16(0x18)).toBe(1);
    expect(bar.readUInt16Sync(0x18)).toBe(2);
    expect(await bar.readUInt32(8)).toBe(0x7f);
    expect(await bar.readUInt32(0xc)).toBe(0);
  });

  test('throws for the client, and what it rejects with is for onError', async () => {
    const errors: unknown[] = [];
    const bar = await open({
      on: {
        SMALL: () => {
          throw new DeviceError(16, 'busy');
        },
        WIDE: () => Promise.reject(new Error('later')),
      },
      onError: (error) => errors.push(error),
    });
    await expect(bar.writeUInt16(0x18, 1)).rejects.toMatchObject({ code: 'EBUSY' });
    await bar.writeUInt64(0x10, 1n);
    await until(() => errors.length === 1);
    expect(errors).toMatchObject([{ message: 'later' }]);
  });

  test('what clears itself does so when the work is over', async () => {
    let finish = (): void => undefined;
    const bar = await open({ on: { 'CMD.GO': () => new Promise<void>((resolve) => (finish = resolve)) } });
    await bar.writeUInt32(0xc, 1);
    expect(await bar.readUInt32(0xc)).toBe(1);
    finish();
    await bar.waitFor(0xc, 1, 0);
  });

  test('what clears itself does so although its function throws; what no promise is means nothing', async () => {
    const errors: unknown[] = [];
    const nonsense = (() => 5) as unknown as () => void;
    const bar = await open({
      on: {
        'CMD.GO': () => {
          throw new DeviceError(16, 'busy');
        },
        SMALL: nonsense,
      },
      reset: nonsense,
      onError: (error) => errors.push(error),
    });
    await expect(bar.writeUInt32(0xc, 1)).rejects.toMatchObject({ code: 'EBUSY' });
    expect(await bar.readUInt32(0xc)).toBe(0);
    await bar.writeUInt16(0x18, 1);
    await device?.reset();
    expect(errors).toEqual([]);
  });

  test('a reset ends what is under way: nothing of it has an effect', async () => {
    let handle: DeviceHandle | undefined;
    let ended: unknown;
    const resets: number[] = [];
    const bar = await open({
      interrupts: { msi: 1 },
      on: {
        'CMD.GO': async (own) => {
          handle = own;
          await sleep(60_000, undefined, { signal: own.signal, ref: false }).catch((error: unknown) => {
            ended = error;
          });
          own.set('SMALL', 1);
          own.raise();
          await own.dma.read(0n, 4);
        },
      },
      reset: (own) => void resets.push(own.get('SMALL')),
      onError: (error) => {
        throw error;
      },
    });
    await bar.writeUInt32(0xc, 1);
    await device!.reset();
    await until(() => ended !== undefined);
    expect(ended).toMatchObject({ name: 'AbortError' });
    expect(handle!.isStale).toBe(true);
    expect(handle!.signal.aborted).toBe(true);
    await expect(handle!.dma.write(0n, Buffer.alloc(1))).rejects.toMatchObject({ code: 'ECANCELED' });
    expect(await bar.readUInt16(0x18)).toBe(0xbeef);
    expect(resets).toEqual([0xbeef]);
  });

  test('a reset bit leaves config space alone', async () => {
    const bar = await open({ on: { 'CMD.GO': (own) => own.resetRegisters() } });
    await bar.writeUInt16(0x18, 1);
    await bar.writeUInt32(0xc, 1);
    expect(await bar.readUInt16(0x18)).toBe(0xbeef);
    expect(device!.config.command & 2).toBe(2);
  });
});

describe('a handle', () => {
  const model = defineDevice({ id, map: POLICIES });

  test('gets and sets whatever the access is, by numbers, bigints and names', () => {
    const { handle } = model;
    handle.set('MIX.RO', 9);
    handle.set('CMD.MODE', 'FAST');
    handle.set('WIDE', 2n ** 64n - 1n);
    expect([handle.get('MIX.RO'), handle.get('P.CMD.MODE'), handle.get('CMD')]).toEqual([9, 2, 4]);
    expect(handle.getBigInt('WIDE')).toBe(2n ** 64n - 1n);
  });

  test.each<[string, () => unknown, string]>([
    ['a name', () => model.handle.get('NONE'), 'the device has no register or field "NONE"'],
    ['a width', () => model.handle.get('WIDE'), 'WIDE has 64 bits: getBigInt gives them'],
    [
      'a value',
      () => model.handle.set('CMD.MODE', 4),
      'CMD.MODE must be an unsigned integer of 2 bits, got 4',
    ],
    [
      'a negative',
      () => model.handle.set('SMALL', -1),
      'SMALL must be an unsigned integer of 16 bits, got -1',
    ],
    [
      'a value’s name',
      () => model.handle.set('CMD.MODE', 'MID'),
      'has no value "MID"; its values are SLOW, FAST',
    ],
    ['an interrupt', () => model.handle.raise(), 'the device has no interrupts'],
    ['memory', () => model.handle.memory(3), 'BAR 3 of the device has no memory'],
  ])('refuses %s that is none', (_, act, message) => {
    expect(act).toThrow(RangeError);
    expect(act).toThrow(message);
  });

  test('has no memory of a client where there is none', async () => {
    await expect(model.handle.dma.read(0n, 4)).rejects.toMatchObject({ code: 'EFAULT' });
  });
});

describe('interrupts, DMA and memory, over a socket', () => {
  let directory: string;

  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  async function serving(
    definition: Partial<DeviceDefinition>,
  ): Promise<AsyncDisposable & { model: ReturnType<typeof defineDevice> }> {
    directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));
    const model = defineDevice({ id, map: POLICIES, ...definition });
    const server = await serve(model, { path: path.join(directory, 's') });
    device = await connect(server.path!);
    await device.enable();
    return {
      model,
      [Symbol.asyncDispose]: async () => {
        await device?.close();
        await server.close();
        model.close();
      },
    };
  }

  test.each([
    ['in a BAR of its own', { msix: 4 }],
    ['in the registers’ BAR', { msix: { vectors: 4, bar: 0, table: 0x800, pba: 0xc00 } }],
  ])('MSI-X with its table %s', async (_, interrupts) => {
    await using served = await serving({ interrupts });
    const vectors = await device!.irqs.msix.enable(4);
    served.model.handle.raise(2);
    expect(await vectors[2]!.wait({ timeoutMs: 5_000 })).toBe(1);
    expect(vectors[1]!.take()).toBe(0);
    expect(() => served.model.handle.raise(4)).toThrow(RangeError);
    // Registers beside the table are registers.
    expect(await device!.bar(0).readUInt16(0x18)).toBe(0xbeef);
  });

  test('MSI and INTx, whichever is enabled', async () => {
    await using served = await serving({ interrupts: { msi: 2, intx: true } });
    const { handle } = served.model;
    const [line] = await device!.irqs.intx.enable(1);
    handle.raise();
    expect(await line.wait({ timeoutMs: 5_000 })).toBe(1);
    handle.lower();
    await device!.irqs.intx.disable();
    const [first, second] = await device!.irqs.msi.enable(2);
    handle.raise(1);
    expect(await second!.wait({ timeoutMs: 5_000 })).toBe(1);
    expect(first.take()).toBe(0);
  });

  test('DMA with the memory of who wrote, and memory that clients map', async () => {
    await using served = await serving({
      bars: [{ index: 0 }, { index: 2, size: 8192, kind: 'memory64', memory: 'shared' }],
      interrupts: { msix: 1 },
      on: {
        WIDE: async (own, address: number | bigint) => {
          const bytes = await own.dma.read(BigInt(address), 16);
          bytes.copy(own.memory(2));
          own.raise();
        },
      },
    });
    const [done] = await device!.irqs.msix.enable(1);
    const buffer = await device!.dma.alloc(4096);
    buffer.bytes.write('what is to be read');
    await device!.bar(0).writeUInt64(0x10, buffer.iova);
    await done.wait({ timeoutMs: 5_000 });
    const area = device!.bar(2).map();
    expect(Buffer.from(area.bytes.subarray(0, 16)).toString()).toBe('what is to be re');
    expect(served.model.handle.memory(2).toString('utf8', 0, 4)).toBe('what');
  });
});

describe('a definition that makes no sense', () => {
  const two: RegisterMapData = {
    ...POLICIES,
    blocks: [POLICIES.blocks[0]!, { name: 'Q', base: 0x1000, children: [{ name: 'SMALL', offset: 0 }] }],
  };
  test.each<[string, Partial<DeviceDefinition>, string]>([
    ['an option', { bar: [] } as object, 'defineDevice: unknown option bar; did you mean bars?'],
    ['an id', { id: { vendorId: 1 } as never }, 'defineDevice: id.deviceId must be a number, got undefined'],
    [
      'a map',
      { map: 7 as never },
      'defineDevice: map must be a RegisterMap, its data, or the path of a file, got 7',
    ],
    ['a name', { on: { NONE: () => undefined } }, 'the device has no register or field "NONE"'],
    ['a pattern', { on: { 'X[*].A': () => undefined } }, 'no register or field is called "X[*].A"'],
    ['two of a name', { map: two, on: { SMALL: () => undefined } }, 'say P.SMALL and Q.SMALL'],
    [
      'a behaviour',
      { on: { SMALL: 7 as never } },
      'on["SMALL"] must be a function, or an object with read or write',
    ],
    [
      'a member',
      { on: { SMALL: { wirte: 1 } as never } },
      'on["SMALL"] has wirte; it may have read and write',
    ],
    ['nothing', { on: { SMALL: {} } }, 'has neither read nor write'],
    ['a block', { bars: [{ index: 0, block: 'X' }] }, 'the map policies has no block X'],
    ['a block twice', { bars: [{ index: 0 }, { index: 1 }] }, 'the block P is in BAR 0 and BAR 1'],
    ['a size', { bars: [{ index: 0, size: 16 }] }, 'BAR 0 has 16 bytes, and its registers end at 88'],
    [
      'no registers',
      { bars: [{ index: 0, size: 4096, memory: 'private' }] },
      'no BAR has registers of the map',
    ],
    [
      'memory without a size',
      { bars: [{ index: 0 }, { index: 1, memory: 'private' }] },
      'BAR 1 needs a size',
    ],
    ['two contents', { bars: [{ index: 0, block: 'P', memory: 'private', size: 4096 }] }, 'one of them'],
    [
      'MSI-X on registers',
      { interrupts: { msix: { vectors: 1, bar: 0, table: 0, pba: 0x800 } } },
      'overlaps MIX…CMD',
    ],
    ['MSI-X nowhere', { interrupts: { msix: { vectors: 1, bar: 0 } } }, 'say table and pba'],
    [
      'vectors',
      { interrupts: { msix: 2049 } },
      'interrupts.msix must be an integer from 0 to 2048, got 2049',
    ],
    ['MSI', { interrupts: { msi: 3 } }, 'vectors must be a power of two up to 32, got 3'],
  ])('%s', (_, more, message) => {
    expect(() => defineDevice({ id, map: POLICIES, ...more })).toThrow(message);
  });

  test('a map of nonsense', () => {
    expect(() => defineDevice({ id, map: {} as never })).toThrow(RegisterMapError);
    expect(() => defineDevice({ id, map: '/none/of/this.svd' })).toThrow(/ENOENT/);
  });
});
