/** A deadline that the caller gives is for the whole call, the default one for each of its messages: docs/timeouts.md. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { connect, type ConnectOptions } from '../../lib/device/connect.js';
import { TimeoutError } from '../../lib/errors.js';
import { ScriptedDevice } from '../support/scripted-device.js';
import { until } from '../support/until.js';
import { IrqDevice } from './irq-device.js';

const KIB = 1024;
const CONFIG = 7;
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

const turn = (ms = 5) => new Promise((resolve) => setTimeout(resolve, ms));

/** What a call ends with. */
function ending(call: Promise<unknown>): Promise<unknown> {
  return call.catch((error: unknown) => error);
}

/** A device that answers each access of a region after `delay` milliseconds; changed at any time. */
async function slow(options: ConnectOptions = {}) {
  const server = new ScriptedDevice({
    numRegions: 9,
    regions: { 0: { size: 1 << 20 }, [CONFIG]: { size: 256, bytes: Buffer.alloc(256) } },
    capabilities: { max_data_xfer_size: 4 * KIB },
  });
  const pace = { delay: 0, accesses: 0 };
  cleanups.push(() => server.close());
  server.twist = (asked, answer) => {
    if (asked.command !== 9 && asked.command !== 10) return answer;
    pace.accesses++;
    if (pace.delay === 0) return answer;
    if (pace.delay !== Infinity) {
      setTimeout(() => !server.peer.ended && server.peer.send(answer.bytes), pace.delay);
    }
    return undefined;
  };
  const device = await connect(server.endpoint, options);
  cleanups.push(() => device.close());
  pace.accesses = 0;
  return { device, server, pace, region: device.region(0) };
}

describe('a transfer of many messages', () => {
  test('does not fail by the default deadline while they are answered', async () => {
    const { region, pace } = await slow({ timeoutMs: 1_000 });
    pace.delay = 30;
    const began = performance.now();
    await region.write(0, Buffer.alloc(512 * KIB));
    expect((await region.read(0, 256 * KIB)).length).toBe(256 * KIB);
    expect(performance.now() - began).toBeGreaterThan(1_000);
    expect(pace.accesses).toBe(192);
  });

  test.each(['read', 'write'] as const)(
    "a %s ends at the caller's, and nothing is sent after it",
    async (verb) => {
      const { region, pace, device } = await slow();
      pace.delay = 20;
      const began = performance.now();
      const options = { timeoutMs: 200 };
      const call =
        verb === 'read' ? region.read(0, 1 << 20, options) : region.write(0, Buffer.alloc(1 << 20), options);
      expect(await ending(call)).toMatchObject({ name: 'TimeoutError', timeoutMs: 200 });
      expect(performance.now() - began).toBeLessThan(3_000);
      expect(pace.accesses).toBeLessThan(100);
      const { sent } = device.counters;
      pace.delay = 0;
      await region.readUInt32(0);
      expect(device.counters.sent).toBe(sent + 1);
    },
  );

  test('an aborted one stops, and its signal is the reason', async () => {
    const { region, pace, device } = await slow();
    pace.delay = 20;
    const controller = new AbortController();
    const call = ending(region.read(0, 1 << 20, { signal: controller.signal }));
    await turn(50);
    controller.abort(new Error('enough'));
    expect(await call).toMatchObject({ message: 'enough' });
    const { sent } = device.counters;
    await turn(50);
    expect(device.counters.sent).toBe(sent);
  });

  test('takes memory for what is under way alone', async () => {
    const { region, pace, device } = await slow();
    pace.delay = Infinity;
    const call = ending(region.write(0, Buffer.alloc(1 << 20)));
    await turn();
    expect(device.counters.inFlight).toBeLessThanOrEqual(4);
    expect(device.counters.queued).toBe(0);
    await device.close();
    await call;
  });
});

