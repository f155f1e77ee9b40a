/** A device that contradicts itself is not served; what its functions do wrong is told, and ends nothing. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import {
  DeviceError,
  EduDevice,
  NvmeDevice,
  MemoryStore,
  PciConfigSpace,
  PciDevice,
  RamDevice,
  msiCapability,
  msixCapability,
  serve,
  serveFd,
  serveStream,
  type ClientContext,
  type ConfigCapability,
  type DeviceModel,
  type EmulatorOptions,
  type IrqModel,
  type PciBar,
  type RegionModel,
} from '../../lib/emulator/index.js';
import { MsixTable } from '../../lib/emulator/msix-table.js';
import { PassThrough } from 'node:stream';
import { Scratch } from '../cli/cli.js';
import { deviceFeatureRequest, migDataReadRequest, regionReadRequest } from '../support/wire.js';
import { connected } from './fixture.js';

const INTX = 0;
const MSI = 1;
const MSIX = 2;
const EIO = 5;

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

interface Parts {
  bars?: readonly PciBar[];
  capabilities?: readonly ConfigCapability[];
  interruptPin?: number;
  irqs?: readonly IrqModel[];
  regions?: readonly RegionModel[];
}

function bytes(index: number, size: number): RegionModel {
  return { index, size, memory: { bytes: Buffer.alloc(size) } };
}

class Composed extends PciDevice {
  constructor({ irqs = [], regions = [], ...config }: Parts) {
    super(new PciConfigSpace({ vendorId: 1, deviceId: 2, ...config }), irqs);
    for (const region of regions) this.addRegion(region);
  }
}

async function refusal(make: () => DeviceModel): Promise<Error> {
  const device = make();
  const error = await serve(device, { path: scratch.path('s') }).then(
    () => new Error('it was served'),
    (reason: unknown) => reason as Error,
  );
  expect(() => serveFd(device, 0)).toThrow(error.message);
  expect(() => serveStream(device, new PassThrough())).toThrow(error.message);
  return error;
}

const BAR2 = { index: 2, size: 4096 };
const TABLE = { bir: 2, offset: 0 };
const PBA = { bir: 2, offset: 2048 };

describe('is not served', () => {
  test.each<[string, Parts, string]>([
    ['a BAR without a region', { bars: [BAR2] }, 'BAR 2 has 4096 bytes in config space, and region 2 0'],
    [
      'a region without a BAR',
      { regions: [bytes(0, 64)] },
      'BAR 0 has 0 bytes in config space, and region 0 64',
    ],
    [
      'a region of another size',
      { bars: [BAR2], regions: [bytes(2, 8192)] },
      'BAR 2 has 4096 bytes in config space, and region 2 8192',
    ],
    [
      'a region where the upper half of a BAR is',
      { bars: [{ index: 0, size: 64, kind: 'memory64' }], regions: [bytes(0, 64), bytes(1, 64)] },
      'BAR 1 has 0 bytes in config space, and region 1 64',
    ],
    [
      'MSI-X in config space alone',
      { bars: [BAR2], regions: [bytes(2, 4096)], capabilities: [msixCapability(4, TABLE, PBA)] },
      'the device has 0 interrupts of index 2, and in config space MSI-X has 4',
    ],
    [
      'more interrupts than MSI-X has',
      {
        bars: [BAR2],
        regions: [bytes(2, 4096)],
        capabilities: [msixCapability(4, TABLE, PBA)],
        irqs: [{ index: MSIX, count: 5 }],
      },
      'the device has 5 interrupts of index 2, and in config space MSI-X has 4',
    ],
    [
      'interrupts of MSI-X without the capability',
      { irqs: [{ index: MSIX, count: 1 }] },
      'the device has 1 interrupts of index 2, and in config space there is no MSI-X capability',
    ],
    [
      'fewer interrupts than MSI has',
      { capabilities: [msiCapability(4)], irqs: [{ index: MSI, count: 2 }] },
      'the device has 2 interrupts of index 1, and in config space MSI has 4',
    ],
    [
      'INTx without a pin',
      { irqs: [{ index: INTX, count: 1 }] },
      'the device has 1 interrupts of index 0, and in config space its interrupt pin is 0',
    ],
    [
      'a pin without INTx',
      { interruptPin: 2 },
      'the device has 0 interrupts of index 0, and in config space its interrupt pin is 2',
    ],
    [
      'a table beyond its BAR',
      {
        bars: [BAR2],
        regions: [bytes(2, 4096)],
        capabilities: [msixCapability(256, { bir: 2, offset: 8 }, { bir: 2, offset: 0 })],
        irqs: [{ index: MSIX, count: 256 }],
      },
      'MSI-X: the table, 4096 bytes at 8 of BAR 2, must be in memory; that BAR has 4096 bytes of memory32',
    ],
    [
      'pending bits in no BAR',
      {
        bars: [BAR2],
        regions: [bytes(2, 4096)],
        capabilities: [msixCapability(4, TABLE, { bir: 3, offset: 0 })],
        irqs: [{ index: MSIX, count: 4 }],
      },
      'MSI-X: the pending bits, 8 bytes at 0 of BAR 3, must be in memory; that BAR does not exist',
    ],
    [
      'a table in I/O',
      {
        bars: [{ index: 0, size: 256, kind: 'io' }, BAR2],
        regions: [bytes(0, 256), bytes(2, 4096)],
        capabilities: [msixCapability(4, { bir: 0, offset: 0 }, PBA)],
        irqs: [{ index: MSIX, count: 4 }],
      },
      'MSI-X: the table, 64 bytes at 0 of BAR 0, must be in memory; that BAR has 256 bytes of io',
    ],
    [
      'table and pending bits that overlap',
      {
        bars: [BAR2],
        regions: [bytes(2, 4096)],
        capabilities: [msixCapability(4, TABLE, { bir: 2, offset: 56 })],
        irqs: [{ index: MSIX, count: 4 }],
      },
      'MSI-X: the table and the pending bits overlap in BAR 2',
    ],
    [
      'a region twice',
      { bars: [BAR2], regions: [bytes(2, 4096), bytes(2, 4096)] },
      'the device has region 2 twice',
    ],
    [
      'an interrupt twice',
      {
        irqs: [
          { index: 3, count: 1 },
          { index: 3, count: 1 },
        ],
      },
      'the device has interrupt 3 twice',
    ],
    [
      '33 of MSI',
      { irqs: [{ index: MSI, count: 33 }] },
      'interrupt 1: count must be an integer from 0 to 32, got 33',
    ],
    ['half an interrupt', { irqs: [{ index: 3, count: 0.5 }] }, 'interrupt 3: count must be an integer'],
    [
      'a region of NaN',
      { regions: [bytes(9, 64), { ...bytes(10, 8), size: NaN }] },
      'region 10: size must be an integer',
    ],
    ['a region of nothing', { regions: [{ index: 9, size: 64 }] }, 'region 9 has neither handler nor memory'],
    [
      'a handler of half',
      { regions: [{ index: 9, size: 64, handler: { read: () => Buffer.alloc(0) } as never }] },
      'region 9: its handler must have the functions read and write',
    ],
    [
      'memory that is short',
      { regions: [{ ...bytes(9, 64), size: 65 }] },
      'region 9 has 65 bytes, its memory 64',
    ],
  ])('%s', async (_, parts, message) => {
    const error = await refusal(() => new Composed(parts));
    expect(error.message).toContain(message);
    expect(error.name).toMatch(/^(Type|Range)Error$/);
  });

  test.each<[unknown, string]>([
    [undefined, 'the device must be a DeviceModel, got undefined'],
    [{ irqs: [] }, 'the device: regions must be a list, got undefined'],
    [{ regions: [] }, 'the device: irqs must be a list, got undefined'],
    [{ regions: [], irqs: [], flags: -1 }, 'the device: flags must be an unsigned 32-bit integer, got -1'],
  ])('%j', async (device, message) => {
    expect(await refusal(() => device as DeviceModel)).toMatchObject({ message });
  });

  test("none of the library's own, nor one that agrees with itself", async () => {
    const agreeing = new Composed({
      bars: [{ index: 0, size: 64, kind: 'memory64' }, BAR2],
      regions: [bytes(0, 64), bytes(2, 4096), bytes(9, 5)],
      capabilities: [msixCapability(66, TABLE, PBA), msiCapability(2)],
      interruptPin: 1,
      irqs: [INTX, MSI, MSIX, 5].map((index) => ({ index, count: [1, 2, 66][index] ?? 3 })),
    });
    const ram = new RamDevice();
    const nvme = new NvmeDevice({ namespaces: [{ store: new MemoryStore(1 << 20) }] });
    for (const device of [agreeing, new EduDevice(), ram, nvme]) {
      const server = await serve(device, { path: scratch.path('s') });
      await server.close();
    }
    ram.close();
    await nvme.close();
  });
});

describe('cannot be made', () => {
  test.each<[() => unknown, string]>([
    [
      () => new PciConfigSpace({ vendorId: 0x10000, deviceId: 1 }),
      'vendorId must be an unsigned 16-bit integer',
    ],
    [() => new PciConfigSpace({ vendorId: 1.5, deviceId: 1 }), 'vendorId must be an unsigned 16-bit integer'],
    [
      () => new PciConfigSpace({ vendorId: 1, deviceId: 1, interruptPin: 5 }),
      'interruptPin must be an integer from 0',
    ],
    [
      () => new PciConfigSpace({ vendorId: 1, deviceId: 1, size: 100 as 256 }),
      'size must be 256 or 4096, got 100',
    ],
    [
      () => new PciConfigSpace({ vendorId: 1, deviceId: 1, bars: [{ index: 6, size: 64 }] }),
      'bars[0].index must be an integer from 0 to 5, got 6',
    ],
    [
      () => new PciConfigSpace({ vendorId: 1, device: 1 } as never),
      'unknown option device; did you mean deviceId?',
    ],
    [() => msixCapability(2049, TABLE, PBA), 'vectors must be an integer from 1 to 2048, got 2049'],
    [() => msixCapability(1, { bir: 6, offset: 0 }, PBA), 'table.bir must be an integer from 0 to 5, got 6'],
    [() => msixCapability(1, TABLE, { bir: 0, offset: 4 }), 'pba.offset must be a multiple of 8, got 4'],
    [() => msiCapability(3), 'vectors must be a power of two up to 32, got 3'],
    [() => new DeviceError(0), 'errno must be an integer from 1 to 4095, got 0'],
    [
      () => {
        const capabilities = [msixCapability(4, TABLE, PBA)];
        const config = new PciConfigSpace({ vendorId: 1, deviceId: 1, capabilities });
        return new MsixTable(config, { vectors: 5, table: 0, pending: 2048 });
      },
      'MsixTable: vectors must be 4, as the capability says, got 5',
    ],
    [
      () =>
        new MsixTable(new PciConfigSpace({ vendorId: 1, deviceId: 1 }), { vectors: 1, table: 0, pending: 8 }),
      'config space has no MSI-X capability',
    ],
  ])('%s', (make, message) => {
    expect(make).toThrow(message);
  });
});

describe('is told, and ends nothing', () => {
  const errors: unknown[] = [];
  const options: EmulatorOptions = { onError: (error) => errors.push(error) };

  beforeEach(() => void errors.splice(0));

  test.each<[string, unknown]>([
    ['fewer bytes', Buffer.alloc(3)],
    ['more bytes', Buffer.alloc(5)],
    ['other elements', new Uint32Array(1)],
    ['nothing', undefined],
    ['a promise of fewer', Promise.resolve(Buffer.alloc(3))],
  ])('a read that returns %s', async (_, answer) => {
    const handler = { read: () => answer as Buffer, write: () => undefined };
    const client = await connected({ regions: [{ index: 9, size: 64, handler }], irqs: [] }, options);
    const reply = await client.ask(regionReadRequest({ region: 9, offset: 0, count: 4 }));
    expect(reply.errno).toBe(EIO);
    expect(errors).toEqual([
      expect.objectContaining({
        message: expect.stringMatching(/^region 9: what read\(0, 4\) returns must /),
      }),
    ]);
  });

  test("a migration's read that is too long, a feature without an answer", async () => {
    const device = {
      regions: [],
      irqs: [],
      migrationData: { read: () => Buffer.alloc(9), write: () => undefined },
      feature: () => undefined,
    };
    const client = await connected(device, options);
    expect((await client.ask(migDataReadRequest({ size: 8 }))).errno).toBe(EIO);
    expect((await client.ask(deviceFeatureRequest({ flags: 0x10002, argsz: 64 }))).errno).toBe(EIO);
    expect(errors.map((error) => (error as Error).message)).toEqual([
      'what migrationData.read(8) returns must have at most 8 bytes, got 9',
      'what feature 2 answers must be a Uint8Array or Buffer, got undefined',
    ]);
  });

  test('an interrupt that the device does not have, raised from a timer', async () => {
    let context: ClientContext | undefined;
    const device: DeviceModel = {
      regions: [],
      irqs: [{ index: MSIX, count: 2 }],
      attach: (client) => (context = client),
    };
    const client = await connected(device, options);
    const raised = new Promise<boolean[]>((resolve) => {
      setTimeout(() => resolve([2, -1, 1.5, NaN].map((sub) => context!.irq(MSIX, sub).trigger())), 1);
    });
    expect(await raised).toEqual([false, false, false, false]);
    expect(errors.map((error) => (error as Error).message)).toEqual(
      [2, -1, 1.5, NaN].map(
        (sub) => `interrupt ${sub} of index 2 was raised, which the device does not have`,
      ),
    );
    client.close();
  });

  test.each<[string, () => unknown, string]>([
    [
      'an intercept that throws',
      () => {
        throw new Error('own');
      },
      'own',
    ],
    [
      'a verdict that is none',
      () => 'Drop',
      "intercept: the verdict must be 'pass', 'drop', 'close', { errno } or { delayMs }, got \"Drop\"",
    ],
    [
      'an errno that is none',
      () => ({ errno: 0 }),
      'intercept: errno must be an integer from 1 to 4095, got 0',
    ],
    ['a delay of NaN', () => ({ delayMs: NaN }), 'intercept: delayMs must be from 0 to 2147483647, got NaN'],
    [
      'a delay in a string',
      () => ({ delayMs: '5' }),
      'intercept: delayMs must be a number of milliseconds, got "5"',
    ],
  ])('%s', async (_, verdict, message) => {
    const client = await connected(
      { regions: [], irqs: [] },
      { ...options, intercept: ({ command }) => (command === 9 ? (verdict() as never) : 'pass') },
    );
    const reply = await client.ask(regionReadRequest({ region: 0, offset: 0, count: 4 }));
    expect(reply.errno).toBe(EIO);
    expect(errors).toEqual([expect.objectContaining({ message })]);
  });

  test('an onClient that throws; and an onError that does is a warning', async () => {
    // Jest's own process is not the one that warns.
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    const client = await connected(
      { regions: [], irqs: [] },
      {
        onClient: () => {
          throw new Error('of onClient');
        },
        onError: () => {
          throw new Error('of onError');
        },
      },
    );
    expect((await client.ask(regionReadRequest({ region: 0, offset: 0, count: 4 }))).errno).toBe(22);
    const warnings = warn.mock.calls.map(([warning]) => (warning as Error).message);
    warn.mockRestore();
    expect(warnings).toEqual(['of onClient', 'of onError']);
  });
});
