import { describe, expect, test } from '@jest/globals';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MemoryStore, NvmeDevice, onNthCommand, serve, type NvmeVerdict } from '../../lib/emulator/index.js';
import { ClosedError, connect, TimeoutError } from '../../lib/index.js';
import {
  decodeStatus,
  NvmeController,
  NvmeControllerError,
  NvmeResetError,
  NvmeStatusError,
  NvmOpcode,
  type NvmeQueueOptions,
} from '../../lib/nvme/index.js';
import { cleanup, errorOf, opened, pattern, until, type Setup } from './fixture.js';

const ABORT = 0x08;
const CREATE_SQ = 0x01;

/** Where a busy machine must not take an Abort for lost: it has a quarter of that time. */
const patient: Setup = { nvme: { timeoutMs: 2_000 } };

async function withQueue(setup: Setup = {}, options?: NvmeQueueOptions) {
  const pair = await opened({ ...setup, nvme: { timeoutMs: 200, ...setup.nvme } });
  const queue = await pair.controller.createQueue(options);
  await queue.write(0, pattern(64 * 512));
  return { ...pair, queue };
}

/** Counts admin commands with that opcode from now on, and lets `verdict` decide about I/O commands. */
function adminCount(
  emulated: { intercept: unknown },
  opcode: number,
  verdict: (command: { queue: number; opcode: number }) => NvmeVerdict = () => 'pass',
): () => number {
  let count = 0;
  emulated.intercept = (command: { queue: number; opcode: number }) => {
    if (command.queue === 0 && command.opcode === opcode) count++;
    return command.queue === 0 ? 'pass' : verdict(command);
  };
  return () => count;
}

describe('the n-th command fails', () => {
  test('its caller gets the status, the others their data', async () => {
    const { queue, emulated } = await withQueue();
    emulated.intercept = onNthCommand(3, { status: 0x281 }, NvmOpcode.READ);
    const results = await Promise.allSettled(Array.from({ length: 5 }, (_, i) => queue.read(i, 1)));
    expect(results.map(({ status }) => status)).toEqual([
      'fulfilled',
      'fulfilled',
      'rejected',
      'fulfilled',
      'fulfilled',
    ]);
    const error = (results[2] as PromiseRejectedResult).reason as NvmeStatusError;
    expect(error).toBeInstanceOf(NvmeStatusError);
    expect(error).toMatchObject({
      name: 'NvmeStatusError',
      code: 'ERR_NVME_UNRECOVERED_READ_ERROR',
      sct: 2,
      sc: 0x81,
      dnr: false,
      command: 'read',
    });
  });

  test('a long transfer fails as a whole, and what had not begun is not sent', async () => {
    const { queue, emulated } = await withQueue({ emulated: { mdts: 1 } }, { entries: 3 });
    let count = 0;
    emulated.intercept = ({ queue: id }) => {
      if (id > 0 && ++count === 2) return { status: 0x4281 };
    };
    const error = await errorOf(queue.read(0, 1600));
    expect(error).toMatchObject({ statusName: 'UNRECOVERED_READ_ERROR', dnr: true });
    expect(count).toBeLessThan(10);
  });

  test('the submit/poll face is told the status', async () => {
    const { queue, emulated } = await withQueue({}, { buffers: {} });
    emulated.intercept = onNthCommand(1, { status: 0x280 });
    queue.submitWrite(0, 1, 0, 5);
    queue.ring();
    await until(() => queue.poll() > 0);
    expect(decodeStatus(queue.completedStatus[0]!)).toMatchObject({ sct: 2, sc: 0x80, name: 'WRITE_FAULT' });
  });
});