describe('config space', () => {
  test('an update waits for its turn no longer than its caller does', async () => {
    const { device, pace } = await slow();
    pace.delay = Infinity;
    const stuck = ending(device.config.update(4, 2, 1, 1));
    const controller = new AbortController();
    const late = ending(device.config.update(4, 2, 2, 2, { timeoutMs: 40 }));
    const aborted = ending(device.config.update(4, 2, 2, 2, { signal: controller.signal }));
    controller.abort(new Error('enough'));
    expect(await aborted).toMatchObject({ message: 'enough' });
    expect(await late).toMatchObject({
      message: 'updating config space (waiting for its turn): no answer within 40 ms',
    });
    await device.close();
    expect(await stuck).toMatchObject({ name: 'ClosedError' });
  });

  test('the time of an update is for all of its messages, and the next one has its turn', async () => {
    const { device, pace } = await slow();
    pace.delay = 60;
    const began = performance.now();
    // One read, then a write and a read: two times 60 ms.
    expect(await ending(device.config.update(4, 2, 1, 1, { timeoutMs: 100 }))).toMatchObject({
      name: 'TimeoutError',
      timeoutMs: 100,
    });
    expect(performance.now() - began).toBeGreaterThan(95);
    pace.delay = 0;
    await device.config.update(4, 2, 4, 4);
    expect(device.config.command & 4).toBe(4);
  });
});

describe('interrupts', () => {
  async function open(options: { timeoutMs?: number } = {}): Promise<IrqDevice> {
    const irqs = [{ count: 0 }, { count: 0 }, { count: 64 }];
    const device = await IrqDevice.open({ irqs, maxMsgFds: 8, ...options });
    cleanups.push(() => device.close());
    return device;
  }

  test('enabling ends at the deadline, however many messages it takes, and is undone', async () => {
    const device = await open();
    let messages = 0;
    device.fate = (line) => (line.includes(': 0+0') ? undefined : ++messages === 3 ? 'silence' : undefined);
    const began = performance.now();
    const error = await ending(device.irqs.msix.enable(64, { timeoutMs: 150 }));
    expect(error).toMatchObject({ code: 'ETIMEDOUT' });
    expect(performance.now() - began).toBeGreaterThan(145);
    expect(messages).toBe(3);
    expect(device.held).toBe(0);
    expect(device.irqs.msix.vectors).toEqual([]);
  });

  test('enabling that nothing bounds is undone in the default time, and the next one has its turn', async () => {
    const device = await open({ timeoutMs: 100 });
    device.fate = () => 'silence';
    const abort = new AbortController();
    const error = ending(device.irqs.msix.enable(1, { timeoutMs: Infinity, signal: abort.signal }));
    await until(() => device.log.length === 1);
    abort.abort(new Error('enough'));
    const late = new Promise((resolve) => setTimeout(resolve, 5_000).unref());
    expect(await Promise.race([error, late])).toMatchObject({ message: 'enough' });
    device.fate = () => undefined;
    expect(await device.irqs.msix.enable(1)).toHaveLength(1);
  });

  test('who waits for another index to be enabled waits no longer than he said', async () => {
    const device = await open();
    device.fate = () => 'silence';
    const stuck = ending(device.irqs.msix.enable(1));
    expect(await ending(device.irqs.msix.disable({ timeoutMs: 30 }))).toBeInstanceOf(TimeoutError);
    device.connection.close();
    await stuck;
  });
});

test('a reset and what is set up after it have one deadline', async () => {
  const { device, server } = await slow();
  await device.enable();
  const asked: number[] = [];
  server.twist = (message, answer) => {
    asked.push(message.command);
    setTimeout(() => !server.peer.ended && server.peer.send(answer.bytes), 40);
    return undefined;
  };
  const began = performance.now();
  expect(await ending(device.reset({ timeoutMs: 100 }))).toMatchObject({ code: 'ETIMEDOUT', timeoutMs: 100 });
  expect(performance.now() - began).toBeLessThan(5_000);
  expect(asked[0]).toBe(13);
});
