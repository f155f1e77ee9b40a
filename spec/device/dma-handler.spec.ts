import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { DmaHandlerError, RemoteError, UnsupportedError } from '../../lib/errors.js';
import type { DmaHandler } from '../../lib/device/dma.js';
import { native } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import { dmaReadReply, dmaReadRequest, dmaWriteReply, dmaWriteRequest } from '../support/wire.js';
import { message, type Received } from '../support/scripted-peer.js';
import { DmaDevice, turn, until, type DmaDeviceOptions } from './dma-device.js';

const PAGE = 4096;
const MIB = 1 << 20;
const EIO = 5;
const EACCES = 13;
const EBUSY = 16;
const EINVAL = 22;

let device: DmaDevice;
let fdsBefore: number;

/** A handler over plain memory that logs what it is asked. */
class Backing implements DmaHandler {
  readonly bytes = Buffer.alloc(4 * MIB);
  readonly calls: string[] = [];
  base = 0n;

  read(address: bigint, length: number): Uint8Array {
    this.calls.push(`read ${address - this.base}+${length}`);
    const at = Number(address - this.base);
    return this.bytes.subarray(at, at + length);
  }

  write(address: bigint, bytes: Buffer): void {
    this.calls.push(`write ${address - this.base}+${bytes.length}`);
    bytes.copy(this.bytes, Number(address - this.base));
  }
}

/** The same, by promises. */
function later(backing: Backing): DmaHandler {
  return {
    read: async (address, length) => {
      await turn(1);
      return backing.read(address, length);
    },
    write: async (address, bytes) => {
      await turn(1);
      backing.write(address, bytes);
    },
  };
}

async function open(options?: DmaDeviceOptions): Promise<void> {
  device = await DmaDevice.open(options);
}

function bytesOf({ id, command, flags, errno, payload }: Received): Buffer {
  return message(id, command, flags, errno, payload);
}

function pattern(length: number, seed: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 7 + (i >>> 8) * 13 + seed) & 0xff));
}

beforeAll(() => turn(200));
beforeEach(() => {
  fdsBefore = openFds();
});
afterEach(async () => {
  device.close();
  await turn();
  expect(openFds()).toBe(fdsBefore);
});

describe.each([
  ['a synchronous handler', false],
  ['an asynchronous handler', true],
])('%s', (_, isAsync) => {
  test.each([
    ['on the command socket', false],
    ['on the twin socket', true],
  ])('%s: every size, compared byte by byte', async (_title, twin) => {
    await open({ twin });
    const backing = new Backing();
    const mapping = await device.dma.map({
      handler: isAsync ? later(backing) : backing,
      async: isAsync,
      size: 4 * MIB,
      iova: 0x4000_0000n,
    });
    backing.base = mapping.iova;
    expect(device.takeLog()).toEqual(['MAP 0x40000000+0x400000 flags 3, 0 fds']);
    for (const size of [1, 2, 7, 4095, 4096, 4097, 65_521, 100_000, MIB]) {
      for (const offset of [0, 1, PAGE - 1]) {
        backing.bytes.fill(0x5a);
        const data = pattern(size, offset);
        const address = mapping.iova + BigInt(offset);
        expect(bytesOf(await device.ask(dmaWriteRequest({ address, data })))).toEqual(
          dmaWriteReply({ address, count: size }),
        );
        expect(backing.bytes.subarray(offset, offset + size).equals(data)).toBe(true);
        expect(backing.bytes.subarray(offset + size).every((byte) => byte === 0x5a)).toBe(true);
        const got = bytesOf(await device.ask(dmaReadRequest({ address, count: size })));
        expect(got.equals(dmaReadReply({ address, data }))).toBe(true);
      }
    }
    await mapping.unmap();
  });

  test('one that throws is EIO, one that throws a DmaHandlerError its errno, each with one reply', async () => {
    await open();
    const errors: unknown[] = [];
    const fail = (): never => {
      throw errors[0];
    };
    const handler: DmaHandler = isAsync
      ? { read: () => turn(1).then(fail), write: () => turn(1).then(fail) }
      : { read: fail, write: fail };
    const { iova } = await device.dma.map({ handler, async: isAsync, size: PAGE });
    for (const [error, errno] of [
      [new Error('out of order'), EIO],
      [new DmaHandlerError(EBUSY), EBUSY],
      [new DmaHandlerError(EINVAL, 'an odd address'), EINVAL],
      ['a string', EIO],
      // libvfio-user takes these for the client's end.
      [new DmaHandlerError(104), EIO],
      [new DmaHandlerError(42), EIO],
    ] as const) {
      errors[0] = error;
      for (const request of [
        dmaReadRequest({ address: iova, count: 4 }),
        dmaWriteRequest({ address: iova, data: [1, 2] }),
      ]) {
        expect(await device.ask(request)).toMatchObject({ flags: 0x21, errno, payload: Buffer.alloc(0) });
      }
    }
    expect(device.connection.counters).toMatchObject({ served: 0, refused: 12 });
  });

  test('what gives no bytes, or the wrong number, is EIO', async () => {
    await open();
    const wrong = [undefined, Buffer.alloc(3), Buffer.alloc(5), [1, 2, 3, 4], 'four'];
    let i = 0;
    const handler = { read: () => wrong[i++], write: () => undefined } as unknown as DmaHandler;
    const { iova } = await device.dma.map({ handler, async: isAsync, size: PAGE });
    for (const _wrong of wrong) {
      expect((await device.ask(dmaReadRequest({ address: iova, count: 4 }))).errno).toBe(EIO);
    }
  });

  test('permissions and edges hold before it is asked', async () => {
    await open();
    const backing = new Backing();
    const { iova } = await device.dma.map({ handler: backing, async: isAsync, size: PAGE, writable: false });
    expect((await device.ask(dmaWriteRequest({ address: iova, data: [1] }))).errno).toBe(EACCES);
    expect((await device.ask(dmaReadRequest({ address: iova + 4095n, count: 2 }))).errno).toBe(14);
    expect((await device.ask(dmaReadRequest({ address: iova - 1n, count: 2 }))).errno).toBe(14);
    expect(backing.calls).toEqual([]);
  });

  test('a request may run from memory into it, and back', async () => {
    await open();
    const backing = new Backing();
    const fd = native().memfd('spec', 2 * PAGE, false);
    await device.dma.map({ fd, size: PAGE, iova: 0x1000n });
    const { iova } = await device.dma.map({
      handler: isAsync ? later(backing) : backing,
      async: isAsync,
      size: PAGE,
      iova: 0x2000n,
    });
    await device.dma.map({ fd, offset: PAGE, size: PAGE, iova: 0x3000n });
    native().closeFd(fd);
    backing.base = iova;
    const data = pattern(PAGE + 200, 3);
    const address = 0x2000n - 100n;
    expect(bytesOf(await device.ask(dmaWriteRequest({ address, data })))).toEqual(
      dmaWriteReply({ address, count: data.length }),
    );
    expect(backing.calls).toEqual([`write 0+${PAGE}`]);
    expect(bytesOf(await device.ask(dmaReadRequest({ address, count: data.length })))).toEqual(
      dmaReadReply({ address, data }),
    );
  });
});

