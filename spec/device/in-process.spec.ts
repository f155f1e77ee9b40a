/** `connect({ model })`: a device of this process, whose handlers are called. */
import { afterEach, describe, expect, test } from '@jest/globals';
import {
  DeviceError,
  EduDevice,
  EduRegister,
  PciConfigSpace,
  PciDevice,
  RamDevice,
  type ClientContext,
  type EmulatorOptions,
} from '../../lib/emulator/index.js';
import {
  connect,
  UnsupportedError,
  type ConnectOptions,
  type Device,
  type ModelEndpoint,
} from '../../lib/index.js';
import { PciIrq } from '../../lib/protocol/constants.js';
import { openFds } from '../support/fds.js';
import { until } from '../support/until.js';

const EACCES = 13;
const BAR_BYTES = 1 << 20;

const opened: Device[] = [];

afterEach(async () => {
  for (const device of opened.splice(0)) await device.close();
});

async function open(
  model: PciDevice,
  options: ConnectOptions = {},
  serving: EmulatorOptions = {},
): Promise<Device> {
  const device = await connect({ model, options: serving }, options);
  opened.push(device);
  return device;
}

type Read = (offset: number, count: number, client: ClientContext) => Buffer | Promise<Buffer>;
type Write = (offset: number, data: Buffer, client: ClientContext) => void | Promise<void>;

/** A device with a BAR that a spec answers for. */
class Scripted extends PciDevice {
  constructor(handler: { read?: Read; write?: Write }) {
    const bars = [{ index: 0, size: BAR_BYTES }];
    super(new PciConfigSpace({ vendorId: 0x1234, deviceId: 1, bars, interruptPin: 1 }), [
      { index: PciIrq.INTX, count: 1 },
    ]);
    const { read = (_offset, count) => Buffer.alloc(count), write = () => undefined } = handler;
    this.addRegion({ index: 0, size: BAR_BYTES, handler: { read, write } });
  }
}

describe('calls', () => {
  test('are answered at once, synchronous and not', async () => {
    const device = await open(new EduDevice());
    const bar = device.bar(0);
    expect(bar.readUInt32Sync(EduRegister.IDENTIFICATION)).toBe(0x0100_00ed);
    bar.writeUInt32Sync(EduRegister.LIVENESS, 0x1234_5678);
    expect(bar.readUInt32Sync(EduRegister.LIVENESS)).toBe(0xedcb_a987);
    expect(await bar.readUInt32(EduRegister.LIVENESS)).toBe(0xedcb_a987);
    expect(device.config.vendorId).toBe(0x1234);
  });

  test('have been carried out when the function that makes them returns', async () => {
    const written: number[] = [];
    const device = await open(new Scripted({ write: (offset) => void written.push(offset) }));
    const first = device.bar(0).writeUInt32(8, 1);
    const second = device.bar(0).writeUInt32(4, 1);
    expect(written).toEqual([8, 4]);
    await Promise.all([first, second]);
  });

  test('have data of any size', async () => {
    const memory = Buffer.from(Uint8Array.from({ length: BAR_BYTES }, (_, i) => (i * 31) >>> 3));
    const model = new Scripted({
      read: (offset, count) => memory.subarray(offset, offset + count),
      write: (offset, data) => void memory.set(data, offset),
    });
    const device = await open(model);
    expect((await device.bar(0).read(0, BAR_BYTES)).equals(memory)).toBe(true);
    expect(device.bar(0).readSync(5, 9000).equals(memory.subarray(5, 9005))).toBe(true);
    const other = Buffer.alloc(100_000, 7);
    device.bar(0).writeSync(3, other);
    expect(memory.subarray(3, 100_003).equals(other)).toBe(true);
  });

  test('fail with the errno that the handler throws', async () => {
    const read = (): Buffer => {
      throw new DeviceError(EACCES);
    };
    const device = await open(new Scripted({ read }));
    expect(() => device.bar(0).readUInt32Sync(0)).toThrow(expect.objectContaining({ errno: EACCES }));
    await expect(device.bar(0).readUInt32(0)).rejects.toMatchObject({ errno: EACCES });
  });

  test('reach another device from within a handler', async () => {
    const inner = await open(new EduDevice());
    const outer = await open(
      new Scripted({
        read: (offset, count) => {
          const data = Buffer.alloc(count);
          data.writeUInt32LE(inner.bar(0).readUInt32Sync(offset));
          return data;
        },
      }),
    );
    expect(outer.bar(0).readUInt32Sync(EduRegister.IDENTIFICATION)).toBe(0x0100_00ed);
    expect(outer.bar(0).readUInt32Sync(EduRegister.LIVENESS)).toBe(0);
  });
});

