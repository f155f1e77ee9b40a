/** Commands that the caller composes: what comes is the controller's own, and nothing is written where nobody gave memory. */
import { describe, expect, test } from '@jest/globals';
import { AdminOpcode, NvmOpcode, type AdminCommand, type IoCommand } from '../../lib/nvme/index.js';
import { opened } from './fixture.js';

const TIMESTAMP = 0x0e;
const TIMESTAMP_BYTES = 8;
/** The driver's own, which may come at any time. */
const EVENTS = AdminOpcode.ASYNC_EVENT_REQUEST;

describe('a controller that transfers less than there is room for', () => {
  test.each([
    ['getFeature', (controller: Controller) => controller.getFeature(TIMESTAMP, { receive: 4096 })],
    [
      'adminCommand',
      (controller: Controller) =>
        controller.adminCommand({ opcode: AdminOpcode.GET_FEATURES, cdw10: TIMESTAMP, receive: 4096 }),
    ],
  ])('%s: the rest is zeroes, and not what an earlier command got', async (_name, get) => {
    const { controller } = await opened();
    for (let i = 0; i < 70; i++) await controller.identify(1);
    const { data } = await get(controller);
    expect(data.length).toBe(4096);
    expect(data.subarray(TIMESTAMP_BYTES).equals(Buffer.alloc(4096 - TIMESTAMP_BYTES))).toBe(true);
  });

  test('ioCommand, too', async () => {
    const { controller, emulated } = await opened();
    const queue = await controller.createQueue();
    await queue.write(0, Buffer.alloc(512, 0x77));
    for (let i = 0; i < 3; i++) await queue.read(0, 1);
    // Completed with success, and without data.
    emulated.intercept = ({ queue: id }) => (id > 0 ? { status: 0 } : 'pass');
    const { data } = await controller.ioCommand({ opcode: NvmOpcode.READ, namespace: 1, receive: 512 });
    expect(data.equals(Buffer.alloc(512))).toBe(true);
  });
});

type Controller = Awaited<ReturnType<typeof opened>>['controller'];

describe('data that nobody made room for', () => {
  test.each([
    ['getFeature', (controller: Controller) => controller.getFeature(TIMESTAMP)],
    [
      'adminCommand',
      (controller: Controller) =>
        controller.adminCommand({ opcode: AdminOpcode.GET_FEATURES, cdw10: TIMESTAMP }),
    ],
  ])('%s: it does not go to address 0', async (_name, get) => {
    const { controller, device } = await opened();
    const written: bigint[] = [];
    const handler = {
      read: (_at: bigint, size: number) => Buffer.alloc(size),
      write: (at: bigint) => void written.push(at),
    };
    await device.dma.map({ iova: 0n, size: 4096, handler });
    const { data } = await get(controller);
    expect(data.length).toBe(0);
    expect(written).toEqual([]);
  });
});

describe('commands that name how much they transfer', () => {
  const NUMD_OF_1024 = 255;

  test.each<[string, AdminCommand, string]>([
    ['Firmware Image Download', { opcode: 0x11, cdw10: NUMD_OF_1024, send: Buffer.alloc(512) }, '1024 bytes'],
    ['Firmware Image Download', { opcode: 0x11, cdw10: 0, send: Buffer.alloc(512) }, '4 bytes'],
    ['Directive Send', { opcode: 0x19, cdw10: NUMD_OF_1024, send: Buffer.alloc(512) }, '1024 bytes'],
    ['Directive Receive', { opcode: 0x1a, cdw10: NUMD_OF_1024, receive: 512 }, '1024 bytes'],
    ['Security Send', { opcode: 0x81, cdw11: 513, send: Buffer.alloc(512) }, '513 bytes'],
    ['Security Receive', { opcode: 0x82, cdw11: 1024, receive: 512 }, '1024 bytes'],
    ['Get LBA Status', { opcode: 0x86, cdw12: NUMD_OF_1024, receive: 512 }, '1024 bytes'],
  ])('%s', async (name, command, message) => {
    const { controller, emulated } = await opened();
    const seen: number[] = [];
    emulated.intercept = ({ opcode }) => void (opcode === EVENTS || seen.push(opcode));
    const call = controller.adminCommand(command);
    await expect(call).rejects.toThrow(RangeError);
    await expect(call).rejects.toThrow(name);
    await expect(call).rejects.toThrow(message);
    expect(seen).toEqual([]);
  });

  test.each<[string, IoCommand, string]>([
    ['Reservation Register', { opcode: 0x0d, namespace: 1, send: Buffer.alloc(8) }, '16 bytes'],
    ['Reservation Report', { opcode: 0x0e, namespace: 1, cdw10: 15, receive: 32 }, '64 bytes'],
    ['Reservation Acquire', { opcode: 0x11, namespace: 1, send: Buffer.alloc(8) }, '16 bytes'],
    ['I/O Management Receive', { opcode: 0x12, namespace: 1, cdw11: 15, receive: 32 }, '64 bytes'],
    ['Reservation Release', { opcode: 0x15, namespace: 1, send: Buffer.alloc(4) }, '8 bytes'],
    ['Copy', { opcode: 0x19, namespace: 1, cdw12: 1, send: Buffer.alloc(32) }, '64 bytes'],
    ['Copy', { opcode: 0x19, namespace: 1, cdw12: 0x101, send: Buffer.alloc(64) }, '80 bytes'],
  ])('%s', async (name, command, message) => {
    const { controller } = await opened();
    const call = controller.ioCommand(command);
    await expect(call).rejects.toThrow(RangeError);
    await expect(call).rejects.toThrow(name);
    await expect(call).rejects.toThrow(message);
  });

  test('those operations of them that have no data are sent', async () => {
    const { controller, emulated } = await opened();
    const seen: number[] = [];
    emulated.intercept = ({ opcode }) => {
      if (opcode !== EVENTS) seen.push(opcode);
      return opcode === 0x19 || opcode === 0x1a ? { status: 0 } : 'pass';
    };
    await controller.adminCommand({ opcode: 0x19, cdw11: 1 });
    await controller.adminCommand({ opcode: 0x1a, cdw11: 1 });
    expect(seen).toEqual([0x19, 0x1a]);
  });
});
