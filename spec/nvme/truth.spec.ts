/** Nothing is reported done that was not, whatever ends first, and whatever the caller does with its memory. */
import { describe, expect, test } from '@jest/globals';
import { setTimeout as sleep } from 'node:timers/promises';
import { MemoryStore, onNthCommand } from '../../lib/emulator/index.js';
import { ClosedError, UnsupportedError } from '../../lib/index.js';
import { AdminOpcode, NvmeController, type NvmeQueue } from '../../lib/nvme/index.js';
import { cleanup, connected, errorOf, opened, pattern, until } from './fixture.js';

/** As many commands as move the head of the completion ring there: entries of both phases are met. */
const HEADS = [0, 1, 3, 4, 5, 7];

async function heldQueue(commandsBefore: number, entries = 4) {
  const pair = await opened();
  const queue = await pair.controller.createQueue({ entries, buffers: { count: 3, bytes: 512 } });
  for (let i = 0; i < commandsBefore; i++) await queue.read(0, 1);
  pair.emulated.intercept = ({ queue: id }) => (id > 0 ? 'hold' : 'pass');
  return { ...pair, queue };
}

/** What `poll` says: a number of completions, or an error's name. */
function polled(queue: NvmeQueue): number | string {
  try {
    return queue.poll();
  } catch (error) {
    return (error as Error).name;
  }
}

describe('memory that is taken away while commands are in flight', () => {
  describe.each([
    ['device.close()', ({ device }: Awaited<ReturnType<typeof heldQueue>>) => device.close()],
    ['dma.unmapAll()', ({ device }: Awaited<ReturnType<typeof heldQueue>>) => device.dma.unmapAll()],
  ])('%s', (_name, take) => {
    test.each(HEADS)('after %i commands: writes and reads are rejected, by name', async (before) => {
      const pair = await heldQueue(before);
      const calls = [
        errorOf(pair.queue.write(100, Buffer.alloc(512, 7))),
        errorOf(pair.queue.read(0, 1)),
        errorOf(pair.queue.flush()),
        // These wait for room.
        errorOf(pair.queue.write(0, Buffer.alloc(1 << 20))),
        errorOf(pair.queue.read(0, 2000)),
      ];
      if (before % 2 === 1) await sleep(5);
      await take(pair);
      for (const error of await Promise.all(calls)) expect(error).toBeInstanceOf(ClosedError);
      expect(await errorOf(pair.queue.read(0, 1))).toBeInstanceOf(ClosedError);
      expect(['failed', 'closed']).toContain(pair.controller.state);
    });

    test.each(HEADS)('after %i commands: poll gives no status', async (before) => {
      const pair = await heldQueue(before);
      pair.queue.submitWrite(200, 1, 0, 42);
      pair.queue.ring();
      await sleep(5);
      await take(pair);
      expect(polled(pair.queue)).toBe('ClosedError');
      expect(() => pair.queue.submitWrite(200, 1, 0, 43)).toThrow(ClosedError);
      await sleep(5);
      expect(polled(pair.queue)).toBe('ClosedError');
    });
  });

  test.each([1, 2000])(
    'a write of %i blocks whose deadline has passed, and that the controller may still carry out: nobody knows',
    async (blocks) => {
      const { emulated, device, controller } = await opened({ emulated: { mdts: 1 } });
      const queue = await controller.createQueue({ entries: 4 });
      emulated.intercept = ({ queue: id, opcode }) =>
        id > 0 ? 'hold' : opcode === AdminOpcode.ABORT ? { delayMs: 10_000 } : 'pass';
      // Long enough that it is sent before: memory for it is mapped first.
      const write = errorOf(queue.write(0, Buffer.alloc(blocks * 512, 7), { timeoutMs: 300 }));
      await sleep(600);
      await device.close();
      expect(await write).toBeInstanceOf(ClosedError);
    },
  );

  test('unmapAll under a live controller disables it, and the device can be used again', async () => {
    const { device, controller } = await opened();
    const queue = await controller.createQueue();
    await queue.write(0, pattern(4096));
    await device.dma.unmapAll();
    expect(controller.state).toBe('failed');
    expect((await device.bar(0).readUInt32(0x14)) & 1).toBe(0);
    await expect(controller.reset()).rejects.toThrow(ClosedError);
    await controller.close();
    const again = await NvmeController.open(device);
    cleanup(() => again.close());
    expect((await (await again.createQueue()).read(0, 8)).equals(pattern(4096))).toBe(true);
  });

  test('a closed controller is not enabled by a reset', async () => {
    const { device, controller } = await opened();
    const closing = controller.close();
    await expect(controller.reset()).rejects.toThrow(ClosedError);
    await closing;
    await expect(controller.reset()).rejects.toThrow(ClosedError);
    expect((await device.bar(0).readUInt32(0x14)) & 1).toBe(0);
  });

  test('a buffer is freed when the commands with it are done', async () => {
    const { emulated, device, controller } = await opened();
    const queue = await controller.createQueue();
    const buffer = await device.dma.alloc(4096);
    const { iova } = buffer;
    emulated.intercept = onNthCommand(1, { delayMs: 60 });
    const order: string[] = [];
    const read = queue.readInto(0, buffer).then(() => order.push('read'));
    await sleep(5);
    const freed = buffer.free().then(() => order.push('freed'));
    expect(buffer.isClosed).toBe(true);
    // Nobody else gets the memory meanwhile.
    expect((await device.dma.alloc(4096)).iova).not.toBe(iova);
    expect(await errorOf(queue.write(0, buffer))).toBeInstanceOf(ClosedError);
    await Promise.all([read, freed]);
    expect(order).toEqual(['read', 'freed']);
  });

  test('a free that is not waited for any more frees the buffer later all the same', async () => {
    const { emulated, device, controller } = await opened();
    const queue = await controller.createQueue();
    const buffer = await device.dma.alloc(4096);
    emulated.intercept = onNthCommand(1, { delayMs: 80 });
    const read = queue.readInto(0, buffer);
    await sleep(5);
    await expect(buffer.free({ timeoutMs: 5 })).rejects.toMatchObject({ name: 'TimeoutError' });
    await read;
    await until(() => true);
    expect((await device.dma.alloc(4096)).iova).toBe(buffer.iova);
  });
});

