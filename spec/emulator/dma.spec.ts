/** DMA_MAP and DMA_UNMAP, and the device's way to the client's memory by mapping and by message. */
import { constants } from 'node:os';
import { describe, expect, test } from '@jest/globals';
import {
  DmaError,
  RamDevice,
  RamDma,
  RamDmaStatus,
  RamRegister,
  type ClientContext,
  type DeviceModel,
  type EmulatorOptions,
} from '../../lib/emulator/index.js';
import { native, type NativeMapping } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import {
  deviceGetInfoRequest,
  dmaMapRequest,
  dmaReadReply,
  dmaUnmapReply,
  dmaUnmapRequest,
  dmaWriteReply,
  payloadOf,
  reply,
  request,
} from '../support/wire.js';
import { cleanup, connected, memory, served, until } from './fixture.js';
import { RawClient } from './raw-client.js';

const { EACCES, EBADF, EEXIST, EFAULT, EINVAL, ENOENT, ENOSPC, ENOTSUP, EPERM, ETIMEDOUT } = constants.errno;

const DMA_READ = 11;
const DMA_WRITE = 12;
const PAGE = 4096;

/** A device whose DMA a spec does itself. */
async function dma(
  options?: EmulatorOptions,
  capabilities: object = {},
): Promise<{ client: RawClient; context: ClientContext }> {
  let context: ClientContext | undefined;
  const device: DeviceModel = { regions: [], irqs: [], attach: (client) => (context = client) };
  const client = await connected(device, options, capabilities);
  return { client, context: context! };
}

/** The client's own view of its memory. */
function view(fd: number, size: number): Buffer {
  const mapping = native().map(fd, 0, size, true, true) as NativeMapping;
  cleanup(() => mapping.close());
  return Buffer.from(mapping.view(0, size) as ArrayBuffer);
}

async function errnoOf(promise: Promise<unknown>): Promise<number> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(DmaError);
  return (error as DmaError).errno;
}

describe('DMA_MAP', () => {
  test('takes memory with an fd and without', async () => {
    const { client } = await dma();
    const before = openFds();
    expect(await client.answer(dmaMapRequest({ address: 0, size: PAGE }))).toHaveLength(0);
    expect(await client.answer(dmaMapRequest({ address: PAGE, size: PAGE }), [memory(PAGE)])).toHaveLength(0);
    expect(await client.answer(dmaMapRequest({ address: 2n ** 64n - 4096n, size: PAGE }))).toHaveLength(0);
    // The fixture's own memfd; the mapping needs no fd.
    expect(openFds()).toBe(before + 1);
  });

  test.each([
    ['the same', 8, 4],
    ['the beginning', 6, 4],
    ['the end', 10, 4],
    ['a part', 9, 1],
    ['all of it and more', 4, 12],
  ])('refuses to map over %s (EEXIST)', async (_what, page, pages) => {
    const { client } = await dma();
    await client.answer(dmaMapRequest({ address: 8 * PAGE, size: 4 * PAGE }));
    const over = dmaMapRequest({ address: page * PAGE, size: pages * PAGE });
    expect(await client.refusal(over)).toBe(EEXIST);
    await client.answer(dmaMapRequest({ address: 4 * PAGE, size: 4 * PAGE }));
    await client.answer(dmaMapRequest({ address: 12 * PAGE, size: 4 * PAGE }));
  });

  test.each([
    ['neither readable nor writable', { flags: 0 }],
    ['unknown flags', { flags: 0x13 }],
    ['MMAP without an fd', { flags: 7 }],
    ['an offset without an fd', { offset: PAGE }],
    ['no bytes', { size: 0 }],
    ['an address that is not aligned', { address: 0x10 }],
    ['a size that is not aligned', { size: PAGE + 1 }],
    ['memory past 64 bits', { address: 2n ** 64n - 4096n, size: 2 * PAGE }],
    ['an offset past 2^53', { offset: 2n ** 60n }],
    ['an argsz of less than the structure', { argsz: 31 }],
  ])('refuses %s', async (_what, bad) => {
    const { client } = await dma();
    expect(await client.refusal(dmaMapRequest(bad))).toBe(EINVAL);
  });

  test('refuses a cut payload, a longer one, and FILE_IO', async () => {
    const { client } = await dma();
    expect(await client.refusal(request(2, Buffer.alloc(31)))).toBe(EINVAL);
    expect(await client.refusal(request(2, Buffer.alloc(33)))).toBe(EINVAL);
    expect(await client.refusal(dmaMapRequest({ flags: 11 }), [memory(PAGE)])).toBe(ENOTSUP);
  });

  test('refuses an fd that does not have what is mapped, and closes it', async () => {
    const { client } = await dma();
    const fd = memory(2 * PAGE);
    const event = native().eventfd(0);
    cleanup(() => native().closeFd(event));
    const before = openFds();
    expect(await client.refusal(dmaMapRequest({ size: 3 * PAGE }), [fd])).toBe(EINVAL);
    expect(await client.refusal(dmaMapRequest({ size: PAGE, offset: 2 * PAGE }), [fd])).toBe(EINVAL);
    expect(await client.refusal(dmaMapRequest({ size: PAGE, offset: 512 }), [fd])).toBe(EINVAL);
    expect(await client.refusal(dmaMapRequest({ size: PAGE }), [event])).toBe(EINVAL);
    expect(await client.refusal(dmaMapRequest({ size: PAGE }), [fd, fd])).toBe(EINVAL);
    expect(openFds()).toBe(before);
  });

  test('keeps to max_dma_maps', async () => {
    const { client } = await dma({ maxDmaMaps: 2 });
    await client.answer(dmaMapRequest({ address: 0 }));
    await client.answer(dmaMapRequest({ address: PAGE }));
    expect(await client.refusal(dmaMapRequest({ address: 2 * PAGE }))).toBe(ENOSPC);
    await client.answer(dmaUnmapRequest({ address: 0 }));
    await client.answer(dmaMapRequest({ address: 2 * PAGE }));
  });

  test('keeps to the page size', async () => {
    const { client } = await dma({ pgsizes: 0x10000n });
    expect(await client.refusal(dmaMapRequest({ size: PAGE }))).toBe(EINVAL);
    await client.answer(dmaMapRequest({ size: 0x10000 }));
  });
});

