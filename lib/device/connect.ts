/** Opens a device: socket, VERSION, GET_INFO, regions and interrupts, config space. Four round trips, one deadline. */
import diagnosticsChannel from 'node:diagnostics_channel';
import {
  Connection,
  DEFAULT_TIMEOUT_MS,
  MAX_IN_FLIGHT,
  checkInFlight,
  RequestObserver,
  negotiate,
  type CallOptions,
  type ConnectionOptions,
  type OpenTransport,
} from '../connection/index.js';
import type { Hardware } from '../emulator/device-model.js';
import type { ModelEndpoint } from '../emulator/in-process.js';
import type { ResetKind } from '../vfio/index.js';
import { UnsupportedError, type VfioUserError } from '../errors.js';
import { UINT32_MAX } from '../fields.js';
import { requireLittleEndian } from '../native.js';
import * as option from '../options.js';
import { DEVICE_FLAG_PCI, PciRegion } from '../protocol/constants.js';
import { TRACE_CHECKS, openTap, type TraceOptions } from '../trace/trace-tap.js';
import {
  MAX_MESSAGE_FDS,
  canOpenAgain,
  checkEndpoint,
  openEndpoint,
  type Endpoint,
  type OpenOptions,
  tlsSettings,
  type SocketPermissions,
  type TlsSettings,
} from '../transport/index.js';
import { ConfigSpace } from './config-space.js';
import { Device } from './device.js';
import { MAX_VIEW_BYTES } from './dma-region.js';
import { discover, type DeviceDescription } from './discover.js';
import { Reconnector, type Dialled, type ReconnectOptions } from './reconnect.js';
import { checkQuirks, type CheckedQuirks, type Quirks } from './quirks.js';
import { Region } from './region.js';
import { DeviceContext, type MmapPolicy, type DeviceContextOptions } from './device-context.js';

/**
 * The name of the `node:diagnostics_channel` on which each device is published when it is open, as `{ device, endpoint }`: the
 * device, and where it is in words.
 */
export const DEVICE_CHANNEL = 'vfio-user:device';
const opened = diagnosticsChannel.channel(DEVICE_CHANNEL);

/** Options of `connect`. */
export interface ConnectOptions extends CallOptions, TraceOptions {
  /**
   * How long opening may take, and each message of later calls that say nothing, from when it is sent. Milliseconds; default
   * 5,000. docs/timeouts.md has the rules.
   */
  timeoutMs?: number | undefined;
  /** Waits, within the deadline, for the socket to appear and be listened on. Default false. */
  waitForSocket?: boolean | undefined;
  /**
   * What is done about a Unix socket that others than the server could have put there or can connect to: `'warn'` makes it
   * a warning of the process (code `VFIO_USER_SOCKET_PERMISSIONS`), `'refuse'` an error. Default `'warn'`.
   */
  socketPermissions?: SocketPermissions | undefined;
  /** The user that the server runs as, where it is neither ours nor root: others are warned of, or refused. */
  serverUid?: number | undefined;
  /** Which of the server's files may be mapped. `'sealed'` maps only what cannot shrink. Default `'always'`. */
  mmap?: MmapPolicy | undefined;
  /**
   * Opens the device again when its server comes back: the `Device` stays, calls fail meanwhile, events tell. Needs an
   * endpoint that can be opened again. Default false: a lost device stays lost.
   */
  reconnect?: boolean | ReconnectOptions | undefined;
  /** Asks for a socket of its own for the server's DMA requests. Default true. */
  twinSocket?: boolean | undefined;
  /** How many commands may wait for their replies at once. Default 128; 1 over a stream, and where a server loses step. */
  inFlight?: number | undefined;
  /** The most data in one REGION_WRITE. Default 32 KiB (8 KiB over a stream): more is not sent in one piece by Linux. */
  writeChunkBytes?: number | undefined;
  /**
   * The most time that a wait may spin, in microseconds: a synchronous call before it blocks; the event loop, for no more
   * than 20, before it sleeps while an answer is awaited, or a server that was answered may ask again; an NVMe queue that is
   * polled, while a completion is awaited. How long a wait spins adapts to what it gains, and is 0 while that is nothing or
   * other threads want the processor (`device.counters.spin`). 0 never spins, and 50,000 is the most. Default 50.
   */
  spinUs?: number | undefined;
  /** Never gives the server an fd of DMA memory: it reads and writes by message only. Default false. */
  secureDma?: boolean | undefined;
  /** How much memory small DMA buffers share, and get more of, at a time. Bytes; default 4 MiB. */
  arenaBytes?: number | undefined;
  /** Backs DMA memory with huge pages of 2 MiB. Default false. */
  hugePages?: boolean | undefined;
  /** Tries optional commands even on a server that answered minor 0 (some lose step then). Default false. */
  tryOptional?: boolean | undefined;
  /** What this server does not do as the specification says; `vfio-user doctor` finds it. Default none. */
  quirks?: Quirks | undefined;
  /** Certificates and keys for a `tls://` address. */
  tls?: TlsSettings | undefined;
  /** The protocol version to propose. Default 0.2. */
  version?: { major: number; minor: number } | undefined;
}

