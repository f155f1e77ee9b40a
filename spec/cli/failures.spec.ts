/** Servers that are not there or do not behave: one line that names what happened, exit status 1, in time. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { existsSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { Scratch, vfioUser } from './cli.js';

jest.setTimeout(60_000);

let scratch: Scratch;
let socket: string;
let server: Server | undefined;
const connections = new Set<Socket>();

beforeEach(() => {
  scratch = new Scratch();
  socket = scratch.path('socket');
});

afterEach(async () => {
  for (const connection of connections) connection.destroy();
  connections.clear();
  if (server !== undefined) await new Promise((resolve) => server!.close(resolve));
  server = undefined;
  scratch.remove();
});

/** A server that does whatever the test wants with a connection. */
async function listen(onConnection: (connection: Socket) => void): Promise<void> {
  server = createServer((connection) => {
    connections.add(connection);
    connection.on('error', () => {});
    onConnection(connection);
  });
  await new Promise<void>((resolve) => server!.listen(socket, resolve));
}

/** A reply to the message that begins with `request`: its id and command, the reply flag, `errno` and a payload. */
function reply(request: Buffer, payload: Buffer, errno = 0): Buffer {
  const header = Buffer.alloc(16);
  request.copy(header, 0, 0, 4);
  header.writeUInt32LE(16 + payload.length, 4);
  header.writeUInt32LE(errno === 0 ? 0x1 : 0x21, 8);
  header.writeUInt32LE(errno, 12);
  return Buffer.concat([header, payload]);
}

function version(major: number, minor: number, json = '{}'): Buffer {
  const numbers = Buffer.alloc(4);
  numbers.writeUInt16LE(major, 0);
  numbers.writeUInt16LE(minor, 2);
  return Buffer.concat([numbers, Buffer.from(`${json}\0`)]);
}

async function fail(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await vfioUser(...args);
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
  expect(stderr).toMatch(/^vfio-user: [^\n]+\n$/);
  return stderr;
}

const HINT = '; is the server running? waitForSocket, on the command line --wait, waits for it';

describe('no server', () => {
  test('a socket that is not there', async () => {
    expect(await fail('info', socket)).toBe(`vfio-user: connect: ENOENT (${socket} does not exist${HINT})\n`);
  });

  test('a regular file', async () => {
    writeFileSync(socket, '');
    expect(await fail('info', socket)).toBe(`vfio-user: connect: ECONNREFUSED (${socket} is not a socket)\n`);
    expect(existsSync(socket)).toBe(true);
  });

  test('a socket that nobody listens on', async () => {
    // A server that was killed leaves its file: node:net's own is removed, so it is linked elsewhere first.
    const { linkSync } = await import('node:fs');
    await listen(() => {});
    const stale = scratch.path('stale');
    linkSync(socket, stale);
    await new Promise((resolve) => server!.close(resolve));
    server = undefined;
    expect(await fail('info', stale)).toBe(
      `vfio-user: connect: ECONNREFUSED (${stale}: nobody listens there${HINT})\n`,
    );
  });

  test('a name that is too long for a socket', async () => {
    expect(await fail('info', `/tmp/${'x'.repeat(120)}`)).toMatch(/at most 107 bytes/);
  });

  test('an abstract name that nobody has', async () => {
    expect(await fail('info', '@vfio-user-spec-nobody')).toMatch(
      /connect: ECONNREFUSED \(@vfio-user-spec-nobody/,
    );
  });

  test('--wait gives up after the timeout', async () => {
    expect(await fail('info', socket, '--wait', '--timeout', '200')).toMatch(
      /connect to .*: no answer within .* ms \[ETIMEDOUT\]/,
    );
  });

  test('TCP that nobody listens on', async () => {
    // Port 1 needs privileges to be listened on.
    expect(await fail('info', 'tcp:1')).toBe(
      `vfio-user: connect: ECONNREFUSED (tcp:1: nobody listens there${HINT})\n`,
    );
  });

  test('an fd that is no socket', async () => {
    expect(await fail('info', 'fd:999999')).toMatch(/EBADF/);
  });
});

describe('a server that does not behave', () => {
  test('one that closes at once', async () => {
    await listen((connection) => connection.destroy());
    expect(await fail('info', socket)).toMatch(
      /\[(ERR_VFIO_USER_CLOSED|ECONNRESET|EPIPE)\]|ECONNRESET|EPIPE/,
    );
  });

  test('one that closes when it has read', async () => {
    await listen((connection) => connection.once('data', () => connection.end()));
    expect(await fail('info', socket)).toMatch(/the server closed the connection \[ERR_VFIO_USER_CLOSED\]/);
  });

  test('one that never answers', async () => {
    await listen(() => {});
    expect(await fail('info', socket, '--timeout', '200')).toMatch(
      /VERSION: no answer within .* ms \[ETIMEDOUT\]/,
    );
  });

  test('one that stops answering after the handshake', async () => {
    await listen((connection) =>
      connection.once('data', (request) => connection.write(reply(request, version(0, 1)))),
    );
    expect(await fail('info', socket, '--timeout', '300')).toMatch(/DEVICE_GET_INFO: no answer/);
  });

  test('one of another major version', async () => {
    await listen((connection) =>
      connection.once('data', (request) => connection.write(reply(request, version(1, 0)))),
    );
    expect(await fail('info', socket)).toMatch(
      /the server speaks protocol version 1\.0, not 0 \[ERR_VFIO_USER_UNSUPPORTED\]/,
    );
  });

  test('one that refuses the version', async () => {
    await listen((connection) =>
      connection.once('data', (request) => connection.write(reply(request, Buffer.alloc(0), 22))),
    );
    expect(await fail('info', socket)).toBe('vfio-user: VERSION: the server answered EINVAL\n');
  });

  test('one that speaks something else', async () => {
    await listen((connection) => connection.write('HTTP/1.1 400 Bad Request\r\n\r\n'));
    expect(await fail('info', socket)).toMatch(/\[ERR_VFIO_USER_PROTOCOL\]/);
  });

  test('one whose words would steer the terminal', async () => {
    const json = '{"capabilities":{"max_msg_fds":"\\u009b31m\u202e"}}';
    await listen((connection) =>
      connection.once('data', (request) => connection.write(reply(request, version(0, 1, json)))),
    );
    const line = await fail('info', socket);
    expect(line).toMatch(/max_msg_fds/);
    // eslint-disable-next-line no-control-regex
    expect(line).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
  });
});

describe('--verbose', () => {
  test('adds the stack', async () => {
    const { status, stderr } = await vfioUser('--verbose', 'info', socket);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^vfio-user: connect: ENOENT .*\nTransportError: .*\n +at /);
  });
});
