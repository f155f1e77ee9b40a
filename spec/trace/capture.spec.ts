import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { VfioUserError } from '../../lib/errors.js';
import {
  CaptureError,
  CaptureReader,
  CaptureWriter,
  type CaptureOptions,
  type TracedMessage,
} from '../../lib/trace/index.js';
import { message, reply as replyTo, request as requestFor, wire, type Wire } from '../support/wire.js';
import { MESSAGES } from './samples.js';

let directory: string;
let file: string;

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));
  file = path.join(directory, 'dev.pcapng');
});

afterEach(() => rmSync(directory, { recursive: true }));

async function write(
  messages: readonly TracedMessage[],
  options: Partial<CaptureOptions> = {},
): Promise<void> {
  const writer = await CaptureWriter.open({ path: file, ...options });
  for (const message of messages) writer.write(message);
  writer.close();
}

async function read(from = file): Promise<TracedMessage[]> {
  const messages: TracedMessage[] = [];
  for await (const message of new CaptureReader(from)) messages.push(message);
  return messages;
}

async function readBytes(bytes: Uint8Array): Promise<TracedMessage[]> {
  writeFileSync(file, bytes);
  return read();
}

describe('what is captured', () => {
  test('is read back as it was', async () => {
    await write(MESSAGES);
    expect(await read()).toEqual(MESSAGES);
  });

  test('can be read at any time while it is written', async () => {
    const writer = await CaptureWriter.open({ path: file });
    expect(await read()).toEqual([]);
    for (const [i, message] of MESSAGES.entries()) {
      writer.write(message);
      if (i % 10 === 0) expect(await read()).toEqual(MESSAGES.slice(0, i + 1));
    }
    writer.close();
  });

  test('of any length, on any number of sockets', async () => {
    const messages = [0, 1, 2, 3, 4, 65_535, 65_536, 1 << 20].map((length, i): TracedMessage => {
      const bytes = Buffer.alloc(length, i + 1);
      return {
        socket: `socket ${i % 3} ünïcode`,
        direction: 'received',
        time: BigInt(i),
        bytes,
        size: length,
        fds: [],
      };
    });
    await write(messages);
    expect(await read()).toEqual(messages);
  });

  test('keeps how long a message was of which not all is there', async () => {
    const cut = { ...MESSAGES[0]!, bytes: MESSAGES[0]!.bytes.subarray(0, 32) };
    await write([cut]);
    expect(await read()).toEqual([cut]);
  });

  test('is for its owner only, and replaces what was there', async () => {
    await write(MESSAGES);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    await write(MESSAGES.slice(0, 1));
    expect(await read()).toHaveLength(1);
  });

  test('is for its owner only, too, where everybody could read what was there', async () => {
    writeFileSync(file, 'before');
    chmodSync(file, 0o666);
    await write(MESSAGES);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readdirSync(directory)).toEqual(['dev.pcapng']);
  });

  test('goes where a link leads, and its old files lie there', async () => {
    mkdirSync(path.join(directory, 'elsewhere'));
    const real = path.join(directory, 'elsewhere/real');
    writeFileSync(real, 'before');
    symlinkSync('elsewhere/real', file);
    await write(Array.from({ length: 5 }, () => MESSAGES).flat(), { rotateBytes: 8192, rotateFiles: 1 });
    expect(readdirSync(directory).sort()).toEqual(['dev.pcapng', 'elsewhere']);
    expect(readdirSync(path.dirname(real)).sort()).toEqual(['real', 'real.1']);
  });

  test('has its file for itself', async () => {
    const writer = await CaptureWriter.open({ path: file });
    symlinkSync('dev.pcapng', path.join(directory, 'link'));
    for (const name of [file, path.relative('.', file), path.join(directory, 'link')]) {
      await expect(CaptureWriter.open({ path: name })).rejects.toMatchObject({
        code: 'EBUSY',
        message: `another capture goes to ${file}: each needs a file of its own`,
      });
    }
    writer.write(MESSAGES[0]!);
    writer.close();
    expect(await read()).toEqual([MESSAGES[0]]);
    const next = await CaptureWriter.open({ path: file });
    // What is closed once more gives nothing back.
    writer.close();
    await expect(CaptureWriter.open({ path: file })).rejects.toMatchObject({ code: 'EBUSY' });
    next.close();
  });

  test('to a device may go beside another', async () => {
    const writers = [
      await CaptureWriter.open({ path: '/dev/null' }),
      await CaptureWriter.open({ path: '/dev/null' }),
    ];
    for (const writer of writers) writer.close();
  });

  test('does not go on in a file that another program has put there', async () => {
    const writer = await CaptureWriter.open({ path: file, rotateBytes: 4096 });
    writer.write(MESSAGES[0]!);
    rmSync(file);
    writeFileSync(file, 'theirs');
    expect(writer.isLost).toBe(true);
    expect(() => {
      for (let i = 0; i < 1000; i++) writer.write(MESSAGES[0]!);
    }).toThrow(`${file} was removed or replaced`);
    writer.close();
    expect(readFileSync(file, 'utf8')).toBe('theirs');
    expect(readdirSync(directory)).toEqual(['dev.pcapng']);
  });

  test('is nothing more after the writer was closed', async () => {
    const writer = await CaptureWriter.open({ path: file });
    writer.write(MESSAGES[0]!);
    writer.close();
    writer.close();
    writer.write(MESSAGES[1]!);
    expect(await read()).toEqual([MESSAGES[0]]);
  });

  test.each([
    [{ path: '' }, TypeError],
    [{ rotateBytes: 100 }, RangeError],
    [{ rotateBytes: 4096.5 }, RangeError],
    [{ rotateFiles: -1 }, RangeError],
    [{ path: '/dev/null', rotateBytes: 4096 }, TypeError],
  ])('refuses %p', async (options, error) => {
    await expect(CaptureWriter.open({ path: file, ...options })).rejects.toBeInstanceOf(error);
  });

  test('and a directory that is not there is an error of the file system', async () => {
    await expect(CaptureWriter.open({ path: path.join(directory, 'no/dev') })).rejects.toMatchObject({
      code: 'ENOENT',
    });
  });
});