/** Of `spinUs`. */
const DEFAULT_SPIN_US = 50;
/** Nothing else of the process runs while a wait spins. */
const MOST_SPIN_US = 50_000;
const UNIX_WRITE_CHUNK = 32 * 1024;
/** Relays re-chunk a stream, and servers read a header with one recv: small commands arrive whole more often. */
const STREAM_WRITE_CHUNK = 8 * 1024;
const CHUNKS_IN_FLIGHT = 4;
/** A header, at least; 4,096 with the extended space. What a server claims beyond is not looked at. */
const LEAST_CONFIG_SIZE = 64;
const MOST_CONFIG_SIZE = 4096;
/** A version's numbers are of 16 bits. */
const MAX_VERSION = 0xffff;

const RECONNECT_OPTIONS = new option.OptionTable<ReconnectOptions>({ timeoutMs: option.timeout });
const VERSION = new option.OptionTable<{ major: number; minor: number }>(
  { major: option.wholeNumber(0, MAX_VERSION), minor: option.wholeNumber(0, MAX_VERSION) },
  ['major', 'minor'],
);
const PCI = new option.OptionTable<PciEndpoint>(
  { pci: option.string, reset: option.oneOf('function', 'hot') },
  ['pci'],
);
const MODEL = new option.OptionTable<ModelEndpoint>({ model: option.unchecked, options: option.unchecked }, [
  'model',
]);
const OPTIONS = new option.OptionTable<ConnectOptions>({
  ...option.CALL_CHECKS,
  ...TRACE_CHECKS,
  waitForSocket: option.boolean,
  socketPermissions: option.oneOf('warn', 'refuse', 'ignore'),
  serverUid: option.wholeNumber(0, UINT32_MAX),
  mmap: option.oneOf('always', 'sealed', 'never'),
  reconnect: option.byType('true, false or { timeoutMs }', {
    boolean: option.boolean,
    object: option.options(RECONNECT_OPTIONS),
  }),
  twinSocket: option.boolean,
  inFlight: option.wholeNumber(1, MAX_IN_FLIGHT),
  writeChunkBytes: option.wholeNumber(1),
  spinUs: option.wholeNumber(0, MOST_SPIN_US),
  secureDma: option.boolean,
  arenaBytes: option.wholeNumber(1, MAX_VIEW_BYTES),
  hugePages: option.boolean,
  tryOptional: option.boolean,
  // Plain data, which may come from a file: `checkQuirks`.
  quirks: option.unchecked,
  tls: tlsSettings,
  version: option.options(VERSION),
});

/**
 * Connects to a vfio-user server and opens its device.
 *
 * @param endpoint - a Unix socket's path, `@name` of an abstract one, `tcp://HOST:PORT`, `tls://HOST:PORT`,
 *   `ssh://USER@HOST/PATH`, `vsock://CID:PORT`, `fd:N`; or `{ path }`, `{ fd }` of a
 *   connected socket, `{ vsock: { cid, port } }`, `{ stream }`, any Duplex that carries bytes, or `{ dial }`, a function that opens one; or
 *   `{ model }`, a device of this process; or `pci:0000:01:00.0` or `{ pci: '0000:01:00.0' }`, one that vfio-pci has.
 * @throws TransportError (`ENOENT`, `ECONNREFUSED`, …), TimeoutError, ProtocolError, RemoteError, UnsupportedError,
 *   ClosedError; TypeError and RangeError for options that make no sense; the signal's reason.
 *
 * @example
 * ```ts
 * await using device = await connect('/tmp/edu.sock', { timeoutMs: 2_000, waitForSocket: true });
 * await device.enable();
 * console.log(await device.bar(0).readUInt32(0));
 * ```
 */