describe('a command that is not completed', () => {
  test('is aborted: its caller gets a TimeoutError, the controller is not reset', async () => {
    const { queue, emulated } = await withQueue(patient);
    let held = 0;
    const admin: number[] = [];
    emulated.intercept = ({ queue: id, opcode }) => {
      if (id === 0) admin.push(opcode);
      return id > 0 && held++ === 0 ? 'hold' : 'pass';
    };
    const error = await errorOf(queue.read(0, 8));
    expect(error).toBeInstanceOf(TimeoutError);
    expect(error.message).toContain('read');
    expect((await queue.read(0, 64)).equals(pattern(64 * 512))).toBe(true);
    await until(() => queue.inFlight === 0);
    expect(admin).toEqual([ABORT]);
  });

  test('and cannot be aborted: the controller is reset, what else is in flight is sent again', async () => {
    const { queue, controller, emulated } = await withQueue();
    const verdicts: NvmeVerdict[] = ['lose', { delayMs: 60_000 }];
    const created = adminCount(emulated, CREATE_SQ, () => verdicts.shift() ?? 'pass');
    const lost = errorOf(queue.read(0, 8));
    const slow = queue.read(8, 8, { timeoutMs: 30_000 });
    expect(await lost).toBeInstanceOf(TimeoutError);
    expect((await slow).equals(pattern(64 * 512).subarray(8 * 512, 16 * 512))).toBe(true);
    expect(created()).toBe(1);
    expect(controller.state).toBe('live');
  });

  test('a deadline of its own', async () => {
    const { queue, emulated } = await withQueue({ nvme: { timeoutMs: 60_000 } });
    emulated.intercept = onNthCommand(1, 'hold');
    const error = await errorOf(queue.read(0, 1, { timeoutMs: 20 }));
    expect(error).toMatchObject({ name: 'TimeoutError', timeoutMs: 20 });
  });

  test('that waits for its turn has a deadline too', async () => {
    const { queue, emulated } = await withQueue({}, { entries: 2 });
    emulated.intercept = onNthCommand(1, 'hold');
    const first = errorOf(queue.read(0, 1, { timeoutMs: 10_000 }));
    const second = await errorOf(queue.read(8, 1, { timeoutMs: 30 }));
    expect(second).toBeInstanceOf(TimeoutError);
    await queue.close();
    expect(await first).toBeInstanceOf(Error);
  });

  test.each<[NvmeVerdict, string]>([
    ['hold', 'ABORT_REQUESTED'],
    ['lose', 'ABORTED_BY_HOST'],
  ])('the submit/poll face: %s is reported as %s', async (verdict, name) => {
    const { queue, emulated } = await withQueue(patient, { buffers: {} });
    emulated.intercept = onNthCommand(1, verdict);
    queue.submitRead(0, 1, 0, 42);
    queue.ring();
    await until(() => queue.poll() > 0);
    expect(queue.completedTags[0]).toBe(42);
    expect(decodeStatus(queue.completedStatus[0]!).name).toBe(name);
    // The queue goes on.
    await until(() => queue.submitRead(0, 1, 0, 43));
    queue.ring();
    await until(() => queue.poll() > 0);
    expect([queue.completedTags[0], queue.completedStatus[0]]).toEqual([43, 0]);
  });
});

describe('memory that the device may still write to', () => {
  /** A namespace whose reads end `delayMs` late, whatever happens meanwhile. */
  function lateNamespace() {
    const store = new MemoryStore(1 << 20);
    const state = { delayMs: 0 };
    const read = store.read.bind(store);
    store.read = ((offset: number, length: number) =>
      state.delayMs === 0
        ? read(offset, length)
        : sleep(state.delayMs).then(() => read(offset, length))) as typeof store.read;
    return { namespaces: [{ store }], state };
  }

  test('a caller’s DMA buffer is the caller’s again only when the device is done with it', async () => {
    const { namespaces, state } = lateNamespace();
    const { queue, device } = await withQueue({ emulated: { namespaces } });
    const buffer = await device.dma.alloc(4096);
    state.delayMs = 700;
    const begin = performance.now();
    const error = await errorOf(queue.readInto(0, buffer));
    expect(error).toBeInstanceOf(TimeoutError);
    // The command could not be aborted, and the reset waited for it.
    expect(performance.now() - begin).toBeGreaterThan(650);
    buffer.bytes.fill(0xaa);
    await sleep(200);
    expect(buffer.bytes.every((byte) => byte === 0xaa)).toBe(true);
  });

  test('bounce pages are not used again before', async () => {
    const { namespaces, state } = lateNamespace();
    const { queue } = await withQueue({ emulated: { namespaces } });
    let isLate = false;
    state.delayMs = 1_000;
    setTimeout(() => (isLate = true), 1_000);
    expect(await errorOf(queue.read(0, 8))).toBeInstanceOf(TimeoutError);
    expect(isLate).toBe(false);
    state.delayMs = 0;
    // While the late read is still to come.
    const ones = Buffer.alloc(256 * 512, 1);
    await queue.write(1000, ones);
    for (let i = 0; i < 4; i++) expect((await queue.read(1000, 256)).equals(ones)).toBe(true);
    await until(() => isLate);
    await sleep(100);
    expect((await queue.read(1000, 256)).equals(ones)).toBe(true);
  });
});

