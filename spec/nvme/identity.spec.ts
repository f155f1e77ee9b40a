/** A controller that was reset, or whose server has come back, is held against what it was: another disk gets nothing. */
import { describe, expect, test } from '@jest/globals';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { MemoryStore, NvmeDevice, serve, type NvmeDeviceOptions } from '../../lib/emulator/index.js';
import { connect } from '../../lib/index.js';
import {
  AdminOpcode,
  NvmeController,
  NvmeControllerError,
  NvmeNamespaceError,
} from '../../lib/nvme/index.js';
import { cleanup, errorOf, NAMESPACE_BYTES, opened, pattern, until } from './fixture.js';

type Options = Partial<NvmeDeviceOptions>;

function disk(store: MemoryStore, options: Options = {}): NvmeDevice {
  const emulated = new NvmeDevice({ namespaces: [{ store }], ...options });
  cleanup(() => emulated.close());
  return emulated;
}

/** A driver with a write in flight on `first`, whose server goes, after `then`, and comes back with `second`. */
async function exchanged(
  first: NvmeDevice,
  second: NvmeDevice,
  then: (controller: NvmeController) => Promise<unknown> = () => Promise.resolve(),
) {
  const path = join(mkdtempSync(join(tmpdir(), 'vfio-user-')), 's');
  cleanup(() => rmSync(dirname(path), { recursive: true }));
  const before = await serve(first, { path });
  const device = await connect(path, { reconnect: true });
  cleanup(() => device.close());
  const controller = await NvmeController.open(device);
  const queue = await controller.createQueue({ buffers: { bytes: 512, count: 4 } });
  await queue.read(0, 1);
  first.intercept = ({ queue: id }) => (id > 0 ? 'hold' : 'pass');
  const write = queue.write(100, Buffer.alloc(512, 0x41)).then(
    () => undefined,
    (error: unknown) => error,
  );
  queue.submitWrite(101, 1, 0, 7);
  queue.ring();
  await until(() => first.commandCount >= 3);
  await then(controller);
  await before.close();
  const after = await serve(second, { path });
  cleanup(() => after.close());
  return { controller, queue, write, device };
}