export async function connect(
  endpoint: Endpoint | ModelEndpoint | PciEndpoint,
  options: ConnectOptions = {},
): Promise<Device> {
  OPTIONS.check('connect', options);
  const opener = await openerOf(endpoint);
  const quirks = checkQuirks(options.quirks);
  const settings = withQuirks(options, quirks);
  const { timeoutMs = DEFAULT_TIMEOUT_MS, signal } = settings;
  const deadline = performance.now() + timeoutMs;
  const call = (): CallOptions => ({ timeoutMs: Math.max(1, deadline - performance.now()), signal });
  requireLittleEndian();
  // A quirk's.
  if (settings.inFlight !== undefined) checkInFlight(settings.inFlight);
  const reconnect = reconnectOptions(opener, settings);
  const tap = await openTap(
    { trace: settings.trace, capture: settings.capture, registers: settings.registers },
    true,
  );
  const observer = new RequestObserver();
  let context: DeviceContext | undefined;
  let dialled: Dialled | undefined;
  const dialAgain = (again: CallOptions): Promise<Dialled> =>
    dial(opener, settings, quirks, { tap, observer }, again);
  try {
    dialled = await dialAgain(call());
    const { connection, negotiated } = dialled;
    const forContext = {
      ...contextOptions(settings, quirks, connection.passesFds),
      addresses: opener.hardware?.()?.addresses,
      whyNoReset: opener.hardware?.()?.whyNoReset,
    };
    const inside = (context = new DeviceContext(connection, negotiated, forContext));
    inside.addResource(tap);
    const description = await discover(connection, call());
    const { info, regions: descriptions, irqs } = description;
    for (const region of descriptions) inside.addResource(region);
    const regions = descriptions.map((region) => new Region(inside, region));
    const isPci = (info.flags & DEVICE_FLAG_PCI) !== 0;
    const config = isPci ? await shadow(inside, regions, call()) : undefined;
    const device = new Device(inside, { info, regions, irqs, config }, settings);
    connection.trim();
    if (reconnect === undefined) {
      void connection.closed.then((reason) => {
        inside.end(reason);
        opener.close?.();
      });
    } else inside.addResource(watch(device, inside, description, reconnect, dialAgain));
    if (opened.hasSubscribers) opened.publish({ device, endpoint: shownEndpoint(endpoint) });
    return device;
  } catch (error) {
    context?.closeResources();
    dialled?.connection.close();
    opener.close?.();
    tap.close();
    throw error;
  }
}

/**
 * A device of this machine that vfio-pci has. Its own process drives it: mapped BARs, DMA memory and interrupts are the
 * kernel's, and registers by message a pread or pwrite.
 */
export interface PciEndpoint {
  /** Domain, bus, device and function: `0000:01:00.0`; `01:00.0` is of domain 0000. */
  pci: string;
  /**
   * What `device.reset()` does. `'function'`: the function's own way (FLR for one) where it has one, a hot reset otherwise.
   * `'hot'`: a reset of the bus or slot that the function is on, with all functions there, which must be in its IOMMU group.
   * Default `'function'`.
   */
  reset?: 'function' | 'hot' | undefined;
}

/** For people: a model has no address. */
function shownEndpoint(endpoint: Endpoint | ModelEndpoint | PciEndpoint): string {
  if (typeof endpoint === 'string') return endpoint.replace(/^\0/, '@');
  for (const name of ['path', 'name', 'pci'] as const) {
    if (name in endpoint) return String((endpoint as unknown as Record<string, unknown>)[name]);
  }
  return 'model' in endpoint ? 'in this process' : (Object.keys(endpoint)[0] ?? 'of no name');
}

/** How a transport to the device is had. */
interface Opener {
  /** Whether it can be opened again when it has ended. */
  readonly canOpenAgain: boolean;
  open(options: OpenOptions): Promise<OpenTransport> | OpenTransport;
  /** What stands behind a device that is hardware, once it is open. */
  hardware?(): Hardware | undefined;
  /** The connection has ended: what was opened for it is closed. */
  close?(): void;
}

/** What `pci:ADDRESS` begins with, where an endpoint is a string. */
const PCI_PREFIX = 'pci:';

/** @throws TypeError for what is no address. */
async function pciOpener(address: unknown, reset?: ResetKind): Promise<Opener> {
  const { KernelDevice, pciAddress } = await import('../vfio/index.js');
  const name = pciAddress('connect: endpoint', address);
  if (process.platform !== 'linux')
    throw new UnsupportedError(`VFIO is Linux's; this is ${process.platform}`);
  let device: InstanceType<typeof KernelDevice> | undefined;
  return {
    canOpenAgain: false,
    open: async () => {
      const { openModel } = await import('../emulator/in-process.js');
      device = new KernelDevice(name, reset);
      return openModel(device, { maxMsgFds: MAX_MESSAGE_FDS });
    },
    hardware: () => device?.hardware,
    close: () => device?.close(),
  };
}