describe('a capture that is rotated', () => {
  const many = Array.from({ length: 5 }, () => MESSAGES).flat();

  test('goes on in a new file when it is full, oldest in the file of the highest number', async () => {
    await write(many, { rotateBytes: 8192, rotateFiles: 100 });
    const numbers = readdirSync(directory).map((name) => Number(/\.(\d+)$/.exec(name)?.[1] ?? 0));
    const oldest = Math.max(...numbers);
    expect(oldest).toBeGreaterThan(2);
    const messages: TracedMessage[] = [];
    for (let n = oldest; n >= 0; n--) {
      const name = n === 0 ? file : `${file}.${n}`;
      expect(statSync(name).size).toBeLessThanOrEqual(8192);
      messages.push(...(await read(name)));
    }
    expect(messages).toEqual(many);
  });

  test('keeps as many files as it was told', async () => {
    await write(many, { rotateBytes: 4096, rotateFiles: 2 });
    expect(readdirSync(directory).sort()).toEqual(['dev.pcapng', 'dev.pcapng.1', 'dev.pcapng.2']);
    const newest = [...(await read(`${file}.1`)), ...(await read())];
    expect(newest).toEqual(many.slice(-newest.length));
    await write(many, { rotateBytes: 4096, rotateFiles: 0 });
    expect(await read()).toEqual(many.slice(-(await read()).length));
  });

  test('has a message that is longer than a file in a file of its own', async () => {
    const long = { ...MESSAGES[0]!, bytes: Buffer.alloc(10_000), size: 10_000 };
    await write([MESSAGES[0]!, long, MESSAGES[1]!], { rotateBytes: 4096 });
    expect(await read(`${file}.1`)).toEqual([long]);
    expect(await read()).toEqual([MESSAGES[1]]);
  });
});

