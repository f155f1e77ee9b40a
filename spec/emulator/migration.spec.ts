/** Migration as the emulated memory device does it: quiet when it says so, and one client's at a time. */
import { describe, expect, test } from '@jest/globals';
import { constants } from 'node:os';
import { RamDevice, RamDma, RamDmaStatus, RamRegister, serve } from '../../lib/emulator/index.js';
import { MigrationState } from '../../lib/index.js';
import {
  deviceFeatureRequest,
  deviceResetRequest,
  dmaMapRequest,
  dmaWriteReply,
  loggingControl,
  loggingReport,
  migDataReadRequest,
  migDataWriteRequest,
  regionWriteRequest,
  setIrqsRequest,
  wire,
} from '../support/wire.js';
import { Scratch } from '../cli/cli.js';
import { cleanup, connected, eventFd, memory, until } from './fixture.js';
import { RawClient, type Received } from './raw-client.js';

const { ERROR, STOP, RUNNING, STOP_COPY, RESUMING, PRE_COPY } = MigrationState;
const { EBUSY, EINVAL, ECANCELED } = constants.errno;
const DMA_WRITE = 12;
const PAGE = 4096;
const CHUNK = 1 << 20;

const toState = (state: number) =>
  deviceFeatureRequest({ flags: 0x20002, data: wire().u32(state).u32(0).build() });

async function go(client: RawClient, ...states: number[]): Promise<void> {
  for (const state of states) await client.answer(toState(state));
}

async function stateOf(client: RawClient): Promise<number> {
  const asked = deviceFeatureRequest({ flags: 0x10002, argsz: 16 });
  return (await client.answer(asked)).readUInt32LE(8);
}

function makeRam(ramSize = PAGE): RamDevice {
  const device = new RamDevice({ sharedSize: 0, ramSize, migration: 'pre-copy' });
  cleanup(() => device.close());
  return device;
}

/** Its engine copies from memory that it maps to memory that it reaches by message, as far as it is answered. */
async function withDma(device: RamDevice, length: number): Promise<RawClient> {
  const client = await connected(device);
  await prepareDma(client, length);
  return client;
}

async function prepareDma(client: RawClient, length: number): Promise<void> {
  await client.answer(dmaMapRequest({ size: 8 * CHUNK }), [memory(8 * CHUNK)]);
  await client.answer(dmaMapRequest({ address: 8 * CHUNK, size: 8 * CHUNK }));
  await setUpDma(client, length);
}

async function setUpDma(client: RawClient, length: number): Promise<void> {
  await client.write64(0, RamRegister.DMA_SOURCE, 0);
  await client.write64(0, RamRegister.DMA_DESTINATION, 8 * CHUNK);
  await client.write32(0, RamRegister.DMA_LENGTH, length);
}

const start = (command: number) =>
  regionWriteRequest({ region: 0, offset: RamRegister.DMA_COMMAND, data: wire().u32(command).build() });

/** Lets the device write one chunk. */
async function answerChunk(client: RawClient): Promise<void> {
  const write = await client.command(DMA_WRITE);
  const address = write.payload.readBigUInt64LE(0);
  client.reply(write, dmaWriteReply({ address, count: write.payload.readBigUInt64LE(8) }));
}

/** The reply to the command of that id, if it has come. */
function replyTo(client: RawClient, id: number): Received | undefined {
  return client.inbox.find((received) => received.id === id && (received.flags & 0xf) === 1);
}

const trigger = regionWriteRequest({ region: 0, offset: RamRegister.TRIGGER, data: wire().u32(0).build() });

/** Waits until the device has been told to stop. */
async function refusesToBegin(client: RawClient): Promise<void> {
  await until(async () => (await client.ask(trigger)).errno === EBUSY, 'STOP');
}

