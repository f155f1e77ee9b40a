import { describe, expect, test } from '@jest/globals';
import { EduDevice, MemoryStore, PciConfigSpace, PciDevice, serveFd } from '../../lib/emulator/index.js';
import { ClosedError, connect, TimeoutError, UnsupportedError } from '../../lib/index.js';
import {
  ALL_NAMESPACES,
  FeatureId,
  IdentifyCns,
  NvmeController,
  NvmeControllerError,
  NvmeStatusError,
  OptionalNvmCommands,
} from '../../lib/nvme/index.js';
import { socketPair } from '../emulator/raw-client.js';
import { cleanup, connected, errorOf, opened, pattern } from './fixture.js';

const CREATE_IO_SQ = 0x01;
const DELETE_IO_CQ = 0x04;
const CREATE_IO_CQ = 0x05;
const IDENTIFY = 0x06;
const INVALID_QUEUE_IDENTIFIER = 0x101;
/** A register of BAR 0. */
const CC = 0x14;
const CSTS = 0x1c;

/** CAP.DSTRD is 15, and BAR 0 has two pages. */
class FarDoorbells extends PciDevice {
  constructor() {
    const bars = [{ index: 0, size: 8192 }];
    super(new PciConfigSpace({ vendorId: 0x1234, deviceId: 1, classCode: 0x010802, bars }), []);
    const bytes = Buffer.alloc(8192);
    bytes.writeBigUInt64LE(0x0000_002f_0101_00ffn);
    this.addRegion({ index: 0, size: 8192, memory: { bytes } });
  }
}

describe('bring-up', () => {
  test('enables the controller with what the specification wants of CC', async () => {
    const { controller, device } = await opened();
    expect(controller.state).toBe('live');
    expect(await device.bar(0).readUInt32(CSTS)).toBe(1);
    // EN, IOSQES 6, IOCQES 4, pages of 4 KiB.
    expect(await device.bar(0).readUInt32(CC)).toBe(0x0046_0001);
    expect(controller.version).toBe('2.0.0');
    expect(controller.pageSize).toBe(4096);
  });

  test('knows what CAP says, and the limits of Identify', async () => {
    const { controller } = await opened({
      emulated: { queueEntries: 64, doorbellStride: 1, readyTimeoutMs: 1_500, mdts: 2, queues: 3 },
    });
    expect(controller.capabilities).toMatchObject({
      maxQueueEntries: 64,
      contiguousQueuesRequired: true,
      doorbellStride: 8,
      readyTimeoutMs: 1_500,
      minPageSize: 4096,
    });
    expect(controller.maxTransferBytes).toBe(16_384);
    expect(controller.maxQueues).toBe(3);
    expect(controller.maxQueueEntries).toBe(64);
  });

  test('takes over a controller that somebody left enabled', async () => {
    const { device } = await connected();
    await device.enable();
    const bar = device.bar(0);
    const { iova } = await device.dma.alloc(8192);
    await bar.writeUInt32(0x24, 0x1f_001f);
    await bar.writeUInt64(0x28, iova);
    await bar.writeUInt64(0x30, iova + 4096n);
    await bar.writeUInt32(CC, 0x460001);
    const controller = await NvmeController.open(device);
    cleanup(() => controller.close());
    expect((await (await controller.createQueue()).read(0, 1)).byteLength).toBe(512);
  });

  test('one driver at a time: a second one is refused, and the first goes on', async () => {
    const { device } = await connected();
    const opening = NvmeController.open(device);
    const refusal = /^NvmeController.open: the device has a driver that is open, or being opened or closed/;
    await expect(NvmeController.open(device)).rejects.toThrow(refusal);
    const controller = await opening;
    const error = await errorOf(NvmeController.open(device));
    expect(error).toBeInstanceOf(TypeError);
    expect(error.message).toMatch(refusal);
    expect((await (await controller.createQueue()).read(0, 1)).byteLength).toBe(512);
    const closing = controller.close();
    await expect(NvmeController.open(device)).rejects.toThrow(refusal);
    await closing;
    await using again = await NvmeController.open(device);
    expect(again.state).toBe('live');
  });

  test('one that does not come up is none', async () => {
    const { device, emulated } = await connected({ emulated: { readyTimeoutMs: 500 } });
    emulated.isReadyStuck = true;
    await expect(NvmeController.open(device)).rejects.toThrow(NvmeControllerError);
    emulated.isReadyStuck = false;
    await using controller = await NvmeController.open(device);
    expect(controller.state).toBe('live');
  });

  test('who takes over from one that has failed is not touched when that is closed', async () => {
    const { device, emulated, controller: failed } = await opened();
    const left = await failed.createQueue({ completion: 'interrupt' });
    emulated.intercept = ({ opcode }) => (opcode === IDENTIFY ? { status: 0x0006 } : 'pass');
    await errorOf(failed.reset());
    expect(failed.state).toBe('failed');
    emulated.intercept = undefined;
    await using controller = await NvmeController.open(device);
    const queue = await controller.createQueue({ completion: 'interrupt' });
    await queue.write(0, pattern(512));
    await left.close();
    await failed.close();
    expect((await queue.read(0, 1)).equals(pattern(512))).toBe(true);
    expect(controller.state).toBe('live');
    expect(await device.bar(0).readUInt32(CC)).toBe(0x460001);
  });

  test('leaves alone what is no NVMe controller', async () => {
    const [ours, theirs] = socketPair();
    const server = serveFd(new EduDevice(), theirs);
    const device = await connect({ fd: ours });
    cleanup(async () => {
      await device.close();
      await server.close();
    });
    await expect(NvmeController.open(device)).rejects.toThrow(UnsupportedError);
  });

  test('nor one whose doorbells are not in its BAR', async () => {
    const [ours, theirs] = socketPair();
    const server = serveFd(new FarDoorbells(), theirs);
    const device = await connect({ fd: ours });
    cleanup(async () => {
      await device.close();
      await server.close();
    });
    const error = await errorOf(NvmeController.open(device));
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.message).toContain('is too small for the doorbells of an I/O queue (stride 131072 bytes)');
  });

  test('waits for CSTS.RDY no longer than CAP.TO says', async () => {
    const { device, emulated } = await connected({ emulated: { readyTimeoutMs: 500 } });
    emulated.isReadyStuck = true;
    const error = await errorOf(NvmeController.open(device));
    expect(error).toBeInstanceOf(NvmeControllerError);
    expect(error.message).toContain('CSTS.RDY does not become 1 within 500 ms');
  });

  test.each([{ timeoutMs: 0 }, { queues: 0 }, { maxTransferBytes: 100 }, { retries: -1 }])(
    'refuses %j',
    async (options) => {
      const { device } = await connected();
      await expect(NvmeController.open(device, options)).rejects.toThrow(RangeError);
    },
  );
});

