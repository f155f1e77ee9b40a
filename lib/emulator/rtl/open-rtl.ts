/** `openRtl`: a simulator is started, greeted and reset, and is a device from then on. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { outOfRange, wrongType } from '../../fields.js';
import * as option from '../../options.js';
import type { BarKind } from '../../pci/index.js';
import { IDENTITY } from '../defined/define-device.js';
import { DefinedDevice, type DeviceIdentity } from '../defined/defined-device.js';
import { DEVICE_INTERRUPTS, placeMsix, type DeviceInterrupts } from '../defined/interrupts.js';
import type { ConfigCapability } from '../pci-config.js';
import { welcome } from './frames.js';
import { DmaOwner, RtlDevice, regionOf, sideOf } from './rtl-device.js';
import { RtlError } from './rtl-error.js';
import { SimulatorLink } from './simulator-link.js';
import { SimulatorProcess } from './simulator-process.js';
import { Simulator } from './simulator.js';

/** A BAR whose accesses the simulated device answers. */
export interface RtlBar {
  /** 0 to 5; a 64-bit one takes the register after it as well. */
  readonly index: number;
  /** A power of two. */
  readonly size: number;
  /** `memory32` by default. */
  readonly kind?: BarKind | undefined;
  /** Bit 3 of a memory BAR; false by default. */
  readonly prefetchable?: boolean | undefined;
}

/** What the device is, and where its simulator is. */
export interface RtlOptions {
  /** What config space says of it. */
  readonly id: DeviceIdentity;
  /** Its BARs. */
  readonly bars: readonly RtlBar[];
  /** Its interrupts; none by default. */
  readonly interrupts?: DeviceInterrupts | undefined;
  /** Further capabilities of config space. */
  readonly capabilities?: readonly ConfigCapability[] | undefined;
  /**
   * The simulator and its arguments, which is started without a shell; `{socket}` in them, and VFIO_USER_RTL_SOCKET in its
   * environment, is the socket that it is to connect to. Without it the simulator is started by hand, and `socket` says where.
   */
  readonly command?: readonly string[] | undefined;
  /** The simulator's environment, beside this process's. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** Where the simulator runs; here where nothing is said. */
  readonly cwd?: string | undefined;
  /** A file that the simulator's output is appended to. */
  readonly log?: string | undefined;
  /** Where the simulator is waited for; a path of its own by default. */
  readonly socket?: string | undefined;
  /** The width of the bus, in bytes: 4, the default, or 8. */
  readonly busBytes?: 4 | 8 | undefined;
  /** How many cycles of the clock the device may take for a beat of the bus. Default 1,000. */
  readonly accessCycles?: number | undefined;
  /**
   * How many cycles the clock runs at a time while no access is under way; an access waits for so many at the most. With 0 only
   * accesses and `advance` make simulated time pass. Default 1,000.
   */
  readonly runCycles?: number | undefined;
  /** How long the simulator may take for an answer, in milliseconds, without the time that host memory takes. Default 10,000. */
  readonly timeoutMs?: number | undefined;
  /** How long it may take until it has connected, in milliseconds. Default 30,000. */
  readonly startTimeoutMs?: number | undefined;
  /** Gives up starting it. */
  readonly signal?: AbortSignal | undefined;
}

const RTL_BAR = new option.OptionTable<RtlBar>(
  {
    index: option.wholeNumber(0, 5),
    size: option.wholeNumber(1),
    kind: option.oneOf('memory32', 'memory64', 'io'),
    prefetchable: option.boolean,
  },
  ['index', 'size'],
);
const MOST_CYCLES = 0xffff_ffff;
/** How long after its socket a simulator may take to end, for its exit status to be told. */
const EXIT_MS = 300;
const OPTIONS = new option.OptionTable<RtlOptions>(
  {
    id: option.options(IDENTITY),
    bars: option.listOf('BARs', option.options(RTL_BAR)),
    interrupts: option.options(DEVICE_INTERRUPTS),
    capabilities: option.unchecked,
    command: option.listOf('words', option.string),
    env: option.byType('an object', { object: option.unchecked }),
    cwd: option.path,
    log: option.path,
    socket: option.path,
    busBytes: option.oneOf(4, 8),
    accessCycles: option.wholeNumber(1, MOST_CYCLES),
    runCycles: option.wholeNumber(0, MOST_CYCLES),
    timeoutMs: option.timeout,
    startTimeoutMs: option.timeout,
    signal: option.signal,
  },
  ['id', 'bars'],
);