describe('DMA and the states', () => {
  test.each<[string, number[]]>([
    ['STOP', [STOP]],
    ['STOP_COPY out of PRE_COPY', [PRE_COPY, STOP_COPY]],
  ])('%s is acknowledged when a posted copy has ended, and the engine is done', async (_title, states) => {
    const device = makeRam();
    const client = await withDma(device, 2 * CHUNK + 8);
    await go(client, ...states.slice(0, -1));
    await client.answer(start(RamDma.COPY | RamDma.POSTED));
    const id = client.post(toState(states.at(-1)!));
    for (let chunk = 0; chunk < 2; chunk++) {
      await answerChunk(client);
      expect(replyTo(client, id)).toBeUndefined();
      expect(device.migrationState).not.toBe(states.at(-1));
    }
    await answerChunk(client);
    await client.take((received) => received.id === id);
    expect(device.migrationState).toBe(states.at(-1));
    expect(await client.read32(0, RamRegister.DMA_STATUS)).toBe(RamDmaStatus.DONE);
    expect(client.inbox).toEqual([]);
  });

  test('STOP waits for the copy of another client, too, and for one that fails', async () => {
    const device = makeRam();
    const client = await withDma(device, 8);
    const other = await connected(device);
    const id = client.post(start(RamDma.COPY));
    const write = await client.command(DMA_WRITE);
    const stopping = other.post(toState(STOP));
    await refusesToBegin(await connected(device));
    expect(replyTo(other, stopping)).toBeUndefined();
    client.refuse(write, EINVAL);
    expect((await client.take((received) => received.id === id)).errno).toBe(EINVAL);
    await other.take((received) => received.id === stopping);
    expect(device.migrationState).toBe(STOP);
  });

  test.each<[string, number[]]>([
    ['STOP', [STOP]],
    ['STOP_COPY', [STOP, STOP_COPY]],
    ['RESUMING', [STOP, RESUMING]],
  ])('nothing is begun in %s, and nobody interrupted', async (_title, states) => {
    const device = makeRam();
    const client = await withDma(device, 8);
    const event = eventFd();
    await client.answer(setIrqsRequest({ index: 0, flags: 0x24, count: 1 }), [event.fd]);
    await go(client, ...states);
    expect(await client.refusal(start(RamDma.COPY))).toBe(EBUSY);
    expect(await client.refusal(start(RamDma.COPY | RamDma.POSTED))).toBe(EBUSY);
    expect(await client.refusal(trigger)).toBe(EBUSY);
    expect(event.count()).toBe(0);
    if (states.includes(RESUMING)) await client.answer(deviceResetRequest());
    else await go(client, ...(states.includes(STOP_COPY) ? [STOP, RUNNING] : [RUNNING]));
    await client.answer(trigger);
    await setUpDma(client, 8);
    await client.answer(start(RamDma.COPY | RamDma.POSTED));
    await answerChunk(client);
  });

  test('a reset ends a copy with its chunk', async () => {
    const device = makeRam();
    const client = await withDma(device, 4 * CHUNK);
    await client.answer(start(RamDma.COPY | RamDma.POSTED));
    const id = client.post(deviceResetRequest());
    await answerChunk(client);
    await client.take((received) => received.id === id);
    expect(await client.read32(0, RamRegister.DMA_STATUS)).toBe(RamDmaStatus.IDLE);
    expect(client.inbox).toEqual([]);
  });

  test('a reset of another client beside STOP: whichever comes first, it runs in the end', async () => {
    const device = makeRam();
    const client = await withDma(device, 4 * CHUNK);
    const other = await connected(device);
    const copied = client.post(start(RamDma.COPY));
    const stopping = other.post(toState(STOP));
    const third = await connected(device);
    await refusesToBegin(third);
    const reset = third.post(deviceResetRequest());
    await answerChunk(client);
    await third.take((received) => received.id === reset);
    expect((await client.take((received) => received.id === copied)).errno).toBe(ECANCELED);
    expect([0, EINVAL]).toContain((await other.take((received) => received.id === stopping)).errno);
    expect(device.migrationState).toBe(RUNNING);
    await third.answer(trigger);
  });

  test('a state that was read while it copied: the copy stays behind, and the engine is free', async () => {
    const source = makeRam();
    const client = await withDma(source, 2 * CHUNK);
    await client.answer(start(RamDma.COPY | RamDma.POSTED));
    await go(client, PRE_COPY);
    const stream = (await client.answer(migDataReadRequest({ size: CHUNK }))).subarray(8);
    const target = makeRam();
    const destination = await connected(target);
    await go(destination, STOP, RESUMING);
    await destination.answer(migDataWriteRequest({ data: stream }));
    await go(destination, STOP, RUNNING);
    const failed = (RamDmaStatus.FAILED | ECANCELED) >>> 0;
    expect(await destination.read32(0, RamRegister.DMA_STATUS)).toBe(failed);
    await prepareDma(destination, 8);
    await destination.answer(start(RamDma.COPY | RamDma.POSTED));
    await answerChunk(destination);
  });
});

