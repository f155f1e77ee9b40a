import { afterEach, describe, expect, test } from '@jest/globals';
import { ClosedError, RemoteError } from '../../lib/errors.js';
import { IrqDevice, turn } from './irq-device.js';

let device: IrqDevice;

afterEach(() => device.close());

describe('the indexes', () => {
  test('have names, and numbers', async () => {
    const irqs = [{ count: 1 }, { count: 2 }, { count: 3 }, { count: 1 }, { count: 1 }, { count: 7 }];
    device = await IrqDevice.open({ irqs });
    const { intx, msi, msix, err, req } = device.irqs;
    const all = [...device.irqs];
    expect(all.map(({ name, count }) => `${name} ${count}`)).toEqual([
      'INTx 1',
      'MSI 2',
      'MSI-X 3',
      'ERR 1',
      'REQ 1',
      'IRQ 5 7',
    ]);
    expect(all.slice(0, 5)).toEqual([intx, msi, msix, err, req]);
    expect(all.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(device.irqs.byIndex(5)).toBe(all[5]);
  });

  test('of PCI are there whether or not the server has them', async () => {
    device = await IrqDevice.open({ irqs: [{ count: 1 }] });
    expect([...device.irqs].map(({ count }) => count)).toEqual([1, 0, 0, 0, 0]);
  });

  test.each([[5], [-1], [0.5], [NaN]])('%p is none of them', async (index) => {
    device = await IrqDevice.open({ irqs: [{ count: 1 }] });
    expect(() => device.irqs.byIndex(index)).toThrow(RangeError);
  });

  test('beyond those of PCI work alike', async () => {
    device = await IrqDevice.open({ irqs: [...Array<{ count: number }>(6).fill({ count: 2 })] });
    const [, second] = await device.irqs.byIndex(5).enable(2);
    device.signal(5, 1, 3);
    await expect(second!.wait()).resolves.toBe(3);
  });
});

describe('restore', () => {
  test('gives the server the same eventfds again', async () => {
    device = await IrqDevice.open({
      maxMsgFds: 2,
      irqs: [{ count: 0 }, { count: 0 }, { count: 8 }, { count: 1 }],
    });
    const { msix, err } = device.irqs;
    const vectors = await msix.enable(6);
    const [error] = await err.enable();
    const [mask] = await msix.maskEvents();
    vectors[3]!.close();
    const fds = vectors.map(({ fd }) => fd);
    device.takeLog();
    await device.irqs.restore();
    expect(device.takeLog()).toEqual([
      'SET_IRQS EVENTFD|TRIGGER 2: 0+2, 2 fds',
      'SET_IRQS EVENTFD|TRIGGER 2: 2+1, 1 fds',
      'SET_IRQS EVENTFD|TRIGGER 2: 4+2, 2 fds',
      'SET_IRQS EVENTFD|MASK 2: 0+1, 1 fds',
      'SET_IRQS EVENTFD|TRIGGER 3: 0+1, 1 fds',
    ]);
    expect(vectors.map(({ fd }) => fd)).toEqual(fds);
    device.signal(2, 5, 4);
    device.signal(3, 0, 2);
    device.signal(2, 0, 1, 'MASK');
    await expect(Promise.all([vectors[5]!.wait(), error.wait(), mask.wait()])).resolves.toEqual([4, 2, 1]);
  });

  test('keeps what vectors have and who waits', async () => {
    device = await IrqDevice.open({ irqs: [{ count: 1 }] });
    const [vector] = await device.irqs.intx.enable();
    const waiting = vector.wait();
    await device.irqs.restore();
    device.signal(0, 0, 6);
    await expect(waiting).resolves.toBe(6);
    expect(vector.count).toBe(6);
  });

  test('sends nothing where nothing is enabled', async () => {
    device = await IrqDevice.open({ irqs: [{ count: 1 }] });
    await device.irqs.restore();
    await device.irqs.intx.enable();
    await device.irqs.intx.disable();
    device.takeLog();
    await device.irqs.restore();
    expect(device.log).toEqual([]);
  });

  test("fails with the server's refusal, and can be tried again", async () => {
    device = await IrqDevice.open({ irqs: [{ count: 1 }] });
    const [vector] = await device.irqs.intx.enable();
    device.fate = () => 22;
    await expect(device.irqs.restore()).rejects.toBeInstanceOf(RemoteError);
    expect(vector.isClosed).toBe(false);
    device.fate = () => undefined;
    await device.irqs.restore();
    device.signal(0, 0);
    await expect(vector.wait()).resolves.toBe(1);
  });

  test('a connection that ends right after the last reply leaves vectors that are cut off', async () => {
    device = await IrqDevice.open({ irqs: [{ count: 1 }] });
    device.fate = () => {
      queueMicrotask(() => device.peer.close());
      return undefined;
    };
    const [vector] = await device.irqs.intx.enable();
    await expect(vector.wait()).rejects.toBeInstanceOf(ClosedError);
    vector.signal();
    await turn();
    expect(vector.count).toBe(0);
  });

  test('needs a connection', async () => {
    device = await IrqDevice.open({ irqs: [{ count: 1 }] });
    const [vector] = await device.irqs.intx.enable();
    device.peer.close();
    await device.connection.closed;
    await expect(device.irqs.restore()).rejects.toBeInstanceOf(ClosedError);
    await expect(vector.wait()).rejects.toBeInstanceOf(ClosedError);
  });
});

test('ref and unref change nothing for those who wait meanwhile', async () => {
  device = await IrqDevice.open({ irqs: [{ count: 0 }, { count: 0 }, { count: 2 }] });
  const [first] = await device.irqs.msix.enable();
  const waiting = first.wait();
  device.irqs.unref();
  const [, second] = await device.irqs.msix.enable(2);
  expect(second!.ref().unref()).toBe(second);
  device.signal(2, 0, 2);
  await expect(waiting).resolves.toBe(2);
  await expect(second!.wait({ timeoutMs: 5 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
  device.irqs.ref();
  await turn();
});
