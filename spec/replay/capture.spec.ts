import { describe, expect, test } from '@jest/globals';
import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { CaptureError, RECORDABLE, replay } from '../../lib/replay/index.js';
import { RawClient } from '../emulator/raw-client.js';
import * as w from '../support/wire.js';
import { file, handshake, read, record, type Line } from './recordings.js';

async function refusal(lines: readonly Line[]): Promise<string> {
  return refusalOf(await record(lines));
}

async function refusalOf(...paths: string[]): Promise<string> {
  const error = await replay(paths).then(
    (server) => server.close().then(() => new Error('it was accepted')),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(CaptureError);
  expect(error).toMatchObject({ code: 'ERR_VFIO_USER_CAPTURE' });
  return (error as Error).message;
}

describe('a capture is refused by name', () => {
  test('that is none, is empty or is not there', async () => {
    writeFileSync(file(), 'this is no capture at all');
    expect(await refusalOf(file())).toContain('not a pcapng file');
    expect(await refusal([])).toBe('there are no messages in the capture');
    await expect(replay(file('none'))).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(replay([])).rejects.toThrow(TypeError);
  });

  test('that was cut, at any byte', async () => {
    const whole = await record([...handshake(), ...read(2, 0, 1)]);
    const { length } = readFileSync(whole);
    for (let cut = 1; cut < 60; cut++) {
      truncateSync(whole, length - cut);
      expect(await refusalOf(whole)).toMatch(/was cut: its last \d+ bytes are not a whole block/);
    }
    appendFileSync(whole, Buffer.alloc(100));
    expect(await refusalOf(whole)).toContain('(in the block at ');
  });

  test('whose messages were cut by a snap length, and says how to record', async () => {
    const [ask, answer] = read(2, 0, 1) as [Line, Line];
    const cut = { received: answer.received!.subarray(0, 34), size: 36 };
    expect(await refusal([...handshake(), ask, cut])).toMatch(
      /^message 4 was not captured whole: 34 of 36 bytes. Record without a snap length/,
    );
  });

  test('whose messages contradict their headers', async () => {
    const long = w.regionReadRequest({ count: 4 }, { size: 40 });
    expect(await refusal([...handshake(), { sent: long, size: long.length }])).toBe(
      'message 3 (REGION_READ) has 32 bytes, its header says 40',
    );
    const typed = w.regionReadRequest({ count: 4 }, { flags: 2 });
    expect(await refusal([...handshake(), { sent: typed }])).toContain(
      'message 3: REGION_READ header: the message type',
    );
    expect(await refusal([...handshake(), { sent: Buffer.alloc(7) }])).toContain('message 3 has 7 bytes');
  });

  test('with replies that answer nothing', async () => {
    const [, answer] = read(9, 0, 1) as [Line, Line];
    expect(await refusal([...handshake(), answer])).toBe(
      'message 3 is a reply with id 9, and the client asked nothing with that id before it',
    );
    const reply = { sent: w.dmaReadReply({ data: [1] }, { id: 3 }) };
    expect(await refusal([...handshake(), reply])).toContain('the server asked nothing with that id');
    const [ask] = read(9, 0, 1) as [Line, Line];
    expect(await refusal([...handshake(), ask, answer, answer])).toContain('message 5 is a reply');
  });

  test('that begins in the middle of a connection', async () => {
    expect(await refusal(read(2, 0, 1))).toMatch(
      /^the connection on dev begins with message 1.*the oldest first$/,
    );
  });
});

describe('which recording is played', () => {
  async function answered(paths: string | string[], connection?: number | string): Promise<number> {
    await using server = await replay(paths, { connection });
    const client = RawClient.connect(server.path);
    await client.negotiate();
    const value = await client.read32(0, 0);
    client.close();
    await server.assertComplete();
    return value;
  }

  test('the files of a rotated capture are one recording', async () => {
    const [ask, answer] = read(2, 0, 7) as [Line, Line];
    const first = await record([...handshake(), ask], 'dev.pcapng.1');
    const second = await record([answer]);
    expect(await answered([first, second])).toBe(7);
  });

  test('of several connections the first, or the one that is named', async () => {
    const lines = (socket: string, value: number) =>
      [...handshake(), ...read(2, 0, value)].map((line) => ({ ...line, socket }));
    const path = await record([...lines('a', 1), ...lines('b', 2), ...lines('a', 3)]);
    expect(await answered(path)).toBe(1);
    expect(await answered(path, 'b')).toBe(2);
    expect(await answered(path, 3)).toBe(3);
    await expect(replay(path, { connection: 4 })).rejects.toThrow(
      new RangeError('the capture has no connection 4; it has 1 a, 2 b, 3 a'),
    );
  });

  test('captured at the server, it is the same', async () => {
    const turned = [...handshake(), ...read(2, 0, 5)].map(({ sent, received }) =>
      sent === undefined ? { sent: received! } : { received: sent },
    );
    expect(await answered(await record(turned))).toBe(5);
  });
});

test('options that make no sense are refused', async () => {
  const path = await record([...handshake()]);
  const wrong = [
    { mode: 'any' },
    { afterDifference: 'stop' },
    { timing: 'slow' },
    { mappings: 'real' },
    { ignore: ['DMA_READ'] },
    { ignore: ['DMA.data'] },
    { repeatLast: true },
  ];
  for (const options of wrong) await expect(replay(path, options as object)).rejects.toThrow(TypeError);
  await expect(replay(path, { errno: 0 })).rejects.toThrow(RangeError);
  await expect(replay(path, { answerTimeoutMs: -1 })).rejects.toThrow(RangeError);
  await expect(replay(path, { path: '' })).rejects.toThrow(TypeError);
  expect(RECORDABLE).toEqual({ mmap: 'never', secureDma: true });
});
