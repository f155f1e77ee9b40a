import { closeSync, fstatSync, openSync } from 'node:fs';
import { describe, expect, jest, test } from '@jest/globals';
import { ProtocolError, TransportError } from '../../lib/errors.js';
import { Framer } from '../../lib/transport/framer.js';
import type { Landing, TransportHandler } from '../../lib/transport/transport.js';
import { message } from '../support/scripted-peer.js';

interface Seen {
  bytes: string;
  fds: number[] | undefined;
  landed?: string;
}

function collect(landings: Landing[] = []) {
  const seen: Seen[] = [];
  const handler: TransportHandler = {
    onMessage: (bytes, start, end, fds) => seen.push({ bytes: bytes.toString('hex', start, end), fds }),
    findLanding: () => landings.shift(),
    onLanded: (bytes, start, landing, fds) => {
      const landed = landing.target === undefined ? 'gone' : Buffer.from(landing.target).toString('hex');
      seen.push({ bytes: bytes.toString('hex', start, start + 32), fds, landed });
    },
    onWritable: () => undefined,
    onEnd: () => undefined,
  };
  return { seen, framer: new Framer(handler) };
}

function counted(length: number, seed = 0): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => (i * 7 + seed) & 0xff));
}

function anFd(): number {
  return openSync('/dev/null', 'r');
}

function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
}

const SIZES = [0, 1, 15, 16, 17, 48, 200];

describe('messages at every boundary', () => {
  test.each(SIZES)('a message with %i bytes of payload, cut in two anywhere, is one message', (size) => {
    const first = message(1, 9, 1, 0, counted(size));
    const second = message(2, 10, 1, 0, counted(3, 5));
    const stream = Buffer.concat([first, second]);
    for (let cut = 0; cut <= stream.length; cut++) {
      const { seen, framer } = collect();
      if (cut > 0) framer.push(Buffer.from(stream.subarray(0, cut)), 0, cut, undefined);
      if (cut < stream.length)
        framer.push(Buffer.from(stream.subarray(cut)), 0, stream.length - cut, undefined);
      expect(seen.map(({ bytes }) => bytes)).toEqual([first.toString('hex'), second.toString('hex')]);
      expect(framer.inMessage).toBe(false);
    }
  });

  test('single bytes make whole messages', () => {
    const stream = Buffer.concat(SIZES.map((size, i) => message(i, 9, 1, 0, counted(size, i))));
    const { seen, framer } = collect();
    for (const byte of stream) framer.push(Buffer.from([byte]), 0, 1, undefined);
    expect(seen.map(({ bytes }) => bytes).join('')).toBe(stream.toString('hex'));
    expect(seen).toHaveLength(SIZES.length);
  });

  test('many messages in one chunk come one by one, in order', () => {
    const messages = SIZES.map((size, i) => message(i, 9, 1, 0, counted(size, i)));
    const chunk = Buffer.concat([Buffer.alloc(5), ...messages]);
    const { seen, framer } = collect();
    framer.push(chunk, 5, chunk.length, undefined);
    expect(seen.map(({ bytes }) => bytes)).toEqual(messages.map((m) => m.toString('hex')));
  });
});

