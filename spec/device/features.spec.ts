/** Device features by number. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { RamDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { UnsupportedError, connect, type Device } from '../../lib/index.js';
import { Scratch } from '../cli/cli.js';
import { ScriptedPeer, words } from '../support/scripted-peer.js';

let scratch: Scratch;
let server: EmulatorServer;
let model: RamDevice;
let device: Device;

beforeEach(async () => {
  scratch = new Scratch();
  model = new RamDevice({ sharedSize: 0, features: new Map([[77, Buffer.from([1, 2, 3, 4])]]) });
  server = await serve(model, { path: scratch.path('socket') });
  device = await connect(scratch.path('socket'));
});

afterEach(async () => {
  await device.close();
  await server.close();
  model.close();
  scratch.remove();
});

test('probe says which are there, and is asked once', async () => {
  expect(await device.features.probe(77, { get: true, set: true })).toBe(true);
  expect(await device.features.probe(78)).toBe(false);
  const { sent } = device.counters;
  expect(await device.features.probe(77, { get: true, set: true })).toBe(true);
  expect(await device.features.probe(78)).toBe(false);
  expect(device.counters.sent).toBe(sent);
});

test('get gives what set has put there', async () => {
  expect(await device.features.get(77, 4)).toEqual(Buffer.from([1, 2, 3, 4]));
  expect(await device.features.set(77, Buffer.from([9, 8, 7, 6]))).toEqual(Buffer.from([9, 8, 7, 6]));
  expect(await device.features.get(77, 4)).toEqual(Buffer.from([9, 8, 7, 6]));
});

test('what the device refuses is a RemoteError', async () => {
  await expect(device.features.get(78, 4)).rejects.toMatchObject({ name: 'RemoteError', code: 'ENOTSUP' });
  await expect(device.features.get(77, 2)).rejects.toMatchObject({ code: 'EINVAL' });
  await expect(device.features.set(77, Buffer.alloc(5))).rejects.toMatchObject({ code: 'EINVAL' });
  await expect(device.features.get(0x10000, 4)).rejects.toThrow(RangeError);
});

test('replies that are to something else are a ProtocolError', async () => {
  const peer = new ScriptedPeer();
  const opening = connect({ fd: peer.clientFd });
  await peer.open();
  const other = await opening;
  for (const reply of [words(8, 0x1004e), words(8, 0x2004d), Buffer.alloc(3), words(4, 0x1004d)]) {
    const call = other.features.get(77, 4);
    peer.reply(await peer.expect(16), reply);
    await expect(call).rejects.toMatchObject({ name: 'ProtocolError' });
  }
  // A probe that is refused for another reason than not knowing it is an error, and is asked again.
  const probe = other.features.probe(77);
  peer.refuse(await peer.expect(16), 5);
  await expect(probe).rejects.toMatchObject({ code: 'EIO' });
  const again = other.features.probe(77);
  peer.refuse(await peer.expect(16), 25);
  expect(await again).toBe(false);
  await other.close();
  peer.close();
});

test('a server that answered minor 0 is not asked, unless told to', async () => {
  for (const tryOptional of [false, true]) {
    const peer = new ScriptedPeer();
    const opening = connect({ fd: peer.clientFd }, { tryOptional });
    await peer.open({ minor: 0 });
    const old = await opening;
    if (tryOptional) {
      const probe = old.features.probe(77);
      peer.reply(await peer.expect(16), words(8, 0x4004d));
      expect(await probe).toBe(true);
    } else {
      expect(await old.features.probe(77)).toBe(false);
      await expect(old.features.get(77, 4)).rejects.toBeInstanceOf(UnsupportedError);
    }
    await old.close();
    peer.close();
  }
});
