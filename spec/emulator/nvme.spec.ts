/** The emulated controller where a well-behaved driver does not go. */
import { describe, expect, test } from '@jest/globals';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  FileStore,
  MemoryStore,
  NvmeDevice,
  type BlockStore,
  type ClientMemory,
} from '../../lib/emulator/index.js';
import { Engine, type EngineHost } from '../../lib/emulator/nvme/engine.js';
import { Health } from '../../lib/emulator/nvme/health.js';
import type { Personality } from '../../lib/emulator/nvme/identify-data.js';
import { IoCommands } from '../../lib/emulator/nvme/io-commands.js';
import { EmulatedNamespace } from '../../lib/emulator/nvme/namespace.js';
import { dataSegments } from '../../lib/emulator/nvme/prps.js';
import { CompletionRing, SubmissionRing } from '../../lib/emulator/nvme/rings.js';
import { sglSegments } from '../../lib/emulator/nvme/sgls.js';
import { NvmeController, type AdminCommand } from '../../lib/nvme/index.js';
import { cleanup, connected, errorOf, opened, pattern } from '../nvme/fixture.js';
import { TurnPace } from '../../lib/turn-share.js';

const CC = 0x14;
const CSTS = 0x1c;
const RDY = 1;
const CFS = 2;

function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  cleanup(() => rmSync(directory, { recursive: true }));
  return directory;
}

describe('registers', () => {
  test('are read and written in dwords and qwords', async () => {
    const { device } = await connected();
    const bar = device.bar(0);
    // MQES 1,023, CQR, TO 2, NVM command set.
    expect(await bar.readUInt64(0)).toBe(0x0000_0020_0201_03ffn);
    expect(await bar.readUInt32(8)).toBe(0x0002_0000);
    await bar.writeUInt64(0x28, 0x1_2345_6000n);
    expect(await bar.readUInt32(0x2c)).toBe(1);
    await bar.writeUInt32(0x2c, 2);
    expect(await bar.readUInt64(0x28)).toBe(0x2_2345_6000n);
    await bar.writeUInt32(0x24, 0xffff_ffff);
    expect(await bar.readUInt32(0x24)).toBe(0x0fff_0fff);
    await bar.writeUInt32(0x0c, 5);
    await bar.writeUInt32(0x10, 4);
    expect(await bar.readUInt32(0x0c)).toBe(1);
  });

  test('and in nothing else', async () => {
    const { device } = await connected();
    const bar = device.bar(0);
    for (const access of [
      bar.readUInt8(0),
      bar.readUInt16(0),
      bar.read(4, 8),
      bar.read(0, 16),
      bar.writeUInt16(0x14, 1),
    ]) {
      expect(await errorOf(access as Promise<unknown>)).toMatchObject({ code: 'EINVAL' });
    }
    expect(await errorOf(bar.writeUInt64(0x1000, 1n))).toMatchObject({ code: 'EINVAL' });
  });

  test('a device that says what it is', async () => {
    const { device } = await connected();
    expect(device.config.header).toMatchObject({
      vendorId: 0x1234,
      deviceId: 0x5845,
      classCode: { base: 1, sub: 8, progIf: 2 },
    });
    expect(device.irqs.msix.count).toBe(17);
    expect(device.bar(0).areas).toMatchObject([{ offset: 0x1000, size: 0x1000 }]);
  });

  test('cannot be enabled with queues that are not page-aligned, or pages of another size', async () => {
    const { device } = await connected();
    const bar = device.bar(0);
    await bar.writeUInt64(0x28, 0x1001n);
    await bar.writeUInt32(CC, 0x0046_0001);
    expect(await bar.readUInt32(CSTS)).toBe(CFS);
    await bar.writeUInt32(CC, 0);
    expect(await bar.waitFor(CSTS, RDY | CFS, 0)).toBe(0);
    await bar.writeUInt64(0x28, 0n);
    await bar.writeUInt32(CC, 0x0046_0081);
    expect(await bar.readUInt32(CSTS)).toBe(CFS);
  });

  test('shutdown is acknowledged', async () => {
    const { controller, device } = await opened();
    await device.bar(0).writeUInt32(CC, 0x0046_4001);
    expect(await device.bar(0).waitFor(CSTS, 0xc, 0x8)).toBe(0x9);
    await controller.reset();
  });

  test('a device reset disables it', async () => {
    const { device } = await opened();
    await device.reset();
    expect(await device.bar(0).readUInt32(CSTS)).toBe(0);
    expect(await device.bar(0).readUInt32(CC)).toBe(0);
  });
});