/**
 * Starts a simulator, or waits for one, and makes a device of it: for `serve`, for `connect({ model })`, or as what the function
 * gives that `vfio-user emulate` is told of. What the two say to each other is in docs/rtl.md.
 *
 * @throws RtlError where the simulator does not start, ends, or does not keep to the protocol; TypeError and RangeError for options
 * that make no sense; the signal's reason.
 *
 * @example
 * ```ts
 * export default () =>
 *   openRtl({
 *     command: ['./obj_dir/Vdma_engine', '{socket}'],
 *     id: { vendorId: 0x1234, deviceId: 0xd3a1 },
 *     bars: [{ index: 0, size: 4096 }],
 *     interrupts: { msix: 2 },
 *   });
 * ```
 */
export async function openRtl(options: RtlOptions): Promise<RtlDevice> {
  OPTIONS.check('openRtl', options);
  const { command, socket, timeoutMs = 10_000, runCycles = 1_000 } = options;
  if (command === undefined && socket === undefined)
    throw wrongType('openRtl: options', 'given command, socket or both', 'neither');
  if (command?.length === 0) throw wrongType('openRtl: command', 'a program and its arguments', command);
  options.signal?.throwIfAborted();
  const parts = layOut(options);
  const directory = await mkdtemp(path.join(tmpdir(), 'vfio-user-rtl-'));
  const started: Started = { directory, process: undefined, link: undefined };
  try {
    const connection = await meet(options, started);
    const side = sideOf(() => parts.device, parts.vectors, parts.owner);
    const link = (started.link = new SimulatorLink(connection, side, timeoutMs));
    const simulator = new Simulator(link, runCycles, () => parts.device.clients.size > 0);
    parts.start(simulator);
    await abortable(greet(link, simulator, options, parts.vectors), options.signal);
    let closing: Promise<void> | undefined;
    const close = (): Promise<void> => (closing ??= giveBack(started));
    // A simulator that has failed is of no use to anybody: what hangs is ended.
    const ended = link.ended.then(async (reason) => {
      const full = closing === undefined ? await withWords(reason, started.process) : reason;
      void started.process?.stop(true);
      return full;
    });
    return new RtlDevice(parts.device, { simulator, ended, close });
  } catch (error) {
    const full = error instanceof RtlError ? await withWords(error, started.process) : error;
    await giveBack(started);
    throw full;
  }
}

/** What is there so far. */
interface Started {
  readonly directory: string;
  process: SimulatorProcess | undefined;
  link: SimulatorLink | undefined;
}