/** pcapng by hand, in either byte order. */
class Pcapng {
  readonly #blocks: Buffer[] = [];
  readonly #big: boolean;

  constructor(big = false) {
    this.#big = big;
  }

  u16(value: number): Buffer {
    return this.#order(wire().u16(value));
  }

  u32(value: number): Buffer {
    return this.#order(wire().u32(value));
  }

  option(code: number, value: Uint8Array): Buffer {
    return Buffer.concat([this.u16(code), this.u16(value.length), value, Buffer.alloc(-value.length & 3)]);
  }

  block(type: number, ...body: Uint8Array[]): this {
    const length = 12 + body.reduce((sum, part) => sum + part.length, 0);
    this.#blocks.push(
      this.u32(type),
      this.u32(length),
      ...body.map((part) => Buffer.from(part)),
      this.u32(length),
    );
    return this;
  }

  section(major = 1): this {
    return this.block(0x0a0d0d0a, this.u32(0x1a2b3c4d), this.u16(major), this.u16(0), Buffer.alloc(8, 0xff));
  }

  socket(link = 252, ...options: Uint8Array[]): this {
    return this.block(1, this.u16(link), this.u16(0), this.u32(0), ...options);
  }

  packet(interfaceId: number, time: bigint, data: Buffer, ...options: Uint8Array[]): this {
    const [high, low] = [Number(time >> 32n), Number(time & 0xffff_ffffn)];
    const head = [interfaceId, high, low, data.length, data.length].map((value) => this.u32(value));
    return this.block(6, ...head, data, Buffer.alloc(-data.length & 3), ...options);
  }

  bytes(): Buffer {
    return Buffer.concat(this.#blocks);
  }

  #order(bytes: Wire): Buffer {
    const built = bytes.build();
    return this.#big ? built.reverse() : built;
  }
}

/** A message as a packet's data: for which dissector, then its bytes. */
function pdu(bytes: Uint8Array, dissector = 'vfio_user'): Buffer {
  const name = Buffer.from(dissector.padEnd((dissector.length + 3) & ~3, '\0'));
  return Buffer.concat([Buffer.of(0, 12, 0, name.length), name, Buffer.alloc(4), bytes]);
}

