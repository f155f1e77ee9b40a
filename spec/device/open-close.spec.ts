/** Two thousand devices, opened and closed in every way that a connection can end. */
import { expect, test } from '@jest/globals';
import { connect } from '../../lib/device/connect.js';
import { RamDevice, serveFd } from '../../lib/emulator/index.js';
import { VfioUserError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import { ScriptedDevice } from '../support/scripted-device.js';

const CONNECTIONS = 2_000;
const AT_ONCE = 8;
const COMMANDS = [1, 4, 5, 7, 9];

function turn(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A device that is used and closed, by its owner or by its server. */
async function whole(model: RamDevice, number: number): Promise<void> {
  const [ours, theirs] = native().socketPair() as [number, number];
  const server = serveFd(model, theirs);
  const device = await connect({ fd: ours });
  device.bar(1).map();
  const [vector] = await device.irqs.msix.enable(1);
  const buffer = await device.dma.alloc(4096);
  if (number % 2 === 0) {
    vector.close();
    await buffer.free();
  }
  const late = device.bar(2).read(0, 100_000);
  late.catch(() => undefined);
  if (number % 4 < 2) await server.close();
  await device.close();
  await server.close();
  await Promise.allSettled([late]);
}

/** The server sends so many bytes of one of its answers, with fds, and goes. */
async function cut(number: number, fd: number): Promise<void> {
  const region = { size: 4096, flags: 7, fds: [fd, fd] };
  const server = new ScriptedDevice({ regions: { 0: region, 7: { size: 256 } }, irqs: [{ count: 1 }] });
  const command = COMMANDS[number % COMMANDS.length];
  server.twist = (asked, answer) => {
    if (asked.command !== command) return answer;
    const part = answer.bytes.subarray(0, number % answer.bytes.length);
    if (part.length > 0) server.peer.send(part, answer.fds);
    server.close();
    return undefined;
  };
  const error: unknown = await connect(server.endpoint, { timeoutMs: 2_000 }).catch((e: unknown) => e);
  expect(error).toBeInstanceOf(VfioUserError);
  server.close();
}

test('2,000 connections, some cut in mid-message, leave no file descriptor', async () => {
  await turn(200);
  const model = new RamDevice();
  const fd = native().memfd('spec', 4096, false);
  await whole(model, 0);
  await cut(1, fd);
  await turn(20);
  const before = openFds();
  for (let done = 0; done < CONNECTIONS; done += AT_ONCE) {
    const numbers = Array.from({ length: AT_ONCE }, (_, i) => done + i);
    await Promise.all(numbers.map((i) => (i % 4 === 0 ? whole(model, i / 4) : cut(i, fd))));
  }
  await turn(20);
  expect(openFds()).toBe(before);
  native().closeFd(fd);
  model.close();
}, 60_000);