describe('another disk comes back under the same path', () => {
  const store = () => new MemoryStore(NAMESPACE_BYTES);

  test.each<[string, Options, Options]>([
    ['serial number', { serialNumber: 'DISK-A' }, { serialNumber: 'DISK-B' }],
    ['model number', { modelNumber: 'A' }, { modelNumber: 'B' }],
    [
      'subsystem NQN',
      { subsystemNqn: 'nqn.2014-08.org.nvmexpress:a' },
      { subsystemNqn: 'nqn.2014-08.org.nvmexpress:b' },
    ],
  ])('another %s: the controller fails, and nothing is written', async (what, a, b) => {
    const other = store();
    const { controller, queue, write } = await exchanged(disk(store(), a), disk(other, b));
    const error = await write;
    expect(error).toBeInstanceOf(NvmeControllerError);
    expect((error as Error).message).toContain(`the controller is another one than before: its ${what}`);
    expect(controller.state).toBe('failed');
    expect(await errorOf(queue.read(0, 1))).toBeInstanceOf(NvmeControllerError);
    expect(other.read(0, NAMESPACE_BYTES).every((byte) => byte === 0)).toBe(true);
  });

  test.each<[string, Options['namespaces'], Options['namespaces'], string]>([
    [
      'block size',
      [{ store: store() }],
      [{ store: store(), blockSize: 4096 }],
      'its block size was 512 and is 4096',
    ],
    ['size', [{ store: store() }], [{ store: new MemoryStore(1 << 20) }], 'it had 8192 blocks and has 2048'],
    [
      'EUI-64',
      [{ store: store(), eui64: '0011223344556677' }],
      [{ store: store(), eui64: '0011223344556678' }],
      'its EUI-64 was 0011223344556677 and is 0011223344556678',
    ],
    [
      'NGUID',
      [{ store: store(), nguid: '1'.repeat(32) }],
      [{ store: store(), nguid: '2'.repeat(32) }],
      'its NGUID was',
    ],
    [
      'size, without an identifier',
      [{ store: store(), eui64: '' }],
      [{ store: new MemoryStore(2 * NAMESPACE_BYTES), eui64: '' }],
      'it had 8192 blocks and has 16384',
    ],
  ])(
    'another %s of the namespace: its queues end by name, the controller goes on',
    async (_what, a, b, message) => {
      const { controller, queue, write } = await exchanged(
        disk(store(), { namespaces: a! }),
        disk(store(), { namespaces: b! }),
      );
      const error = await write;
      expect(error).toBeInstanceOf(NvmeNamespaceError);
      expect((error as Error).message).toContain(message);
      const other = b![0]!.store as MemoryStore;
      expect(other.read(0, other.size).every((byte) => byte === 0)).toBe(true);
      await until(() => controller.state === 'live');
      expect(await errorOf(queue.read(0, 1))).toBeInstanceOf(NvmeNamespaceError);
      expect(await errorOf(queue.read(0, 1, { namespace: queue.namespace }))).toBeInstanceOf(
        NvmeNamespaceError,
      );
      await expect(controller.createQueue({ namespace: queue.namespace })).rejects.toThrow(
        NvmeNamespaceError,
      );
      // Whoever asks again gets what is there now.
      const again = await controller.createQueue();
      await again.write(0, pattern(4096));
      expect((await again.read(0, 4096 / again.namespace.blockSize)).equals(pattern(4096))).toBe(true);
      await queue.close();
      await controller.close();
    },
  );

  test('a write to another namespace than the queue’s own, which is another one now, is not sent again', async () => {
    const [same, gone, other] = [store(), store(), store()];
    const first = { store: same, eui64: '0011223344556677' };
    let stray: Promise<Error> | undefined;
    const { controller, queue, write } = await exchanged(
      disk(store(), { namespaces: [first, { store: gone, eui64: '00112233445566a1' }] }),
      disk(store(), { namespaces: [first, { store: other, eui64: '00112233445566b2' }] }),
      async (live) => {
        const second = await live.namespace(2);
        const [before] = live.queues;
        stray = errorOf(before!.write(7, pattern(512), { namespace: second }));
        // In flight, as those before it.
        await until(() => before!.inFlight === 3);
        before!.ring();
      },
    );
    const error = await stray!;
    expect(error).toBeInstanceOf(NvmeNamespaceError);
    expect(error.message).toContain('its EUI-64 was 00112233445566a1 and is 00112233445566b2');
    expect(await write).toBeUndefined();
    expect(other.read(0, NAMESPACE_BYTES).every((byte) => byte === 0)).toBe(true);
    expect((await queue.read(100, 1)).equals(Buffer.alloc(512, 0x41))).toBe(true);
    await controller.close();
  });

  test('the same disk that has grown goes on', async () => {
    const grown = new MemoryStore(2 * NAMESPACE_BYTES);
    const { controller, queue, write } = await exchanged(disk(store()), disk(grown));
    expect(await write).toBeUndefined();
    expect(grown.read(100 * 512, 1)[0]).toBe(0x41);
    expect(queue.poll()).toBe(1);
    expect(queue.completedStatus[0]).not.toBe(0);
    await controller.close();
  });

  test('one that had grown comes back smaller: queues of before it grew end, too', async () => {
    const first = disk(store());
    const other = new MemoryStore(1 << 20);
    const { controller, queue, write } = await exchanged(first, disk(other), async (controller) => {
      first.replaceNamespace(1, { store: new MemoryStore(2 * NAMESPACE_BYTES) });
      const grown = await controller.namespace(1, { refresh: true });
      expect(grown.blocks).toBe(16_384);
    });
    expect(await write).toBeInstanceOf(NvmeNamespaceError);
    expect(await errorOf(queue.read(0, 1))).toBeInstanceOf(NvmeNamespaceError);
    expect(other.read(0, other.size).every((byte) => byte === 0)).toBe(true);
    await controller.close();
  });

  test('a controller that grants less fails by name', async () => {
    const { controller, write } = await exchanged(disk(store(), { mdts: 5 }), disk(store(), { mdts: 1 }));
    const error = await write;
    expect(error).toBeInstanceOf(NvmeControllerError);
    expect((error as Error).message).toContain('transfers of 8192 bytes');
    await controller.close();
  });
});