describe('a handler and synchronous calls', () => {
  test('none while an asynchronous one is mapped, and again when it is not', async () => {
    await open();
    const backing = new Backing();
    const call = (): void => device.connection.callSync(99, null, null, () => undefined, { timeoutMs: 1 });
    const one = await device.dma.map({ handler: later(backing), async: true, size: PAGE });
    const two = await device.dma.map({ handler: later(backing), async: true, size: PAGE });
    expect(call).toThrow(UnsupportedError);
    expect(call).toThrow(/asynchronous handler/);
    await one.unmap();
    expect(call).toThrow(/asynchronous handler/);
    await two.unmap();
    expect(call).not.toThrow(UnsupportedError);
  });

  test('none within a handler', async () => {
    await open();
    let refused: unknown;
    const handler: DmaHandler = {
      read: (_address, length) => {
        try {
          device.connection.callSync(99, null, null, () => undefined);
        } catch (error) {
          refused = error;
        }
        return Buffer.alloc(length);
      },
      write: () => undefined,
    };
    const { iova } = await device.dma.map({ handler, size: PAGE });
    expect((await device.ask(dmaReadRequest({ address: iova, count: 4 }))).errno).toBe(0);
    expect(refused).toBeInstanceOf(UnsupportedError);
  });

  test('one that gives a promise though it was declared synchronous is EIO, without an unhandled rejection', async () => {
    await open();
    const handler: DmaHandler = {
      read: () => Promise.reject(new Error('too late')),
      write: () => Promise.reject(new Error('too late')),
    };
    const { iova } = await device.dma.map({ handler, size: PAGE });
    expect((await device.ask(dmaReadRequest({ address: iova, count: 4 }))).errno).toBe(EIO);
    expect((await device.ask(dmaWriteRequest({ address: iova, data: [1] }))).errno).toBe(EIO);
    await turn();
  });
});

