/** Servers that lie, stall and go: the doctor ends with a report all the same, in bounded time. */
import { afterAll, afterEach, describe, expect, jest, test } from '@jest/globals';
import { createServer, type Server, type Socket } from 'node:net';
import { diagnose, toMarkdown, VERDICTS, type DoctorReport } from '../../lib/doctor/index.js';
import { Scratch } from '../cli/cli.js';
import { message, words } from '../support/scripted-peer.js';

jest.setTimeout(120_000);

const PROBE_MS = 120;
/** For servers that answer at once, on a machine with other things to do. */
const PATIENT_MS = 1_500;
const HEADER = 16;
const scratch = new Scratch();
const servers = new Set<Server>();
const sockets = new Set<Socket>();
let names = 0;

afterAll(() => scratch.remove());

afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  for (const server of servers) await new Promise((resolve) => server.close(resolve));
  sockets.clear();
  servers.clear();
});

/** What a server does with a command: answers, or does not. `nth` counts the commands of the connection. */
type Behaviour = (socket: Socket, command: Buffer, nth: number) => void;

/** Each message of each client goes to `behave`; a client that breaks the framing is dropped. */
async function serve(behave: Behaviour): Promise<string> {
  const path = scratch.path(`hostile-${names++}`);
  const server = createServer((socket) => {
    sockets.add(socket);
    let bytes = Buffer.alloc(0);
    let nth = 0;
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk) => {
      bytes = Buffer.concat([bytes, chunk]);
      while (bytes.length >= HEADER && !socket.destroyed) {
        const size = bytes.readUInt32LE(4);
        if (size < HEADER || size > 1 << 22) socket.destroy();
        if (socket.destroyed || size > bytes.length) break;
        behave(socket, bytes.subarray(0, size), nth++);
        bytes = bytes.subarray(size);
      }
    });
  });
  servers.add(server);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return path;
}

async function report(behave: Behaviour, timeoutMs = PROBE_MS): Promise<DoctorReport> {
  const path = await serve(behave);
  const result = await diagnose(path, { readOnly: false, timeoutMs });
  // Whatever came, it is plain data that can be shown.
  expect(JSON.parse(JSON.stringify(result))).toEqual(result);
  expect(toMarkdown(result)).toContain("# Doctor's report");
  expect(Object.values(result.summary).reduce((a, b) => a + b)).toBe(result.rules.length);
  for (const { verdict, detail } of result.rules) {
    expect(VERDICTS).toContain(verdict);
    expect(detail).not.toMatch(/undefined|NaN|TypeError|RangeError|hostile-\d/);
  }
  return result;
}

const good = (command: Buffer, payload: Uint8Array): Buffer =>
  message(command.readUInt16LE(0), command.readUInt16LE(2), 1, 0, payload);
const VERSION = Buffer.from('\0\0\x02\0{"capabilities":{}}\0', 'latin1');

/** A sound answer to all that opening a device asks. */
function answerWell(socket: Socket, command: Buffer): void {
  const number = command.readUInt16LE(2);
  const index = command.length >= 28 ? command.readUInt32LE(24) : 0;
  if (number === 1) socket.write(good(command, VERSION));
  else if (number === 4) socket.write(good(command, words(16, 3, 9, 5)));
  else if (number === 5)
    socket.write(good(command, words(32, 3, index, 0, [index === 7 ? 256n : 64n], [0n])));
  else if (number === 7) socket.write(good(command, words(16, 1, index, 1)));
  else if (number === 9) {
    const count = Math.min(command.readUInt32LE(28), 4096);
    socket.write(good(command, Buffer.concat([command.subarray(16, 32), Buffer.alloc(count)])));
  } else socket.write(message(command.readUInt16LE(0), number, 0x21, 95, Buffer.alloc(0)));
}

