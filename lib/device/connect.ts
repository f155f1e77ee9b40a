/** Opens a device: socket, VERSION, GET_INFO, regions and interrupts, config space. Four round trips, one deadline. */
import {
  Connection,
  DEFAULT_TIMEOUT_MS,
  negotiate,
  timeoutOf,
  type CallOptions,
  type OpenTransport,
} from '../connection/index.js';
import { DEVICE_FLAG_PCI, PciRegion } from '../protocol/constants.js';
import { openTap, type TraceOptions } from '../trace/tap.js';
import { UnixTransport, openEndpoint, type Endpoint } from '../transport/index.js';
import { ConfigSpace } from './config-space.js';
import { Device } from './device.js';
import { interrogate } from './interrogate.js';
import { Region } from './region.js';
import { Session, type MmapPolicy, type SessionOptions } from './session.js';

export interface ConnectOptions extends CallOptions, TraceOptions {
  /** How long opening may take, and the deadline of every later call that says nothing. Milliseconds; default 5,000. */
  timeoutMs?: number | undefined;
  /** Waits, within the deadline, for the socket to appear and be listened on. Default false. */
  waitForSocket?: boolean | undefined;
  /** Which of the server's files may be mapped. `'sealed'` maps only what cannot shrink. Default `'always'`. */
  mmap?: MmapPolicy | undefined;
  /** Asks for a socket of its own for the server's DMA requests. Default true. */
  twinSocket?: boolean | undefined;
  /** How many commands may wait for their replies at once. Default 128; 1 over a stream, and where a server loses step. */
  inFlight?: number | undefined;
  /** The most data in one REGION_WRITE. Default 32 KiB (8 KiB over a stream): more is not sent in one piece by Linux. */
  writeChunkBytes?: number | undefined;
  /** The most time that a synchronous call may spin before it blocks, in microseconds; 0 never spins. Default 50. */
  spinUs?: number | undefined;
  /** Never gives the server an fd of DMA memory: it reads and writes by message only. Default false. */
  secureDma?: boolean | undefined;
  /** Backs DMA memory with huge pages of 2 MiB. Default false. */
  hugePages?: boolean | undefined;
  /** Tries optional commands even on a server that answered minor 0 (some lose step then). Default false. */
  tryOptional?: boolean | undefined;
  /** The protocol version to propose. Default 0.2. */
  version?: { major: number; minor: number } | undefined;
}

const UNIX_WRITE_CHUNK = 32 * 1024;
/** Relays re-chunk a stream, and servers read a header with one recv: small commands arrive whole more often. */
const STREAM_WRITE_CHUNK = 8 * 1024;
const CHUNKS_IN_FLIGHT = 4;
/** A header, at least; 4,096 with the extended space. What a server claims beyond is not looked at. */
const LEAST_CONFIG_SIZE = 64;
const MOST_CONFIG_SIZE = 4096;

/**
 * Connects to a vfio-user server and opens its device.
 *
 * @param endpoint a Unix socket's path (an abstract name begins with NUL), `{ fd }` of a connected socket, or
 *   `{ stream }`, any Duplex that carries bytes.
 * @throws TransportError (`ENOENT`, `ECONNREFUSED`, …), TimeoutError, ProtocolError, RemoteError, UnsupportedError,
 *   ClosedError; TypeError and RangeError for options that make no sense; the signal's reason.
 */
export async function connect(endpoint: Endpoint, options: ConnectOptions = {}): Promise<Device> {
  const timeoutMs = timeoutOf(options, DEFAULT_TIMEOUT_MS);
  const deadline = performance.now() + timeoutMs;
  const { signal } = options;
  const call = (): CallOptions => ({ timeoutMs: Math.max(1, deadline - performance.now()), signal });
  checkOptions(options);
  const tap = await openTap(options);
  let connection: Connection | undefined;
  let session: Session | undefined;
  try {
    const waitForSocket = options.waitForSocket ?? false;
    const open = await openEndpoint(endpoint, { timeoutMs, signal, waitForSocket });
    connection = new Connection(withSpin(open, options.spinUs), { timeoutMs, tap });
    connection.inFlightLimit = options.inFlight ?? (connection.passesFds ? connection.inFlightLimit : 1);
    const negotiated = await negotiate(connection, options, call());
    session = new Session(connection, negotiated, sessionOptions(options, connection.passesFds));
    session.own(tap);
    const { info, regions: descriptions, irqs } = await interrogate(connection, call());
    for (const description of descriptions) session.own(description);
    const regions = descriptions.map((description) => new Region(session!, description));
    const config = (info.flags & DEVICE_FLAG_PCI) === 0 ? undefined : await shadow(session, regions, call());
    return new Device(session, { info, regions, irqs, config }, options);
  } catch (error) {
    session?.closeResources();
    connection?.close();
    tap.close();
    throw error;
  }
}

/** Config space, where the device has one that can be read. */
async function shadow(
  session: Session,
  regions: readonly Region[],
  options: CallOptions,
): Promise<ConfigSpace | undefined> {
  const region = regions[PciRegion.CONFIG];
  if (region === undefined || region.size < LEAST_CONFIG_SIZE || !region.readable) return undefined;
  const config = new ConfigSpace(
    region,
    Math.min(region.size, MOST_CONFIG_SIZE),
    session.negotiated.minor === 0,
  );
  await config.refresh(options);
  return config;
}

function withSpin(open: OpenTransport, spinUs: number | undefined): OpenTransport {
  if (spinUs === undefined) return open;
  return (handler) => {
    const transport = open(handler);
    if (transport instanceof UnixTransport) transport.setSpinCeiling(spinUs);
    return transport;
  };
}

function sessionOptions(options: ConnectOptions, passesFds: boolean): SessionOptions {
  return {
    mmap: options.mmap ?? 'always',
    writeChunkBytes: options.writeChunkBytes ?? (passesFds ? UNIX_WRITE_CHUNK : STREAM_WRITE_CHUNK),
    chunksInFlight: CHUNKS_IN_FLIGHT,
    inFlightFixed: options.inFlight !== undefined,
    tryOptional: options.tryOptional ?? false,
  };
}

function checkOptions({ mmap, writeChunkBytes, spinUs }: ConnectOptions): void {
  if (mmap !== undefined && !['always', 'sealed', 'never'].includes(mmap)) {
    throw new TypeError(`mmap is 'always', 'sealed' or 'never', not ${String(mmap)}`);
  }
  if (writeChunkBytes !== undefined && !(Number.isInteger(writeChunkBytes) && writeChunkBytes > 0)) {
    throw new RangeError(`writeChunkBytes is a positive integer, not ${writeChunkBytes}`);
  }
  if (spinUs !== undefined && !(Number.isInteger(spinUs) && spinUs >= 0)) {
    throw new RangeError(`spinUs is a non-negative integer, not ${spinUs}`);
  }
}
