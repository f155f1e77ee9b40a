/** Proxies between a client and a device, or between a raw client and a scripted server. All is closed after each test. */
import { afterEach } from '@jest/globals';
import { RamDevice, serve, type EmulatorOptions, type RamOptions } from '../../lib/emulator/index.js';
import { connect, type ConnectOptions, type Device } from '../../lib/index.js';
import { proxy, type ProxyEvent, type ProxyOptions, type ProxyServer } from '../../lib/proxy/index.js';
import { Scratch } from '../cli/cli.js';
import { RawClient } from '../emulator/raw-client.js';
import { ScriptedPeer } from '../support/scripted-peer.js';
import { until } from '../support/until.js';

export { until } from '../support/until.js';

const cleanups: (() => unknown)[] = [];

/** Runs after the test, the last one first. */
export function cleanup(run: () => unknown): void {
  cleanups.push(run);
}

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

export function scratch(): Scratch {
  const directory = new Scratch();
  cleanup(() => directory.remove());
  return directory;
}

export interface Proxied {
  proxy: ProxyServer;
  events: ProxyEvent[];
  /** Where clients connect to. */
  path: string;
}

/** A proxy on a path of its own. */
export async function proxyTo(
  to: ProxyOptions['connect'],
  options: Partial<ProxyOptions> = {},
): Promise<Proxied> {
  const path = scratch().path('front');
  const events: ProxyEvent[] = [];
  const server = await proxy({
    listen: path,
    connect: to,
    onEvent: (event) => events.push(event),
    ...options,
  });
  cleanup(() => server.close());
  return { proxy: server, events, path };
}

export interface WithDevice extends Proxied {
  model: RamDevice;
  /** Where the device itself is served. */
  devicePath: string;
  open(connectOptions?: ConnectOptions): Promise<Device>;
}

/** The emulator's memory device behind a proxy. */
export async function withDevice(
  options: Partial<ProxyOptions> = {},
  device: { ram?: RamOptions; serve?: EmulatorOptions; clients?: 'one' | 'many' } = {},
): Promise<WithDevice> {
  const devicePath = scratch().path('device');
  const model = new RamDevice({ ramSize: 1 << 16, ...device.ram });
  const server = await serve(model, { path: devicePath, clients: device.clients ?? 'many', ...device.serve });
  cleanup(async () => {
    await server.close();
    model.close();
  });
  const proxied = await proxyTo(devicePath, options);
  const open = async (connectOptions?: ConnectOptions): Promise<Device> => {
    const opened = await connect(proxied.path, connectOptions);
    cleanup(() => opened.close());
    return opened;
  };
  return { ...proxied, model, devicePath, open };
}

export interface Between extends Proxied {
  client: RawClient;
  server: ScriptedPeer;
}

/** A raw client that is connected to a scripted server, through a proxy. */
export async function between(options: Partial<ProxyOptions> = {}): Promise<Between> {
  const server = new ScriptedPeer();
  cleanup(() => server.close());
  const proxied = await proxyTo({ dial: () => server.clientFd, name: 'server' }, options);
  const client = RawClient.connect(proxied.path);
  cleanup(() => client.close());
  // From here on fds can be counted.
  await until(() => proxied.proxy.counters.open === 1);
  return { ...proxied, client, server };
}

/** The faults that have happened, in words. */
export function faultsOf(events: readonly ProxyEvent[]): string[] {
  return events.flatMap((event) => (event.type === 'fault' ? [`${event.fault}: ${event.message}`] : []));
}

/** How the last client's connection ended. */
export function endOf(events: readonly ProxyEvent[]): string | undefined {
  return events.flatMap((event) => (event.type === 'ended' ? [event.reason] : [])).at(-1);
}