test.each([
  ['Create I/O Completion Queue', AdminOpcode.CREATE_IO_CQ],
  ['Create I/O Submission Queue', AdminOpcode.CREATE_IO_SQ],
])(
  'a queue that is closed while a reset makes it again (%s) is not left in the controller',
  async (_, held) => {
    const { emulated, controller } = await opened({ emulated: { queues: 1 } });
    const queue = await controller.createQueue();
    let isHeld = false;
    emulated.intercept = ({ queue: id, opcode }) => {
      if (id > 0 || opcode !== held || isHeld) return 'pass';
      isHeld = true;
      return { delayMs: 50 };
    };
    const reset = controller.reset();
    await until(() => isHeld, 'the queue is being made again');
    await queue.close();
    await reset;
    // The controller has one, and it has been given back.
    const next = await controller.createQueue();
    await next.write(0, Buffer.alloc(512, 7));
    expect(controller.state).toBe('live');
  },
);

describe('memory of the caller’s that goes away', () => {
  function transferred(bytes: Uint8Array): void {
    structuredClone(bytes, { transfer: [bytes.buffer as ArrayBuffer] });
  }

  test.each([1, 2000])('an array that is transferred while %i blocks are read into it', async (blocks) => {
    const { emulated, controller } = await opened();
    const queue = await controller.createQueue({ entries: 4 });
    emulated.intercept = ({ queue: id }) => (id > 0 ? { delayMs: 20 } : 'pass');
    const target = new Uint8Array(blocks * 512);
    const read = errorOf(queue.readInto(0, target));
    transferred(target);
    const error = await read;
    expect(error).toBeInstanceOf(TypeError);
    expect(error.message).toContain('transferred or resized');
    emulated.intercept = undefined;
    expect((await queue.read(0, 1)).length).toBe(512);
    expect(controller.state).toBe('live');
  });

  test('an array that is transferred before its last parts are written: nothing else is written in their place', async () => {
    const { emulated, controller } = await opened();
    const queue = await controller.createQueue({ entries: 2 });
    emulated.intercept = ({ queue: id }) => (id > 0 ? { delayMs: 5 } : 'pass');
    const data = new Uint8Array(1 << 20).fill(7);
    const write = errorOf(queue.write(0, data));
    await sleep(12);
    transferred(data);
    expect(await write).toBeInstanceOf(TypeError);
    emulated.intercept = undefined;
    const after = await queue.read(0, 2048);
    expect([...new Set(after)].every((byte) => byte === 7 || byte === 0)).toBe(true);
    expect(after.at(-1)).toBe(0);
  });

  test('an offset is of a Buffer, too', async () => {
    const { controller } = await opened();
    const queue = await controller.createQueue();
    await queue.write(0, Buffer.concat([Buffer.alloc(512, 1), Buffer.alloc(512, 2)]), { offset: 512 });
    expect((await queue.read(0, 1))[0]).toBe(2);
    const into = Buffer.alloc(1024);
    await queue.readInto(0, into, { offset: 512 });
    expect([into[511], into[512]]).toEqual([0, 2]);
    await expect(queue.write(0, into, { offset: 512, blocks: 2 })).rejects.toThrow(RangeError);
  });
});