describe('commands that are wrong', () => {
  /** CDW10 of queue creation. */
  const queue = (id: number, entries: number) => (((entries - 1) << 16) | id) >>> 0;

  test.each<[string, AdminCommand, string]>([
    ['an unknown opcode', { opcode: 0x1f }, 'INVALID_OPCODE'],
    ['an unknown structure', { opcode: 6, cdw10: 0x20, receive: 4096 }, 'INVALID_FIELD'],
    ['an unknown log page', { opcode: 2, cdw10: 0x00ff_0080, receive: 1024 }, 'INVALID_LOG_PAGE'],
    ['a log page beyond its end', { opcode: 2, cdw10: 0x0000_0002, cdw12: 516, receive: 4 }, 'INVALID_FIELD'],
    [
      'a namespace that is not there',
      { opcode: 6, cdw10: 0, namespace: 2, receive: 4096 },
      'INVALID_NAMESPACE_OR_FORMAT',
    ],
    ['a completion queue 0', { opcode: 5, cdw10: queue(0, 8), cdw11: 1 }, 'INVALID_QUEUE_IDENTIFIER'],
    ['a completion queue too many', { opcode: 5, cdw10: queue(17, 8), cdw11: 1 }, 'INVALID_QUEUE_IDENTIFIER'],
    ['one that is not contiguous', { opcode: 5, cdw10: queue(1, 8), cdw11: 0 }, 'INVALID_FIELD'],
    ['one of one entry', { opcode: 5, cdw10: queue(1, 1), cdw11: 1 }, 'INVALID_QUEUE_SIZE'],
    ['one of too many', { opcode: 5, cdw10: queue(1, 1025), cdw11: 1 }, 'INVALID_QUEUE_SIZE'],
    [
      'a vector that is not there',
      { opcode: 5, cdw10: queue(1, 8), cdw11: 0x0011_0003 },
      'INVALID_INTERRUPT_VECTOR',
    ],
    [
      'a submission queue without the other',
      { opcode: 1, cdw10: queue(1, 8), cdw11: 0x0001_0001 },
      'COMPLETION_QUEUE_INVALID',
    ],
    ['deleting no queue', { opcode: 0, cdw10: 3 }, 'INVALID_QUEUE_IDENTIFIER'],
    ['deleting the admin queue', { opcode: 4, cdw10: 0 }, 'INVALID_QUEUE_IDENTIFIER'],
    ['a feature that is not there', { opcode: 9, cdw10: 0x7f }, 'INVALID_FIELD'],
    ['too many queues', { opcode: 9, cdw10: 7, cdw11: 0xffff_0000 }, 'INVALID_FIELD'],
    ['shadow doorbells that were not offered', { opcode: 0x7c }, 'INVALID_OPCODE'],
  ])('%s', async (_, command, name) => {
    const { controller } = await opened();
    expect(await errorOf(controller.adminCommand(command))).toMatchObject({ statusName: name, dnr: true });
  });

  test('queues in the wrong order', async () => {
    const { controller, device } = await opened();
    await controller.createQueue();
    const rings = await device.dma.alloc(8192);
    expect(await errorOf(controller.adminCommand({ opcode: 4, cdw10: 1 }))).toMatchObject({
      statusName: 'INVALID_QUEUE_DELETION',
    });
    expect(await errorOf(controller.adminCommand({ opcode: 9, cdw10: 7 }))).toMatchObject({
      statusName: 'COMMAND_SEQUENCE_ERROR',
    });
    expect(await errorOf(controller.adminCommand({ opcode: 5, cdw10: queue(1, 8), cdw11: 1 }))).toMatchObject(
      {
        statusName: 'INVALID_QUEUE_IDENTIFIER',
      },
    );
    await rings.free();
  });

  test('aborting what is not there', async () => {
    const { controller } = await opened();
    const { result } = await controller.adminCommand({ opcode: 8, cdw10: 0x0005_0001 });
    expect(result).toBe(1);
  });

  test('more event requests than the limit; the rest wait, and can be aborted', async () => {
    const { controller, emulated } = await opened({ nvme: { asyncEvents: false } });
    const waiting = Array.from({ length: 5 }, () =>
      controller.adminCommand({ opcode: 0x0c }, { timeoutMs: Infinity }).catch((error: unknown) => error),
    );
    expect(await waiting[4]).toMatchObject({ statusName: 'ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED' });
    emulated.raiseEvent(1);
    expect(await waiting[0]).toMatchObject({ result: 1 });
    await controller.reset();
    expect(await waiting[1]).toMatchObject({ code: 'ERR_NVME_RESET' });
  });
});

