/** Sessions of the library with emulated devices, recorded and replayed. */
import { describe, expect, test } from '@jest/globals';
import {
  EduDevice,
  MemoryStore,
  NvmeDevice,
  RamDevice,
  serve,
  type DeviceModel,
} from '../../lib/emulator/index.js';
import { connect, type ConnectOptions, type Device } from '../../lib/index.js';
import { NvmeController } from '../../lib/nvme/index.js';
import { proxy } from '../../lib/proxy/index.js';
import { RECORDABLE, replay, type ReplayOptions, type ReplayReport } from '../../lib/replay/index.js';
import { file } from './recordings.js';

type Work<T> = (device: Device) => Promise<T>;

/** What the work gives with the device; its traffic is in `file()`. */
async function recorded<T>(
  model: DeviceModel,
  work: Work<T>,
  options: ConnectOptions = RECORDABLE,
): Promise<T> {
  await using server = await serve(model, { path: file('socket') });
  const device = await connect(server.path!, { ...options, capture: file() });
  try {
    return await work(device);
  } finally {
    await device.close();
  }
}

async function replayed<T>(
  work: Work<T>,
  options: ReplayOptions = {},
  connectOptions: ConnectOptions = RECORDABLE,
): Promise<{ result: T; report: ReplayReport }> {
  await using server = await replay(file(), options);
  const device = await connect(server.path, connectOptions);
  let result: T;
  try {
    result = await work(device);
  } finally {
    await device.close();
  }
  return { result, report: await server.report() };
}

/** DMA there and back by message, with an interrupt after each. */
async function edu(device: Device): Promise<string> {
  await device.enable();
  const [vector] = await device.irqs.msi.enable(1);
  const buffer = await device.dma.alloc(4096, { addressBits: 28 });
  buffer.bytes.fill('replay', 0, 512);
  const bar = device.bar(0);
  await bar.writeUInt64(0x80, buffer.iova);
  await bar.writeUInt64(0x88, 0x40000n);
  await bar.writeUInt64(0x90, 512n);
  await bar.writeUInt64(0x98, 5n);
  await vector.wait();
  await bar.writeUInt64(0x80, 0x40000n);
  await bar.writeUInt64(0x88, buffer.iova + 1024n);
  await bar.writeUInt64(0x98, 7n);
  await vector.wait();
  const text = buffer.bytes.toString('latin1', 1024, 1024 + 512);
  await buffer.free();
  await device.reset();
  return text;
}

describe('edu', () => {
  test.each<ReplayOptions>([{}, { mode: 'matching' }, { timing: 'recorded' }])(
    'DMA by message and interrupts: %p',
    async (options) => {
      const text = await recorded(new EduDevice(), edu);
      expect(text).toBe('replay'.repeat(86).slice(0, 512));
      const { result, report } = await replayed(edu, options);
      expect(result).toBe(text);
      expect(report).toMatchObject({ outcome: 'complete', differences: [], undelivered: 0, notes: [] });
    },
  );

  test('without a twin socket', async () => {
    const options = { ...RECORDABLE, twinSocket: false };
    const text = await recorded(new EduDevice(), edu, options);
    const { result, report } = await replayed(edu, {}, options);
    expect([result, report.outcome]).toEqual([text, 'complete']);
  });

  test('recorded with a twin socket, replayed to a client that wants none', async () => {
    const text = await recorded(new EduDevice(), edu);
    const { result, report } = await replayed(edu, {}, { ...RECORDABLE, twinSocket: false });
    expect([result, report.outcome, report.notes.length]).toEqual([text, 'complete', 1]);
  });

  test('recorded by a proxy, interrupts among it', async () => {
    let text: string;
    {
      await using server = await serve(new EduDevice(), { path: file('socket') });
      await using between = await proxy({ listen: file('proxy'), connect: server.path!, capture: file() });
      const device = await connect(file('proxy'), RECORDABLE);
      text = await edu(device);
      await device.close();
      expect(between).toBeDefined();
    }
    const { result, report } = await replayed(edu);
    expect([result, report.outcome, report.undelivered]).toEqual([text, 'complete', 0]);
  });

  test('a client whose memory holds something else is told the first byte', async () => {
    await recorded(new EduDevice(), edu);
    const { report } = await replayed(async (device) => {
      await device.enable();
      await device.irqs.msi.enable(1);
      const buffer = await device.dma.alloc(4096, { addressBits: 28 });
      buffer.bytes.fill('replay', 0, 512);
      buffer.bytes[100]! ^= 0xff;
      const bar = device.bar(0);
      await bar.writeUInt64(0x80, buffer.iova);
      await bar.writeUInt64(0x88, 0x40000n);
      await bar.writeUInt64(0x90, 512n);
      await bar.writeUInt64(0x98, 5n);
      await expect(bar.readUInt64(0x98)).rejects.toMatchObject({ code: 'EIO' });
    });
    expect(report.differences[0]).toMatchObject({
      kind: 'answer',
      data: { offset: 100, expectedLength: 512 },
    });
  });

  test('what was shared by fd is said not to be there', async () => {
    await recorded(new EduDevice(), edu, {});
    await using server = await replay(file());
    const device = await connect(server.path);
    await device.close();
    expect((await server.report()).notes).toEqual([
      expect.stringMatching(/^memory was shared by fd \(message \d+\)/),
    ]);
  });
});