describe('identify', () => {
  test('the controller', async () => {
    const { controller } = await opened({ emulated: { serialNumber: 'S-1', modelNumber: 'A model' } });
    expect(controller.identity).toMatchObject({
      vendorId: 0x1234,
      serialNumber: 'S-1',
      modelNumber: 'A model',
      firmwareRevision: '1.0',
      maxDataTransfer: 5,
      version: '2.0.0',
      namespaces: 1,
      abortCommandLimit: 4,
      errorLogEntries: 64,
      volatileWriteCache: true,
      submissionEntrySize: { required: 6, maximum: 6 },
      completionEntrySize: { required: 4, maximum: 4 },
    });
    expect(controller.identity.optionalNvmCommands & OptionalNvmCommands.COMPARE).not.toBe(0);
    expect(controller.identityBytes).toHaveLength(4096);
  });

  test('namespaces, with their formats', async () => {
    const namespaces = [
      { store: new MemoryStore(1 << 20) },
      { store: new MemoryStore(1 << 21), blockSize: 4096 },
      { store: new MemoryStore(2 ** 45) },
    ];
    const { controller } = await opened({ emulated: { namespaces } });
    expect(await controller.namespaceIds()).toEqual([1, 2, 3]);
    expect(await controller.namespace()).toMatchObject({ id: 1, blockSize: 512, blocks: 2048 });
    expect(await controller.namespace(2)).toMatchObject({ id: 2, blockSize: 4096, blocks: 512 });
    expect(await controller.namespace(3)).toMatchObject({ blocks: 2 ** 36, sizeBytes: 2 ** 45 });
  });

  test('more namespaces than one list has', async () => {
    const store = new MemoryStore(4096);
    const namespaces = Array.from({ length: 1500 }, () => ({ store }));
    const { controller } = await opened({ emulated: { namespaces } });
    const ids = await controller.namespaceIds();
    expect(ids).toEqual(namespaces.map((_, i) => i + 1));
  });

  test('a namespace that is not there is an error with a name', async () => {
    const { controller } = await opened();
    const error = await errorOf(controller.namespace(7));
    expect(error).toBeInstanceOf(NvmeStatusError);
    expect(error).toMatchObject({
      code: 'ERR_NVME_INVALID_NAMESPACE_OR_FORMAT',
      sct: 0,
      sc: 0x0b,
      statusName: 'INVALID_NAMESPACE_OR_FORMAT',
      dnr: true,
    });
  });

  test('raw, and what the controller does not know', async () => {
    const { controller } = await opened();
    const bytes = await controller.identify(IdentifyCns.CONTROLLER);
    expect(bytes.equals(controller.identityBytes)).toBe(true);
    await expect(controller.identify(0x77)).rejects.toMatchObject({ code: 'ERR_NVME_INVALID_FIELD' });
  });
});

