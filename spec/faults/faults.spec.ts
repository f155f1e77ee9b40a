/** Each fault of a device, as a client sees it: the same in a server, in this process and through a proxy. */
import { describe, expect, jest, test } from '@jest/globals';
import {
  FaultPlan,
  RAM_IDENTIFICATION,
  RamDma,
  RamDmaStatus,
  type FaultSpec,
} from '../../lib/emulator/index.js';
import type { Device, DmaBuffer, Vector } from '../../lib/index.js';
import { PciIrq } from '../../lib/protocol/index.js';
import { bindRegisters, type BoundRegisters } from '../../lib/registers/index.js';
import { until } from '../support/until.js';
import { RAM_MAP, RAM_NAMES, SEAMS, faulty, type Faulty, type Seam } from './fixture.js';

jest.setTimeout(60_000);

interface Opened extends Faulty {
  device: Device;
  ram: BoundRegisters;
  plan: FaultPlan;
}

async function open(seam: Seam, ...faults: FaultSpec[]): Promise<Opened> {
  const plan = new FaultPlan({ seed: 3, map: RAM_NAMES, faults });
  const setting = await faulty(seam, plan);
  const device = await setting.open();
  return { ...setting, device, plan, ram: bindRegisters(RAM_MAP.block('RAM'), device.bar(0)) };
}

/** What happened, of the report and as it was told. */
function fired({ plan, told }: Opened): string[] {
  const report = plan.report().fired;
  expect(told).toEqual(report);
  return report.map(({ fault, what }) => `${fault}: ${what}`);
}

async function raise(ram: BoundRegisters, vector = 0): Promise<void> {
  await ram.register('TRIGGER').write((PciIrq.MSIX << 16) | vector);
}

/** Counts of all that comes within a moment. */
async function comes(vector: Vector, ms = 100): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, ms));
  return vector.take();
}

async function copy(
  ram: BoundRegisters,
  source: DmaBuffer,
  destination: DmaBuffer,
  size: number,
): Promise<void> {
  await ram.register('DMA_SOURCE').write(source.iova);
  await ram.register('DMA_DESTINATION').write(destination.iova);
  await ram.register('DMA_LENGTH').write(size);
  await ram.register('DMA_COMMAND').write(RamDma.COPY);
}

async function buffers(device: Device): Promise<[DmaBuffer, DmaBuffer]> {
  await device.enable();
  const source = await device.dma.alloc(4096);
  const destination = await device.dma.alloc(4096);
  source.bytes.fill(0x5a);
  return [source, destination];
}