describe('a server that', () => {
  test('never answers', async () => {
    const { rules, recognised, identity } = await report(() => undefined);
    expect(identity.version).toBeNull();
    expect(recognised.name).toBe('unknown');
    expect(rules.every(({ verdict }) => verdict !== 'kept' && verdict !== 'broken')).toBe(true);
  });

  test('closes at the first word', async () => {
    const { summary } = await report((socket) => socket.destroy());
    expect(summary.kept).toBe(0);
  });

  test.each([0, 1, 2, 3, 10, 40])('goes silent after %i answers', async (most) => {
    await report((socket, command, nth) => {
      if (nth < most) answerWell(socket, command);
    });
  });

  test.each([1, 2, 5, 30])('goes away after %i answers', async (most) => {
    await report((socket, command, nth) => {
      if (nth < most) answerWell(socket, command);
      else socket.destroy();
    });
  });

  test.each([
    ['nothing behind the header', Buffer.alloc(0)],
    ['three bytes', Buffer.alloc(3, 0xff)],
    ['ones', Buffer.alloc(64, 0xff)],
    ['zeroes', Buffer.alloc(64)],
    ['a lot', Buffer.alloc(4096, 0x41)],
  ])('answers everything with %s', async (_what, payload) => {
    await report((socket, command) => {
      const number = command.readUInt16LE(2);
      socket.write(good(command, number === 1 ? VERSION : payload));
    });
  });

  test('answers VERSION with garbage', async () => {
    const { rules } = await report((socket, command) =>
      socket.write(good(command, Buffer.from('\0\0\x01\0{"capabilities":[1', 'latin1'))),
    );
    expect(rules.find(({ id }) => id === 'version.json')).toMatchObject({ verdict: 'broken' });
    expect(rules.find(({ id }) => id === 'version.nul')).toMatchObject({ verdict: 'broken' });
  });

  test('says that its messages are shorter than their header, or longer than all memory', async () => {
    for (const size of [3, 0xffffffff]) {
      const { summary } = await report((socket, command) => {
        const bytes = Buffer.from(good(command, VERSION));
        bytes.writeUInt32LE(size, 4);
        socket.write(bytes);
      });
      expect(summary.kept).toBe(0);
    }
  });

  test('answers other ids, other commands, and with undefined flags', async () => {
    const { rules } = await report((socket, command, nth) => {
      if (nth === 0) return answerWell(socket, command);
      socket.write(message(command.readUInt16LE(0), 99, 0x301, 0, words(16, 3, 9, 5)));
      socket.write(message(0x1234, 4, 1, 0, words(16, 3, 9, 5)));
    });
    for (const id of ['header.id', 'header.command', 'header.type'])
      expect(rules.find((rule) => rule.id === id)).toMatchObject({ verdict: 'broken' });
  });

  test('floods with replies and requests of its own', async () => {
    await report((socket, command, nth) => {
      answerWell(socket, command);
      if (nth !== 1) return;
      for (let i = 0; i < 3000; i++)
        socket.write(message(i, i % 2 === 0 ? 4 : 11, i % 2, 0, Buffer.alloc(16)));
    });
  });

  test('is no server: nobody listens', async () => {
    const { rules } = await diagnose(scratch.path('nobody'), { timeoutMs: PROBE_MS });
    expect(rules.every(({ verdict }) => verdict === 'not run' || verdict === 'unclear')).toBe(true);
  });
});

