/** Bounce pages that cannot be had, or not yet: who needs them, and who does not. */
import { expect, test } from '@jest/globals';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { MemoryStore, NvmeDevice, serve } from '../../lib/emulator/index.js';
import { connect, RemoteError } from '../../lib/index.js';
import { NvmeController } from '../../lib/nvme/index.js';
import { cleanup, errorOf, NAMESPACE_BYTES, opened, pattern, until } from './fixture.js';

const ENOMEM = 12;

test('each call that needs them is refused by itself; others go on', async () => {
  let refuses = false;
  const { device, controller } = await opened({
    emulated: { mdts: 0 },
    // The pool is a mapping of its own.
    nvme: { maxTransferBytes: 8 << 20 },
    serve: { intercept: ({ name }) => (refuses && name === 'DMA_MAP' ? { errno: ENOMEM } : 'pass') },
  });
  const queue = await controller.createQueue({ entries: 16 });
  const buffer = await device.dma.alloc(512);
  buffer.bytes.fill(7);
  refuses = true;
  const read = errorOf(queue.read(0, 1));
  const write = queue.write(5, buffer);
  const long = errorOf(queue.write(0, Buffer.alloc(3 << 20)));
  const deallocation = errorOf(queue.deallocate([{ lba: 0, blocks: 8 }]));
  await write;
  const errors = await Promise.all([read, long, deallocation]);
  for (const error of errors) expect(error).toBeInstanceOf(RemoteError);
  expect(new Set(errors).size).toBe(errors.length);
  refuses = false;
  expect((await queue.read(5, 1)).every((byte) => byte === 7)).toBe(true);
  expect(queue.inFlight).toBe(0);
});

test('a call that is made while the connection is lost waits for them, as for all else', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'vfio-user-')), 's');
  cleanup(() => rmSync(dirname(path), { recursive: true }));
  const store = new MemoryStore(NAMESPACE_BYTES);
  store.write(0, pattern(512));
  const made = () => {
    const emulated = new NvmeDevice({ namespaces: [{ store }], mdts: 0 });
    // Later: it empties the store.
    cleanup(() => emulated.close());
    return serve(emulated, { path });
  };
  const before = await made();
  const device = await connect(path, { reconnect: true });
  cleanup(() => device.close());
  const controller = await NvmeController.open(device, { maxTransferBytes: 8 << 20 });
  const queue = await controller.createQueue();
  await before.close();
  const read = queue.read(0, 1);
  await until(() => controller.state === 'resetting');
  const later = queue.read(0, 1);
  const after = await made();
  cleanup(() => after.close());
  expect((await read).equals(pattern(512))).toBe(true);
  expect((await later).equals(pattern(512))).toBe(true);
  await controller.close();
});