describe.each(SEAMS)('%s: registers', (seam) => {
  test('stuck bits of a field: reads give them, whatever is written, and the others are as they are', async () => {
    const opened = await open(seam, { fault: 'stuck-bits', register: 'SCRATCH.READY', value: 0 });
    await opened.ram.register('SCRATCH').write(0xffffffff);
    expect(await opened.ram.register('SCRATCH').read()).toBe(0xfffffeff);
    expect(await opened.device.bar(0).readUInt8(5)).toBe(0xfe);
    expect(await opened.device.bar(0).readUInt64(0)).toBe(0xfffffeff_314d4152n);
    expect(fired(opened)[0]).toBe('stuck-bits SCRATCH.READY=0x0: read of 4 bytes at bar0+0x4');
  });

  test('a wrong value on the n-th read, by a name or by region and offset', async () => {
    const { ram, device } = await open(
      seam,
      { fault: 'wrong-value', register: 'ID', value: '0xdeadbeef', nth: 2 },
      { fault: 'wrong-value', region: 'bar2', offset: 8, bytes: 2, value: 0x1234, nth: 1 },
    );
    const values = [];
    for (let i = 0; i < 3; i++) values.push(await ram.register('ID').read());
    expect(values).toEqual([RAM_IDENTIFICATION, 0xdeadbeef, RAM_IDENTIFICATION]);
    expect(await device.bar(2).readUInt32(8)).toBe(0x1234);
    expect(await device.bar(2).readUInt32(8)).toBe(0);
  });

  test('turned bits come again with the same seed', async () => {
    const read = async (): Promise<unknown> =>
      (await open(seam, { fault: 'wrong-value', register: 'ID', bits: 3 })).ram.register('ID').read();
    const first = (await read()) as number;
    expect(await read()).toBe(first);
    expect(countBits((first ^ RAM_IDENTIFICATION) >>> 0)).toBe(3);
  });

  test('a lost write is answered, and does not arrive; so with several in one message, and with none to answer', async () => {
    const opened = await open(
      seam,
      { fault: 'lost-write', register: 'SCRATCH', nth: 1 },
      {
        fault: 'lost-write',
        region: 'bar2',
        offset: 4,
      },
    );
    const { ram, device } = opened;
    await ram.register('SCRATCH').write(7);
    expect(await ram.register('SCRATCH').read()).toBe(0);
    await ram.register('SCRATCH').write(8);
    expect(await ram.register('SCRATCH').read()).toBe(8);
    const bar2 = device.bar(2);
    const data = Buffer.from([1, 2, 3, 4]);
    await device.writeMulti([0, 4, 8].map((offset) => ({ region: bar2.index, offset, data })));
    bar2.postUInt32(4, 5);
    await device.fence();
    expect((await bar2.read(0, 12)).toString('hex')).toBe('010203040000000001020304');
    expect(fired(opened)).toEqual([
      'lost-write SCRATCH: write of 4 bytes at bar0+0x4',
      'lost-write bar2+0x4: write of 4 bytes at bar2+0x4',
      'lost-write bar2+0x4: write of 4 bytes at bar2+0x4',
    ]);
  });

  test('a region with such a fault is not mapped', async () => {
    const { device } = await open(seam, { fault: 'stuck-bits', region: 'bar1', offset: 4096, value: 1 });
    expect(device.bar(1).mappable).toBe(false);
    await device.bar(1).writeUInt32(4096, 0);
    expect(await device.bar(1).readUInt32(4096)).toBe(1);
  });

  test('probability and times', async () => {
    const opened = await open(seam, {
      fault: 'wrong-value',
      register: 'ID',
      value: 0,
      probability: 0.5,
      times: 3,
    });
    let wrong = 0;
    for (let i = 0; i < 20; i++) if ((await opened.ram.register('ID').read()) === 0) wrong++;
    expect(wrong).toBe(3);
    expect(opened.plan.report().faults).toEqual([
      { number: 1, fault: 'wrong-value ID=0x0', seen: 20, fired: 3 },
    ]);
  });
});

describe.each(SEAMS)('%s: interrupts', (seam) => {
  async function withVector(...faults: FaultSpec[]): Promise<Opened & { vector: Vector }> {
    const opened = await open(seam, ...faults);
    const [vector] = await opened.device.irqs.msix.enable(1);
    return { ...opened, vector };
  }

  test('lost, doubled and late', async () => {
    const opened = await withVector(
      { fault: 'lost-interrupt', irq: 'msix', vector: 0, nth: 1 },
      { fault: 'doubled-interrupt', nth: 2 },
      { fault: 'late-interrupt', ms: 150, nth: 3 },
    );
    const { ram, vector } = opened;
    await raise(ram);
    expect(await comes(vector)).toBe(0);
    await raise(ram);
    expect(await comes(vector)).toBe(2);
    await raise(ram);
    expect(vector.take()).toBe(0);
    expect(await vector.wait()).toBe(1);
    expect(fired(opened)).toEqual([
      'lost-interrupt: msix 0',
      'doubled-interrupt: msix 0',
      'late-interrupt 150 ms: msix 0',
    ]);
  });

  test('doubled by many faults it is bounded', async () => {
    const faults = Array.from({ length: 40 }, (): FaultSpec => ({ fault: 'doubled-interrupt' }));
    const { ram, vector } = await withVector(...faults);
    await raise(ram);
    expect(await comes(vector)).toBe(1_024);
  });

  test('a spurious one at an access, one after some time, and a storm', async () => {
    const opened = await withVector(
      { fault: 'spurious-interrupt', irq: 'msix', register: 'ID', nth: 2 },
      { fault: 'interrupt-storm', irq: 'msix', vector: 0, register: 'SCRATCH', access: 'write', count: 20 },
      { fault: 'spurious-interrupt', irq: 'msix', afterMs: 500, times: 1 },
    );
    const { ram, vector } = opened;
    await ram.register('ID').read();
    await ram.register('ID').read();
    expect(await vector.wait()).toBe(1);
    await ram.register('SCRATCH').write(1);
    let count = 0;
    // And the one after some time.
    while (count < 21) count += await vector.wait();
    expect(count).toBe(21);
    expect(fired(opened)).toHaveLength(3);
  });
});

