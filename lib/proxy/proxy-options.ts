/** What a proxy can be told. */
import type { Duplex } from 'node:stream';
import { integer } from '../fields.js';
import { fdsForClients } from '../process-limits.js';
import { HEADER_SIZE } from '../protocol/constants.js';
import type { TraceOptions } from '../trace/index.js';
import { MAX_MESSAGE_SIZE, type VsockAddress } from '../transport/index.js';
import type { WayCounters } from './counters.js';
import { FaultPlan } from './fault-plan.js';
import { checkPlan, type FaultPlanSpec, type FaultSpec } from './fault-spec.js';

/**
 * Where clients come: a Unix socket's path or the `@name` of an abstract one, with the permission bits of its file (0o600);
 * or a TCP port of this machine (0 for any that is free), of one address of it (127.0.0.1), also as `tcp:HOST:PORT`.
 */
export type ListenAddress = string | { path: string; mode?: number } | { port: number; host?: string };

/**
 * Where the server is: a Unix socket's path or the `@name` of an abstract one, `tcp:HOST:PORT`, a vsock port, or a function
 * that opens a connection each time that it is called: a Duplex that carries bytes, or the fd of a connected socket.
 */
export type ServerAddress =
  | string
  | { path: string }
  | { vsock: VsockAddress }
  | { dial: (signal: AbortSignal) => Duplex | number | Promise<Duplex | number>; name?: string };

export interface ProxyOptions extends TraceOptions {
  listen: ListenAddress;
  connect: ServerAddress;
  /** How long connecting to the server may take, in milliseconds; 5,000 by default. */
  timeoutMs?: number;
  /** Waits for the server's socket to appear, within the time; false by default. */
  waitForSocket?: boolean;
  /**
   * Clients at the same time, each with a connection to the server, when their first message has come; 64 by default. The
   * others wait, in the order of those messages, as many as 64: then who has been silent for the longest time goes.
   */
  maxClients?: number;
  /** How long a client may take to send its first message, VERSION, once it is connected, in milliseconds; 5,000 by default. */
  versionTimeoutMs?: number;
  /**
   * Where interrupts are seen, the most of a client's that are; further ones pass unseen, and a notice says so. By default an
   * equal share, for each of `maxClients`, of half of the file descriptors that the process may have (RLIMIT_NOFILE): each
   * takes two, and as many again while it is replaced.
   */
  maxEventFds?: number;
  /** What happens to messages on their way. */
  faults?: readonly FaultSpec[] | FaultPlanSpec;
  /**
   * `interpose`, by default: the socket that the server gives for its own requests goes through the proxy as well, which
   * is the only way to see DMA by message. `pass`: client and server have it to themselves.
   */
  twinSocket?: 'interpose' | 'pass';
  /**
   * Whether the eventfds of interrupts go through the proxy as well, so that interrupts are traced and captured, which
   * makes them a little later. By default where there is a trace or a capture.
   */
  interrupts?: boolean;
  /**
   * After a header whose size makes no sense: `close`, by default, ends the connection by name; `pass` hands over all
   * that follows on that way as it is, unseen.
   */
  malformed?: 'close' | 'pass';
  /** The largest message, in bytes; 1 MiB and 4,096 by default. A header that says more makes no sense. */
  maxMessageBytes?: number;
  /**
   * How long, in microseconds, to look for the next message before sleeping, as long as that has lately paid; 50 by
   * default, 0 never looks. It saves about half of what the proxy adds to a round trip, and costs processor time.
   */
  spinUs?: number;
  /** Is told what happens, as it happens. It must not throw. */
  onEvent?: (event: ProxyEvent) => void;
}

/** `client` counts from 1. */
export type ProxyEvent =
  | { type: 'connected'; client: number }
  /** `code` is that of the error that ended it: `ERR_VFIO_USER_CLOSED` where a side has gone. */
  | { type: 'ended'; client: number; reason: string; code: string }
  /** `fault` says which one and what it does, `message` what it happened to: `REGION_READ reply`. */
  | { type: 'fault'; client: number; fault: string; message: string }
  /** Something that one should know, of the proxy as a whole where no client is given. */
  | { type: 'notice'; client?: number; text: string };

