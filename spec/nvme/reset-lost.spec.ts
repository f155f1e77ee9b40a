/** The connection is lost in the middle of a reset, of a device that reconnects. */
import { expect, test } from '@jest/globals';
import { once } from 'node:events';
import { MemoryStore, NvmeDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { connect } from '../../lib/index.js';
import { AdminOpcode, NvmeController } from '../../lib/nvme/index.js';
import { Scratch } from '../cli/cli.js';
import { cleanup, pattern, until } from './fixture.js';

/** Longer than a test may take: nobody waits for the deadline of a command. */
const TIMEOUT_MS = 120_000;

test.each([
  ['Identify', AdminOpcode.IDENTIFY],
  ['Set Features', AdminOpcode.SET_FEATURES],
  ['Create I/O Submission Queue', AdminOpcode.CREATE_IO_SQ],
])('a reset that waits for %s begins again when the device is back', async (_, opcode) => {
  const scratch = new Scratch();
  cleanup(() => scratch.remove());
  const path = scratch.path('s');
  const emulated = new NvmeDevice({ namespaces: [{ store: new MemoryStore(1 << 20) }] });
  cleanup(() => emulated.close());
  let server: EmulatorServer = await serve(emulated, { path });
  cleanup(() => server.close());
  const device = await connect(path, { reconnect: true });
  cleanup(() => device.close());
  const controller = await NvmeController.open(device, { timeoutMs: TIMEOUT_MS });
  const queue = await controller.createQueue();
  await queue.write(0, pattern(4096));

  let isHeld = false;
  emulated.intercept = (command) => {
    if (command.queue > 0 || command.opcode !== opcode || isHeld) return 'pass';
    isHeld = true;
    return 'hold';
  };
  const reset = controller.reset();
  await until(() => isHeld);
  const lost = once(device, 'lost');
  await server.close();
  await lost;
  server = await serve(emulated, { path });
  await reset;
  expect(controller.state).toBe('live');
  expect((await queue.read(0, 8)).equals(pattern(4096))).toBe(true);
  await controller.close();
});
