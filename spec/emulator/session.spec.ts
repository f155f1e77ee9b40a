/** A client's connection: order, No_reply, broken framing, faults on purpose, and what is left when it ends. */
import { constants } from 'node:os';
import { describe, expect, test } from '@jest/globals';
import {
  RamDevice,
  RamRegister,
  type ClientContext,
  type DeviceModel,
  type InterceptedMessage,
  type Verdict,
} from '../../lib/emulator/index.js';
import { native } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import {
  deviceGetInfoRequest,
  deviceResetRequest,
  dmaMapRequest,
  message,
  regionReadRequest,
  regionWriteRequest,
  setIrqsRequest,
  versionRequest,
} from '../support/wire.js';
import { cleanup, connected, eventFd, memory, served, until } from './fixture.js';
import { ERROR, NO_REPLY, REPLY, type RawClient } from './raw-client.js';

const { EINVAL, ENOMEM, EPERM } = constants.errno;

function ram(): RamDevice {
  const device = new RamDevice();
  cleanup(() => device.close());
  return device;
}

/** A device whose one register answers when the spec lets it, with the number of the read. */
function slow(): { device: DeviceModel; release: () => void; reads: () => number } {
  const waiting: (() => void)[] = [];
  let reads = 0;
  const handler = {
    read: async (_offset: number, count: number) => {
      const number = ++reads;
      await new Promise<void>((resolve) => waiting.push(resolve));
      return Buffer.alloc(count, number);
    },
    write: () => {},
  };
  const device = { regions: [{ index: 0, size: 4096, handler }], irqs: [] };
  return { device, release: () => waiting.shift()?.(), reads: () => reads };
}

async function replies(client: RawClient, count: number): Promise<number[]> {
  const ids: number[] = [];
  while (ids.length < count) ids.push((await client.take()).id);
  return ids;
}

describe('commands', () => {
  test('are carried out and answered in order, also many in one go', async () => {
    const client = await connected(ram());
    const ids: number[] = [];
    for (let i = 0; i < 200; i++) {
      ids.push(client.post(regionWriteRequest({ offset: RamRegister.SCRATCH, data: [i, 0, 0, 0] })));
    }
    expect(await replies(client, 200)).toEqual(ids);
    expect(await client.read32(0, RamRegister.SCRATCH)).toBe(199);
    expect(await client.read32(0, RamRegister.SCRATCH_WRITES)).toBe(200);
  });

  test('wait for one that takes its time', async () => {
    const { device, release, reads } = slow();
    const client = await connected(device);
    const ids = [
      client.post(regionReadRequest({ count: 4 })),
      client.post(regionReadRequest({ count: 4 })),
      client.post(deviceGetInfoRequest()),
    ];
    await until(() => reads() === 1, 'the first read');
    expect(client.inbox).toEqual([]);
    release();
    await until(() => reads() === 2, 'the second read');
    release();
    expect(await replies(client, 3)).toEqual(ids);
  });

  test('that wait have bytes of their own', async () => {
    const { device, release, reads } = slow();
    const bytes = Buffer.alloc(4096);
    const regions = [...device.regions, { index: 1, size: 4096, memory: { bytes } }];
    const client = await connected({ ...device, regions });
    client.post(regionReadRequest({ count: 4 }));
    await until(() => reads() === 1, 'the read');
    const writes = [0x11, 0x22, 0x33].map((byte, i) =>
      client.post(regionWriteRequest({ region: 1, offset: i * 1024, data: Buffer.alloc(1024, byte) })),
    );
    release();
    expect((await replies(client, 4)).slice(1)).toEqual(writes);
    expect([bytes[0], bytes[1023], bytes[1024], bytes[3071]]).toEqual([0x11, 0x11, 0x22, 0x33]);
  });

  test('with No_reply are carried out and not answered', async () => {
    const client = await connected(ram());
    const data = [7, 0, 0, 0];
    client.send(regionWriteRequest({ offset: RamRegister.SCRATCH, data }, { id: 900, flags: NO_REPLY }));
    client.send(regionWriteRequest({ offset: 4096, data }, { id: 901, flags: NO_REPLY }));
    expect(await client.read32(0, RamRegister.SCRATCH)).toBe(7);
    expect(client.inbox).toEqual([]);
  });

  test('may reuse an id', async () => {
    const client = await connected(ram());
    client.send(deviceGetInfoRequest({}, { id: 5 }));
    client.send(regionReadRequest({ region: 2, count: 1 }, { id: 5 }));
    const [first, second] = [await client.take(), await client.take()];
    expect([first.id, first.command, second.id, second.command]).toEqual([5, 4, 5, 9]);
  });

  test('may come byte by byte', async () => {
    const client = await connected(ram());
    for (const byte of regionReadRequest({ count: 4 }, { id: 77 })) {
      client.send(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await client.take()).payload.readUInt32LE(16)).toBe(0x314d4152);
  });

  /** A client that has asked for 200 MiB and reads none of it, and how often the device was read. */
  async function flooding() {
    let reads = 0;
    const handler = {
      read: (_offset: number, count: number) => Buffer.alloc(count, ++reads),
      write: () => {},
    };
    const { client, server } = served({ regions: [{ index: 0, size: 1 << 19, handler }], irqs: [] });
    await client.negotiate();
    client.setReading(false);
    const request = regionReadRequest({ count: 1 << 19 });
    client.send(Buffer.concat(new Array<Buffer>(400).fill(request)));
    await until(() => reads > 0, 'the first read');
    await new Promise((resolve) => setTimeout(resolve, 50));
    return { client, server, reads: () => reads };
  }

  test('are left alone while nobody takes the replies, and carried out later', async () => {
    const { client, reads } = await flooding();
    expect(reads()).toBeLessThan(20);
    client.setReading(true);
    for (let i = 1; i <= 400; i++) {
      const { payload } = await client.take();
      expect([payload.byteLength, payload[16], payload.at(-1)]).toEqual([(1 << 19) + 16, i & 0xff, i & 0xff]);
    }
  });

  test('are forgotten when a client goes that took no replies', async () => {
    const { client, server } = await flooding();
    client.close();
    // It left replies unread.
    // Reading finds a reset, writing a closed stream: whichever comes first says it.
    const { code } = await server.closed;
    expect(['ECONNRESET', 'ERR_VFIO_USER_CLOSED']).toContain(code);
  });
});