describe('DMA_UNMAP', () => {
  test('answers with the request, and the memory is gone', async () => {
    const { client, context } = await dma();
    await client.answer(dmaMapRequest({ address: PAGE, size: PAGE }), [memory(PAGE)]);
    await context.dma.read(0x1000n, 16);
    expect(await client.answer(dmaUnmapRequest({ address: PAGE, size: PAGE }))).toEqual(
      payloadOf(dmaUnmapReply({ address: PAGE, size: PAGE })),
    );
    expect(await errnoOf(context.dma.read(0x1000n, 16))).toBe(EFAULT);
    expect(await client.refusal(dmaUnmapRequest({ address: PAGE, size: PAGE }))).toBe(ENOENT);
  });

  test('takes all of it with ALL', async () => {
    const { client, context } = await dma();
    await client.answer(dmaMapRequest({ address: 0, size: PAGE }));
    await client.answer(dmaMapRequest({ address: 8 * PAGE, size: PAGE }), [memory(PAGE)]);
    const all = { flags: 2, address: 0, size: 0 };
    expect(await client.answer(dmaUnmapRequest(all))).toEqual(payloadOf(dmaUnmapReply(all)));
    expect(await errnoOf(context.dma.read(0x8000n, 1))).toBe(EFAULT);
    expect(await client.answer(dmaUnmapRequest(all))).toHaveLength(24);
  });

  test.each([
    ['a part of a mapping', { address: 8 * PAGE, size: PAGE }, ENOENT],
    ['more than a mapping', { address: 8 * PAGE, size: 4 * PAGE }, ENOENT],
    ['another address', { address: 9 * PAGE, size: PAGE }, ENOENT],
    ['nothing', { address: 0, size: 0 }, ENOENT],
    ['ALL with an address', { flags: 2, address: 8 * PAGE, size: 2 * PAGE }, EINVAL],
    ['an unknown flag', { flags: 4, address: 8 * PAGE, size: 2 * PAGE }, EINVAL],
    ['an argsz of less than the reply', { argsz: 23, address: 8 * PAGE, size: 2 * PAGE }, EINVAL],
    ['a bitmap', { address: 8 * PAGE, size: 2 * PAGE, bitmap: { pgsize: PAGE, size: 8 } }, ENOTSUP],
  ])('refuses %s', async (_what, bad, errno) => {
    const { client } = await dma();
    await client.answer(dmaMapRequest({ address: 8 * PAGE, size: 2 * PAGE }));
    expect(await client.refusal(dmaUnmapRequest(bad))).toBe(errno);
    await client.answer(dmaUnmapRequest({ address: 8 * PAGE, size: 2 * PAGE }));
  });

  test('refuses a cut payload', async () => {
    const { client } = await dma();
    expect(await client.refusal(request(3, Buffer.alloc(23)))).toBe(EINVAL);
  });

  test('waits for the accesses that have begun', async () => {
    const { client, context } = await dma();
    await client.answer(dmaMapRequest({ address: 0, size: PAGE }));
    const reading = context.dma.read(0n, 4);
    const asked = await client.command(DMA_READ);
    const unmapping = client.ask(dmaUnmapRequest({ address: 0, size: PAGE }));
    // What comes later waits behind it, so an answer to this would mean that the unmapping did not wait.
    const later = client.ask(deviceGetInfoRequest());
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(client.inbox).toEqual([]);
    expect(await errnoOf(context.dma.read(0n, 4))).toBe(EFAULT);
    client.reply(asked, dmaReadReply({ data: [1, 2, 3, 4] }));
    expect(await reading).toEqual(Buffer.from([1, 2, 3, 4]));
    expect((await unmapping).flags).toBe(1);
    expect((await later).flags).toBe(1);
  });
});