describe('a capture of somebody else', () => {
  const bytes = Buffer.from([1, 2, 3, 4, 5]);

  test.each([
    ['little', false],
    ['big', true],
  ])('is read in %s-endian order', async (_name, big) => {
    const p = new Pcapng(big);
    const made = p
      .section()
      .socket(252, p.option(2, Buffer.from('name')), p.option(9, Buffer.of(9)), p.option(0, Buffer.alloc(0)))
      .block(0x0bad, Buffer.alloc(8))
      .packet(0, 0x1_0000_0005n, pdu(bytes), p.option(2, p.u32(1)), p.option(1, Buffer.from('fds: 3,44')))
      .bytes();
    expect(await readBytes(made)).toEqual([
      { socket: 'name', direction: 'received', time: 0x1_0000_0005n, bytes, size: 5, fds: [3, 44] },
    ]);
  });

  test.each([
    ['microseconds where nothing is said', [], 7n, 7_000n],
    ['milliseconds', [[9, [3]]], 7n, 7_000_000n],
    ['picoseconds', [[9, [12]]], 7_000n, 7n],
    ['binary fractions', [[9, [0x80 + 10]]], 512n, 500_000_000n],
    ['an offset in seconds', [[14, [2, 0, 0, 0, 0, 0, 0, 0]]], 1n, 2_000_001_000n],
  ] as [string, [number, number[]][], bigint, bigint][])(
    'has its times in %s',
    async (_name, options, stamp, time) => {
      const p = new Pcapng().section();
      p.socket(252, ...options.map(([code, value]) => p.option(code, Buffer.from(value))));
      const [message] = await readBytes(p.packet(0, stamp, pdu(bytes)).bytes());
      expect(message).toMatchObject({ time, socket: 'interface 0', direction: 'sent', fds: [] });
    },
  );

  test('may have packets of other protocols, which are passed over', async () => {
    const p = new Pcapng().section().socket(1).socket();
    p.packet(0, 0n, Buffer.alloc(60)).packet(1, 0n, pdu(bytes, 'http')).packet(1, 0n, Buffer.alloc(3));
    writeFileSync(file, p.packet(1, 0n, pdu(bytes)).bytes());
    const reader = new CaptureReader(file);
    const messages: TracedMessage[] = [];
    for await (const message of reader) messages.push(message);
    expect(messages).toHaveLength(1);
    expect(reader.skipped).toBe(3);
  });

  test("may have people's comments", async () => {
    const p = new Pcapng().section().socket();
    const comments = ['fds: 3,x', 'here it hangs', 'fds: ', `fds: ${'1,'.repeat(2_000)}1`];
    p.packet(0, 0n, pdu(bytes), ...comments.map((text) => p.option(1, Buffer.from(text))));
    expect((await readBytes(p.bytes()))[0]!.fds).toEqual([]);
  });

  test('may be several sections, each with its own sockets', async () => {
    const little = new Pcapng().section().socket();
    const big = new Pcapng(true).section();
    big.socket(252, big.option(2, Buffer.from('other')));
    const both = [little.packet(0, 1n, pdu(bytes)).bytes(), big.packet(0, 2n, pdu(bytes)).bytes()];
    const messages = await readBytes(Buffer.concat(both));
    expect(messages.map(({ socket }) => socket)).toEqual(['interface 0', 'other']);
  });

  test('may end in the middle of a block', async () => {
    const whole = new Pcapng().section().socket().packet(0, 0n, pdu(bytes)).bytes();
    const more = new Pcapng().packet(0, 0n, pdu(bytes)).bytes();
    for (let length = 0; length < more.length; length++) {
      writeFileSync(file, Buffer.concat([whole, more.subarray(0, length)]));
      const reader = new CaptureReader(file);
      const messages: TracedMessage[] = [];
      for await (const message of reader) messages.push(message);
      expect(messages).toHaveLength(1);
      expect(reader.cutBytes).toBe(length);
    }
  });
});

/** Classic pcap by hand: a file header, then packets. */
function pcapHeader({ big = false, magic = 0xa1b2c3d4, linkType = 252 } = {}): Buffer {
  const order = (bytes: Wire) => (big ? bytes.build().reverse() : bytes.build());
  const version = [2, 4].map((value) => order(wire().u16(value)));
  const rest = [0, 0, 0xffff, linkType].map((value) => order(wire().u32(value)));
  return Buffer.concat([order(wire().u32(magic)), ...version, ...rest]);
}

function pcapPacket(
  seconds: number,
  fraction: number,
  data: Buffer,
  { big = false, size = data.length } = {},
): Buffer {
  const words = [seconds, fraction, data.length, size].map((value) => wire().u32(value).build());
  return Buffer.concat([...words.map((word) => (big ? word.reverse() : word)), data]);
}

async function readStream(...chunks: Uint8Array[]): Promise<TracedMessage[]> {
  const messages: TracedMessage[] = [];
  for await (const message of new CaptureReader(Readable.from(chunks))) messages.push(message);
  return messages;
}

