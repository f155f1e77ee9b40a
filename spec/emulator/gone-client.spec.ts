/** Clients that have gone when they are answered: what the answer was to hand over is given back. */
import { expect, test } from '@jest/globals';
import { setTimeout as sleep } from 'node:timers/promises';
import { RamDevice, serve } from '../../lib/emulator/index.js';
import { Scratch } from '../cli/cli.js';
import { openFds } from '../support/fds.js';
import { RawClient } from './raw-client.js';

const ROUNDS = 50;

test('a client that goes once it has sent VERSION leaves no end of the twin socket', async () => {
  const scratch = new Scratch();
  const path = scratch.path('s');
  const server = await serve(new RamDevice({}), { path, maxClients: 1 });
  const before = openFds();
  for (let i = 0; i < ROUNDS; i++) {
    const client = RawClient.connect(path);
    void client.negotiate({ twin_socket: { supported: true }, max_msg_fds: 8 }).catch(() => undefined);
    client.close();
    if (i % 8 === 0) await sleep(1);
  }
  for (let tries = 0; openFds() > before && tries < 500; tries++) await sleep(10);
  const after = openFds();
  await server.close();
  scratch.remove();
  expect(after).toBe(before);
});