/** @throws TypeError and RangeError for what is no endpoint, and for a device that contradicts itself. */
async function openerOf(endpoint: Endpoint | ModelEndpoint | PciEndpoint): Promise<Opener> {
  if (typeof endpoint === 'string' && endpoint.startsWith(PCI_PREFIX)) {
    return pciOpener(endpoint.slice(PCI_PREFIX.length));
  }
  if (typeof endpoint === 'object' && endpoint !== null && 'pci' in endpoint) {
    PCI.check('connect: endpoint', endpoint);
    return pciOpener(endpoint.pci, endpoint.reset);
  }
  if (typeof endpoint === 'object' && endpoint !== null && 'model' in endpoint) {
    MODEL.check('connect: endpoint', endpoint);
    const { model, options } = endpoint;
    // Whoever has no device in the process does not load what serves one.
    const { checkModel, openModel } = await import('../emulator/in-process.js');
    checkModel('connect: endpoint.options', model, options);
    return {
      canOpenAgain: true,
      open: () => openModel(model, options),
      hardware: () => model.hardware,
    };
  }
  checkEndpoint('connect', endpoint);
  return { canOpenAgain: canOpenAgain(endpoint), open: (options) => openEndpoint(endpoint, options) };
}

/** A connection with its version negotiated. */
async function dial(
  opener: Opener,
  options: ConnectOptions,
  quirks: CheckedQuirks,
  watchers: Pick<ConnectionOptions, 'tap' | 'observer'>,
  call: CallOptions,
): Promise<Dialled> {
  const open = await opener.open({
    timeoutMs: call.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    signal: call.signal,
    waitForSocket: options.waitForSocket ?? false,
    socketPermissions: options.socketPermissions,
    serverUid: options.serverUid,
    tls: options.tls,
  });
  const { timeoutMs, spinUs } = options;
  const connection = new Connection(open, { timeoutMs, spinUs, ...watchers });
  connection.inFlightLimit = options.inFlight ?? (connection.passesFds ? connection.inFlightLimit : 1);
  try {
    const negotiated = await negotiate(connection, options, call);
    connection.forbidden = quirks.doNotSend;
    return { connection, negotiated };
  } catch (error) {
    connection.close();
    throw error;
  }
}

function watch(
  device: Device,
  context: DeviceContext,
  description: DeviceDescription,
  options: ReconnectOptions,
  dialAgain: (call: CallOptions) => Promise<Dialled>,
): Reconnector {
  const hooks = {
    dial: dialAgain,
    negotiated: context.negotiated,
    description,
    restore: (now: DeviceDescription, call: CallOptions) => device.restore(now.regions, call),
    onLost: (reason: VfioUserError) => device.emit('lost', reason),
    onReconnected: () => device.emit('reconnected'),
  };
  return new Reconnector(context, hooks, options);
}

/** Undefined where the device is not to come back. */
function reconnectOptions(opener: Opener, { reconnect }: ConnectOptions): ReconnectOptions | undefined {
  if (reconnect === undefined || reconnect === false) return undefined;
  if (!opener.canOpenAgain) {
    throw new TypeError(
      'reconnect needs an endpoint that can be opened again: a path, tcp:, tls: or ssh:, { vsock } or { dial }',
    );
  }
  return reconnect === true ? {} : reconnect;
}

/** Config space, where the device has one that can be read. */
async function shadow(
  context: DeviceContext,
  regions: readonly Region[],
  options: CallOptions,
): Promise<ConfigSpace | undefined> {
  const region = regions[PciRegion.CONFIG];
  if (region === undefined || region.size < LEAST_CONFIG_SIZE || !region.readable) return undefined;
  const config = new ConfigSpace(
    region,
    Math.min(region.size, MOST_CONFIG_SIZE),
    context.negotiated.minor === 0,
    context.memorySpace,
  );
  await config.refresh(options);
  return config;
}

/** An option goes before the quirk of its name. */
function withQuirks(options: ConnectOptions, quirks: CheckedQuirks): ConnectOptions {
  return {
    ...options,
    writeChunkBytes: options.writeChunkBytes ?? quirks.writeChunkBytes,
    inFlight: options.inFlight ?? quirks.inFlight,
    twinSocket: options.twinSocket ?? quirks.twinSocket,
  };
}

function contextOptions(
  options: ConnectOptions,
  quirks: CheckedQuirks,
  passesFds: boolean,
): DeviceContextOptions {
  return {
    mmap: options.mmap ?? 'always',
    writeChunkBytes: options.writeChunkBytes ?? (passesFds ? UNIX_WRITE_CHUNK : STREAM_WRITE_CHUNK),
    chunksInFlight: CHUNKS_IN_FLIGHT,
    inFlightFixed: options.inFlight !== undefined,
    spinUs: options.spinUs ?? DEFAULT_SPIN_US,
    tryOptional: options.tryOptional ?? false,
    accessWidths: quirks.accessWidths,
  };
}