describe('classic pcap', () => {
  const request = requestFor(9, Buffer.alloc(16));
  const reply = replyTo(9, Buffer.alloc(20));

  test.each([
    ['little-endian microseconds', false, 0xa1b2c3d4, 5_000_007_000n],
    ['big-endian microseconds', true, 0xa1b2c3d4, 5_000_007_000n],
    ['little-endian nanoseconds', false, 0xa1b23c4d, 5_000_000_007n],
    ['big-endian nanoseconds', true, 0xa1b23c4d, 5_000_000_007n],
  ])('of %s', async (_, big, magic, time) => {
    const header = pcapHeader({ big, magic });
    expect(header.subarray(0, 4).toString('hex')).toBe(
      big ? magic.toString(16) : Buffer.from(magic.toString(16), 'hex').reverse().toString('hex'),
    );
    const packets = [request, reply].map((bytes) => pcapPacket(5, 7, pdu(bytes), { big }));
    const shared = { socket: 'interface 0', time, fds: [] };
    expect(await readBytes(Buffer.concat([header, ...packets]))).toEqual([
      { ...shared, direction: 'sent', bytes: request, size: request.length },
      { ...shared, direction: 'received', bytes: reply, size: reply.length },
    ]);
  });

  test('of another link type has packets of other protocols only', async () => {
    writeFileSync(file, Buffer.concat([pcapHeader({ linkType: 1 }), pcapPacket(0, 0, pdu(request))]));
    const reader = new CaptureReader(file);
    for await (const _ of reader) throw new Error('a message');
    expect(reader.skipped).toBe(1);
  });

  test('says how long a message was of which not all is there', async () => {
    const cut = pdu(request).subarray(0, -4);
    const bytes = Buffer.concat([pcapHeader(), pcapPacket(0, 0, cut, { size: cut.length + 4 })]);
    expect(await readBytes(bytes)).toMatchObject([{ bytes: request.subarray(0, -4), size: request.length }]);
  });

  test('may end anywhere', async () => {
    const whole = Buffer.concat([pcapHeader(), pcapPacket(0, 0, pdu(request))]);
    const more = pcapPacket(1, 0, pdu(reply));
    for (let length = 0; length < more.length; length += 5) {
      writeFileSync(file, Buffer.concat([whole, more.subarray(0, length)]));
      const reader = new CaptureReader(file);
      const messages: TracedMessage[] = [];
      for await (const read of reader) messages.push(read);
      expect([messages.length, reader.cutBytes]).toEqual([1, length]);
    }
  });
});

describe('a direction that is not said', () => {
  test.each([
    ["a client's request", 9, 0, 'sent'],
    ['the reply to it', 9, 1, 'received'],
    ["a server's DMA_READ", 11, 0, 'received'],
    ['the reply to it', 11, 1, 'sent'],
    ["a server's DMA_WRITE", 12, 0x10, 'received'],
    ['a reply that is an error', 12, 0x21, 'sent'],
  ])('of %s follows from the message', async (_, command, flags, direction) => {
    const bytes = message(command, flags, Buffer.alloc(0));
    const p = new Pcapng().section().socket().packet(0, 0n, pdu(bytes));
    expect(await readBytes(p.bytes())).toMatchObject([{ direction }]);
  });

  test('is taken from the flags where they say it', async () => {
    const bytes = requestFor(9, Buffer.alloc(0));
    const p = new Pcapng();
    p.section()
      .socket()
      .packet(0, 0n, pdu(bytes), p.option(2, p.u32(1)));
    expect(await readBytes(p.bytes())).toMatchObject([{ direction: 'received' }]);
  });
});

describe('other packets of pcapng', () => {
  const bytes = requestFor(9, Buffer.alloc(16));

  test.each([
    ['little', false],
    ['big', true],
  ])('simple ones, which have no time, in %s-endian order', async (_, big) => {
    const p = new Pcapng(big);
    const data = pdu(bytes);
    p.section().socket(252, p.option(2, Buffer.from('name')));
    p.block(3, p.u32(data.length), data, Buffer.alloc(-data.length & 3)).block(
      3,
      p.u32(4),
      Buffer.from('abcd'),
    );
    writeFileSync(file, p.bytes());
    const reader = new CaptureReader(file);
    const messages: TracedMessage[] = [];
    for await (const read of reader) messages.push(read);
    expect(messages).toEqual([
      { socket: 'name', direction: 'sent', time: 0n, bytes, size: bytes.length, fds: [] },
    ]);
    expect(reader.skipped).toBe(1);
  });

  test('a simple one that was cut to what the interface captures', async () => {
    const p = new Pcapng();
    const data = pdu(bytes);
    p.section().block(1, p.u16(252), p.u16(0), p.u32(data.length - 8));
    p.block(3, p.u32(data.length), data.subarray(0, -8));
    expect(await readBytes(p.bytes())).toMatchObject([{ bytes: bytes.subarray(0, -8), size: bytes.length }]);
  });

  test('those of before there were enhanced ones', async () => {
    const p = new Pcapng();
    const data = pdu(bytes);
    p.section().socket(252, p.option(9, Buffer.of(9)));
    const head = [0, 7, data.length, data.length].map((value) => p.u32(value));
    p.block(2, p.u16(0), p.u16(0xffff), ...head, data, Buffer.alloc(-data.length & 3), p.option(2, p.u32(1)));
    expect(await readBytes(p.bytes())).toEqual([
      { socket: 'interface 0', direction: 'received', time: 7n, bytes, size: bytes.length, fds: [] },
    ]);
  });
});