describe('landings', () => {
  const whole = message(1, 9, 1, 0, counted(16 + 100));
  const data = whole.subarray(32).toString('hex');

  test.each([33, 40, 100, whole.length - 1])(
    'the data of a message cut at %i goes to the memory that was lent',
    (cut) => {
      const { seen, framer } = collect([{ target: new Uint8Array(100) }]);
      framer.push(Buffer.from(whole.subarray(0, cut)), 0, cut, undefined);
      const direct = framer.direct()!;
      const rest = whole.subarray(cut);
      expect(framer.missing).toBe(rest.length);
      direct.set(rest, framer.directOffset);
      framer.advance(rest.length, undefined);
      expect(seen).toEqual([{ bytes: whole.toString('hex', 0, 32), fds: undefined, landed: data }]);
    },
  );

  test('a message cut inside its prefix finds a landing when the prefix is whole', () => {
    for (let cut = 1; cut < 32; cut++) {
      const { seen, framer } = collect([{ target: new Uint8Array(100) }]);
      framer.push(Buffer.from(whole.subarray(0, cut)), 0, cut, undefined);
      framer.push(Buffer.from(whole.subarray(cut)), 0, whole.length - cut, undefined);
      expect(seen[0]!.landed).toBe(data);
    }
  });

  test('a landing that is taken back swallows the rest', () => {
    const landing: Landing = { target: new Uint8Array(100) };
    const { seen, framer } = collect([landing]);
    framer.push(Buffer.from(whole.subarray(0, 50)), 0, 50, undefined);
    landing.target = undefined;
    expect(framer.direct()).toBeUndefined();
    framer.push(Buffer.from(whole.subarray(50)), 0, whole.length - 50, undefined);
    expect(seen[0]!.landed).toBe('gone');
  });

  test('a landing of another length is not used', () => {
    const { seen, framer } = collect([{ target: new Uint8Array(99) }]);
    framer.push(Buffer.from(whole.subarray(0, 50)), 0, 50, undefined);
    framer.push(Buffer.from(whole.subarray(50)), 0, whole.length - 50, undefined);
    expect(seen).toEqual([{ bytes: whole.toString('hex'), fds: undefined }]);
  });
});

describe('file descriptors', () => {
  test('belong to the last message begun in their chunk', () => {
    const fds = [anFd(), anFd()];
    const first = message(1, 5, 1, 0, counted(8));
    const second = message(2, 5, 1, 0, counted(8));
    const { seen, framer } = collect();
    const chunk = Buffer.concat([first, second]);
    framer.push(chunk, 0, chunk.length, fds);
    expect(seen.map((m) => m.fds)).toEqual([undefined, fds]);
    fds.forEach((fd) => closeSync(fd));
  });

  test('stay with a message whose rest comes later', () => {
    const fds = [anFd()];
    const first = message(1, 5, 1, 0, counted(8));
    const second = message(2, 5, 1, 0, counted(80));
    const chunk = Buffer.concat([first, second.subarray(0, 20)]);
    const { seen, framer } = collect();
    framer.push(chunk, 0, chunk.length, fds);
    framer.push(Buffer.from(second.subarray(20)), 0, second.length - 20, undefined);
    expect(seen.map((m) => m.fds)).toEqual([undefined, fds]);
    closeSync(fds[0]!);
  });

  test('of a message that never ends are closed', () => {
    const fds = [anFd()];
    const { framer } = collect();
    framer.push(message(1, 5, 1, 0, counted(8)).subarray(0, 10), 0, 10, fds);
    framer.stop();
    expect(isOpen(fds[0]!)).toBe(false);
  });

  test('that come with a broken header are closed when sorting stops', () => {
    const fds = [anFd()];
    const { framer } = collect();
    const broken = message(1, 5, 1, 0, counted(8));
    broken.writeUInt32LE(3, 4);
    expect(() => framer.push(broken, 0, broken.length, fds)).toThrow(ProtocolError);
    framer.stop();
    expect(isOpen(fds[0]!)).toBe(false);
  });

  test('beyond what a message may bring break the stream', () => {
    const { framer } = collect();
    const piece = message(1, 5, 1, 0, counted(8)).subarray(0, 10);
    const fds = Array.from({ length: 65 }, anFd);
    expect(() => framer.push(piece, 0, piece.length, fds)).toThrow(/file descriptors/);
    framer.stop();
    expect(fds.some(isOpen)).toBe(false);
  });
});

describe('sizes that break the stream', () => {
  test.each([0, 1, 8, 15, (1 << 20) + 4097, 2 ** 31, 2 ** 32 - 1])('msg_size %i', (size) => {
    const header = message(1, 9, 1, 0, Buffer.alloc(0));
    header.writeUInt32LE(size, 4);
    const inOne = collect();
    expect(() => inOne.framer.push(header, 0, 16, undefined)).toThrow(ProtocolError);
    const inPieces = collect();
    inPieces.framer.push(header, 0, 7, undefined);
    expect(() => inPieces.framer.push(header, 7, 16, undefined)).toThrow(ProtocolError);
    expect(inPieces.seen).toEqual([]);
  });
});