describe('by mapping', () => {
  test('reads and writes the shared memory without a message', async () => {
    const { client, context } = await dma();
    const fd = memory(4 * PAGE);
    const bytes = view(fd, 4 * PAGE);
    await client.answer(dmaMapRequest({ address: 0x10000, size: 2 * PAGE, offset: PAGE }), [fd]);
    bytes.write('from the client', PAGE + 100);
    expect((await context.dma.read(0x10064n, 15)).toString()).toBe('from the client');
    await context.dma.write(0x11ffcn, Buffer.from('last'));
    expect(bytes.toString('latin1', 3 * PAGE - 4, 3 * PAGE)).toBe('last');
    expect(client.inbox).toEqual([]);
  });

  test('crosses from one mapping into the next', async () => {
    const { client, context } = await dma();
    const [low, high] = [memory(PAGE), memory(PAGE)];
    await client.answer(dmaMapRequest({ address: 0, size: PAGE }), [low]);
    await client.answer(dmaMapRequest({ address: PAGE, size: PAGE }), [high]);
    await context.dma.write(0xffen, Buffer.from('abcd'));
    expect(view(low, PAGE).toString('latin1', PAGE - 2)).toBe('ab');
    expect(view(high, PAGE).toString('latin1', 0, 2)).toBe('cd');
    expect((await context.dma.read(0xffdn, 6)).toString('latin1')).toBe('\0abcd\0');
  });

  test('keeps to the flags of the mapping', async () => {
    const { client, context } = await dma();
    await client.answer(dmaMapRequest({ address: 0, flags: 1 }), [memory(PAGE)]);
    await client.answer(dmaMapRequest({ address: PAGE, flags: 2 }), [memory(PAGE)]);
    await context.dma.read(0n, 8);
    expect(await errnoOf(context.dma.write(0n, Buffer.alloc(8)))).toBe(EACCES);
    await context.dma.write(0x1000n, Buffer.alloc(8));
    expect(await errnoOf(context.dma.read(0x1000n, 8))).toBe(EACCES);
  });

  test('leaves nothing half done where the end is not mapped', async () => {
    const { client, context } = await dma();
    const fd = memory(PAGE);
    await client.answer(dmaMapRequest({ address: 0, size: PAGE }), [fd]);
    expect(await errnoOf(context.dma.write(0xffen, Buffer.from('abcd')))).toBe(EFAULT);
    expect(view(fd, PAGE).readUInt16LE(PAGE - 2)).toBe(0);
  });

  test.each([-1n, 2n ** 64n - 2n, 2n ** 64n])('has no address %s', async (address) => {
    const { context } = await dma();
    expect(await errnoOf(context.dma.read(address, 4))).toBe(EFAULT);
  });
});

