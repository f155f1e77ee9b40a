/** Warnings of the library are one line on stderr each, and change nothing else. */
import { chmodSync } from 'node:fs';
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import type { EmulatorServer } from '../../lib/emulator/index.js';
import { Scratch, vfioUser } from './cli.js';
import { serveEdu } from './emulator.js';

jest.setTimeout(60_000);

const scratch = new Scratch();
const socket = scratch.path('edu');
let server: EmulatorServer;

beforeAll(async () => {
  server = await serveEdu(socket);
});

afterAll(async () => {
  await server.close();
  scratch.remove();
});

test('a socket that everybody can replace is told of', async () => {
  chmodSync(scratch.directory, 0o777);
  const { status, stdout, stderr } = await vfioUser('read', socket, 'bar0', '0');
  expect({ status, stdout }).toEqual({ status: 0, stdout: '0x010000ed\n' });
  expect(stderr).toMatch(
    /^vfio-user: warning: the server behind \S+ may not be yours: .* \(mode 0777, not sticky\) \[VFIO_USER_SOCKET_PERMISSIONS\]\n$/,
  );
});