/** What went through so far. */
export interface ProxyCounters {
  /** Clients that were accepted. */
  clients: number;
  /** Of them, those that are connected now, with a place or waiting for one. */
  open: number;
  /** Of them, those that no connection to the server could be had for. */
  refused: number;
  /** Client to server, and back; the twin sockets included. */
  toServer: WayCounters;
  toClient: WayCounters;
  /** How often a fault has happened. */
  faults: number;
  /** Interrupts that went through the proxy. */
  interrupts: number;
}

/** Options with nothing left open. */
export interface Settings {
  timeoutMs: number;
  waitForSocket: boolean;
  maxClients: number;
  versionTimeoutMs: number;
  maxEventFds: number;
  plan: FaultPlan | undefined;
  twinSocket: 'interpose' | 'pass';
  interrupts: boolean;
  passesUncut: boolean;
  maxMessageBytes: number;
  spinUs: number;
  onEvent: (event: ProxyEvent) => void;
}

const DEFAULT_SPIN_US = 50;
const MOST_SPIN_US = 100;
const DEFAULT_TIMEOUT_MS = 5_000;
const DEFAULT_VERSION_TIMEOUT_MS = 5_000;
/** Two, and two more while others take their place. */
const FDS_OF_AN_INTERRUPT = 4;
const MOST_FDS = 0x7fff_ffff;
const DEFAULT_MAX_CLIENTS = 64;
const MOST_CLIENTS = 1_024;
const MOST_MESSAGE_BYTES = 1 << 30;
const MAX_TIMER_MS = 0x7fff_ffff;

/** @throws TypeError and RangeError for options that make no sense. */
export function settingsOf(options: ProxyOptions): Settings {
  const { faults, twinSocket = 'interpose', malformed = 'close', trace, capture } = options;
  if (twinSocket !== 'interpose' && twinSocket !== 'pass')
    throw new TypeError("twinSocket is 'interpose' or 'pass'");
  if (malformed !== 'close' && malformed !== 'pass') throw new TypeError("malformed is 'close' or 'pass'");
  const maxClients = integer('maxClients', options.maxClients ?? DEFAULT_MAX_CLIENTS, 1, MOST_CLIENTS);
  const share = Math.floor(fdsForClients() / FDS_OF_AN_INTERRUPT / maxClients);
  return {
    timeoutMs: integer('timeoutMs', options.timeoutMs ?? DEFAULT_TIMEOUT_MS, 1, MAX_TIMER_MS),
    waitForSocket: options.waitForSocket ?? false,
    maxClients,
    versionTimeoutMs: integer(
      'versionTimeoutMs',
      options.versionTimeoutMs ?? DEFAULT_VERSION_TIMEOUT_MS,
      1,
      MAX_TIMER_MS,
    ),
    maxEventFds: integer('maxEventFds', options.maxEventFds ?? share, 0, MOST_FDS),
    plan: planOf(faults),
    twinSocket,
    interrupts: options.interrupts ?? isWanted(trace, capture),
    passesUncut: malformed === 'pass',
    maxMessageBytes: integer(
      'maxMessageBytes',
      options.maxMessageBytes ?? MAX_MESSAGE_SIZE,
      HEADER_SIZE,
      MOST_MESSAGE_BYTES,
    ),
    spinUs: integer('spinUs', options.spinUs ?? DEFAULT_SPIN_US, 0, MOST_SPIN_US),
    onEvent: options.onEvent ?? (() => undefined),
  };
}

function isWanted(trace: ProxyOptions['trace'], capture: ProxyOptions['capture']): boolean {
  return (trace !== undefined && trace !== false) || (capture !== undefined && capture !== false);
}

function planOf(faults: ProxyOptions['faults']): FaultPlan | undefined {
  if (faults === undefined) return undefined;
  const plan = checkPlan(faults);
  return plan.faults.length === 0 ? undefined : new FaultPlan(plan.faults, plan.seed);
}