describe('a compressed capture', () => {
  test('is read as what it holds', async () => {
    await write(MESSAGES);
    const sound = readFileSync(file);
    expect(await readBytes(gzipSync(sound))).toEqual(MESSAGES);
    // As `cat a.gz b.gz` makes it.
    const both = await readBytes(Buffer.concat([gzipSync(sound), gzipSync(sound)]));
    expect(both).toEqual([...MESSAGES, ...MESSAGES]);
    const pcap = Buffer.concat([pcapHeader(), pcapPacket(0, 0, pdu(MESSAGES[0]!.bytes))]);
    expect(await readBytes(gzipSync(pcap))).toMatchObject([{ bytes: MESSAGES[0]!.bytes }]);
  });

  test('that was cut gives what is whole, then an error', async () => {
    await write(Array.from({ length: 50 }, () => MESSAGES).flat());
    const compressed = gzipSync(readFileSync(file), { level: 1 });
    for (const length of [20, compressed.length >> 1, compressed.length - 9, compressed.length - 1]) {
      writeFileSync(file, compressed.subarray(0, length));
      let count = 0;
      const reading = (async () => {
        for await (const _ of new CaptureReader(file)) count++;
      })();
      await expect(reading).rejects.toMatchObject({
        code: 'ERR_VFIO_USER_CAPTURE',
        message: expect.stringMatching(/damaged, or ends early/),
      });
      if (length > compressed.length / 2) expect(count).toBe(50 * MESSAGES.length);
    }
  });
});

describe('a capture that comes as a stream', () => {
  test('in pieces of any length', async () => {
    await write(MESSAGES);
    const sound = readFileSync(file);
    for (const bytes of [sound, gzipSync(sound)]) {
      const pieces = Array.from(bytes, (_, i) => bytes.subarray(i, i + 1));
      expect(await readStream(...pieces)).toEqual(MESSAGES);
      expect(await readStream(bytes)).toEqual(MESSAGES);
    }
    await expect(readStream()).rejects.toThrow(/empty/);
  });

  test('is ended where nobody wants more of it', async () => {
    await write(MESSAGES);
    const stream = Readable.from([readFileSync(file)]);
    for await (const _ of new CaptureReader(stream)) break;
    expect(stream.destroyed).toBe(true);
  });
});

