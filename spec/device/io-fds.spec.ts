/** Doorbells by fd: GET_REGION_IO_FDS. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { RamDevice, RamRegister, serve } from '../../lib/emulator/index.js';
import { ProtocolError, UnsupportedError, connect, type Device } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { Scratch } from '../cli/cli.js';
import { until } from '../emulator/fixture.js';
import { openFds } from '../support/fds.js';
import { ScriptedPeer, words } from '../support/scripted-peer.js';

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

async function served(doorbells: boolean): Promise<Device> {
  const scratch = new Scratch();
  const model = new RamDevice({ sharedSize: 0, doorbells });
  const server = await serve(model, { path: scratch.path('socket') });
  const device = await connect(scratch.path('socket'));
  cleanups.push(async () => {
    await device.close();
    await server.close();
    model.close();
    scratch.remove();
  });
  return device;
}

describe("the emulator's doorbells", () => {
  test('an ioeventfd rings without a message', async () => {
    const device = await served(true);
    const bar = device.bar(0);
    using fds = await bar.ioFds();
    expect([...fds].map(({ kind, offset, size }) => ({ kind, offset, size }))).toEqual([
      { kind: 'ioeventfd', offset: RamRegister.DOORBELL, size: 4 },
      { kind: 'shadow-ioeventfd', offset: RamRegister.SHADOW_DOORBELL, size: 4 },
    ]);
    const { sent } = device.counters;
    fds.at(RamRegister.DOORBELL)!.write(1);
    fds.at(RamRegister.DOORBELL)!.write(1);
    expect(device.counters.sent).toBe(sent);
    await until(async () => (await bar.readUInt32(RamRegister.RINGS)) === 2, 'two rings');
    expect(fds.at(0)).toBeUndefined();
  });

  test('a shadow ioeventfd brings its value', async () => {
    const device = await served(true);
    const bar = device.bar(0);
    const fds = await bar.ioFds();
    fds.at(RamRegister.SHADOW_DOORBELL)!.write(0xfeedface);
    await until(async () => (await bar.readUInt32(RamRegister.RUNG_VALUE)) === 0xfeedface, 'the value');
    // By message it is the same register.
    await bar.writeUInt32(RamRegister.SHADOW_DOORBELL, 17);
    expect(await bar.readUInt32(RamRegister.RUNG_VALUE)).toBe(17);
    expect(fds.isClosed).toBe(false);
    fds.close();
    fds.close();
    expect(fds.isClosed).toBe(true);
    expect(() => fds.at(RamRegister.DOORBELL)!.write(1)).toThrow();
  });

  test('none are offered by default, nor for regions without', async () => {
    expect((await (await served(false)).bar(0).ioFds()).length).toBe(0);
    expect((await (await served(true)).bar(2).ioFds()).length).toBe(0);
  });

  test('closing the device closes what it had', async () => {
    const device = await served(true);
    const before = openFds();
    const fds = await device.bar(0).ioFds();
    expect(openFds()).toBe(before + 2);
    await device.close();
    expect(() => fds.at(RamRegister.SHADOW_DOORBELL)!.write(1)).toThrow();
  });
});

describe('replies of a peer', () => {
  async function asked(reply: Buffer, fds: number[], refuse = false) {
    const peer = new ScriptedPeer();
    const opening = connect({ fd: peer.clientFd });
    await peer.open({ regions: [{ size: 64 }] });
    const device = await opening;
    const before = openFds();
    const call = device.region(0).ioFds();
    const request = await peer.expect(6);
    if (refuse) peer.refuse(request, 22);
    else peer.reply(request, reply, fds);
    cleanups.push(async () => {
      await device.close();
      peer.close();
    });
    return { call, before };
  }

  const entry = (
    offset: number,
    size: number,
    fdIndex: number,
    type: number,
    stride: number,
    rest: bigint[],
  ) =>
    Buffer.concat([
      words(
        [BigInt(offset)],
        [BigInt(size)],
        fdIndex,
        type,
        0,
        type === 2 ? 1 : 0,
        ...rest.map((v): [bigint] => [v]),
      ),
    ]).subarray(0, stride);

  const reply = (entries: Buffer[]) => {
    const size = entries.reduce((sum, { length }) => sum + length, 16);
    return Buffer.concat([words(size, 0, 0, entries.length), ...entries]);
  };

  function eventFd(): number {
    const fd = native().eventfd(0);
    cleanups.push(() => native().closeFd(fd));
    return fd;
  }

  test("entries of 40 bytes, the specification's, and of 48, libvfio-user's", async () => {
    for (const stride of [40, 48]) {
      const rest = stride === 40 ? [0n] : [0n, 0n];
      const fd = eventFd();
      const { call } = await asked(
        reply([entry(8, 4, 0, 0, stride, rest), entry(16, 0, 0, 0, stride, rest)]),
        [fd],
      );
      using fds = await call;
      expect([...fds].map(({ offset, kind }) => [offset, kind])).toEqual([
        [8, 'ioeventfd'],
        [16, 'ioeventfd'],
      ]);
      // One fd serves both.
      fds.at(8)!.write(1);
      fds.at(16)!.write(1);
      const event = new (native().EventFd)(native().dupFd(fd), () => undefined);
      expect(event.read()).toBe(2);
      event.close();
    }
  });

  test('an ioregionfd cannot be written to', async () => {
    const { call } = await asked(reply([entry(8, 4, 0, 1, 40, [7n])]), [eventFd()]);
    using fds = await call;
    expect(fds.at(8)!.kind).toBe('ioregionfd');
    expect(() => fds.at(8)!.write(1)).toThrow(UnsupportedError);
  });

  test('a server that does not know the command has none', async () => {
    const { call } = await asked(Buffer.alloc(0), [], true);
    expect((await call).length).toBe(0);
  });

  test.each<[string, Buffer, number]>([
    ['a part outside the region', reply([entry(62, 4, 0, 0, 40, [0n])]), 1],
    ['an fd index that names nothing', reply([entry(8, 4, 1, 0, 40, [0n])]), 1],
    ['no fd at all', reply([entry(8, 4, 0, 0, 40, [0n])]), 0],
    ['a shadow index that names nothing', reply([entry(8, 4, 0, 2, 48, [0n, 0n])]), 1],
    ['an unknown type', reply([entry(8, 4, 0, 3, 40, [0n])]), 1],
    ['no whole entries', words(50, 0, 0, 1), 0],
    ['another index', words(16, 0, 5, 0), 0],
    ['a structure that is cut', words(16, 0, 0), 0],
  ])('%s is a ProtocolError, and no fd is left', async (_title, bytes, count) => {
    const own = Array.from({ length: count }, eventFd);
    const { call, before } = await asked(bytes, own);
    await expect(call).rejects.toBeInstanceOf(ProtocolError);
    expect(openFds()).toBe(before);
  });

  test('a shadow in a file that is too small is a ProtocolError', async () => {
    const file = native().memfd('shadow', 4096, false);
    cleanups.push(() => native().closeFd(file));
    const { call, before } = await asked(reply([entry(8, 4, 0, 2, 48, [4094n, 0n])]), [eventFd(), file]);
    await expect(call).rejects.toThrow(/a shadow at offset 4094 of a file of 4096 bytes/);
    expect(openFds()).toBe(before);
  });
});