describe('data pointers', () => {
  /** Client memory in which every qword is its own address' page, for lists. */
  const memory: ClientMemory = {
    read: (address, length) => {
      const bytes = Buffer.alloc(length);
      for (let at = 0; at < length; at += 8)
        bytes.writeBigUInt64LE(0x10_0000n + address * 512n + BigInt(at) * 512n, at);
      return Promise.resolve(bytes);
    },
    write: () => Promise.resolve(),
  };

  test('that follow each other are one segment', async () => {
    expect(await dataSegments(memory, 0x1800n, 0x2000n, 4096)).toEqual([{ address: 0x1800n, length: 4096 }]);
    expect(await dataSegments(memory, 0x1800n, 0x9000n, 4096)).toEqual([
      { address: 0x1800n, length: 2048 },
      { address: 0x9000n, length: 2048 },
    ]);
    expect(await dataSegments(memory, 0x1000n, 0n, 0)).toEqual([]);
  });

  test('in a list', async () => {
    expect(await dataSegments(memory, 0x1000n, 0x40n, 3 * 4096)).toEqual([
      { address: 0x1000n, length: 4096 },
      { address: 0x10_8000n, length: 8192 },
    ]);
  });

  test.each([
    ['PRP1 within a dword', 0x1002n, 0n, 512],
    ['PRP2 within a page', 0x1000n, 0x2004n, 8192],
    ['a list within a qword', 0x1000n, 0x2004n, 16_384],
  ])('with offsets that cannot be: %s', async (_, prp1, prp2, length) => {
    await expect(dataSegments(memory, prp1, prp2, length)).rejects.toMatchObject({ status: 0x013 });
  });
});

describe('PRP lists', () => {
  test('that lead round in a circle are refused', async () => {
    const memory: ClientMemory = {
      read: (address, length) => {
        const bytes = Buffer.alloc(length);
        // The last place of the page is the way to itself.
        for (let at = 0; at < length; at += 8) bytes.writeBigUInt64LE(0x2ff8n, at);
        return address === 0x2ff8n ? Promise.resolve(bytes) : Promise.reject(new Error('no such memory'));
      },
      write: () => Promise.resolve(),
    };
    await expect(dataSegments(memory, 0x1000n, 0x2ff8n, 16_384)).rejects.toMatchObject({ status: 0x013 });
  });
});

