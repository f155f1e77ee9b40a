/** QEMU's NVMe controller. VFIO_USER_QEMU names a qemu-system-x86_64 that was built with its vfio-user server. */
import { describe, expect, jest, test } from '@jest/globals';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Device } from '../../lib/index.js';
import { NvmeController, type NvmeOptions } from '../../lib/nvme/index.js';
import { otherCommands, pollRounds, readAll, useAtOnce, writeAll } from './nvme-io.js';
import { ServerProcess } from './server-process.js';

jest.setTimeout(120_000);

const program = process.env['VFIO_USER_QEMU'] ?? '';
const withQemu = program === '' ? describe.skip : describe;
const DISK_BYTES = 64 << 20;

function serveNvme(disk: string): ServerProcess {
  return new ServerProcess(program, (path) => [
    ...['-machine', 'x-remote,vfio-user=on,auto-shutdown=off', '-nodefaults', '-display', 'none'],
    ...['-drive', `file=${disk},format=raw,if=none,id=n`, '-device', 'nvme,id=d,drive=n,serial=SPEC'],
    '-object',
    JSON.stringify({
      'qom-type': 'x-vfio-user-server',
      id: 'v',
      device: 'd',
      socket: { type: 'unix', path },
    }),
  ]);
}

async function withController(
  work: (controller: NvmeController, device: Device) => Promise<void>,
  options?: NvmeOptions,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  const disk = join(directory, 'disk');
  writeFileSync(disk, '');
  truncateSync(disk, DISK_BYTES);
  try {
    await using server = serveNvme(disk);
    await using device = await server.connect();
    await using controller = await NvmeController.open(device, options);
    await work(controller, device);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

withQemu("QEMU's nvme (VFIO_USER_QEMU names the program)", () => {
  test('every size, by shadow doorbells and messages', () =>
    withController(async (controller, device) => {
      const queue = await controller.createQueue();
      expect(queue.doorbell).toBe('shadow');
      await readAll(device, queue, await writeAll(device, controller, queue));
    }));

  test('doorbells by message', () =>
    withController(
      async (controller) => {
        const queue = await controller.createQueue({ entries: 16 });
        expect(queue.doorbell).toBe('message');
        await useAtOnce([queue]);
      },
      { shadowDoorbells: false },
    ));

  test.each(['poll', 'interrupt'] as const)('several queues at once, completions by %s', (completion) =>
    withController(async (controller) => {
      const queues = [];
      for (let i = 0; i < 4; i++) queues.push(await controller.createQueue({ completion }));
      await useAtOnce(queues);
    }),
  );

  test('the submit/poll face', () =>
    withController(async (controller) => {
      await pollRounds(await controller.createQueue({ buffers: {} }), 32, 10);
    }));

  test('other commands, logs, reset', () =>
    withController(async (controller) => {
      const queue = await controller.createQueue();
      await otherCommands(queue);
      expect((await controller.smartLog()).hostWriteCommands).toBeGreaterThan(0n);
      await controller.reset();
      await useAtOnce([queue]);
    }));
});