test('nvme: bring-up, identify, writes and reads', async () => {
  const data = Buffer.from(Array.from({ length: 8192 }, (_, i) => (i * 7) & 0xff));
  const work: Work<Buffer> = async (device) => {
    const controller = await NvmeController.open(device);
    const queue = await controller.createQueue();
    await queue.write(8, data);
    const read = await queue.read(8, 16);
    await controller.close();
    return Buffer.from(read);
  };
  const emulated = new NvmeDevice({ namespaces: [{ store: new MemoryStore(1 << 20) }] });
  expect(await recorded(emulated, work)).toEqual(data);
  await emulated.close();
  const { result, report } = await replayed(work);
  expect(report).toMatchObject({ outcome: 'complete', differences: [] });
  expect(result).toEqual(data);
});

test('ram: a region that can be mapped is served without, or with zeros', async () => {
  const work: Work<number> = async (device) => {
    const bar = device.bar(1);
    await bar.writeUInt32(0, 7);
    return bar.readUInt32(0);
  };
  await recorded(new RamDevice(), work, {});
  const withheld = await replayed(async (device) => {
    expect(device.bar(1).mappable).toBe(false);
    return work(device);
  });
  expect([withheld.result, withheld.report.outcome]).toEqual([7, 'complete']);
  const blank = await replayed(
    async (device) => {
      using area = device.bar(1).map(0x1000, 4096);
      expect(area.loadUInt32(0)).toBe(0);
      return work(device);
    },
    { mappings: 'blank' },
    {},
  );
  expect([blank.result, blank.report.outcome]).toEqual([7, 'complete']);
});

test('VFIO_USER_CAPTURE names a capture for each device that a program opens', async () => {
  process.env['VFIO_USER_CAPTURE'] = file('env.pcapng');
  try {
    await using server = await serve(new EduDevice(), { path: file('socket'), clients: 'many' });
    await using first = await connect(server.path!);
    await using second = await connect(server.path!);
    await using third = await connect(server.path!, { capture: false });
    expect([first, second, third].every(({ config }) => config.deviceId === 0x11e8)).toBe(true);
  } finally {
    delete process.env['VFIO_USER_CAPTURE'];
  }
  for (const name of ['env.pcapng', 'env-2.pcapng']) {
    await using server = await replay(file(name));
    await using device = await connect(server.path);
    expect(device.config.vendorId).toBe(0x1234);
  }
  await expect(replay(file('env-3.pcapng'))).rejects.toMatchObject({ code: 'ENOENT' });
});