describe('SGLs', () => {
  const DATA = 0x00;
  const SEGMENT = 0x20;
  const LAST = 0x30;

  function descriptor(address: bigint, length: number, type: number): Buffer {
    const bytes = Buffer.alloc(16);
    bytes.writeBigUInt64LE(address, 0);
    bytes.writeUInt32LE(length, 8);
    bytes[15] = type;
    return bytes;
  }

  /** Client memory that has these segments. */
  function holding(segments: Record<string, Buffer[]>): ClientMemory {
    return {
      read: (address, length) => {
        const bytes = Buffer.concat(segments[address.toString(16)] ?? []);
        return bytes.length >= length
          ? Promise.resolve(bytes.subarray(0, length))
          : Promise.reject(new Error('no such memory'));
      },
      write: () => Promise.resolve(),
    };
  }

  test('a data block', async () => {
    const first = descriptor(0x1234n, 512, DATA);
    expect(await sglSegments(holding({}), first, 512)).toMatchObject([{ address: 0x1234n, length: 512 }]);
  });

  test('segments, one after the other', async () => {
    const memory = holding({
      '1000': [
        descriptor(0x8000n, 100, DATA),
        descriptor(0x9001n, 0, DATA),
        descriptor(0x2000n, 16, SEGMENT),
      ],
      '2000': [descriptor(0x3000n, 32, LAST)],
      '3000': [descriptor(0xffff_ffff_ffff_0000n, 411, DATA), descriptor(0x5n, 1, DATA)],
    });
    expect(await sglSegments(memory, descriptor(0x1000n, 48, SEGMENT), 512)).toMatchObject([
      { address: 0x8000n, length: 100 },
      { address: 0xffff_ffff_ffff_0000n, length: 411 },
      { address: 0x5n, length: 1 },
    ]);
  });

  const circle = { '1000': [descriptor(0x1000n, 16, SEGMENT)] };
  const data = [descriptor(0x8000n, 512, DATA)];

  test.each([
    ['fewer bytes than the data', 0x00f, descriptor(0x1000n, 511, DATA), {}],
    ['more bytes than the data', 0x00f, descriptor(0x1000n, 513, DATA), {}],
    ['a bit bucket', 0x011, descriptor(0x1000n, 512, 0x10), {}],
    ['a keyed data block', 0x011, descriptor(0x1000n, 512, 0x40), {}],
    ['an address that is an offset', 0x011, descriptor(0x1000n, 512, 0x01), {}],
    ['a segment of no descriptor', 0x00d, descriptor(0x1000n, 0, LAST), { '1000': data }],
    ['a segment of half a descriptor', 0x00d, descriptor(0x1000n, 8, LAST), { '1000': data }],
    ['a segment that leads nowhere', 0x00d, descriptor(0x1000n, 16, SEGMENT), { '1000': data }],
    ['a last segment that leads on', 0x00d, descriptor(0x1000n, 16, LAST), circle],
    ['segments in a circle', 0x00e, descriptor(0x1000n, 16, SEGMENT), circle],
    ['a segment of 4 GiB', 0x00e, descriptor(0x1000n, 0xffff_fff0, LAST), {}],
  ])('%s', async (_, status, first, segments) => {
    await expect(sglSegments(holding(segments), first, 512)).rejects.toMatchObject({ status });
  });

  test.each([
    [0x40, true, 0x000],
    [0x80, true, 0x000],
    [0x40, false, 0x002],
    [0xc0, true, 0x002],
    [0x41, true, 0x002],
  ])('flags 0x%x where SGLs are taken: %s', async (flags, takesSgls, status) => {
    const namespaces = [new EmulatedNamespace(1, { store: new MemoryStore(4096) })];
    const personality = { takesSgls, mdts: 0, namespaces } as Partial<Personality> as Personality;
    const commands = new IoCommands(
      holding({ '8000': [Buffer.alloc(512)] }),
      personality,
      new Health(),
      new TurnPace(),
    );
    const sgl = descriptor(0x8000n, 512, DATA);
    const sqe = { opcode: 1, flags, cid: 0, nsid: 1, mptr: 0n, prp1: 0n, prp2: 0n, sgl };
    const executed = commands.execute({ ...sqe, cdw10: 0, cdw11: 0, cdw12: 0, cdw13: 0 });
    if (status === 0) expect(await executed).toBe(0);
    else await expect(executed).rejects.toMatchObject({ status });
  });
});

