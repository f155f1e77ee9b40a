/** Posted writes and the fence behind them. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { RamDevice, RamRegister, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { ClosedError, connect, type Device } from '../../lib/index.js';
import { Scratch } from '../cli/cli.js';
import { ScriptedPeer, message } from '../support/scripted-peer.js';

let scratch: Scratch;
let server: EmulatorServer;
let model: RamDevice;
let device: Device;

beforeEach(async () => {
  scratch = new Scratch();
  model = new RamDevice({ sharedSize: 0 });
  server = await serve(model, { path: scratch.path('socket') });
  device = await connect(scratch.path('socket'));
});

afterEach(async () => {
  await device.close();
  await server.close();
  model.close();
  scratch.remove();
});

test('a fence waits for all that was posted before it', async () => {
  for (let i = 0; i < 1000; i++) device.bar(0).postUInt32(RamRegister.SCRATCH, i);
  expect(await device.fence()).toBe(0);
  expect(await device.bar(0).readUInt32(RamRegister.SCRATCH_WRITES)).toBe(1000);
  expect(await device.bar(0).readUInt32(RamRegister.SCRATCH)).toBe(999);
});

test('posted writes keep their turn among the others, also where those wait', async () => {
  await device.close();
  device = await connect(scratch.path('socket'), { inFlight: 1 });
  const first = device.bar(0).writeUInt32(RamRegister.SCRATCH, 1);
  const second = device.bar(0).writeUInt32(RamRegister.SCRATCH, 2);
  device.bar(0).postUInt32(RamRegister.SCRATCH, 3);
  const last = device.bar(0).readUInt32(RamRegister.SCRATCH);
  await Promise.all([first, second]);
  expect(await last).toBe(3);
  expect(await device.bar(0).readUInt32(RamRegister.SCRATCH_WRITES)).toBe(3);
});

test('the data may be used again at once; a long write goes in chunks', async () => {
  const data = Buffer.alloc(100_000, 0x5a);
  device.bar(2).post(0, data);
  data.fill(0);
  await device.fence();
  expect(model.ram.subarray(0, 100_000).equals(Buffer.alloc(100_000, 0x5a))).toBe(true);
});

test('errors that a server reports all the same are counted by the next fence, once', async () => {
  const peer = new ScriptedPeer();
  const opening = connect({ fd: peer.clientFd });
  await peer.open({ regions: [{ size: 64 }] });
  const other = await opening;
  other.region(0).postUInt32(0, 1);
  other.region(0).postUInt32(4, 2);
  const fence = other.fence();
  const posted = await peer.expect(10);
  expect(posted.flags).toBe(0x10);
  await peer.expect(10);
  const asked = await peer.expect(4);
  peer.send(message(posted.id, 10, 0x21, 22, Buffer.alloc(0)));
  peer.reply(asked, Buffer.from(asked.payload));
  expect(await fence).toBe(1);
  const again = other.fence();
  const second = await peer.expect(4);
  peer.reply(second, Buffer.from(second.payload));
  expect(await again).toBe(0);
  await other.close();
  peer.close();
});

test('misuse is refused before anything is sent; a device that is gone is told of', async () => {
  const { sent } = device.counters;
  expect(() => device.bar(0).post(4096, Buffer.alloc(1))).toThrow(RangeError);
  expect(() => device.bar(0).postUInt32(0, -1)).toThrow(RangeError);
  expect(device.counters.sent).toBe(sent);
  await server.close();
  await device.closed;
  expect(() => device.bar(0).postUInt32(4, 1)).toThrow(ClosedError);
  await expect(device.fence()).rejects.toBeInstanceOf(ClosedError);
});