describe('a stalled controller', () => {
  test('each caller gets an error of its own, and the controller is reset', async () => {
    const { queue, controller, emulated } = await withQueue();
    emulated.stall();
    const errors = await Promise.all(Array.from({ length: 6 }, (_, i) => errorOf(queue.read(i, 1))));
    for (const error of errors) expect(error).toBeInstanceOf(TimeoutError);
    expect(new Set(errors).size).toBe(6);
    expect((await queue.read(0, 64)).equals(pattern(64 * 512))).toBe(true);
    expect(controller.state).toBe('live');
  });

  test('admin commands too', async () => {
    const { controller, emulated } = await withQueue();
    emulated.stall();
    expect(await errorOf(controller.smartLog())).toBeInstanceOf(TimeoutError);
    expect((await controller.smartLog()).temperatureKelvin).toBe(311);
  });

  test('that cannot be reset has failed', async () => {
    const { queue, controller, emulated } = await withQueue({ emulated: { readyTimeoutMs: 500 } });
    emulated.stall();
    emulated.isReadyStuck = true;
    const slow = errorOf(queue.read(2, 1, { timeoutMs: 60_000 }));
    expect(await errorOf(queue.read(0, 1))).toBeInstanceOf(TimeoutError);
    const error = await slow;
    expect(error).toBeInstanceOf(NvmeControllerError);
    expect(error.message).toContain('CSTS.RDY does not become 0');
    expect(controller.state).toBe('failed');
    const late = await errorOf(queue.read(0, 1));
    expect(late).toBeInstanceOf(NvmeControllerError);
    expect(late).not.toBe(error);
    expect(() => queue.poll()).toThrow(NvmeControllerError);
    expect(await controller.closed).toBeInstanceOf(NvmeControllerError);
    expect([controller.isClosed, queue.isClosed]).toEqual([true, true]);
    await controller.close();
  });

  test('one with a fatal status is reset without an Abort', async () => {
    const { queue, emulated } = await withQueue();
    const aborts = adminCount(emulated, ABORT);
    emulated.fail();
    expect(await errorOf(queue.read(0, 1))).toBeInstanceOf(TimeoutError);
    expect((await queue.read(0, 64)).equals(pattern(64 * 512))).toBe(true);
    expect(aborts()).toBe(0);
  });
});

describe('a reset by the user', () => {
  test('sends what is in flight again, in order', async () => {
    const { queue, controller, emulated } = await withQueue();
    emulated.stall();
    const reads = Promise.all(Array.from({ length: 8 }, (_, i) => queue.read(i, 1)));
    await sleep(10);
    const lbas: bigint[] = [];
    emulated.intercept = ({ queue: id, lba }) => void (id > 0 && lbas.push(lba));
    await controller.reset();
    expect(Buffer.concat(await reads).equals(pattern(64 * 512).subarray(0, 8 * 512))).toBe(true);
    expect(lbas).toEqual([0n, 1n, 2n, 3n, 4n, 5n, 6n, 7n]);
  });

  test('rejects what must not be sent again', async () => {
    const { queue, controller, emulated } = await withQueue({ nvme: { retries: 0 } });
    emulated.intercept = onNthCommand(1, 'hold');
    const read = errorOf(queue.read(0, 1));
    await sleep(10);
    await controller.reset();
    expect(await read).toBeInstanceOf(NvmeResetError);
    expect((await queue.read(0, 1)).byteLength).toBe(512);
  });

  test('several at once are one', async () => {
    const { controller, emulated } = await withQueue();
    const created = adminCount(emulated, CREATE_SQ);
    await Promise.all([controller.reset(), controller.reset(), controller.reset()]);
    expect(created()).toBe(1);
  });

  test('keeps queues, their depth, their interrupts', async () => {
    const { queue, controller } = await withQueue({}, { completion: 'interrupt', entries: 9 });
    for (let i = 0; i < 3; i++) {
      await controller.reset();
      expect((await queue.read(0, 64)).equals(pattern(64 * 512))).toBe(true);
    }
    expect(queue.depth).toBe(8);
  });
});