describe('broken framing ends the connection:', () => {
  test.each([
    ['a size of less than the header', message(4, 0, Buffer.alloc(16), { size: 15 })],
    ['a size beyond all limits', message(4, 0, Buffer.alloc(16), { size: 0x7fffffff })],
    ['a type that is neither command nor reply', message(4, 2, Buffer.alloc(16))],
  ])('%s', async (_what, bytes) => {
    const { client, server } = served(ram());
    await client.negotiate();
    client.send(bytes);
    await client.end();
    expect(await server.closed).toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
  });

  test('a reply before anything was asked', async () => {
    const { client } = served(ram());
    client.send(message(1, REPLY, Buffer.alloc(4)));
    await client.end();
  });
});

describe('an intercept', () => {
  async function intercepted(verdict: (message: InterceptedMessage) => Verdict | void): Promise<RawClient> {
    return connected(ram(), { intercept: verdict });
  }

  test('sees every command', async () => {
    const seen: unknown[] = [];
    const client = await intercepted(({ id, name, command, flags, payload, fdCount }) => {
      seen.push({ id, name, command, flags, bytes: payload.length, fdCount });
    });
    await client.answer(dmaMapRequest({}), [memory(4096)]);
    await client.refusal(message(99, 0, Buffer.alloc(3)));
    expect(seen).toMatchObject([
      { id: 1, name: 'VERSION', command: 1 },
      { id: 2, name: 'DMA_MAP', command: 2, flags: 0, bytes: 32, fdCount: 1 },
      { id: 3, name: 'command 99', bytes: 3, fdCount: 0 },
    ]);
  });

  test('drops', async () => {
    const client = await intercepted(({ command }) => (command === 10 ? 'drop' : 'pass'));
    client.post(regionWriteRequest({ offset: RamRegister.SCRATCH, data: [1, 2, 3, 4] }));
    expect(await client.read32(0, RamRegister.SCRATCH)).toBe(0);
    expect(client.inbox).toEqual([]);
  });

  test('refuses', async () => {
    const client = await intercepted(({ command }) => (command === 13 ? { errno: ENOMEM } : undefined));
    expect(await client.refusal(deviceResetRequest())).toBe(ENOMEM);
  });

  test('delays, and what comes later waits', async () => {
    const client = await intercepted(({ command }) => (command === 10 ? { delayMs: 20 } : 'pass'));
    const ids = [
      client.post(regionWriteRequest({ offset: RamRegister.SCRATCH, data: [1, 2, 3, 4] })),
      client.post(regionReadRequest({ offset: RamRegister.SCRATCH, count: 4 })),
    ];
    const [first, second] = [await client.take(), await client.take()];
    expect([first.id, second.id]).toEqual(ids);
    expect(second.payload.readUInt32LE(16)).toBe(0x04030201);
  });

  test('closes', async () => {
    const client = await intercepted(({ command }) => (command === 13 ? 'close' : 'pass'));
    client.post(deviceResetRequest());
    await client.end();
    expect(client.inbox).toEqual([]);
  });

  test('refuses and delays VERSION', async () => {
    let refused = false;
    const { client } = served(ram(), {
      intercept: () => {
        if (refused) return { delayMs: 5 };
        refused = true;
        return { errno: EPERM };
      },
    });
    expect(await client.refusal(versionRequest())).toBe(EPERM);
    expect((await client.negotiate()).minor).toBe(2);
  });

  test('closes fds that it keeps from the device', async () => {
    const verdicts: Verdict[] = ['pass', 'drop', { errno: EPERM }, { delayMs: 1 }];
    const client = await intercepted(() => verdicts.shift());
    const fd = memory(4096);
    const before = openFds();
    client.post(dmaMapRequest({ address: 0 }), [fd]);
    expect(await client.refusal(dmaMapRequest({ address: 0x1000 }), [fd])).toBe(EPERM);
    await client.answer(dmaMapRequest({ address: 0x2000 }), [fd]);
    expect(openFds()).toBe(before);
  });
});