describe('a synchronous call that cannot be answered at once is refused by name:', () => {
  test('where the handler gives a promise', async () => {
    const slow = async (offset: number, count: number): Promise<Buffer> => Buffer.alloc(count, offset);
    const device = await open(new Scripted({ read: slow }));
    const bar = device.bar(0);
    for (const read of [() => bar.readUInt8Sync(3), () => bar.readSync(3, 10_000)]) {
      expect(read).toThrow(UnsupportedError);
      await until(() => device.counters.tombstones === 0);
      expect(read).toThrow(/^REGION_READ: the device's handler answers by a promise/);
      await until(() => device.counters.tombstones === 0);
    }
    expect(await bar.readUInt8(3)).toBe(3);
  });

  test('while a promise is awaited, and nothing is done', async () => {
    let finish = (): void => undefined;
    const written: number[] = [];
    const write = (offset: number): void | Promise<void> => {
      if (offset > 0) written.push(offset);
      else return new Promise((resolve) => (finish = resolve));
    };
    const device = await open(new Scripted({ write }));
    const first = device.bar(0).writeUInt32(0, 1);
    const second = device.bar(0).writeUInt32(4, 1);
    expect(() => device.bar(0).writeUInt32Sync(8, 1)).toThrow(
      /REGION_WRITE: .* carries out an earlier command/,
    );
    finish();
    await Promise.all([first, second]);
    device.bar(0).writeUInt32Sync(12, 1);
    expect(written).toEqual([4, 12]);
  });

  test('from within a handler of the same device, whose own commands wait for it', async () => {
    const seen: unknown[] = [];
    const holder: { device?: Device } = {};
    const write: Write = (offset) => {
      seen.push(offset);
      if (offset > 0 || holder.device === undefined) return;
      const bar = holder.device.bar(0);
      try {
        bar.readUInt32Sync(0);
      } catch (error) {
        seen.push(clip((error as Error).message));
      }
      void bar.writeUInt32(4, 1);
      seen.push('asked');
    };
    holder.device = await open(new Scripted({ write }));
    holder.device.bar(0).writeUInt32Sync(0, 1);
    expect(seen).toEqual([0, 'REGION_READ: no synchronous call can be made while th', 'asked', 4].map(clip));
  });
});

const clip = (what: unknown): unknown => (typeof what === 'string' ? what.slice(0, 52) : what);

describe('the order of an answer, DMA and an interrupt', () => {
  /** Writes the client's memory and interrupts, both before it answers. */
  const ringing = (address: () => bigint): Scripted =>
    new Scripted({
      write: (_offset, data, client) => {
        void client.dma.write(address(), data);
        client.irq(PciIrq.INTX).trigger();
      },
    });

  test.each([false, true])(
    'what the handler did is done when the call returns; listeners hear when the loop turns (secureDma: %p)',
    async (secureDma) => {
      let address = 0n;
      const device = await open(
        ringing(() => address),
        { secureDma },
      );
      const buffer = await device.dma.alloc(4096);
      address = buffer.iova;
      const heard: number[] = [];
      const [vector] = await device.irqs.intx.enable(1);
      vector.on('interrupt', () => heard.push(buffer.bytes.readUInt32LE(0)));
      device.bar(0).writeUInt32Sync(0, 17);
      expect(buffer.bytes.readUInt32LE(0)).toBe(17);
      await Promise.resolve();
      expect(heard).toEqual([]);
      await until(() => heard.length > 0);
      expect(heard).toEqual([17]);
    },
  );

  test('DMA that a handler awaits is done before the answer', async () => {
    const model = new Scripted({
      write: async (_offset, data, client) => {
        const address = data.readBigUInt64LE();
        const before = await client.dma.read(address, 4);
        await client.dma.write(address + 4n, before);
      },
    });
    const device = await open(model);
    const buffer = await device.dma.alloc(4096);
    buffer.bytes.writeUInt32LE(99);
    await device.bar(0).writeUInt64(0, buffer.iova);
    expect(buffer.bytes.readUInt32LE(4)).toBe(99);
  });
});

describe('the device', () => {
  test('shares memory that is mapped, and has all fds closed with it', async () => {
    using model = new RamDevice();
    const before = openFds();
    const device = await connect({ model });
    const area = device.bar(1).map();
    area.storeUInt32(8, 0xabcd);
    expect(model.shared!.bytes.readUInt32LE(area.offset + 8)).toBe(0xabcd);
    await device.dma.alloc(8192);
    await device.irqs.msix.enable(2);
    await device.close();
    expect(openFds()).toBe(before);
  });

  test('hears of its client, and keeps its state', async () => {
    const model = new EduDevice();
    const first = await connect({ model });
    expect(model.clients.size).toBe(1);
    first.bar(0).writeUInt32Sync(EduRegister.LIVENESS, 1);
    await first.close();
    expect(model.clients.size).toBe(0);
    const second = await open(model);
    expect(second.bar(0).readUInt32Sync(EduRegister.LIVENESS)).toBe(0xffff_fffe);
  });

  test('is lost and comes back as one behind a socket', async () => {
    let isBroken = false;
    const device = await open(
      new EduDevice(),
      { reconnect: true },
      {
        intercept: ({ name }) => (isBroken && name === 'REGION_READ' ? 'close' : 'pass'),
      },
    );
    isBroken = true;
    const back = new Promise<void>((resolve) => device.once('reconnected', resolve));
    expect(() => device.bar(0).readUInt32Sync(0)).toThrow(/the server closed the connection/);
    isBroken = false;
    await back;
    expect(device.bar(0).readUInt32Sync(0)).toBe(0x0100_00ed);
  });

  test('is checked before it is used', async () => {
    await expect(connect({ model: undefined as never })).rejects.toThrow(/the device must be a DeviceModel/);
    await expect(connect({ model: { regions: [{ index: 0, size: 4 }], irqs: [] } })).rejects.toThrow(
      /region 0/,
    );
    await expect(connect({ model: new EduDevice(), options: { minor: 9 } })).rejects.toThrow(/minor/);
    await expect(connect({ model: new EduDevice(), path: '/x' } as object as ModelEndpoint)).rejects.toThrow(
      /path/,
    );
  });
});