describe('a namespace that changes while the controller runs', () => {
  test('its queues end by name, those of others go on', async () => {
    const namespaces = [{ store: new MemoryStore(1 << 20) }, { store: new MemoryStore(1 << 20) }];
    const { emulated, controller } = await opened({ emulated: { namespaces }, nvme: { timeoutMs: 400 } });
    const first = await controller.createQueue({ namespace: 1, buffers: { count: 1, bytes: 512 } });
    const second = await controller.createQueue({ namespace: 2 });
    const formatted = new MemoryStore(1 << 20);
    emulated.replaceNamespace(1, { store: formatted, blockSize: 4096 });
    await until(() => {
      try {
        return first.poll() > 0;
      } catch {
        return true;
      }
    });
    expect(await errorOf(first.write(0, Buffer.alloc(512)))).toBeInstanceOf(NvmeNamespaceError);
    expect(() => first.submitRead(0, 1, 0, 1)).toThrow(NvmeNamespaceError);
    expect(await errorOf(second.read(0, 1, { namespace: first.namespace }))).toBeInstanceOf(
      NvmeNamespaceError,
    );
    await second.write(0, pattern(512));
    expect((await second.read(0, 1)).equals(pattern(512))).toBe(true);
    await first.close();
    expect((await controller.createQueue({ namespace: 1 })).namespace.blockSize).toBe(4096);
    // And again: the event comes each time.
    emulated.replaceNamespace(2, { store: new MemoryStore(1 << 19) });
    await until(() => second.namespace !== undefined && controller.state === 'live');
    const isGone = async () => (await second.read(0, 1).catch((error: unknown) => error)) instanceof Error;
    while (!(await isGone()));
    expect(await errorOf(second.read(0, 1))).toBeInstanceOf(NvmeNamespaceError);
  });

  test('one that has grown goes on', async () => {
    const { emulated, controller } = await opened({ nvme: { timeoutMs: 200 } });
    const queue = await controller.createQueue();
    const event = controller.adminCommand({ opcode: 0x0c }, { timeoutMs: 20_000 });
    const store = new MemoryStore(2 * NAMESPACE_BYTES);
    emulated.replaceNamespace(1, { store });
    expect((await event).result).toBe(0x0004_0002);
    await queue.write(0, pattern(512));
    expect((await queue.read(0, 1)).equals(pattern(512))).toBe(true);
    expect((await controller.namespace(1, { refresh: true })).blocks).toBe(16_384);
  });

  test('a completion ring that fills meanwhile has room again', async () => {
    // What is read comes when the driver asks which namespaces have changed, and sends nothing else.
    let goOn!: () => void;
    const isAsked = new Promise<void>((resolve) => (goOn = resolve));
    const slow = new MemoryStore(NAMESPACE_BYTES);
    const store = {
      size: NAMESPACE_BYTES,
      read: (offset: number, length: number) => isAsked.then(() => slow.read(offset, length)),
      write: () => undefined,
      clear: () => undefined,
      flush: () => undefined,
      close: () => undefined,
    };
    const { emulated, controller } = await opened({ emulated: { namespaces: [{ store }] } });
    const queue = await controller.createQueue({ entries: 4 });
    const opcodes = new Set<number>();
    emulated.intercept = ({ queue: id, opcode }) => {
      if (id > 0) return 'pass';
      opcodes.add(opcode);
      if (opcode !== AdminOpcode.GET_LOG_PAGE) return 'pass';
      goOn();
      return { delayMs: 300 };
    };
    const event = controller.adminCommand({ opcode: AdminOpcode.ASYNC_EVENT_REQUEST });
    const reads = Array.from({ length: queue.depth }, (_, i) => queue.read(i, 1));
    await until(() => emulated.commandCount === queue.depth);
    emulated.replaceNamespace(1, { store });
    await Promise.all([event, ...reads]);
    for (let i = 0; i < 8; i++) await queue.read(0, 1);
    // Nothing had to be brought back.
    expect(opcodes).not.toContain(AdminOpcode.ABORT);
    expect(opcodes).not.toContain(AdminOpcode.CREATE_IO_CQ);
  });

  test('however many events come, one comparison is under way and one follows', async () => {
    const { controller, emulated } = await opened();
    await controller.createQueue();
    let asked = 0;
    let compared = 0;
    emulated.intercept = ({ opcode }) => {
      if (opcode === AdminOpcode.ASYNC_EVENT_REQUEST) asked++;
      if (opcode !== AdminOpcode.GET_LOG_PAGE) return 'pass';
      compared++;
      return { delayMs: 150 };
    };
    const EVENTS = 20;
    for (let i = 0; i < EVENTS; i++) emulated.raiseEvent(0x0004_0002);
    await until(() => asked >= EVENTS);
    // It waits for all comparisons that are to come before it.
    await controller.createQueue();
    expect(compared).toBeLessThan(EVENTS / 2);
  });

  test('an event that nobody sends is waited for no longer than the caller says', async () => {
    const { controller } = await opened();
    const event = controller.adminCommand({ opcode: 0x0c }, { timeoutMs: 20 });
    await expect(event).rejects.toMatchObject({ name: 'TimeoutError' });
  });
});