/** The device without its simulator. @throws RangeError for BARs that do not fit each other. */
function layOut(options: RtlOptions): {
  device: DefinedDevice;
  vectors: number;
  owner: DmaOwner;
  start(simulator: Simulator): void;
} {
  const { id, bars, interrupts = {}, capabilities = [], busBytes = 4, accessCycles = 1_000 } = options;
  const { msi = 0, intx = false } = interrupts;
  const msix = placeMsix(
    interrupts.msix,
    new Map(bars.map(({ index, kind }) => [index, { is64: kind === 'memory64' }])),
  );
  if (msix !== undefined && msix.ownSize === undefined)
    throw outOfRange(`openRtl: MSI-X is in BAR ${msix.bar}, which the simulator has: give it another`);
  let simulator: Simulator | undefined;
  const running = (): Simulator => {
    if (simulator === undefined) throw new RtlError('the simulator has not been started');
    return simulator;
  };
  const owner = new DmaOwner(() => device.clients);
  const bus = { width: busBytes, cycles: accessCycles };
  const device: DefinedDevice = new DefinedDevice({
    id,
    bars: bars.map(({ index, size, kind = 'memory32', prefetchable = false }) => ({
      index,
      size,
      kind,
      prefetchable,
      content: { handler: regionOf(index, bus, owner, running) },
    })),
    msix,
    msi,
    intx,
    capabilities,
    behaviour: [],
    onReset: () => undefined,
    onError: () => undefined,
  });
  const vectors = Math.max(msix?.vectors ?? 0, msi, intx ? 1 : 0);
  return { device, vectors, owner, start: (one) => (simulator = one) };
}

/** Listens, starts the simulator, and takes the first that connects. */
async function meet(options: RtlOptions, started: Started): Promise<Socket> {
  const { command, env, cwd, startTimeoutMs = 30_000, signal } = options;
  const socket = options.socket ?? path.join(started.directory, 'rtl.sock');
  const log = options.log ?? path.join(started.directory, 'simulator.log');
  const server = createServer({ pauseOnConnect: true });
  server.maxConnections = 1;
  const connected = once(server, 'connection') as Promise<[Socket]>;
  connected.catch(() => undefined);
  const limit = new AbortController();
  const timer = setTimeout(
    () => limit.abort(new RtlError(`no simulator connected within ${startTimeoutMs} ms`)),
    startTimeoutMs,
  );
  try {
    server.listen({ path: socket });
    await Promise.race([once(server, 'listening'), failure(server, socket)]);
    if (command !== undefined) started.process = new SimulatorProcess({ command, socket, env, cwd, log });
    const ended = started.process?.ended.then((how) => {
      throw new RtlError(`the simulator ended before it connected: ${how} (${command?.join(' ')})`);
    });
    const [connection] = await abortable(
      abortable(Promise.race([connected, ...(ended === undefined ? [] : [ended])]), limit.signal),
      signal,
    );
    return connection;
  } finally {
    clearTimeout(timer);
    // One simulator is one device: nobody else is let in.
    server.close();
  }
}

async function failure(server: ReturnType<typeof createServer>, socket: string): Promise<never> {
  const [cause] = (await once(server, 'error')) as [NodeJS.ErrnoException];
  const advice = cause.code === 'EADDRINUSE' ? ': something listens there, or did: remove it' : '';
  throw new RtlError(`${socket} cannot be listened on: ${cause.message}${advice}`, { cause });
}

async function greet(
  link: SimulatorLink,
  simulator: Simulator,
  { bars, busBytes = 4 }: RtlOptions,
  vectors: number,
): Promise<void> {
  await link.greet();
  const sizes: number[] = [];
  for (const { index, size } of bars) sizes[index] = size;
  link.send(welcome(busBytes, vectors, sizes));
  await simulator.reset();
}

async function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  work.catch(() => undefined);
  signal.throwIfAborted();
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort);
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  }
}

/** How the simulator ended, and what it said before, belong to the reason. */
async function withWords(reason: RtlError, simulator: SimulatorProcess | undefined): Promise<RtlError> {
  if (simulator === undefined) return reason;
  const end = await simulator.endedBy(EXIT_MS);
  const words = await simulator.lastWords();
  const how = end === undefined || reason.message.includes(end) ? '' : ` (${end})`;
  return how + words === '' ? reason : new RtlError(`${reason.message}${how}${words}`, { cause: reason });
}

/** A simulator that has connected sees that its socket is closed, and ends in order. */
async function giveBack({ directory, process, link }: Started): Promise<void> {
  link?.bye();
  await process?.stop(link !== undefined);
  await rm(directory, { recursive: true, force: true });
}
