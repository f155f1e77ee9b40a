/** A server that answers what it has not got yet. */
import { afterEach, expect, test } from '@jest/globals';
import { Connection } from '../../lib/connection/index.js';
import { writeOf } from '../../lib/device/region-access.js';
import { native } from '../../lib/native.js';
import { openFd } from '../../lib/transport/index.js';
import { ScriptedPeer } from '../support/scripted-peer.js';
import { until } from '../support/until.js';
import * as w from '../support/wire.js';

const DMA_MAP = 2;
/** More than any socket takes that is not read. */
const BODY = Buffer.alloc(4 << 20);

const cleanups: (() => void)[] = [];

afterEach(() => {
  for (const run of cleanups.splice(0).reverse()) run();
});

test('a call whose fd waits to be sent is not settled by it, and the fd that was meant arrives', async () => {
  const peer = new ScriptedPeer();
  const connection = new Connection(openFd(peer.clientFd));
  const fd = native().eventfd(5);
  cleanups.push(
    () => native().closeFd(fd),
    () => peer.close(),
    () => connection.close(),
  );
  peer.setReading(false);
  connection.post(writeOf(0, 0, BODY));

  let isSettled = false;
  const call = connection.call(DMA_MAP, Buffer.alloc(32), [fd], () => 'mapped');
  const settled = () => (isSettled = true);
  call.then(settled, settled);
  // Its id: the first of this connection's.
  peer.send(w.reply(DMA_MAP, Buffer.alloc(0), { id: 0 }));
  await until(() => connection.counters.unknown === 1);
  expect(isSettled).toBe(false);

  peer.setReading(true);
  const posted = await peer.receive();
  const request = await peer.expect(DMA_MAP);
  // The kernel gives an fd with all bytes of one read, which the message before it may end in.
  const fds = [...posted.fds, ...request.fds];
  expect(fds).toHaveLength(1);
  for (const received of fds) native().closeFd(received);
  peer.reply(request);
  expect(await call).toBe('mapped');
});