describe('a caller who does not want to wait', () => {
  test('gets the signal’s reason, and the command is aborted', async () => {
    // Nothing but the Abort gets the slot back in time.
    const { queue, emulated } = await withQueue({ nvme: { timeoutMs: 60_000 } });
    let held = 0;
    const aborts = adminCount(emulated, ABORT, () => (held++ === 0 ? 'hold' : 'pass'));
    const stop = new AbortController();
    const read = errorOf(queue.read(0, 8, { signal: stop.signal }));
    await sleep(5);
    const reason = new Error('enough');
    stop.abort(reason);
    expect(await read).toBe(reason);
    await until(() => queue.inFlight === 0);
    expect(aborts()).toBe(1);
    expect((await queue.read(0, 64)).equals(pattern(64 * 512))).toBe(true);
  });

  test('of a long transfer', async () => {
    const { queue } = await withQueue({}, { entries: 3 });
    const stop = new AbortController();
    const read = errorOf(queue.read(0, 8000, { signal: stop.signal }));
    await new Promise(setImmediate);
    stop.abort();
    expect(await read).toBe(stop.signal.reason);
    expect((await queue.read(0, 64)).equals(pattern(64 * 512))).toBe(true);
  });

  test('before it began', async () => {
    const { queue } = await withQueue();
    await expect(queue.read(0, 8, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      name: 'AbortError',
    });
  });
});

describe('a controller that disappears', () => {
  test('in mid-I/O: each caller gets a ClosedError of its own', async () => {
    const { queue, controller, emulated, cut } = await withQueue({}, { entries: 4, buffers: {} });
    emulated.stall();
    const errors = Array.from({ length: 10 }, (_, i) => errorOf(queue.read(i, 1)));
    await sleep(5);
    await cut();
    const all = await Promise.all(errors);
    for (const error of all) expect(error).toBeInstanceOf(ClosedError);
    expect(new Set(all).size).toBe(10);
    expect(controller.state).toBe('closed');
    expect(() => queue.submitRead(0, 1, 0, 0)).toThrow(ClosedError);
    expect(() => queue.poll()).toThrow(ClosedError);
    await expect(controller.createQueue()).rejects.toThrow(ClosedError);
    await expect(controller.reset()).rejects.toThrow(ClosedError);
    await controller.close();
  });

  test('while it is brought up', async () => {
    const { controller, cut } = await withQueue();
    const reset = errorOf(controller.reset());
    await cut();
    expect(await reset).toBeInstanceOf(ClosedError);
  });
});

describe('doorbells that are refused', () => {
  test('are followed by a reset, and the command is carried out all the same', async () => {
    let refuse = false;
    const { queue } = await withQueue({
      emulated: { mapDoorbells: false },
      serve: {
        intercept: ({ name, payload }) => {
          if (!refuse || name !== 'REGION_WRITE' || payload.readUInt32LE(0) < 0x1008) return 'pass';
          refuse = false;
          return { errno: 5 };
        },
      },
    });
    refuse = true;
    expect((await queue.read(0, 64)).equals(pattern(64 * 512))).toBe(true);
  });
});

describe('a server that comes back', () => {
  test('finds the controller brought up again, and the commands that were in flight', async () => {
    const path = join(mkdtempSync(join(tmpdir(), 'vfio-user-')), 's');
    cleanup(() => rmSync(dirname(path), { recursive: true }));
    const emulated = new NvmeDevice({ namespaces: [{ store: new MemoryStore(1 << 20) }] });
    cleanup(() => emulated.close());
    const first = await serve(emulated, { path });
    const device = await connect(path, { reconnect: true });
    cleanup(() => device.close());
    const controller = await NvmeController.open(device);
    const queue = await controller.createQueue({ buffers: {} });
    await queue.write(0, pattern(4096));
    emulated.stall();
    const reads = Promise.all([queue.read(0, 8), queue.read(0, 4)]);
    queue.submitRead(0, 1, 0, 5);
    queue.ring();
    await sleep(5);
    await first.close();
    await sleep(5);
    expect(controller.state).toBe('resetting');
    const second = await serve(emulated, { path });
    cleanup(() => second.close());
    const [whole, half] = await reads;
    expect(whole.equals(pattern(4096))).toBe(true);
    expect(half.equals(whole.subarray(0, 2048))).toBe(true);
    expect(queue.poll()).toBe(1);
    expect(decodeStatus(queue.completedStatus[0]!).name).toBe('ABORTED_BY_HOST');
    expect(controller.state).toBe('live');
    expect((await queue.read(0, 8)).equals(pattern(4096))).toBe(true);
    await controller.close();
  });
});