describe('the verdicts', () => {
  test('a sound stub keeps what it does, and every broken rule has the bytes that show it', async () => {
    const { rules, quirks, recognised } = await report(answerWell, PATIENT_MS);
    expect(rules.find(({ id }) => id === 'stream.split-header')).toMatchObject({ verdict: 'kept' });
    expect(rules.find(({ id }) => id === 'read.past-end')).toMatchObject({ verdict: 'broken' });
    expect(rules.find(({ id }) => id === 'dma.map')).toMatchObject({ verdict: 'broken', detail: 'ENOTSUP' });
    const past = rules.find(({ id }) => id === 'read.past-end')!.evidence;
    expect(past.map(({ direction }) => direction)).toEqual(['sent', 'received']);
    expect(past[0]!.hex).toMatch(/^....0900200000000000000000000000/);
    expect(quirks).toEqual({});
    expect(recognised.name).not.toBe('SPDK');
  });

  test('an unread body is found: those commands are quirks', async () => {
    const { rules, quirks } = await report((socket, command) => {
      const number = command.readUInt16LE(2);
      if (number === 6 || number === 16) {
        socket.write(message(command.readUInt16LE(0), number, 0x21, 0, Buffer.alloc(0)));
        socket.write(message(8, 0, 0x21, 0, Buffer.alloc(0)));
      } else answerWell(socket, command);
    }, PATIENT_MS);
    expect(rules.find(({ id }) => id === 'command.io-fds')).toMatchObject({ verdict: 'broken' });
    expect(quirks.doNotSend).toEqual(['DEVICE_GET_REGION_IO_FDS', 'DEVICE_FEATURE']);
  });

  test('widths that a BAR refuses are quirks', async () => {
    const { quirks } = await report((socket, command) => {
      const isBar0 = command.readUInt16LE(2) === 9 && command.readUInt32LE(24) === 0;
      if (isBar0 && command.readUInt32LE(28) !== 4)
        socket.write(message(command.readUInt16LE(0), 9, 0x21, 22, Buffer.alloc(0)));
      else answerWell(socket, command);
    }, PATIENT_MS);
    expect(quirks.accessWidths).toEqual({ bar0: [4] });
  });

  test('read-only, nothing that changes state is sent', async () => {
    const sent = new Set<number>();
    const path = await serve((socket, command) => {
      sent.add(command.readUInt16LE(2));
      answerWell(socket, command);
    });
    const { rules, readOnly } = await diagnose(path, { timeoutMs: PROBE_MS });
    expect(readOnly).toBe(true);
    for (const command of [2, 3, 8, 10, 13]) expect(sent).not.toContain(command);
    expect(rules.find(({ id }) => id === 'dma.map')).toMatchObject({ verdict: 'not run' });
  });

  test('gentle leaves out what servers die of; only runs what it names', async () => {
    const path = await serve(answerWell);
    const gentle = await diagnose(path, { timeoutMs: PATIENT_MS, gentle: true });
    const robust = gentle.rules.filter(({ id }) => id.startsWith('robust.'));
    expect(robust.every(({ verdict }) => verdict === 'not run')).toBe(true);
    const only = await diagnose(path, { timeoutMs: PATIENT_MS, only: ['stream.'] });
    expect(only.rules.map(({ id }) => id)).toEqual(expect.arrayContaining(['stream.glued', 'version.major']));
    expect(only.rules.map(({ id }) => id)).not.toContain('read.zero');
  });

  test('an aborted diagnosis ends with what it has', async () => {
    const path = await serve(answerWell);
    const stop = new AbortController();
    const result = await diagnose(path, {
      timeoutMs: PROBE_MS,
      signal: stop.signal,
      onProgress: ({ done }) => done === 3 && stop.abort(),
    });
    expect(result.summary['not run']).toBeGreaterThan(50);
    expect(result.incomplete).toBe('the diagnosis was ended');
    expect(result.rules.find(({ id }) => id === 'version.major')).toMatchObject({ verdict: 'kept' });
  });

  test('options that make no sense', async () => {
    await expect(diagnose('/x', { timeoutMs: 0 })).rejects.toThrow(RangeError);
  });

  test.each(['vresion', '', 'stream.gleud'])('a name that nothing begins with (%j)', async (name) => {
    await expect(diagnose('/x', { only: ['stream', name] })).rejects.toThrow(
      `no probe or rule begins with '${name}': the rules begin with version, `,
    );
  });
});