describe('what a field cannot hold', () => {
  test('more than 65,536 blocks take several commands', async () => {
    const store = new MemoryStore(96 << 20);
    const { emulated, controller } = await opened({
      emulated: { mdts: 0, namespaces: [{ store }] },
      nvme: { maxTransferBytes: 64 << 20 },
    });
    const queue = await controller.createQueue({ entries: 4, buffers: { count: 1, bytes: 33 << 20 } });
    const data = pattern(34 << 20);
    await queue.write(3, data);
    expect(emulated.commandCount).toBe(2);
    const into = Buffer.alloc(data.length);
    await queue.readInto(3, into);
    expect(into.equals(data)).toBe(true);
    expect(() => queue.submitWrite(0, 65_537, 0, 1)).toThrow(RangeError);
    expect(() => queue.submitWriteZeroes(0, 65_537, 1)).toThrow(RangeError);
    expect(queue.submitWrite(0, 65_536, 0, 1)).toBe(true);
  });

  test.each([
    [0.5, 1, 0, 0],
    [0, 0.5, 0, 0],
    [0, 1.5, 0, 0],
    [NaN, 1, 0, 0],
    [0, 1, 0.5, 0],
    [0, 1, -1, 0],
    [0, 1, 0, -1],
    [0, 1, 0, 2 ** 32],
    [0, 1, 0, 0.5],
  ])('submitRead(%p, %p, %p, %p) is refused', async (lba, blocks, buffer, tag) => {
    const { controller } = await opened();
    const queue = await controller.createQueue({ buffers: { count: 2, bytes: 4096 } });
    expect(() => queue.submitRead(lba, blocks, buffer, tag)).toThrow(RangeError);
    expect(queue.inFlight).toBe(0);
  });

  test.each([
    [{ opcode: 0x106 }, 'opcode'],
    [{ opcode: 0x06, cdw10: -1 }, 'CDW10'],
    [{ opcode: 0x06, cdw15: 2 ** 32 }, 'CDW15'],
    [{ opcode: 0x06, cdw11: 0.5 }, 'CDW11'],
    [{ opcode: 0x06, namespace: 2 ** 32 }, 'NSID'],
  ])('adminCommand(%j)', async (command, field) => {
    const { controller } = await opened();
    await expect(controller.adminCommand(command)).rejects.toThrow(field);
    await expect(controller.adminCommand(command)).rejects.toThrow(RangeError);
  });

  test('fields of admin commands', async () => {
    const { controller } = await opened();
    await expect(controller.identify(0x101)).rejects.toThrow(
      'CNS must be an unsigned 8-bit integer, got 257',
    );
    await expect(controller.getFeature(0x107)).rejects.toThrow('feature must be');
    await expect(controller.setFeature(-1)).rejects.toThrow('feature must be');
    await expect(controller.logPage(0x102, 512)).rejects.toThrow('log page must be');
    await expect(controller.logPage(0x02, 512, { specific: 128 })).rejects.toThrow(
      'log specific field must be',
    );
    await expect(controller.createQueue({ timeoutMs: NaN })).rejects.toThrow('timeoutMs');
    await expect(controller.createQueue({ completion: 'no' as never })).rejects.toThrow('completion');
  });

  test('a namespace with metadata is refused by each call', async () => {
    const { controller } = await opened();
    const other = await opened();
    const queue = await controller.createQueue();
    const foreign = await other.controller.namespace();
    await expect(queue.read(0, 1, { namespace: foreign })).rejects.toThrow(TypeError);
    await expect(controller.createQueue({ namespace: foreign })).rejects.toThrow(TypeError);
  });

  /** The emulated controller, with that CAP.MPSMIN, and CC.MPS as it wants it. */
  async function withPages(shift: bigint) {
    const { device, emulated } = await connected();
    const handler = emulated.regions.find(({ index }) => index === 0)!.handler!;
    const { read, write } = handler;
    handler.read = async (offset, count, client) => {
      const bytes = Buffer.from(await read(offset, count, client));
      if (offset === 0) bytes.writeBigUInt64LE(bytes.readBigUInt64LE() | (shift << 48n) | (shift << 52n));
      return bytes;
    };
    handler.write = (offset, data, client) => {
      if (offset === 0x14) data.writeUInt32LE((data.readUInt32LE() & ~0x780) >>> 0);
      return write(offset, data, client);
    };
    return device;
  }

  test.each([6n, 7n, 9n])('pages of 2^%i * 4 KiB', async (shift) => {
    const controller = await NvmeController.open(await withPages(shift));
    cleanup(() => controller.close());
    expect(controller.pageSize).toBe(4096 * 2 ** Number(shift));
    await Promise.all(Array.from({ length: 8 }, () => controller.smartLog()));
  });

  test('pages that are larger than what one command transfers', async () => {
    const controller = await NvmeController.open(await withPages(9n), { maxTransferBytes: 65_536 });
    cleanup(() => controller.close());
    const queue = await controller.createQueue();
    await queue.write(3, Buffer.alloc(512, 7));
    expect((await queue.read(3, 1)).every((byte) => byte === 7)).toBe(true);
  });

  test('larger pages than memory is aligned to are refused by name', async () => {
    const error = await errorOf(NvmeController.open(await withPages(10n)));
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.message).toContain('4194304 bytes (CAP.MPSMIN)');
  });
});