describe('a capture that is none', () => {
  const p = new Pcapng();
  const section = new Pcapng().section().bytes();
  const tooLong = Buffer.concat([section, p.u32(6), p.u32(0x7fff_fffc), Buffer.alloc(20)]);
  const uneven = Buffer.concat([section, p.u32(6), p.u32(13), Buffer.alloc(20)]);
  const unlike = Buffer.concat([section, p.u32(6), p.u32(12), p.u32(16)]);
  const broken: [string, Buffer, RegExp][] = [
    ['text', Buffer.from('this is no capture at all'), /not a pcapng file/],
    ['nothing', Buffer.alloc(0), /the file is empty: it is no capture/],
    ['three bytes', Buffer.from('0a0d0d', 'hex'), /not a pcapng file, nor a pcap file/],
    [
      'pcap of another version',
      Buffer.from('d4c3b2a1030004000000000000000000ffff0000fc000000', 'hex'),
      /version 3/,
    ],
    [
      'a packet of pcap that is too long',
      Buffer.concat([pcapHeader(), wire().u32(0).u32(0).u32(0x7fff_ffff).u32(0x7fff_ffff).build()]),
      /a packet of 2147483647 bytes/,
    ],
    ['gzip of text', gzipSync('this is no capture at all'), /not a pcapng file/],
    ['gzip of nothing', gzipSync(''), /empty/],
    [
      'gzip that is damaged',
      Buffer.concat([gzipSync('x').subarray(0, 10), Buffer.alloc(64, 0xee)]),
      /damaged/,
    ],
    ['a short simple packet', new Pcapng().section().socket().block(3).bytes(), /too short/],
    ['a simple packet of no interface', new Pcapng().section().block(3, p.u32(0)).bytes(), /interface 0/],
    [
      'a simple packet longer than its block',
      new Pcapng().section().socket().block(3, p.u32(5), Buffer.alloc(4)).bytes(),
      /5 bytes of packet/,
    ],
    ['no magic', new Pcapng().block(0x0a0d0d0a, Buffer.alloc(16)).bytes(), /magic/],
    ['another version', new Pcapng().section(2).bytes(), /version 2/],
    ['a short section header', new Pcapng().block(0x0a0d0d0a, p.u32(0x1a2b3c4d)).bytes(), /too short/],
    ['a block too long', tooLong, /blocks have/],
    ['a block of odd length', uneven, /blocks have/],
    ['a block of two lengths', unlike, /in front and 16 behind/],
    ['a short interface', new Pcapng().section().block(1, Buffer.alloc(4)).bytes(), /too short/],
    ['a short packet', new Pcapng().section().socket().block(6, Buffer.alloc(16)).bytes(), /too short/],
    [
      'an unknown interface',
      new Pcapng()
        .section()
        .packet(0, 0n, pdu(Buffer.alloc(1)))
        .bytes(),
      /interface 0/,
    ],
    [
      'a time of no sense',
      new Pcapng()
        .section()
        .socket(252, p.option(9, Buffer.of(77)))
        .bytes(),
      /10\^-77/,
    ],
    [
      'a packet longer than its block',
      new Pcapng().section().socket().block(6, Buffer.alloc(12), p.u32(8), p.u32(8), p.u32(0)).bytes(),
      /8 bytes of packet/,
    ],
    [
      'an option longer than its block',
      new Pcapng().section().socket(252, p.u16(2), p.u16(9), Buffer.alloc(8)).bytes(),
      /option of 9 bytes/,
    ],
    [
      'interfaces without end',
      Buffer.concat([section, ...Array.from({ length: 4_097 }, () => new Pcapng().socket().bytes())]),
      /interfaces/,
    ],
  ];

  test.each(broken)('%s', async (_name, bytes, reason) => {
    const error: unknown = await readBytes(bytes).catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(CaptureError);
    expect(error).toBeInstanceOf(VfioUserError);
    expect(error).toMatchObject({ code: 'ERR_VFIO_USER_CAPTURE', message: expect.stringMatching(reason) });
  });

  test('damaged in any way ends in messages, or in that error', async () => {
    await write(MESSAGES);
    const sound = readFileSync(file);
    const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), {
      minLength: 1,
      maxLength: 8,
    });
    await fc.assert(
      fc.asyncProperty(damage, fc.nat(), async (changes, cut) => {
        const bytes = Buffer.from(sound.subarray(0, sound.length - (cut % 3_000)));
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        const error: unknown = await readBytes(bytes).then(
          () => undefined,
          (cause: unknown) => cause,
        );
        if (error !== undefined) expect(error).toBeInstanceOf(CaptureError);
      }),
      { numRuns: 300 },
    );
  });

  test('and a file that is not there is an error of the file system', async () => {
    await expect(read(path.join(directory, 'nothing'))).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