describe('log pages and features', () => {
  test('SMART counts what was done', async () => {
    const { controller } = await opened();
    const queue = await controller.createQueue();
    await queue.write(0, Buffer.alloc(128 * 1024));
    await queue.read(0, 1);
    const smart = await controller.smartLog();
    expect(smart).toMatchObject({
      temperatureKelvin: 311,
      availableSparePercent: 100,
      hostReadCommands: 1n,
      hostWriteCommands: 1n,
      dataUnitsWritten: 1n,
      temperatureSensors: [311],
    });
    expect(smart.criticalWarning.readOnly).toBe(false);
  });

  test('the error log has the newest first', async () => {
    const { controller } = await opened();
    expect(await controller.errorLog()).toEqual([]);
    await errorOf(controller.identify(0x77));
    await errorOf(controller.identify(IdentifyCns.NAMESPACE, 9));
    const log = await controller.errorLog();
    expect(log.map(({ status, errorCount }) => [status.name, errorCount])).toEqual([
      ['INVALID_NAMESPACE_OR_FORMAT', 2n],
      ['INVALID_FIELD', 1n],
    ]);
    expect(log[0]).toMatchObject({ submissionQueue: 0, namespace: 9 });
    expect(await controller.errorLog(1)).toHaveLength(1);
  });

  test('firmware', async () => {
    const { controller } = await opened();
    expect(await controller.firmwareLog()).toMatchObject({ activeSlot: 1, nextSlot: 0 });
    expect((await controller.firmwareLog()).revisions[0]).toBe('1.0');
  });

  test('any page, from an offset; and one that is not there', async () => {
    const { controller } = await opened();
    const whole = await controller.logPage(0x02, 512);
    const part = await controller.logPage(0x02, 64, { offset: 192, namespace: ALL_NAMESPACES });
    expect(part.equals(whole.subarray(192, 256))).toBe(true);
    await expect(controller.logPage(0x55, 512)).rejects.toMatchObject({ code: 'ERR_NVME_INVALID_LOG_PAGE' });
    await expect(controller.logPage(0x02, 3)).rejects.toThrow(RangeError);
  });

  test('features are read and set', async () => {
    const { controller } = await opened();
    const { result } = await controller.getFeature(FeatureId.TEMPERATURE_THRESHOLD);
    expect(result).toBe(343);
    await controller.setFeature(FeatureId.TEMPERATURE_THRESHOLD, { cdw11: 300 });
    expect((await controller.getFeature(FeatureId.TEMPERATURE_THRESHOLD)).result).toBe(300);
    const byDefault = await controller.getFeature(FeatureId.TEMPERATURE_THRESHOLD, { select: 1 });
    expect(byDefault.result).toBe(343);
    await expect(controller.getFeature(0xee)).rejects.toMatchObject({ code: 'ERR_NVME_INVALID_FIELD' });
  });

  test('admin commands in the caller’s words', async () => {
    const { controller } = await opened();
    const { data } = await controller.adminCommand({ opcode: 0x06, cdw10: 1, receive: 4096 });
    expect(data.equals(controller.identityBytes)).toBe(true);
    await expect(controller.adminCommand({ opcode: 0xc5 })).rejects.toMatchObject({ sct: 0, sc: 1 });
    await expect(controller.adminCommand({ opcode: 0x06, receive: 1 << 20 })).rejects.toThrow(RangeError);
  });

  test('an asynchronous event comes when there is one', async () => {
    const { controller, emulated } = await opened();
    const event = controller.adminCommand({ opcode: 0x0c }, { timeoutMs: Infinity });
    await controller.smartLog();
    emulated.raiseEvent(0x0002_0001);
    expect((await event).result).toBe(0x0002_0001);
  });

  test('an event that is waited for ends with the controller, and so does one that is asked for afterwards', async () => {
    const { controller } = await opened();
    const event = errorOf(controller.adminCommand({ opcode: 0x0c }));
    await controller.close();
    expect(await event).toBeInstanceOf(ClosedError);
    expect(await errorOf(controller.adminCommand({ opcode: 0x0c }))).toBeInstanceOf(ClosedError);
  });

  test('a deadline is for all commands of a call together', async () => {
    const { controller, emulated } = await opened();
    emulated.intercept = ({ opcode }) => (opcode === 0x06 ? { delayMs: 60 } : 'pass');
    const error = await errorOf(controller.namespace(undefined, { timeoutMs: 100, refresh: true }));
    expect(error).toBeInstanceOf(TimeoutError);
  });
});