describe.each(SEAMS)('%s: DMA', (seam) => {
  test('corrupted, by address', async () => {
    const plan: FaultSpec[] = [{ fault: 'dma-corrupted', dma: 'write', offset: 3, xor: 0xff, nth: 1 }];
    const opened = await open(seam, ...plan);
    const [source, destination] = await buffers(opened.device);
    await copy(opened.ram, source, destination, 8);
    expect(destination.bytes.subarray(0, 8).toString('hex')).toBe('5a5a5aa55a5a5a5a');
    await copy(opened.ram, source, destination, 8);
    expect(destination.bytes.subarray(0, 8).toString('hex')).toBe('5a5a5a5a5a5a5a5a');
    expect(fired(opened)[0]).toMatch(/^dma-corrupted: DMA write of 8 bytes at 0x/);
  });

  test('what is read is corrupted as well, by the seed', async () => {
    const { device, ram } = await open(seam, { fault: 'dma-corrupted', dma: 'read', bits: 2 });
    const [source, destination] = await buffers(device);
    await copy(ram, source, destination, 4);
    expect(countBits((destination.bytes.readUInt32LE(0) ^ 0x5a5a5a5a) >>> 0)).toBe(2);
    expect(source.bytes.readUInt32LE(0)).toBe(0x5a5a5a5a);
  });

  test('refused, out of range, delayed', async () => {
    const opened = await open(
      seam,
      { fault: 'dma-refused', dma: 'read', errno: 'EACCES', nth: 1 },
      { fault: 'dma-out-of-range', dma: 'write', nth: 1 },
      { fault: 'dma-delayed', dma: 'read', ms: 50, nth: 3 },
    );
    const [source, destination] = await buffers(opened.device);
    await expect(copy(opened.ram, source, destination, 8)).rejects.toMatchObject({ code: 'EACCES' });
    await expect(copy(opened.ram, source, destination, 8)).rejects.toMatchObject({
      code: /^E(FAULT|INVAL)$/,
    });
    expect(destination.bytes[0]).toBe(0);
    await copy(opened.ram, source, destination, 8);
    expect(destination.bytes[0]).toBe(0x5a);
    expect(await opened.ram.register('DMA_STATUS').read()).toBe(RamDmaStatus.DONE);
    expect(fired(opened).map((one) => one.split(':')[0])).toEqual([
      'dma-refused',
      'dma-out-of-range',
      'dma-delayed 50 ms',
    ]);
  });

  test('only of a range', async () => {
    const first = await open(seam, { fault: 'dma-refused', address: '0xfffffffffff00000', size: '0x1000' });
    const [source, destination] = await buffers(first.device);
    await copy(first.ram, source, destination, 8);
    expect(fired(first)).toEqual([]);
  });
});

