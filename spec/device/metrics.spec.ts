/** `Device.metrics`, `EmulatorServer.metrics`, and the tracing channel of requests. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { tracingChannel } from 'node:diagnostics_channel';
import { EduDevice, MemoryStore, NvmeDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { connect, type Device, type RequestTrace } from '../../lib/index.js';
import { Scratch } from '../cli/cli.js';
import { HAS_PROMETHEUS, parsedByPrometheus, sampleOf } from '../support/open-metrics.js';

const DURATIONS = 'vfio_user_request_duration_seconds_count';

describe('over a socket', () => {
  let scratch: Scratch;
  let server: EmulatorServer;
  let device: Device;

  beforeEach(async () => {
    scratch = new Scratch();
    server = await serve(new EduDevice(), { path: scratch.path('edu') });
    device = await connect(server.path!);
  });

  afterEach(async () => {
    await device.close();
    await server.close();
    scratch.remove();
  });

  test("a device's metrics have its counters, and durations from the first time on", async () => {
    const first = device.metrics();
    expect(first.endsWith('\n# EOF\n')).toBe(true);
    expect(sampleOf(first, 'vfio_user_connected', { device: server.path! })).toBe(1);
    expect(sampleOf(first, DURATIONS)).toBeUndefined();
    for (let i = 0; i < 3; i++) await device.bar(0).readUInt32(0);
    await expect(device.bar(0).read(0x7fffff, 1)).rejects.toThrow(RangeError);
    const text = device.metrics();
    expect(sampleOf(text, DURATIONS, { command: 'REGION_READ' })).toBe(3);
    expect(sampleOf(text, 'vfio_user_messages_total', { direction: 'sent' })).toBe(device.counters.sent);
    await device.close();
    expect(sampleOf(device.metrics(), 'vfio_user_connected')).toBe(0);
  });

  test('a failed request counts, too, and interrupts by index', async () => {
    await device.enable();
    const [vector] = await device.irqs.msi.enable(1);
    device.metrics();
    await device.bar(0).writeUInt32(0x60, 1);
    await vector.wait({ timeoutMs: 10_000 });
    // The registers take accesses of 4 and 8 bytes.
    await expect(device.bar(0).read(0, 3)).rejects.toMatchObject({ code: 'EINVAL' });
    const text = device.metrics();
    expect(sampleOf(text, DURATIONS, { command: 'REGION_READ' })).toBe(1);
    expect(sampleOf(text, 'vfio_user_interrupts_total', { index: 'MSI' })).toBe(1);
  });

  test('a counter of interrupts never becomes less, whatever is closed', async () => {
    await using model = new NvmeDevice({ namespaces: [{ store: new MemoryStore(1 << 20) }] });
    await using many = await connect({ model });
    const [one, two] = await many.irqs.msix.enable(2, { host: false });
    const total = () => sampleOf(many.metrics(), 'vfio_user_interrupts_total', { index: 'MSI-X' });
    await many.irqs.msix.trigger(0, 2);
    await Promise.all([one.wait({ timeoutMs: 10_000 }), two!.wait({ timeoutMs: 10_000 })]);
    expect(total()).toBe(2);
    one.close();
    expect(total()).toBe(2);
    await many.irqs.msix.disable();
    expect(total()).toBe(2);
    const [again] = await many.irqs.msix.enable(1, { host: false });
    await many.irqs.msix.trigger(0, 1);
    await again.wait({ timeoutMs: 10_000 });
    expect(total()).toBe(3);
  });

  test("a server's metrics: clients, commands, and those that were refused", async () => {
    const name = 'vfio_user_command_duration_seconds_count';
    expect(sampleOf(server.metrics(), 'vfio_user_clients')).toBe(1);
    await device.bar(0).readUInt32(0);
    await expect(device.bar(0).read(0, 3)).rejects.toMatchObject({ code: 'EINVAL' });
    const text = server.metrics();
    expect(sampleOf(text, name, { command: 'REGION_READ', device: server.path! })).toBe(2);
    expect(sampleOf(text, 'vfio_user_commands_refused_total', { command: 'REGION_READ' })).toBe(1);
  });

  (HAS_PROMETHEUS ? test : test.skip)("Prometheus' own parser reads both", async () => {
    device.metrics();
    server.metrics();
    await device.bar(0).readUInt32(0);
    for (const text of [device.metrics(), server.metrics()]) {
      expect(parsedByPrometheus(text).length).toBeGreaterThan(20);
    }
  });
});

describe('the tracing channel vfio-user:request', () => {
  const channel = tracingChannel<string, RequestTrace>('vfio-user:request');
  const heard: { event: string; trace: RequestTrace }[] = [];
  const on = (event: string) => (trace: unknown) => {
    heard.push({ event, trace: trace as RequestTrace });
  };
  const subscribers = {
    start: on('start'),
    end: on('end'),
    asyncStart: on('asyncStart'),
    asyncEnd: on('asyncEnd'),
    error: on('error'),
  };
  let device: Device;

  beforeEach(async () => {
    device = await connect({ model: new EduDevice() });
    await device.enable();
    heard.length = 0;
    channel.subscribe(subscribers);
  });

  afterEach(async () => {
    channel.unsubscribe(subscribers);
    await device.close();
  });

  test('hears of a promise, with what was asked and what came', async () => {
    expect(await device.bar(0).readUInt32(0)).toBe(0x010000ed);
    expect(heard.map(({ event }) => event)).toEqual(['start', 'end', 'asyncStart', 'asyncEnd']);
    expect(new Set(heard.map(({ trace }) => trace)).size).toBe(1);
    expect(heard[0]!.trace).toMatchObject({
      command: 'REGION_READ',
      kind: 'async',
      region: 0,
      offset: 0,
      count: 4,
      result: 0x010000ed,
    });
  });

  test('hears of a synchronous call, a posted write and a failure', async () => {
    device.bar(0).writeUInt32Sync(4, 1);
    device.bar(0).postUInt32(4, 2);
    expect(heard.map(({ event, trace }) => [event, trace.kind])).toEqual([
      ['start', 'sync'],
      ['end', 'sync'],
      ['start', 'posted'],
      ['end', 'posted'],
    ]);
    heard.length = 0;
    await expect(device.bar(0).read(0, 3)).rejects.toMatchObject({ code: 'EINVAL' });
    expect(heard.map(({ event }) => event)).toEqual(['start', 'end', 'error', 'asyncStart', 'asyncEnd']);
    expect(heard[0]!.trace.error).toMatchObject({ code: 'EINVAL' });
    heard.length = 0;
    expect(() => device.bar(0).readSync(0, 3)).toThrow(/EINVAL/);
    expect(heard.map(({ event }) => event)).toEqual(['start', 'error', 'end']);
  });

  test('and nobody hears anything who has unsubscribed', async () => {
    channel.unsubscribe(subscribers);
    await device.bar(0).readUInt32(0);
    expect(heard).toEqual([]);
  });
});
