/** `device.writeMulti`: several small writes in one REGION_WRITE_MULTI. */
import { afterEach, expect, test } from '@jest/globals';
import { RamDevice, RamRegister, serve } from '../../lib/emulator/index.js';
import { ProtocolError, RemoteError, connect, type Device } from '../../lib/index.js';
import { Scratch } from '../cli/cli.js';
import { ScriptedDevice } from '../support/scripted-device.js';
import { words } from '../support/scripted-peer.js';

const MULTI = 15;
const WRITE = 10;
/** Regions 0 to 3 of the peer; nobody may write 1, and 3 does not exist. */
const REGIONS = { 0: { size: 64 }, 1: { size: 64, flags: 1 }, 2: { size: 4096 } };
const OFFERED = { write_multiple: true };

let peer: ScriptedDevice;
let device: Device;

async function open(capabilities: object): Promise<void> {
  peer = new ScriptedDevice({ capabilities, regions: REGIONS });
  device = await connect(peer.endpoint);
  peer.log.length = 0;
}

afterEach(async () => {
  await device.close();
  peer.close();
});

/** The peer's answer to REGION_WRITE_MULTI is this payload. */
function answerWith(payload: Buffer): void {
  peer.twist = (asked, answer) => {
    if (asked.command !== MULTI) return answer;
    const header = Buffer.from(answer.bytes.subarray(0, 16));
    header.writeUInt32LE(16 + payload.length, 4);
    header.writeUInt32LE(1, 8);
    header.writeUInt32LE(0, 12);
    return { bytes: Buffer.concat([header, payload]), fds: [] };
  };
}

const three = [
  { region: 0, offset: 4, data: Buffer.from([1, 2, 3]) },
  { region: 2, offset: 4088, data: Buffer.alloc(8, 7) },
  { region: 0, offset: 63, data: Buffer.from([9]) },
];

test('is one message, byte for byte', async () => {
  await open(OFFERED);
  answerWith(words([3n]));
  await device.writeMulti(three);
  expect(peer.log).toMatchObject([{ command: MULTI, flags: 0 }]);
  expect(peer.log[0]!.payload).toEqual(
    Buffer.concat([
      words([3n]),
      words([4n], 0, 3, 0x030201, 0),
      words([4088n], 2, 8, [0x0707070707070707n]),
      words([63n], 0, 1, 9, 0),
    ]),
  );
  expect(device.counters).toMatchObject({ inFlight: 0, queued: 0 });
});

test.each([
  ['none', [], /writes.length must be/],
  ['too many', Array.from({ length: 201 }, () => three[0]!), /writes.length must be .*200, got 201/],
  ['no data', [{ region: 0, offset: 0, data: Buffer.alloc(0) }], /data.length/],
  ['more than 8 bytes', [{ region: 0, offset: 0, data: Buffer.alloc(9) }], /data.length/],
  [
    'past the end',
    [three[0]!, { region: 0, offset: 61, data: words(1) }],
    /region 0: \[61, 65\) is out of bounds \(size 64\)/,
  ],
  ['a negative offset', [{ region: 0, offset: -4, data: words(1) }], /offset/],
  ['a region that is not writable', [{ region: 1, offset: 0, data: words(1) }], /region 1 cannot be written/],
  ['no region', [{ region: 77, offset: 0, data: words(1) }], /the device has regions 0 to/],
])('is refused before anything is sent: %s', async (_title, writes, message) => {
  await open(OFFERED);
  const { sent } = device.counters;
  const refused = device.writeMulti(writes);
  await expect(refused).rejects.toThrow(RangeError);
  await expect(refused).rejects.toThrow(message);
  expect(device.counters.sent).toBe(sent);
});

test('needs the capability', async () => {
  await open({});
  await expect(device.writeMulti(three)).rejects.toThrow(
    'REGION_WRITE_MULTI: the server does not offer the capability write_multiple',
  );
});

test('fails where not all were done, and says how many were', async () => {
  await open(OFFERED);
  answerWith(words([2n]));
  const failed = device.writeMulti(three);
  await expect(failed).rejects.toThrow(RemoteError);
  await expect(failed).rejects.toThrow('2 of 3 writes were done');
});

test.each([
  ['a count beyond all bounds', words([201n])],
  ['a cut reply', words(2)],
  ['an empty reply', Buffer.alloc(0)],
  ['a long reply', words([3n], 0)],
])('%s is a ProtocolError, and the connection goes on', async (_title, reply) => {
  await open(OFFERED);
  answerWith(reply);
  await expect(device.writeMulti(three)).rejects.toThrow(ProtocolError);
  expect(await device.region(0).readUInt32(0)).toEqual(expect.any(Number));
});

test('writes that wait for room go one by one, in their order', async () => {
  await open(OFFERED);
  await Promise.all(Array.from({ length: 500 }, (_, i) => device.region(0).writeUInt32(0, i)));
  expect(peer.log.map(({ command }) => command)).toEqual(new Array(500).fill(WRITE));
});

test('on the emulator: all arrive, and those before a refused one are done', async () => {
  await open(OFFERED);
  const scratch = new Scratch();
  const model = new RamDevice({ sharedSize: 0 });
  const server = await serve(model, { path: scratch.path('socket') });
  const ram = await connect(scratch.path('socket'));
  try {
    const data = (i: number) => ({ region: 2, offset: i * 4, data: words(i + 1) });
    await ram.writeMulti(Array.from({ length: 200 }, (_, i) => data(i)));
    for (let i = 0; i < 200; i++) expect(model.ram.readUInt32LE(i * 4)).toBe(i + 1);
    const scratchAt = (offset: number, value: number) => ({ region: 0, offset, data: words(value) });
    const four = [scratchAt(4, 1), scratchAt(4, 2), scratchAt(5, 3), scratchAt(4, 4)];
    await expect(ram.writeMulti(four)).rejects.toThrow('2 of 4 writes were done');
    expect(await ram.bar(0).readUInt32(RamRegister.SCRATCH)).toBe(2);
  } finally {
    await ram.close();
    await server.close();
    model.close();
    scratch.remove();
  }
});