describe('asynchronous handlers', () => {
  test('at most 16 run at once; a server that floods is refused, and every request has one reply', async () => {
    await open({ twin: true });
    let running = 0;
    let most = 0;
    let release!: () => void;
    const gate = new Promise<void>((resolve) => (release = resolve));
    const handler: DmaHandler = {
      read: async (_address, length) => {
        most = Math.max(most, ++running);
        await gate;
        running--;
        return Buffer.alloc(length, 1);
      },
      write: () => undefined,
    };
    const { iova } = await device.dma.map({ handler, async: true, size: PAGE });
    const requests = Array.from({ length: 1100 }, (_, i) =>
      dmaReadRequest({ address: iova, count: 1 }, { id: i }),
    );
    await device.send(Buffer.concat(requests));
    const answers: Received[] = [];
    for (let i = 0; i < 1100 - 1024; i++) answers.push(await device.answer());
    expect(answers.every(({ errno }) => errno === EBUSY)).toBe(true);
    expect(running).toBe(16);
    release();
    for (let i = 0; i < 1024; i++) answers.push(await device.answer());
    expect(new Set(answers.map(({ id }) => id)).size).toBe(1100);
    expect(most).toBe(16);
    expect(device.connection.counters).toMatchObject({ served: 1024, refused: 76 });
  });

  test('others are served meanwhile', async () => {
    await open();
    let release!: () => void;
    const gate = new Promise<void>((resolve) => (release = resolve));
    const handler: DmaHandler = {
      read: (_address, length) => gate.then(() => Buffer.alloc(length, 9)),
      write: () => undefined,
    };
    const { iova } = await device.dma.map({ handler, async: true, size: PAGE });
    const buffer = await device.dma.alloc(PAGE);
    await device.send(dmaReadRequest({ address: iova, count: 1 }, { id: 1 }));
    expect(await device.ask(dmaReadRequest({ address: buffer.iova, count: 1 }, { id: 2 }))).toMatchObject({
      id: 2,
    });
    release();
    expect(await device.answer()).toMatchObject({ id: 1, errno: 0 });
  });

  test.each([
    ['the connection ends', () => device.connection.close()],
    ['the device is closed', () => device.close()],
  ])('%s while one runs: harmless', async (_, end) => {
    await open();
    let release!: () => void;
    let asked = 0;
    const gate = new Promise<void>((resolve) => (release = resolve));
    const handler: DmaHandler = {
      read: (_address, length) => {
        asked++;
        return gate.then(() => Buffer.alloc(length));
      },
      write: () => gate,
    };
    const { iova } = await device.dma.map({ handler, async: true, size: PAGE });
    await device.send(dmaReadRequest({ address: iova, count: 8 }));
    await until(() => asked === 1);
    end();
    release();
    await turn();
  });

  test('one that closes the device itself', async () => {
    await open();
    const handler: DmaHandler = {
      read: (_address, length) => {
        device.close();
        return Buffer.alloc(length);
      },
      write: () => undefined,
    };
    const { iova } = await device.dma.map({ handler, size: PAGE });
    await device.dma.map({ handler, size: PAGE, iova: iova + 4096n });
    await device.send(dmaReadRequest({ address: iova + 4000n, count: 200 }));
    await device.connection.closed;
  });
});

describe('misuse', () => {
  test.each<[string, object]>([
    ['no functions', { handler: {} }],
    ['no handler', { handler: undefined }],
    ['a handler and an fd', { handler: new Backing(), fd: 0 }],
    ['a handler and share', { handler: new Backing(), share: true }],
    ['a handler and fileIo', { handler: new Backing(), fileIo: true }],
  ])('%s is a TypeError', async (_, options) => {
    await open();
    await expect(device.dma.map({ size: PAGE, ...options } as never)).rejects.toThrow(TypeError);
    expect(device.log).toEqual([]);
  });

  test('an errno that is none is a RangeError', async () => {
    await open();
    for (const errno of [0, -5, 4096, 1.5, NaN]) expect(() => new DmaHandlerError(errno)).toThrow(RangeError);
  });
});

describe('fileIo', () => {
  test('is told to the server, which gets the fd', async () => {
    await open();
    const fd = native().memfd('spec', PAGE, false);
    await device.dma.map({ fd, size: PAGE, iova: 0x1000n, fileIo: true });
    expect(device.takeLog()).toEqual(['MAP 0x1000+0x1000 flags 11, 1 fds']);
    device.fate = () => EINVAL;
    const error = await device.dma
      .map({ fd, size: PAGE, iova: 0x3000n, fileIo: true })
      .catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(RemoteError);
    expect(error).toMatchObject({ code: 'EINVAL', message: expect.stringContaining('FILE_IO') });
    await expect(device.dma.map({ fd, size: PAGE, share: false, fileIo: true })).rejects.toThrow(
      UnsupportedError,
    );
    native().closeFd(fd);
  });

  test('not with secureDma', async () => {
    await open({ secureDma: true });
    const fd = native().memfd('spec', PAGE, false);
    await expect(device.dma.map({ fd, size: PAGE, fileIo: true })).rejects.toThrow(UnsupportedError);
    native().closeFd(fd);
  });
});