describe('stores', () => {
  const stores: [string, () => Promise<BlockStore>][] = [
    ['memory', () => Promise.resolve(new MemoryStore(5 << 20))],
    ['a file', () => FileStore.open(join(scratch(), 'disk'), 5 << 20)],
  ];

  test.each(stores)('%s', async (_, make) => {
    const store = await make();
    cleanup(() => store.close());
    expect(store.size).toBe(5 << 20);
    expect((await store.read(0, 100)).every((byte) => byte === 0)).toBe(true);
    const data = pattern(3 << 20);
    await store.write(500_000, data);
    expect(data.equals(await store.read(500_000, 3 << 20))).toBe(true);
    await store.clear(600_000, 2_500_000);
    const after = Buffer.from(await store.read(500_000, 3 << 20));
    expect(after.subarray(0, 100_000).equals(data.subarray(0, 100_000))).toBe(true);
    expect(after.subarray(100_000, 2_600_000).every((byte) => byte === 0)).toBe(true);
    expect(after.subarray(2_600_000).equals(data.subarray(2_600_000))).toBe(true);
    await store.flush();
  });

  test('a file that is there keeps its size and what it has', async () => {
    const path = join(scratch(), 'disk');
    writeFileSync(path, Buffer.alloc(8192, 3));
    const whole = await FileStore.open(path);
    expect(whole.size).toBe(8192);
    await whole.close();
    const larger = await FileStore.open(path, 16_384);
    expect((await larger.read(8191, 2)).equals(Buffer.from([3, 0]))).toBe(true);
    await larger.close();
    expect(readFileSync(path)).toHaveLength(16_384);
    const smaller = await FileStore.open(path, 4096);
    expect(smaller.size).toBe(4096);
    await smaller.close();
    expect(readFileSync(path)).toHaveLength(16_384);
  });

  test('what cannot be a store', async () => {
    const directory = scratch();
    writeFileSync(join(directory, 'empty'), '');
    await expect(FileStore.open(join(directory, 'none'))).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(FileStore.open(join(directory, 'empty'))).rejects.toThrow(RangeError);
    expect(() => new MemoryStore(0)).toThrow(RangeError);
  });

  test('a namespace in a file: what is written and flushed is there', async () => {
    const path = join(scratch(), 'disk');
    const store = await FileStore.open(path, 1 << 20);
    const { controller } = await opened({ emulated: { namespaces: [{ store, blockSize: 4096 }] } });
    const queue = await controller.createQueue();
    await queue.write(7, pattern(40_960));
    await queue.flush();
    expect(
      readFileSync(path)
        .subarray(7 * 4096, 17 * 4096)
        .equals(pattern(40_960)),
    ).toBe(true);
    await queue.deallocate([{ lba: 8, blocks: 1 }]);
    expect((await queue.read(8, 1)).every((byte) => byte === 0)).toBe(true);
  });

  test('a store that fails is an internal error', async () => {
    const store = new MemoryStore(1 << 20);
    store.read = () => {
      throw new Error('broken');
    };
    const { controller } = await opened({ emulated: { namespaces: [{ store }] } });
    const queue = await controller.createQueue();
    expect(await errorOf(queue.read(0, 1))).toMatchObject({ statusName: 'INTERNAL_ERROR' });
  });

  test('so is one that gives less than it was asked for', async () => {
    const store = new MemoryStore(1 << 20);
    store.read = (_, length) => Buffer.alloc(length - 1);
    const { controller } = await opened({ emulated: { namespaces: [{ store }] } });
    const queue = await controller.createQueue();
    expect(await errorOf(queue.read(0, 1))).toMatchObject({ statusName: 'INTERNAL_ERROR' });
  });

  test('a block that is written while it is read comes whole, as it was or as it is', async () => {
    const store = new MemoryStore(4096);
    store.write(0, Buffer.alloc(4096, 1));
    const written: Buffer[] = [];
    const memory: ClientMemory = {
      read: () => Promise.reject(new Error('no such memory')),
      write: (_, bytes) => {
        written.push(Buffer.from(bytes));
        store.write(0, Buffer.alloc(4096, 2));
        return Promise.resolve();
      },
    };
    const namespaces = [new EmulatedNamespace(1, { store, blockSize: 4096 })];
    const personality = { takesSgls: false, mdts: 0, namespaces } as Partial<Personality> as Personality;
    const commands = new IoCommands(memory, personality, new Health(), new TurnPace());
    const cdw = { cdw10: 0, cdw11: 0, cdw12: 0, cdw13: 0 };
    const sgl = Buffer.alloc(16);
    await commands.execute({
      opcode: 2,
      flags: 0,
      cid: 1,
      nsid: 1,
      mptr: 0n,
      prp1: 0x1800n,
      prp2: 0x4000n,
      sgl,
      ...cdw,
    });
    expect(written).toHaveLength(2);
    expect(Buffer.concat(written)).toEqual(Buffer.alloc(4096, 1));
  });

  test('all are closed, also where one cannot be', async () => {
    const stores = [new MemoryStore(4096), new MemoryStore(4096)];
    const device = new NvmeDevice({ namespaces: stores.map((store) => ({ store })) });
    stores[0]!.close = () => {
      throw new Error('broken');
    };
    expect((await errorOf(device.close())).message).toBe('broken');
    expect(stores[1]!.isClosed).toBe(true);
  });
});

describe('a completion queue that is full', () => {
  test('loses nothing, however many look for room at once', async () => {
    let head = 0;
    const posted: number[] = [];
    const memory: ClientMemory = {
      read: (_, length) => Promise.resolve(Buffer.alloc(length)),
      write: (address, bytes) => {
        if (bytes.length === 4) posted.push(Number(address));
        return Promise.resolve();
      },
    };
    const doorbells = { tail: () => 0, head: () => head };
    const host = { memory, doorbells, pace: new TurnPace(), isStalled: false, onFatal: () => undefined };
    const admin = new SubmissionRing(0, 0n, 2, new CompletionRing(0, 0n, 2, undefined));
    const engine = new Engine(host as unknown as EngineHost, admin);
    const cq = new CompletionRing(1, 0n, 4, undefined);
    const sq = new SubmissionRing(1, 0n, 64, cq);
    engine.cqs.set(1, cq);
    engine.sqs.set(1, sq);
    for (let cid = 0; cid < 9; cid++) engine.complete({ sq, cid, status: 0, result: 0 });
    await engine.idle();
    expect(posted).toHaveLength(3);
    // The host takes one, and the next, and says so several times.
    for (head = 1; head <= 2; head++) {
      for (let i = 0; i < 3; i++) engine.onDoorbell(1, 'head');
      await engine.idle();
      expect(posted).toHaveLength(3 + head);
    }
    expect(cq.waiting).toHaveLength(4);
  });
});

