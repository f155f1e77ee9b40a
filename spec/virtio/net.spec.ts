/** Two emulated network devices joined by a cable, each driven over a real socket. */
import { describe, expect, test } from '@jest/globals';
import { VirtioNetDevice, type VirtioNetDeviceOptions } from '../../lib/emulator/index.js';
import { VirtioDeviceError, VirtioNet, type VirtioNetOptions } from '../../lib/virtio/index.js';
import { cleanup, errorOf, linked, pattern, until } from './fixture.js';

const MACS = ['52:54:00:00:00:0a', '52:54:00:00:00:0b'] as const;

async function opened(emulated: VirtioNetDevice, options: VirtioNetOptions = {}): Promise<VirtioNet> {
  const { device } = await linked(emulated);
  const net = await VirtioNet.open(device, options);
  cleanup(() => net.close().catch(() => undefined));
  return net;
}

async function pair(options: VirtioNetOptions = {}, emulated: VirtioNetDeviceOptions = {}) {
  const devices = MACS.map((mac) => new VirtioNetDevice({ mac, ...emulated }));
  devices[0]!.join(devices[1]!);
  const [a, b] = await Promise.all(devices.map((device) => opened(device, options)));
  // A device that has not looked at its driver's buffers yet drops what comes.
  const count = options.receiveBuffers ?? 64;
  await until(() => devices.every(({ requestCount }) => requestCount >= count));
  return { a: a!, b: b!, devices };
}

const bytesOfMac = (mac: string) => Buffer.from(mac.replaceAll(':', ''), 'hex');

/** ICMP echo (RFC 792) in IPv4 in Ethernet; checksums are not looked at here. */
function echo(from: string, to: string, type: number, payload: Buffer): Buffer {
  const ip = Buffer.from('4500000000000000400100000a00000a0a00000b', 'hex');
  ip.writeUInt16BE(28 + payload.length, 2);
  const icmp = Buffer.from([type, 0, 0, 0, 0, 1, 0, 1]);
  return Buffer.concat([bytesOfMac(to), bytesOfMac(from), Buffer.from([8, 0]), ip, icmp, payload]);
}

const WAYS: [string, VirtioNetOptions, VirtioNetDeviceOptions][] = [
  ['split, by MSI-X', {}, {}],
  ['packed', { ring: 'packed' }, {}],
  ['by INTx', {}, { vectors: 0 }],
  ['polled', { completion: 'poll', ring: 'packed', indirect: false }, {}],
];

describe.each(WAYS)('two network devices, %s', (_name, options, emulated) => {
  test('ping each other', async () => {
    const { a, b } = await pair(options, emulated);
    expect([a.mac, b.mac, a.mtu, a.isUp]).toEqual([...MACS, 1500, true]);
    b.on('frame', (frame) => {
      if (frame[34] === 8) void b.send(echo(MACS[1], MACS[0], 0, frame.subarray(42)));
    });
    const answers: Buffer[] = [];
    a.on('frame', (frame) => answers.push(frame));
    const payloads = [1, 2, 3].map((seed) => pattern(400 * seed, seed));
    for (const payload of payloads) await a.send(echo(MACS[0], MACS[1], 8, payload));
    await until(() => answers.length === 3);
    for (const [i, frame] of answers.entries())
      expect([frame[34], frame.subarray(42).equals(payloads[i]!)]).toEqual([0, true]);
  });

  test('frames that nobody listens for wait, in order, and no more than there are buffers', async () => {
    const { a, b, devices } = await pair({ ...options, receiveBuffers: 4 }, emulated);
    for (let i = 0; i < 6; i++) await a.send(Buffer.alloc(60, i));
    await until(() => devices[1]!.droppedFrames === 2);
    const seen: number[] = [];
    b.on('frame', (frame) => seen.push(frame[0]!));
    await until(() => seen.length === 4);
    expect(seen).toEqual([0, 1, 2, 3]);
    await a.send(Buffer.alloc(60, 9));
    await until(() => seen.length === 5);
  });
});

test('the link goes, and is told of', async () => {
  const { a, devices } = await pair();
  const seen: boolean[] = [];
  a.on('link', (isUp) => seen.push(isUp));
  devices[0]!.setLink(false);
  await until(() => seen.length === 1);
  expect([seen, a.isUp]).toEqual([[false], false]);
});

test('frames that are too short or too long for the MTU are refused', async () => {
  const { a } = await pair({}, { mtu: 100 });
  expect(await errorOf(a.send(Buffer.alloc(13)))).toBeInstanceOf(RangeError);
  expect(await errorOf(a.send(Buffer.alloc(119)))).toBeInstanceOf(RangeError);
  await a.send(Buffer.alloc(118));
});

test('a device that gives a buffer back without a header is believed in nothing', async () => {
  const { a, devices } = await pair();
  devices[0]!.intercept = ({ queue }) => (queue === 0 ? 'silent' : 'pass');
  await a.reset().catch(() => undefined);
  expect(await a.closed).toBeInstanceOf(VirtioDeviceError);
  expect(await errorOf(a.send(Buffer.alloc(60)))).toBeInstanceOf(VirtioDeviceError);
});