describe.each(SEAMS)('%s: the link', (seam) => {
  test('all ones for some accesses: writes are lost, and then it is there again', async () => {
    const { ram, device } = await open(seam, { fault: 'all-ones', register: 'SCRATCH', nth: 1, accesses: 3 });
    await ram.register('SCRATCH').write(5);
    expect(await ram.register('ID').read()).toBe(0xffffffff);
    expect(await device.region('config').readUInt16(0)).toBe(0xffff);
    expect(await ram.register('SCRATCH').read()).toBe(0);
    expect(await ram.register('ID').read()).toBe(RAM_IDENTIFICATION);
  });

  test('all ones for some time', async () => {
    const { ram } = await open(seam, { fault: 'all-ones', register: 'ID', nth: 2, ms: 200 });
    await ram.register('ID').read();
    expect(await ram.register('ID').read()).toBe(0xffffffff);
    await until(async () => (await ram.register('ID').read()) === RAM_IDENTIFICATION);
  });

  test('pulled out: ones for good, no interrupt, no DMA, and a reset fails', async () => {
    const opened = await open(seam, { fault: 'surprise-removal', register: 'SCRATCH', access: 'write' });
    const { ram, device } = opened;
    const [vector] = await device.irqs.msix.enable(1);
    await ram.register('SCRATCH').write(1);
    expect(await ram.register('ID').read()).toBe(0xffffffff);
    await raise(ram);
    expect(await comes(vector, 50)).toBe(0);
    await expect(device.reset()).rejects.toMatchObject({ code: 'ENODEV' });
    expect(fired(opened)).toEqual(['surprise-removal: write of 4 bytes at bar0+0x4']);
  });
});

describe.each(SEAMS)('%s: the server', (seam) => {
  test('stalled: a call is late, and what follows it, too', async () => {
    const { ram } = await open(seam, { fault: 'server-stalled', register: 'SCRATCH', ms: 1_000, nth: 1 });
    for (const name of ['SCRATCH', 'ID']) {
      const late = ram.register(name).read({ timeoutMs: 50 });
      await expect(late).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    }
    expect(await ram.register('ID').read()).toBe(RAM_IDENTIFICATION);
  });

  test('stalled for good', async () => {
    const { ram, device } = await open(seam, { fault: 'server-stalled', register: 'SCRATCH' });
    await expect(ram.register('SCRATCH').read({ timeoutMs: 50 })).rejects.toMatchObject({
      code: 'ETIMEDOUT',
    });
    await expect(device.reset({ timeoutMs: 50 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
  });

  test('killed: the connection ends, and no other can be had', async () => {
    const opened = await open(seam, { fault: 'server-killed', register: 'SCRATCH', access: 'write', nth: 1 });
    const { ram, device } = opened;
    await expect(ram.register('SCRATCH').write(1)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    await device.closed;
    // Each connection to a model is to a server of its own.
    if (seam === 'in process') return;
    await expect(opened.open({ timeoutMs: 500 })).rejects.toMatchObject({
      code: /ENOENT|ECONNREFUSED|ERR_VFIO_USER_CLOSED/,
    });
    if (seam === 'emulator') expect(opened.isOver()).toBe(true);
    expect(fired(opened)).toEqual(['server-killed: write of 4 bytes at bar0+0x4']);
  });

  test('restarted: a client that comes again finds it', async () => {
    const opened = await open(seam, { fault: 'server-restarted', register: 'ID', ms: 50, nth: 1 });
    await opened.ram.register('SCRATCH').write(5);
    await expect(opened.ram.register('ID').read()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    if (seam === 'in process') return;
    await new Promise((resolve) => setTimeout(resolve, 60));
    const again = await opened.open();
    expect(await again.bar(0).readUInt32(0)).toBe(RAM_IDENTIFICATION);
    // A proxy's server was not really started anew.
    expect(await again.bar(0).readUInt32(4)).toBe(seam === 'emulator' ? 0 : 5);
  });

  test('some time after a client came', async () => {
    const { device } = await open(seam, { fault: 'server-killed', afterMs: 100 });
    await device.closed;
  });
});

function countBits(value: number): number {
  return value.toString(2).replaceAll('0', '').length;
}