describe('by message', () => {
  test('asks the client on the one socket', async () => {
    const { client, context } = await dma();
    await client.answer(dmaMapRequest({ address: 0x5000, size: PAGE }));
    const reading = context.dma.read(0x5010n, 3);
    const read = await client.command(DMA_READ);
    expect(read.payload.readBigUInt64LE(0)).toBe(0x5010n);
    expect(read.payload.readBigUInt64LE(8)).toBe(3n);
    client.reply(read, dmaReadReply({ address: 0x5010, data: [7, 8, 9] }));
    expect(await reading).toEqual(Buffer.from([7, 8, 9]));

    const writing = context.dma.write(0x5ffen, Buffer.from([1, 2]));
    const write = await client.command(DMA_WRITE);
    expect([...write.payload.subarray(16)]).toEqual([1, 2]);
    client.reply(write, dmaWriteReply({ address: 0x5ffe, count: 2 }));
    await writing;
  });

  test('asks on the twin socket where there is one', async () => {
    let context: ClientContext | undefined;
    const { client } = served({ regions: [], irqs: [], attach: (attached) => (context = attached) });
    const { fds } = await client.negotiate({ twin_socket: { supported: true } });
    const twin = new RawClient(fds[0]!);
    cleanup(() => twin.close());
    await client.answer(dmaMapRequest({ address: 0 }));
    const reading = context!.dma.read(0n, 1);
    twin.reply(await twin.command(DMA_READ), dmaReadReply({ data: [5] }));
    expect(await reading).toEqual(Buffer.from([5]));
    expect(client.inbox).toEqual([]);
  });

  test("is cut into pieces of the client's max_data_xfer_size", async () => {
    const { client, context } = await dma({}, { max_data_xfer_size: 1000 });
    await client.answer(dmaMapRequest({ address: 0, size: PAGE }));
    const reading = context.dma.read(0n, 2500);
    for (const [address, count] of [
      [0, 1000],
      [1000, 1000],
      [2000, 500],
    ] as const) {
      const asked = await client.command(DMA_READ);
      expect(asked.payload.readBigUInt64LE(8)).toBe(BigInt(count));
      client.reply(asked, dmaReadReply({ address, data: Buffer.alloc(count, address / 100) }));
    }
    const bytes = await reading;
    expect([bytes[999], bytes[1000], bytes[2499]]).toEqual([0, 10, 20]);
  });

  test("fails with the client's errno", async () => {
    const { client, context } = await dma();
    await client.answer(dmaMapRequest({ address: 0 }));
    const reading = context.dma.read(0n, 4);
    client.refuse(await client.command(DMA_READ), EPERM);
    expect(await errnoOf(reading)).toBe(EPERM);
  });

  test('gives up in time, and a late answer does no harm', async () => {
    const { client, context } = await dma({ dmaTimeoutMs: 20 });
    await client.answer(dmaMapRequest({ address: 0 }));
    expect(await errnoOf(context.dma.read(0n, 4))).toBe(ETIMEDOUT);
    client.reply(await client.command(DMA_READ), dmaReadReply({ data: [1, 2, 3, 4] }));
    const again = context.dma.write(0n, Buffer.from([1]));
    client.reply(await client.command(DMA_WRITE), dmaWriteReply({ count: 1 }));
    await again;
  });

  test('is not tried where nothing is mapped', async () => {
    const { client, context } = await dma();
    expect(await errnoOf(context.dma.read(0n, 4))).toBe(EFAULT);
    expect(client.inbox).toEqual([]);
  });

  test.each([
    ['of another command', dmaWriteReply({ count: 4 })],
    ['with another address', dmaReadReply({ address: 1, data: [1, 2, 3, 4] })],
    ['with another count', dmaReadReply({ count: 5, data: [1, 2, 3, 4] })],
    ['with too little data', dmaReadReply({ count: 4, data: [1, 2, 3] })],
    ['with too much data', dmaReadReply({ count: 4, data: [1, 2, 3, 4, 5] })],
    ['without a payload', reply(DMA_READ, Buffer.alloc(0))],
  ])('ends the connection on a reply %s', async (_what, bad) => {
    const { client, context } = await dma();
    await client.answer(dmaMapRequest({ address: 0 }));
    const reading = context.dma.read(0n, 4);
    const failed = expect(reading).rejects.toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
    client.reply(await client.command(DMA_READ), bad);
    await failed;
    await client.end();
    expect(context.isConnected).toBe(false);
  });

  test('ends the connection on a reply to nothing', async () => {
    const { client } = await dma();
    client.send(dmaReadReply({ data: [1] }));
    await client.end();
  });

  test('fails when the client goes', async () => {
    const { client, context } = await dma();
    await client.answer(dmaMapRequest({ address: 0 }));
    const failed = expect(context.dma.read(0n, 4)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    await client.command(DMA_READ);
    client.close();
    await failed;
    await expect(context.dma.write(0n, Buffer.alloc(1))).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_CLOSED',
    });
  });
});