describe('when the client goes', () => {
  test('every fd that it gave is closed, and the state of the device stays', async () => {
    const device = ram();
    const before = openFds();
    const { client, server } = served(device);
    const { fds } = await client.negotiate({ twin_socket: { supported: true } });
    native().closeFd(fds[0]!);
    // Closing the client's end of the twin socket ends the connection: another client without one follows.
    await server.closed;
    const second = served(device);
    await second.client.negotiate();
    const event = eventFd();
    const shared = memory(4096);
    await second.client.answer(setIrqsRequest({ index: 2, count: 1, flags: 0x24 }), [event.fd]);
    await second.client.answer(dmaMapRequest({}), [shared]);
    await second.client.write32(0, RamRegister.SCRATCH, 0x1234);
    second.client.close();
    expect(await second.server.closed).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    client.close();
    expect(openFds()).toBe(before + 2);
    const third = await connected(device);
    expect(await third.read32(0, RamRegister.SCRATCH)).toBe(0x1234);
    expect(await third.refusal(message(3, 0, Buffer.alloc(24)))).toBe(EINVAL);
  });

  test('fds of commands that wait are closed', async () => {
    const { device, reads } = slow();
    const { client, server } = served(device);
    await client.negotiate();
    const fd = memory(4096);
    const before = openFds();
    client.post(regionReadRequest({ count: 4 }));
    await until(() => reads() === 1, 'the read');
    client.post(dmaMapRequest({}), [fd]);
    await until(() => openFds() === before + 1, 'the fd');
    client.close();
    await server.closed;
    // Both ends of the connection are gone too.
    expect(openFds()).toBe(before - 2);
  });

  test('the device is told, and interrupts lead nowhere', async () => {
    const events: string[] = [];
    let context: ClientContext | undefined;
    const device: DeviceModel = {
      regions: [],
      irqs: [{ index: 0, count: 1 }],
      attach: (attached) => {
        events.push('attach');
        context = attached;
      },
      detach: (detached) => events.push(detached === context ? 'detach' : 'somebody else'),
    };
    const { client, server } = served(device);
    await client.negotiate();
    const event = eventFd();
    await client.answer(setIrqsRequest({ count: 1, flags: 0x24 }), [event.fd]);
    client.close();
    await server.closed;
    expect(events).toEqual(['attach', 'detach']);
    expect([context!.isConnected, context!.irq(0).isArmed, context!.irq(0).trigger()]).toEqual([
      false,
      false,
      false,
    ]);
    expect(event.count()).toBe(0);
  });

  test('a handler that is still at work harms nobody', async () => {
    const { device, release, reads } = slow();
    const { client, server } = served(device);
    await client.negotiate();
    client.post(regionReadRequest({ count: 4 }));
    await until(() => reads() === 1, 'the read');
    client.close();
    await server.closed;
    release();
    await new Promise((resolve) => setImmediate(resolve));
  });

  test('in the middle of a message, that is told', async () => {
    const { client, server } = served(ram());
    await client.negotiate();
    client.send(deviceGetInfoRequest().subarray(0, 20));
    client.close();
    expect(await server.closed).toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
  });

  test('before it has negotiated, the device never hears of it', async () => {
    const attached: unknown[] = [];
    const { client, server } = served({ regions: [], irqs: [], attach: (context) => attached.push(context) });
    client.close();
    await server.closed;
    expect(attached).toEqual([]);
  });
});

test('errors are bare headers with the Error bit, the command and the id of the request', async () => {
  const client = await connected(ram());
  const reply = await client.ask(regionReadRequest({ region: 8, count: 4 }));
  expect(reply).toMatchObject({ command: 9, flags: REPLY | ERROR, errno: EINVAL });
});