describe('the stream', () => {
  test.each([7, 1000, 1 << 20])('in pieces of %i bytes: the last whole state counts', async (size) => {
    const source = makeRam();
    const client = await connected(source);
    source.ram.fill(1);
    await go(client, PRE_COPY);
    source.ram.fill(2);
    await go(client, STOP_COPY);
    const parts: Buffer[] = [];
    for (let part: Buffer = Buffer.alloc(CHUNK); part.byteLength > 0;) {
      part = (await client.answer(migDataReadRequest({ size: CHUNK }))).subarray(8);
      parts.push(part);
    }
    const stream = Buffer.concat(parts);
    expect(stream).toHaveLength(2 * (4 + 2 * PAGE));
    const target = makeRam();
    const destination = await connected(target);
    await go(destination, STOP, RESUMING);
    for (let at = 0; at < stream.byteLength; at += size) {
      await destination.answer(migDataWriteRequest({ data: stream.subarray(at, at + size) }));
    }
    await go(destination, STOP);
    expect(target.ram.equals(source.ram)).toBe(true);
  });

  test.each([
    ['nothing', Buffer.alloc(0)],
    ['a part of a length', Buffer.alloc(3)],
    [
      'a part of a state',
      wire()
        .u32(2 * PAGE)
        .bytes(Buffer.alloc(100))
        .build(),
    ],
    ['a state of another size', wire().u32(100).bytes(Buffer.alloc(100)).build()],
    ['a length that no memory has', wire().u32(0xffffffff).bytes(Buffer.alloc(100)).build()],
    [
      'a state, and a part of another',
      Buffer.alloc(4 + 2 * PAGE + 1).fill(
        wire()
          .u32(2 * PAGE)
          .build(),
        0,
        4,
      ),
    ],
  ])('%s: ERROR, which a reset ends', async (_title, stream) => {
    const device = makeRam();
    const client = await connected(device);
    await go(client, STOP, RESUMING);
    await client.answer(migDataWriteRequest({ data: stream }));
    expect(await client.refusal(toState(STOP))).toBe(EINVAL);
    expect(await stateOf(client)).toBe(ERROR);
    expect(await client.refusal(migDataWriteRequest({ data: [1] }))).toBe(EINVAL);
    await client.answer(deviceResetRequest());
    expect(await stateOf(client)).toBe(RUNNING);
  });

  test('a restore that is begun again has nothing of the one before', async () => {
    const device = makeRam();
    const client = await connected(device);
    await go(client, STOP, RESUMING);
    await client.answer(
      migDataWriteRequest({
        data: wire()
          .u32(2 * PAGE)
          .bytes(Buffer.alloc(50))
          .build(),
      }),
    );
    await client.answer(deviceResetRequest());
    await go(client, STOP, RESUMING);
    const whole = wire()
      .u32(2 * PAGE)
      .bytes(Buffer.alloc(2 * PAGE, 7))
      .build();
    await client.answer(migDataWriteRequest({ data: whole }));
    await go(client, STOP);
    expect(device.ram.equals(Buffer.alloc(PAGE, 7))).toBe(true);
  });
});

describe('two clients', () => {
  async function two(...states: number[]) {
    const scratch = new Scratch();
    const device = makeRam();
    const server = await serve(device, { path: scratch.path('socket'), clients: 'many' });
    const clients = [RawClient.connect(scratch.path('socket')), RawClient.connect(scratch.path('socket'))];
    cleanup(async () => {
      for (const client of clients) client.close();
      await server.close();
      scratch.remove();
    });
    for (const client of clients) await client.negotiate();
    const [owner, other] = clients as [RawClient, RawClient];
    await go(owner, ...states);
    return { owner, other, device };
  }

  test.each([
    ['PRE_COPY', [PRE_COPY]],
    ['STOP_COPY', [STOP, STOP_COPY]],
    ['RESUMING', [STOP, RESUMING]],
  ])(
    'a transfer in %s is its own: the other one sees the state, and changes nothing',
    async (_title, states) => {
      const { owner, other } = await two(...states);
      const state = states.at(-1)!;
      expect(await stateOf(other)).toBe(state);
      for (const to of [STOP, RUNNING, STOP_COPY, RESUMING])
        expect(await other.refusal(toState(to))).toBe(EBUSY);
      expect(await other.refusal(migDataReadRequest({ size: 64 }))).toBe(EBUSY);
      expect(await other.refusal(migDataWriteRequest({ data: [1] }))).toBe(EBUSY);
      expect(await stateOf(owner)).toBe(state);
    },
  );

  test.each([
    ['PRE_COPY', [PRE_COPY], [RUNNING, PRE_COPY]],
    ['STOP_COPY', [STOP, STOP_COPY], [STOP, STOP_COPY]],
  ])(
    'one in %s whose client has gone can be ended by anybody, and by nobody be taken for the whole',
    async (_title, states, again) => {
      const { owner, other, device } = await two(...states);
      const whole = (await owner.answer(migDataReadRequest({ size: 3000 }))).readUInt32LE(4);
      expect(whole).toBe(3000);
      owner.close();
      await until(() => device.clients.size === 1);
      expect(await other.refusal(migDataReadRequest({ size: CHUNK }))).toBe(EBUSY);
      for (const to of [PRE_COPY, STOP_COPY])
        expect([EBUSY, EINVAL]).toContain(await other.refusal(toState(to)));
      await go(other, ...again);
      // Length, registers, RAM.
      expect((await other.answer(migDataReadRequest({ size: CHUNK }))).readUInt32LE(4)).toBe(4 + 2 * PAGE);
      await go(other, STOP_COPY, STOP, RUNNING);
    },
  );

  test('what a client that has gone had restored is no beginning of what another one does', async () => {
    const { owner, other, device } = await two(STOP, RESUMING);
    await owner.answer(migDataWriteRequest({ data: [1, 2, 3] }));
    owner.close();
    await until(() => device.clients.size === 1);
    expect(await other.refusal(toState(RESUMING))).toBe(EBUSY);
    expect(await other.refusal(migDataWriteRequest({ data: [4] }))).toBe(EBUSY);
    expect(await other.refusal(toState(STOP))).toBe(EINVAL);
    expect(await stateOf(other)).toBe(ERROR);
  });
});