describe('the twin socket', () => {
  async function twins(): Promise<{ client: RawClient; twin: RawClient }> {
    const { client } = served({ regions: [], irqs: [] });
    const { fds } = await client.negotiate({ twin_socket: { supported: true } });
    const twin = new RawClient(fds[0]!);
    cleanup(() => twin.close());
    return { client, twin };
  }

  test('carries no commands of the client', async () => {
    const { client, twin } = await twins();
    twin.send(deviceGetInfoRequest());
    await client.end();
  });

  test('ends the connection when it ends, and ends with it', async () => {
    const one = await twins();
    one.twin.close();
    await one.client.end();
    const other = await twins();
    other.client.close();
    await other.twin.end();
  });

  test('takes replies away from the main socket', async () => {
    const { client } = await twins();
    client.send(dmaReadReply({ data: [1] }));
    await client.end();
  });
});

describe("the RAM device's DMA engine", () => {
  async function engine(vectors = 4): Promise<{ client: RawClient; device: RamDevice }> {
    const device = new RamDevice({ vectors });
    cleanup(() => device.close());
    return { client: await connected(device), device };
  }

  async function program(
    client: RawClient,
    source: number,
    destination: number,
    length: number,
  ): Promise<void> {
    await client.write64(0, RamRegister.DMA_SOURCE, source);
    await client.write64(0, RamRegister.DMA_DESTINATION, destination);
    await client.write32(0, RamRegister.DMA_LENGTH, length);
  }

  test('copies within shared memory before it answers', async () => {
    const { client } = await engine();
    const fd = memory(2 * PAGE);
    const bytes = view(fd, 2 * PAGE);
    bytes.write('copied by the device');
    await client.answer(dmaMapRequest({ size: 2 * PAGE }), [fd]);
    await program(client, 0, PAGE, 20);
    await client.write32(0, RamRegister.DMA_COMMAND, RamDma.COPY);
    expect(bytes.toString('latin1', PAGE, PAGE + 20)).toBe('copied by the device');
    expect(await client.read32(0, RamRegister.DMA_STATUS)).toBe(RamDmaStatus.DONE);
  });

  test('copies by message while the write that started it waits for its answer', async () => {
    const { client } = await engine();
    await client.answer(dmaMapRequest({ size: PAGE }));
    await program(client, 0x10, 0x20, 2);
    const started = client.write32(0, RamRegister.DMA_COMMAND, RamDma.COPY);
    client.reply(await client.command(DMA_READ), dmaReadReply({ address: 0x10, data: [6, 7] }));
    const write = await client.command(DMA_WRITE);
    expect([...write.payload.subarray(16)]).toEqual([6, 7]);
    expect(client.inbox).toEqual([]);
    client.reply(write, dmaWriteReply({ address: 0x20, count: 2 }));
    await started;
  });

  test('copies behind a posted command', async () => {
    const { client } = await engine();
    const fd = memory(PAGE);
    const bytes = view(fd, PAGE);
    bytes.write('xyz');
    await client.answer(dmaMapRequest({ size: PAGE }), [fd]);
    await program(client, 0, 0x800, 3);
    await client.write32(0, RamRegister.DMA_COMMAND, RamDma.COPY | RamDma.POSTED);
    await until(
      async () => (await client.read32(0, RamRegister.DMA_STATUS)) === RamDmaStatus.DONE,
      'the copy',
    );
    expect(bytes.toString('latin1', 0x800, 0x803)).toBe('xyz');
  });

  test('says why it could not', async () => {
    const { client } = await engine();
    await program(client, 0, 0x800, 3);
    const command = Buffer.alloc(4);
    command[0] = RamDma.COPY;
    await expect(client.writeRegion(0, RamRegister.DMA_COMMAND, command)).rejects.toThrow(`errno ${EFAULT}`);
    expect(await client.read32(0, RamRegister.DMA_STATUS)).toBe((RamDmaStatus.FAILED | EFAULT) >>> 0);
  });
});

// An fd that is closed says so: what was counted above were real ones.
test('closed fds are closed', () => {
  const fd = native().eventfd(0);
  native().closeFd(fd);
  expect(native().fdInfo(fd)).toBe(-EBADF);
});
