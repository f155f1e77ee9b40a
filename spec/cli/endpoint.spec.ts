/** The ways to a server besides a Unix socket's path. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { EduDevice, serveStream } from '../../lib/emulator/index.js';
import { Scratch, outcomeOf, start, vfioUser } from './cli.js';

jest.setTimeout(60_000);

let scratch: Scratch;
let server: Server;

/** The edu device for each connection. */
beforeEach(() => {
  scratch = new Scratch();
  server = createServer((connection) => void serveStream(new EduDevice(), connection));
});

afterEach(async () => {
  await new Promise((resolve) => server.close(resolve));
  scratch.remove();
});

async function listenTcp(host: string): Promise<number> {
  server.listen(0, host);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

describe('tcp:', () => {
  test('PORT is on this machine, HOST:PORT anywhere', async () => {
    const port = await listenTcp('127.0.0.1');
    for (const socket of [`tcp:${port}`, `tcp:127.0.0.1:${port}`, `tcp:localhost:${port}`]) {
      expect(await vfioUser('read', socket, 'bar0', '0')).toMatchObject({
        status: 0,
        stdout: '0x010000ed\n',
      });
    }
  });

  test('nothing is shared over it, and info says so', async () => {
    const port = await listenTcp('127.0.0.1');
    const { stdout } = await vfioUser('info', `tcp:${port}`, '--json');
    expect(JSON.parse(stdout)).toMatchObject({ vendorId: 0x1234, negotiated: { twinSocket: false } });
  });
});

describe('fd:', () => {
  test('a connected socket that the process inherits', async () => {
    const path = scratch.path('socket');
    server.listen(path);
    await once(server, 'listening');
    const socket: Socket = connect(path);
    await once(socket, 'connect');
    const child = start(['read', 'fd:3', 'bar0', '0'], ['ignore', 'pipe', 'pipe', socket]);
    // The child has it now.
    socket.destroy();
    expect(await outcomeOf(child)).toMatchObject({ status: 0, stdout: '0x010000ed\n', stderr: '' });
  });
});
