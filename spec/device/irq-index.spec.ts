import { PassThrough } from 'node:stream';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Connection } from '../../lib/connection/index.js';
import { Irqs } from '../../lib/device/irqs.js';
import { DeviceContext } from '../../lib/device/device-context.js';
import { ClosedError, RemoteError, TimeoutError, UnsupportedError, VfioUserError } from '../../lib/errors.js';
import { DuplexTransport } from '../../lib/transport/index.js';
import { openFds } from '../support/fds.js';
import { IrqDevice, turn, type IrqDeviceOptions } from './irq-device.js';

const EINVAL = 22;
const MSIX = 2;

const EVENTFD = 1;
const MASKABLE = 2;
const NORESIZE = 8;

/** INTx, MSI, MSI-X, ERR, REQ, as lvu would describe an NVMe controller. */
const IRQS = [{ count: 1 }, { count: 4 }, { count: 64 }, { count: 1 }, { count: 1 }];

let device: IrqDevice;
let fdsBefore: number;

// The test runner itself opens and closes files while it starts.
beforeAll(() => turn(200));

beforeEach(() => {
  fdsBefore = openFds();
});

afterEach(async () => {
  device.close();
  await turn();
  expect(openFds()).toBe(fdsBefore);
});

async function open(options: IrqDeviceOptions = {}): Promise<Irqs> {
  device = await IrqDevice.open({ irqs: IRQS, ...options });
  return device.irqs;
}

async function failure(promise: Promise<unknown>): Promise<VfioUserError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(VfioUserError);
  return error as VfioUserError;
}