test('a dirty bitmap that the client has no room for stays in the log', async () => {
  const device = makeRam();
  const client = await connected(device, { dirtyPages: 'logging' });
  await client.answer(dmaMapRequest({ size: 16 * PAGE }), [memory(16 * PAGE)]);
  await client.answer(deviceFeatureRequest({ flags: 0x20006, data: loggingControl(PAGE) }));
  await client.write64(0, RamRegister.DMA_DESTINATION, 3 * PAGE);
  await client.write32(0, RamRegister.DMA_LENGTH, 1);
  await client.answer(start(RamDma.COPY));
  const data = loggingReport(0, 16 * PAGE, PAGE);
  expect(await client.refusal(deviceFeatureRequest({ flags: 0x10008, data }))).toBe(EINVAL);
  const reply = await client.answer(deviceFeatureRequest({ flags: 0x10008, data, argsz: 64 }));
  expect(reply.subarray(-8)).toEqual(Buffer.from([8, 0, 0, 0, 0, 0, 0, 0]));
});

describe('ranges of a dirty log', () => {
  /** Has the device write `length` bytes at `address`. */
  async function dirty(client: RawClient, address: number, length: number): Promise<void> {
    await client.write64(0, RamRegister.DMA_DESTINATION, address);
    await client.write32(0, RamRegister.DMA_LENGTH, length);
    await client.answer(start(RamDma.COPY));
  }

  async function logging(pages: number, ranges: readonly (readonly [number, number])[]): Promise<RawClient> {
    const client = await connected(makeRam(), { dirtyPages: 'logging' });
    await client.answer(dmaMapRequest({ size: pages * PAGE }), [memory(pages * PAGE)]);
    await client.answer(deviceFeatureRequest({ flags: 0x20006, data: loggingControl(PAGE, ranges) }));
    return client;
  }

  async function pagesOf(client: RawClient, from: number, count: number): Promise<number[]> {
    const data = loggingReport(from * PAGE, count * PAGE, PAGE);
    const argsz = 8 + 24 + Math.ceil(count / 64) * 8;
    const bitmap = (await client.answer(deviceFeatureRequest({ flags: 0x10008, data, argsz }))).subarray(32);
    return Array.from({ length: count }, (_, i) => i).filter(
      (i) => (bitmap[i >>> 3]! & (1 << (i & 7))) !== 0,
    );
  }

  test('in any order, overlapping, touching, one in another, of part of a page, and of no bytes', async () => {
    const ranges = [
      [40 * PAGE, 2 * PAGE],
      [8 * PAGE, 8 * PAGE],
      [10 * PAGE, PAGE],
      [16 * PAGE, PAGE],
      [15 * PAGE, 3 * PAGE],
      [30 * PAGE + 100, 8],
      [50 * PAGE, 0],
      [41 * PAGE, PAGE],
    ] as const;
    const client = await logging(64, ranges);
    await dirty(client, 0, 64 * PAGE);
    const watched = [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 30, 40, 41];
    expect(await pagesOf(client, 0, 20)).toEqual(watched.filter((page) => page < 20));
    // What was told is clean, what was not asked for stays.
    expect(await pagesOf(client, 0, 64)).toEqual([30, 40, 41]);
    expect(await pagesOf(client, 0, 64)).toEqual([]);
  });

  test('thousands of them, and a write of thousands of pages, are no work to speak of', async () => {
    const elsewhere = Array.from({ length: 12_000 }, (_, i) => [2 ** 40 + 2 * i * PAGE, PAGE] as const);
    const client = await logging(16_384, [...elsewhere, [16_000 * PAGE, PAGE]]);
    await dirty(client, 0, 16_384 * PAGE);
    // Reports of single pages, in a window of very many.
    for (const page of [0, 15_999, 16_000]) {
      expect(await pagesOf(client, page, 1)).toEqual(page === 16_000 ? [0] : []);
    }
  });
});