describe('what an NVMe device cannot be', () => {
  const store = new MemoryStore(1 << 20);
  test.each([
    { namespaces: [{ store, blockSize: 500 }] },
    { namespaces: [{ store, blockSize: 8192 }] },
    { namespaces: [{ store: new MemoryStore(100) }] },
    { namespaces: [], queues: 0 },
    { namespaces: [], queueEntries: 1 },
    { namespaces: [], mdts: 16 },
    { namespaces: [], vectors: 4000 },
    { namespaces: [], doorbellStride: 9 },
  ])('%#', (options) => {
    expect(() => new NvmeDevice(options)).toThrow(RangeError);
  });

  test('but one without namespaces', async () => {
    const { controller } = await opened({ emulated: { namespaces: [] } });
    expect(await controller.namespaceIds()).toEqual([]);
    await expect(controller.createQueue()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_UNSUPPORTED' });
  });
});

describe('clients', () => {
  test('who comes after another finds the data, and a controller that is disabled', async () => {
    const first = await opened();
    const queue = await first.controller.createQueue();
    await queue.write(0, pattern(512));
    await first.cut();
    expect(first.emulated.namespaces[0]!.store.read(0, 512)).toEqual(pattern(512));
    await first.controller.close();
  });

  test('two drivers, one after the other, on one connection', async () => {
    const { device, controller } = await opened();
    await (await controller.createQueue()).write(3, pattern(512));
    await controller.close();
    await using second = await NvmeController.open(device);
    expect((await (await second.createQueue()).read(3, 1)).equals(pattern(512))).toBe(true);
  });
});

describe('interrupts', () => {
  const ENTRY_CONTROL = 12;
  const PENDING = 0x8000;

  test('come to a host that has sent SET_IRQS and nothing else', async () => {
    const { controller, device } = await opened();
    const [vector] = await device.irqs.msix.enable(1, { host: false });
    await controller.smartLog();
    await vector.wait();
  });

  test('of a vector that the host masks in the table wait until it is unmasked', async () => {
    const { controller, device } = await opened();
    const [vector] = await device.irqs.msix.enable(1);
    const table = device.bar(4);
    await table.writeUInt32(ENTRY_CONTROL, 1);
    await controller.smartLog();
    expect(await table.waitFor(PENDING, 1, 1)).toBe(1);
    await table.writeUInt32(ENTRY_CONTROL, 0);
    await vector.wait();
    expect(await table.readUInt32(PENDING)).toBe(0);
  });
});

describe('Identify', () => {
  const NVM = 0;
  const ZONED = 2;

  test('gives the limits of the NVM command set, of which there are none, and of no other', async () => {
    const { controller } = await opened();
    const { data } = await controller.adminCommand({ opcode: 6, cdw10: 6, cdw11: NVM, receive: 4096 });
    expect(data).toEqual(Buffer.alloc(4096));
    const zoned = controller.adminCommand({ opcode: 6, cdw10: 6, cdw11: ZONED << 24, receive: 4096 });
    expect(await errorOf(zoned)).toMatchObject({ statusName: 'INVALID_FIELD' });
  });

  test('gives the identifiers that a namespace has, and no others', async () => {
    const namespaces = [
      { store: new MemoryStore(4096), eui64: '0123456789abcdef', nguid: '1'.repeat(32) },
      { store: new MemoryStore(4096), eui64: '0'.repeat(16) },
    ];
    const { controller } = await opened({ emulated: { namespaces } });
    const first = await controller.identify(3, 1);
    expect(first.toString('hex', 0, 36)).toBe(`010800000123456789abcdef02100000${'1'.repeat(32)}00000000`);
    expect(await controller.identify(3, 2)).toEqual(Buffer.alloc(4096));
  });

  test('gives the name of the subsystem: one of the serial number, or the one that it was told', async () => {
    const { controller } = await opened({ emulated: { serialNumber: 'X' } });
    expect(controller.identity.subsystemNqn).toBe('nqn.2014-08.org.nvmexpress:X');
    const other = await opened({ emulated: { subsystemNqn: 'nqn.2020-01.org.example:disks' } });
    expect(other.controller.identity.subsystemNqn).toBe('nqn.2020-01.org.example:disks');
  });
});