describe('queues', () => {
  test('as many as were granted, and no more', async () => {
    const { controller } = await opened({ emulated: { queues: 3 } });
    const queues = [];
    for (let i = 0; i < 3; i++) queues.push(await controller.createQueue({ entries: 4 }));
    expect(queues.map(({ id }) => id)).toEqual([1, 2, 3]);
    await expect(controller.createQueue()).rejects.toThrow(UnsupportedError);
    await queues[1]!.close();
    expect(controller.queues.map(({ id }) => id)).toEqual([1, 3]);
    expect((await controller.createQueue()).id).toBe(2);
  });

  test('as deep as CAP.MQES allows', async () => {
    const { controller } = await opened({ emulated: { queueEntries: 16 } });
    expect((await controller.createQueue()).depth).toBe(15);
    await expect(controller.createQueue({ entries: 17 })).rejects.toThrow(RangeError);
    await expect(controller.createQueue({ entries: 1 })).rejects.toThrow(RangeError);
  });

  test('a ring of the most entries has identifiers to spare', async () => {
    const { controller } = await opened({ emulated: { queueEntries: 65_536, mdts: 1 } });
    expect(controller.maxQueueEntries).toBe(65_536);
    const queue = await controller.createQueue({ entries: 65_536 });
    expect(queue.depth).toBe(32_767);
    await queue.write(5, pattern(512));
    expect((await queue.read(5, 1)).equals(pattern(512))).toBe(true);
  });

  test('a completion queue that the controller has kept over a reset is replaced', async () => {
    // SPDK's target keeps one whose submission queue was not made yet.
    const commands: number[] = [];
    const { controller, emulated } = await opened();
    emulated.intercept = ({ queue, opcode }) => {
      if (queue !== 0 || ![CREATE_IO_SQ, DELETE_IO_CQ, CREATE_IO_CQ].includes(opcode)) return 'pass';
      commands.push(opcode);
      if (opcode === DELETE_IO_CQ) return { status: 0 };
      return opcode === CREATE_IO_CQ && commands.length === 1 ? { status: INVALID_QUEUE_IDENTIFIER } : 'pass';
    };
    const queue = await controller.createQueue();
    expect(commands).toEqual([CREATE_IO_CQ, DELETE_IO_CQ, CREATE_IO_CQ, CREATE_IO_SQ]);
    expect(await queue.read(0, 1)).toHaveLength(512);
  });

  test('an identifier that the controller does not take is its answer', async () => {
    const { controller, emulated } = await opened();
    emulated.intercept = ({ opcode }) =>
      opcode === CREATE_IO_CQ ? { status: INVALID_QUEUE_IDENTIFIER } : 'pass';
    await expect(controller.createQueue()).rejects.toThrow(/Create I\/O Completion Queue.*INVALID_QUEUE/);
    emulated.intercept = undefined;
    expect((await controller.createQueue()).id).toBe(1);
  });

  test('the driver asks for no more than it was told to', async () => {
    const { controller } = await opened({ nvme: { queues: 2 } });
    expect(controller.maxQueues).toBe(2);
  });
});

describe('shutdown', () => {
  test('is orderly: CC.SHN, CSTS.SHST, then disabled; and idempotent', async () => {
    const { controller, device } = await opened();
    const queue = await controller.createQueue();
    await queue.write(0, Buffer.alloc(512, 7));
    expect([controller.isClosed, queue.isClosed]).toEqual([false, false]);
    const closing = [controller.close(), controller.close()];
    expect(controller.isClosed).toBe(true);
    await Promise.all(closing);
    expect(queue.isClosed).toBe(true);
    expect(controller.state).toBe('closed');
    expect(await device.bar(0).readUInt32(CSTS)).toBe(0);
    expect((await controller.closed).name).toBe('ClosedError');
    await expect(queue.read(0, 1)).rejects.toMatchObject({ name: 'ClosedError' });
    await expect(controller.smartLog()).rejects.toMatchObject({ name: 'ClosedError' });
    expect(() => queue.poll()).toThrow('closed');
  });

  test('gives the memory back: the device can be used again and again', async () => {
    const { device } = await connected();
    const firstFree = async () => {
      await using buffer = await device.dma.alloc(4096);
      return buffer.iova;
    };
    const before = await firstFree();
    for (let i = 0; i < 5; i++) {
      await using controller = await NvmeController.open(device);
      const queue = await controller.createQueue({ buffers: { bytes: 8192 } });
      expect((await queue.read(0, 1))[0]).toBe(i === 0 ? 0 : 7);
      await queue.write(0, Buffer.alloc(512, 7));
    }
    expect(await firstFree()).toBe(before);
  });

  test('waits for what is in flight', async () => {
    const { controller, emulated } = await opened();
    const queue = await controller.createQueue();
    await queue.read(0, 1);
    emulated.intercept = ({ queue: id }) => (id === 0 ? 'pass' : { delayMs: 50 });
    const read = queue.read(8, 1);
    await controller.close();
    expect((await read).byteLength).toBe(512);
  });
});