test('nothing is handed over after stop, also in the middle of a chunk', () => {
  const two = Buffer.concat([message(1, 9, 1, 0, counted(4)), message(2, 9, 1, 0, counted(4))]);
  const ids: number[] = [];
  const framer: Framer = new Framer({
    onMessage: (bytes, start) => {
      ids.push(bytes.readUInt16LE(start));
      framer.stop();
    },
    findLanding: () => undefined,
    onLanded: () => undefined,
    onWritable: () => undefined,
    onEnd: () => undefined,
  });
  framer.push(two, 0, two.length, undefined);
  expect(ids).toEqual([1]);
});

describe('a handler that wants no more for now', () => {
  function collectPausing(after: number) {
    const got: { id: number; fds: number[] | undefined }[] = [];
    const framer: Framer = new Framer({
      onMessage: (bytes, start, _end, fds) => {
        got.push({ id: bytes.readUInt16LE(start), fds });
        if (got.length % after === 0) framer.pause();
      },
      findLanding: () => undefined,
      onLanded: () => undefined,
      onWritable: () => undefined,
      onEnd: () => undefined,
    });
    return { got, framer };
  }

  test.each([1, 2, 3, 5])('gets %i at a time, each of them once, with the fds of the last', (after) => {
    const messages = [1, 2, 3, 4, 5].map((id) => message(id, 9, 1, 0, counted(id * 10)));
    const chunk = Buffer.concat(messages);
    const fd = anFd();
    const { got, framer } = collectPausing(after);
    framer.push(chunk, 0, chunk.length, [fd]);
    chunk.fill(0xff);
    expect(got).toHaveLength(after);
    for (let turns = 0; got.length < 5 && turns < 5; turns++) framer.resume();
    expect(got.map(({ id }) => id)).toEqual([1, 2, 3, 4, 5]);
    expect(got.map(({ fds }) => fds)).toEqual([undefined, undefined, undefined, undefined, [fd]]);
    framer.resume();
    expect(got).toHaveLength(5);
    closeSync(fd);
  });

  test('a message that is cut goes on after it', () => {
    const { got, framer } = collectPausing(1);
    const second = message(2, 9, 1, 0, counted(100));
    const chunk = Buffer.concat([message(1, 9, 1, 0, counted(4)), second.subarray(0, 50)]);
    framer.push(chunk, 0, chunk.length, undefined);
    framer.resume();
    expect(got).toHaveLength(1);
    expect(framer.inMessage).toBe(true);
    framer.push(Buffer.from(second.subarray(50)), 0, second.length - 50, undefined);
    expect(got.map(({ id }) => id)).toEqual([1, 2]);
  });

  test('ended meanwhile, it gets nothing, and the fds are closed', () => {
    const { got, framer } = collectPausing(1);
    const chunk = Buffer.concat([1, 2].map((id) => message(id, 9, 1, 0, counted(4))));
    const fd = anFd();
    framer.push(chunk, 0, chunk.length, [fd]);
    framer.stop();
    framer.resume();
    expect(got).toHaveLength(1);
    expect(isOpen(fd)).toBe(false);
  });
});

test('a message that there is no memory for is an error by name', () => {
  const { seen, framer } = collect();
  const bytes = message(1, 9, 1, 0, counted(1 << 20));
  // Memory for one message cannot be made to run out and leave some for the rest of the process.
  const allocate = jest.spyOn(Buffer, 'allocUnsafeSlow').mockImplementation(() => {
    throw new RangeError('Array buffer allocation failed');
  });
  try {
    expect(() => framer.push(bytes, 0, 1000, undefined)).toThrow(TransportError);
  } finally {
    allocate.mockRestore();
  }
  expect(seen).toEqual([]);
});