describe('enable', () => {
  test('one interrupt where nothing is said', async () => {
    const { intx } = await open();
    const [vector, ...more] = await intx.enable();
    expect(more).toEqual([]);
    expect(vector).toMatchObject({ index: 0, subindex: 0, count: 0, isClosed: false });
    expect(device.takeLog()).toEqual(['SET_IRQS EVENTFD|TRIGGER 0: 0+1, 1 fds']);
    expect(intx.enabled).toBe(true);
    expect(intx.vectors).toEqual([vector]);
  });

  test("sends groups of the server's max_msg_fds, each fd that of its interrupt", async () => {
    const { msix } = await open({ maxMsgFds: 3 });
    const vectors = await msix.enable(8);
    expect(device.takeLog()).toEqual([
      'SET_IRQS EVENTFD|TRIGGER 2: 0+3, 3 fds',
      'SET_IRQS EVENTFD|TRIGGER 2: 3+3, 3 fds',
      'SET_IRQS EVENTFD|TRIGGER 2: 6+2, 2 fds',
    ]);
    expect(vectors.map(({ subindex }) => subindex)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    for (const { subindex } of vectors) device.signal(MSIX, subindex, subindex + 1);
    const counts = await Promise.all(vectors.map((vector) => vector.wait()));
    expect(counts).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test('a server that takes one fd a message gets one a message', async () => {
    const { msix } = await open({ maxMsgFds: 1 });
    await msix.enable(3);
    expect(device.log).toHaveLength(3);
    expect(device.held).toBe(3);
  });

  test('Linux passes 253 fds in a message, whatever the server allows', async () => {
    const { msix } = await open({ maxMsgFds: 1024, irqs: [{ count: 1 }, { count: 0 }, { count: 300 }] });
    await msix.enable(300);
    expect(device.takeLog()).toEqual([
      'SET_IRQS EVENTFD|TRIGGER 2: 0+253, 253 fds',
      'SET_IRQS EVENTFD|TRIGGER 2: 253+47, 47 fds',
    ]);
  });

  test('a range', async () => {
    const { msix } = await open();
    const vectors = await msix.enable({ start: 60, count: 4 });
    expect(vectors.map(({ subindex }) => subindex)).toEqual([60, 61, 62, 63]);
    const [one] = await msix.enable({ start: 5 });
    expect(one.subindex).toBe(5);
    expect(device.takeLog()).toEqual([
      'SET_IRQS EVENTFD|TRIGGER 2: 60+4, 4 fds',
      'SET_IRQS EVENTFD|TRIGGER 2: 5+1, 1 fds',
    ]);
    expect(msix.vectors.map(({ subindex }) => subindex)).toEqual([5, 60, 61, 62, 63]);
  });

  test('what is enabled keeps its vectors; only the others are sent', async () => {
    const { msix } = await open();
    const [two] = await msix.enable({ start: 2 });
    device.takeLog();
    const vectors = await msix.enable(5);
    expect(vectors[2]).toBe(two);
    expect(device.takeLog()).toEqual([
      'SET_IRQS EVENTFD|TRIGGER 2: 0+2, 2 fds',
      'SET_IRQS EVENTFD|TRIGGER 2: 3+2, 2 fds',
    ]);
    expect(await msix.enable(5)).toEqual(vectors);
    expect(device.takeLog()).toEqual([]);
  });

  test('a vector that was closed is made anew', async () => {
    const { msix } = await open();
    const [first] = await msix.enable(2);
    first.close();
    expect(msix.vectors).toHaveLength(1);
    device.takeLog();
    const [again] = await msix.enable(2);
    expect(again).not.toBe(first);
    expect(device.takeLog()).toEqual(['SET_IRQS EVENTFD|TRIGGER 2: 0+1, 1 fds']);
    device.signal(MSIX, 0);
    await expect(again.wait()).resolves.toBe(1);
  });

  test('calls at the same time follow one another', async () => {
    const { msix } = await open();
    const [a, b] = await Promise.all([msix.enable(2), msix.enable(3)]);
    expect(b.slice(0, 2)).toEqual(a);
    expect(device.held).toBe(3);
  });

  test('a server that reports no EVENTFD flag is asked all the same', async () => {
    const { intx } = await open({ irqs: [{ count: 1, flags: 0 }] });
    expect(intx.supportsEventfd).toBe(false);
    await intx.enable();
    expect(device.held).toBe(1);
  });

  test.each([
    ['more than there are', 65],
    ['none', 0],
    ['less than none', -1],
    ['half an interrupt', 1.5],
    ['no number', NaN],
    ['a range past the end', { start: 63, count: 2 }],
    ['a range before the beginning', { start: -1, count: 1 }],
  ])('%s is a RangeError before anything is sent', async (_what, range) => {
    const { msix } = await open();
    await expect(msix.enable(range)).rejects.toBeInstanceOf(RangeError);
    expect(device.log).toEqual([]);
  });

  test('an index without interrupts has none to enable', async () => {
    const { msix } = await open({ irqs: [{ count: 1 }, { count: 0 }, { count: 0 }] });
    expect(msix.count).toBe(0);
    await expect(msix.enable()).rejects.toThrow('MSI-X has 0 interrupts');
  });

  test.each([['7'], [null], [true]])('%p is no range', async (range) => {
    const { msix } = await open();
    await expect(msix.enable(range as unknown as number)).rejects.toBeInstanceOf(TypeError);
  });

  test('a server that takes no fds', async () => {
    const { msix } = await open({ maxMsgFds: 0 });
    await expect(msix.enable()).rejects.toBeInstanceOf(UnsupportedError);
    await expect(msix.maskEvents()).rejects.toBeInstanceOf(UnsupportedError);
    expect(device.log).toEqual([]);
  });

  test('a transport that passes no fds', async () => {
    await open();
    const stream = new PassThrough();
    const connection = new Connection((handler) => new DuplexTransport(stream, 'the pipe', handler));
    const context = new DeviceContext(connection, device.context.negotiated, device.context.options);
    const irqs = new Irqs(context, [{ index: 0, count: 1, flags: 1 }], {
      isPci: true,
      config: undefined,
      region: () => {
        throw new RangeError('no regions');
      },
    });
    await expect(irqs.intx.enable()).rejects.toThrow('no file descriptor can be passed over the pipe');
    // There is nothing to set up again, so that does not fail.
    await irqs.restore();
    connection.close();
  });
});

describe('enable that fails', () => {
  test('at the first group: the error as it is, and nothing is left', async () => {
    const { msix } = await open();
    device.fate = () => EINVAL;
    const error = await failure(msix.enable(8));
    expect(error).toBeInstanceOf(RemoteError);
    expect(error).toMatchObject({ code: 'EINVAL', command: 'DEVICE_SET_IRQS' });
    expect(device.takeLog()).toEqual(['SET_IRQS EVENTFD|TRIGGER 2: 0+8, 8 fds']);
    expect(msix.enabled).toBe(false);
    expect(msix.vectors).toEqual([]);
  });

  test('at a later group: the earlier ones are disabled again, and the error says so', async () => {
    const { msix } = await open({ maxMsgFds: 4 });
    const open4 = openFds();
    device.fate = (line) => (line.includes('8+4') ? EINVAL : undefined);
    const error = await failure(msix.enable(16));
    expect(error.code).toBe('EINVAL');
    expect(error.cause).toBeInstanceOf(RemoteError);
    expect(error.message).toMatch(/EINVAL; MSI-X vectors 0 to 7 were disabled again$/);
    expect(device.takeLog()).toEqual([
      'SET_IRQS EVENTFD|TRIGGER 2: 0+4, 4 fds',
      'SET_IRQS EVENTFD|TRIGGER 2: 4+4, 4 fds',
      'SET_IRQS EVENTFD|TRIGGER 2: 8+4, 4 fds',
      'SET_IRQS NONE|TRIGGER 2: 0+0',
    ]);
    expect(device.held).toBe(0);
    expect(openFds()).toBe(open4);
    device.fate = () => undefined;
    await expect(msix.enable(16)).resolves.toHaveLength(16);
  });

  test('what was enabled before stays', async () => {
    const { msix } = await open({ maxMsgFds: 2 });
    const [first] = await msix.enable();
    device.takeLog();
    device.fate = (line) => (line.includes('3+2') ? EINVAL : undefined);
    const error = await failure(msix.enable(6));
    expect(error.message).toContain('MSI-X vectors 1 to 2 were disabled again');
    expect(device.takeLog()).toEqual([
      'SET_IRQS EVENTFD|TRIGGER 2: 1+2, 2 fds',
      'SET_IRQS EVENTFD|TRIGGER 2: 3+2, 2 fds',
      'SET_IRQS EVENTFD|TRIGGER 2: 1+2',
    ]);
    expect(msix.vectors).toEqual([first]);
    device.signal(MSIX, 0);
    await expect(first.wait()).resolves.toBe(1);
  });

  test('when undoing fails as well, the error says that too', async () => {
    const { msix } = await open({ maxMsgFds: 1 });
    device.fate = (line) => (line.includes('0+1, ') ? undefined : EINVAL);
    const error = await failure(msix.enable(2));
    expect(error.message).toContain('MSI-X vector 0 was not disabled again');
    expect(msix.vectors).toEqual([]);
  });

  test('a server that does not answer may have the eventfds: they are taken back', async () => {
    const { msix } = await open();
    device.fate = (line) => (line.includes('EVENTFD') ? 'silence' : undefined);
    const error = await failure(msix.enable(2, { timeoutMs: 20 }));
    expect(error).toBeInstanceOf(TimeoutError);
    expect(device.takeLog()).toEqual([
      'SET_IRQS EVENTFD|TRIGGER 2: 0+2, 2 fds',
      'SET_IRQS NONE|TRIGGER 2: 0+0',
    ]);
    expect(msix.enabled).toBe(false);
  });

  test("an abort ends it with the signal's reason", async () => {
    const { msix } = await open();
    const controller = new AbortController();
    device.fate = (line) => {
      controller.abort('stop');
      return line.includes('EVENTFD') ? 'silence' : undefined;
    };
    await expect(msix.enable(2, { signal: controller.signal })).rejects.toBe('stop');
    expect(device.takeLog().at(-1)).toBe('SET_IRQS NONE|TRIGGER 2: 0+0');
    expect(msix.vectors).toEqual([]);
  });

  test('an abort before it begins sends nothing', async () => {
    const { msix } = await open();
    await expect(msix.enable(2, { signal: AbortSignal.abort('no') })).rejects.toBe('no');
    await turn();
    expect(device.log).toEqual([]);
  });

  test('a connection that ends', async () => {
    const { msix } = await open({ maxMsgFds: 1 });
    device.fate = (line) => {
      if (!line.includes('2+1')) return undefined;
      device.peer.close();
      return 'silence';
    };
    await expect(msix.enable(4)).rejects.toBeInstanceOf(ClosedError);
    expect(msix.vectors).toEqual([]);
  });
});

describe('a set that cannot be resized', () => {
  const irqs = [{ count: 1 }, { count: 0 }, { count: 16, flags: EVENTFD | NORESIZE }];

  test('takes no more interrupts until it is disabled', async () => {
    const { msix } = await open({ irqs });
    expect(msix.noResize).toBe(true);
    const [vector] = await msix.enable(2);
    device.takeLog();
    await expect(msix.enable(3)).rejects.toThrow(/NORESIZE/);
    await expect(msix.enable({ start: 4 })).rejects.toBeInstanceOf(UnsupportedError);
    expect(device.takeLog()).toEqual([]);
    expect(vector.isClosed).toBe(false);
    await msix.disable();
    await expect(msix.enable(3)).resolves.toHaveLength(3);
  });

  test('gives back what is in it, and replaces what was closed', async () => {
    const { msix } = await open({ irqs });
    const [vector] = await msix.enable(2);
    vector.close();
    await expect(msix.enable(2)).resolves.toHaveLength(2);
  });

  test('must fit in one message', async () => {
    const { msix } = await open({ irqs, maxMsgFds: 4 });
    await expect(msix.enable(5)).rejects.toThrow(/one message to this server takes 4/);
    expect(device.log).toEqual([]);
    await expect(msix.enable(4)).resolves.toHaveLength(4);
  });
});

describe('disable', () => {
  test('says so to the server and closes the vectors', async () => {
    const { msix } = await open();
    const vectors = await msix.enable(3);
    device.takeLog();
    await msix.disable();
    expect(device.takeLog()).toEqual(['SET_IRQS NONE|TRIGGER 2: 0+0']);
    expect(vectors.every(({ isClosed }) => isClosed)).toBe(true);
    expect(msix.enabled).toBe(false);
    expect(device.held).toBe(0);
  });

  test('sends nothing where nothing is enabled, unless forced', async () => {
    const { msix } = await open();
    await msix.disable();
    expect(device.log).toEqual([]);
    await msix.disable({ force: true });
    expect(device.takeLog()).toEqual(['SET_IRQS NONE|TRIGGER 2: 0+0']);
  });

  test('is sent although all vectors were closed: the server still has their eventfds', async () => {
    const { msix } = await open();
    const [vector] = await msix.enable();
    vector.close();
    expect(msix.enabled).toBe(true);
    await msix.disable();
    expect(device.held).toBe(0);
  });

  test('closes the vectors also where the server refuses', async () => {
    const { msix } = await open();
    const [vector] = await msix.enable();
    device.fate = () => EINVAL;
    await expect(msix.disable()).rejects.toBeInstanceOf(RemoteError);
    expect(vector.isClosed).toBe(true);
    expect(msix.enabled).toBe(false);
  });

  test('ends the loops over the vectors', async () => {
    const { msix } = await open();
    const [vector] = await msix.enable();
    const loop = (async () => {
      for await (const count of vector) expect(count).toBe(0);
      return 'ended';
    })();
    await msix.disable();
    await expect(loop).resolves.toBe('ended');
  });
});

describe('INTx, MSI and MSI-X', () => {
  test('exclude each other: the one that is enabled is disabled first', async () => {
    const { intx, msi, msix } = await open();
    const [pin] = await intx.enable();
    device.takeLog();
    const vectors = await msix.enable(2);
    expect(device.takeLog()).toEqual([
      'SET_IRQS NONE|TRIGGER 0: 0+0',
      'SET_IRQS EVENTFD|TRIGGER 2: 0+2, 2 fds',
    ]);
    expect(pin.isClosed).toBe(true);
    await msi.enable();
    expect(vectors.every(({ isClosed }) => isClosed)).toBe(true);
    expect([intx.enabled, msi.enabled, msix.enabled]).toEqual([false, true, false]);
  });

  test('leave ERR and REQ alone', async () => {
    const { err, req, msix } = await open();
    const [error] = await err.enable();
    const [request] = await req.enable();
    await msix.enable();
    expect([error.isClosed, request.isClosed]).toEqual([false, false]);
    device.signal(3, 0);
    device.signal(4, 0, 2);
    await expect(Promise.all([error.wait(), request.wait()])).resolves.toEqual([1, 2]);
  });

  test('are names of PCI alone: elsewhere indexes are numbers that do not touch each other', async () => {
    const irqs = await open({ isPci: false });
    expect([...irqs].map(({ name }) => name)).toEqual(['IRQ 0', 'IRQ 1', 'IRQ 2', 'IRQ 3', 'IRQ 4']);
    const [first] = await irqs.byIndex(0).enable();
    const [second] = await irqs.byIndex(1).enable();
    const [third] = await irqs.byIndex(2).enable({ start: 7 });
    expect(device.takeLog()).toEqual([
      'SET_IRQS EVENTFD|TRIGGER 0: 0+1, 1 fds',
      'SET_IRQS EVENTFD|TRIGGER 1: 0+1, 1 fds',
      'SET_IRQS EVENTFD|TRIGGER 2: 7+1, 1 fds',
    ]);
    for (const index of [0, 1]) device.signal(index, 0);
    device.signal(MSIX, 7);
    expect(await Promise.all([first.wait(), second.wait(), third.wait()])).toEqual([1, 1, 1]);
    await irqs.byIndex(1).disable();
    expect([first.isClosed, second.isClosed, third.isClosed]).toEqual([false, true, false]);
    await expect(irqs.byIndex(0).enable(2)).rejects.toThrow(/IRQ 0 has 1 interrupts/);
  });
});

describe('mask, unmask and trigger', () => {
  test('by number: one interrupt, or a run of them', async () => {
    const { intx, msix } = await open();
    await intx.mask();
    await msix.mask(3);
    await msix.unmask(3, 2);
    await msix.trigger(63);
    expect(device.takeLog()).toEqual([
      'SET_IRQS NONE|MASK 0: 0+1',
      'SET_IRQS NONE|MASK 2: 3+1',
      'SET_IRQS NONE|UNMASK 2: 3+2',
      'SET_IRQS NONE|TRIGGER 2: 63+1',
    ]);
  });

  test('by booleans: one byte for each interrupt of the range', async () => {
    const { msix } = await open();
    await msix.mask([true, false, true]);
    await msix.unmask([true], 7);
    await msix.trigger([false, true], 62);
    expect(device.takeLog()).toEqual([
      'SET_IRQS BOOL|MASK 2: 0+3, data 010001',
      'SET_IRQS BOOL|UNMASK 2: 7+1, data 01',
      'SET_IRQS BOOL|TRIGGER 2: 62+2, data 0001',
    ]);
  });

  test('by booleans not on a server that answered minor 0, unless told', async () => {
    const { msix } = await open({ minor: 0 });
    await expect(msix.mask([true])).rejects.toThrow(/minor 0/);
    await expect(msix.mask([true])).rejects.toBeInstanceOf(UnsupportedError);
    await msix.mask(0);
    expect(device.takeLog()).toEqual(['SET_IRQS NONE|MASK 2: 0+1']);
    device.close();
    const told = await open({ minor: 0, tryOptional: true });
    await told.msix.mask([true]);
    expect(device.takeLog()).toEqual(['SET_IRQS BOOL|MASK 2: 0+1, data 01']);
  });

  test('refuse what the index does not have', async () => {
    const { msix } = await open();
    await expect(msix.mask(64)).rejects.toBeInstanceOf(RangeError);
    await expect(msix.unmask(60, 5)).rejects.toBeInstanceOf(RangeError);
    await expect(msix.trigger(0, 0)).rejects.toBeInstanceOf(RangeError);
    await expect(msix.mask([])).rejects.toBeInstanceOf(RangeError);
    await expect(msix.mask(new Array<boolean>(3).fill(true), 62)).rejects.toBeInstanceOf(RangeError);
    await expect(msix.trigger('1' as unknown as number)).rejects.toBeInstanceOf(TypeError);
    expect(device.log).toEqual([]);
  });

  test("the server's refusal is the caller's", async () => {
    const { err } = await open();
    device.fate = () => EINVAL;
    await expect(err.mask()).rejects.toMatchObject({ command: 'DEVICE_SET_IRQS', errno: EINVAL });
  });

  test('by eventfd: vectors that hear of the server masking and unmasking', async () => {
    const { msix } = await open({ maxMsgFds: 2 });
    const masks = await msix.maskEvents({ start: 1, count: 3 });
    const [unmask] = await msix.unmaskEvents({ start: 1 });
    expect(device.takeLog()).toEqual([
      'SET_IRQS EVENTFD|MASK 2: 1+2, 2 fds',
      'SET_IRQS EVENTFD|MASK 2: 3+1, 1 fds',
      'SET_IRQS EVENTFD|UNMASK 2: 1+1, 1 fds',
    ]);
    device.signal(MSIX, 2, 1, 'MASK');
    device.signal(MSIX, 1, 4, 'UNMASK');
    await expect(masks[1]!.wait()).resolves.toBe(1);
    await expect(unmask.wait()).resolves.toBe(4);
    expect(await msix.maskEvents({ start: 3 })).toEqual([masks[2]]);
    await msix.disable();
    expect(unmask.isClosed).toBe(true);
  });

  test('by eventfd: a failure de-assigns what was given', async () => {
    const { msix } = await open({ maxMsgFds: 1 });
    device.fate = (line) => (line.includes('1+1') ? EINVAL : undefined);
    const error = await failure(msix.maskEvents(2));
    expect(error.message).toContain('MSI-X vector 0 was disabled again');
    expect(device.takeLog().at(-1)).toBe('SET_IRQS EVENTFD|MASK 2: 0+1');
  });
});

test('flags in words', async () => {
  const irqs = await open({
    irqs: [
      { count: 1, flags: EVENTFD | MASKABLE | 4 },
      { count: 1, flags: 0 },
    ],
  });
  expect(irqs.intx).toMatchObject({
    flags: 7,
    supportsEventfd: true,
    maskable: true,
    automasked: true,
    noResize: false,
  });
  expect(irqs.msi).toMatchObject({ flags: 0, supportsEventfd: false, maskable: false, automasked: false });
});
