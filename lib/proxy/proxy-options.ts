/** What a proxy can be told. */
import type { Duplex } from 'node:stream';
import * as option from '../options.js';
import { UINT32_MAX, wrongType } from '../fields.js';
import { fdsForClients } from '../process-limits.js';
import { HEADER_SIZE } from '../protocol/constants.js';
import { TRACE_CHECKS } from '../trace/trace-tap.js';
import type { TraceOptions } from '../trace/index.js';
import { MAX_MESSAGE_SIZE, tlsSettings, type TlsSettings, type VsockAddress } from '../transport/index.js';
import type { WayCounters } from './counters.js';
import { FaultPlan, type FaultPlanSpec, type FaultSpec } from '../faults/index.js';
import { MAX_TIMER_MS } from '../system-numbers.js';

/**
 * Where clients come: a Unix socket's path or the `@name` of an abstract one, with the permission bits of its file (0o600);
 * or a TCP port of this machine (0 for any that is free), of one address of it (127.0.0.1), also as `tcp:HOST:PORT`.
 */
export type ListenAddress = string | { path: string; mode?: number } | { port: number; host?: string };

/**
 * Where the server is: a Unix socket's path or the `@name` of an abstract one, `tcp:HOST:PORT`, `tls://`, `ssh://`, a vsock port, or a function
 * that opens a connection each time that it is called: a Duplex that carries bytes, or the fd of a connected socket.
 */
export type ServerAddress =
  | string
  | { path: string }
  | { vsock: VsockAddress }
  | { dial: (signal: AbortSignal) => Duplex | number | Promise<Duplex | number>; name?: string };

/** What a proxy can be told. */
export interface ProxyOptions extends TraceOptions {
  /** Where clients connect to. */
  listen: ListenAddress;
  /** Where the server is. */
  connect: ServerAddress;
  /** Certificates and keys for a server at `tls://`. */
  tls?: TlsSettings;
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
  /**
   * What happens to messages on their way, and what goes wrong with the device. Where that is with its registers, the region is
   * no longer mapped, and where it is with DMA, memory is not shared, so that all of it comes by message.
   */
  faults?: readonly FaultSpec[] | FaultPlanSpec | FaultPlan;
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
  /**
   * Is told what happens, as it happens. What it throws is an uncaught exception, as that of an event listener, and the
   * proxy goes on.
   */
  onEvent?: (event: ProxyEvent) => void;
}

/** `client` counts from 1. */
export type ProxyEvent =
  | { type: 'connected'; client: number }
  /** `code` is that of the error that ended it: `ERR_VFIO_USER_CLOSED` where a side has gone. */
  | { type: 'ended'; client: number; reason: string; code: string }
  /**
   * `fault` says which one and what it does, `message` what it happened to: `REGION_READ reply`. Faults of the device have no
   * client.
   */
  | { type: 'fault'; client?: number; fault: string; message: string }
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
  /** Client to server; the twin sockets included. */
  toServer: WayCounters;
  /** Server to client; the twin sockets included. */
  toClient: WayCounters;
  /** How often a fault has happened. */
  faults: number;
  /** Interrupts that went through the proxy. */
  interrupts: number;
}

/** Options with nothing left open. */
export interface Settings {
  tls: TlsSettings | undefined;
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

const VSOCK = new option.OptionTable<VsockAddress>(
  { cid: option.wholeNumber(0, UINT32_MAX), port: option.wholeNumber(0, UINT32_MAX) },
  ['cid', 'port'],
);
/** By what an address has: all that it may have. */
const LISTEN = {
  path: new option.OptionTable<{ path: string; mode?: number }>(
    { path: option.string, mode: option.wholeNumber(0, 0o7777) },
    ['path'],
  ),
  port: new option.OptionTable<{ port: number; host?: string }>(
    { port: option.wholeNumber(0, 65_535), host: option.string },
    ['port'],
  ),
};
const CONNECT = {
  path: new option.OptionTable<{ path: string }>({ path: option.string }, ['path']),
  vsock: new option.OptionTable<{ vsock: VsockAddress }>({ vsock: option.options(VSOCK) }, ['vsock']),
  dial: new option.OptionTable<{ dial: () => unknown; name?: string }>(
    { dial: option.callback, name: option.string },
    ['dial'],
  ),
};
const OPTIONS = new option.OptionTable<ProxyOptions>(
  {
    ...TRACE_CHECKS,
    listen: address('an address, or an object with path or port', LISTEN),
    connect: address('an address, or an object with path, vsock or dial', CONNECT),
    tls: tlsSettings,
    timeoutMs: option.wholeNumber(1, MAX_TIMER_MS),
    waitForSocket: option.boolean,
    maxClients: option.wholeNumber(1, MOST_CLIENTS),
    versionTimeoutMs: option.wholeNumber(1, MAX_TIMER_MS),
    maxEventFds: option.wholeNumber(0, MOST_FDS),
    // What a plan says is checked with it.
    faults: option.unchecked,
    twinSocket: option.oneOf('interpose', 'pass'),
    interrupts: option.boolean,
    malformed: option.oneOf('close', 'pass'),
    maxMessageBytes: option.wholeNumber(HEADER_SIZE, MOST_MESSAGE_BYTES),
    spinUs: option.wholeNumber(0, MOST_SPIN_US),
    onEvent: option.callback,
  },
  ['listen', 'connect'],
);

/** An address as a string, whose meaning is looked at where it is used, or one of some objects. */
function address(what: string, kinds: Readonly<Record<string, option.OptionTable<never>>>): option.Check {
  return (value, caller, name) => {
    if (typeof value === 'string') return undefined;
    const kind =
      typeof value === 'object' && value !== null
        ? Object.keys(kinds).find((member) => member in value)
        : undefined;
    if (kind === undefined) return wrongType(`${caller}: ${name}`, what, value);
    return kinds[kind]!.find(caller, `${name}.`, value);
  };
}

/** @throws TypeError and RangeError for options that make no sense. */
export function settingsOf(options: ProxyOptions): Settings {
  OPTIONS.check('proxy', options);
  const { faults, twinSocket = 'interpose', malformed = 'close', trace, capture } = options;
  const { maxClients = DEFAULT_MAX_CLIENTS } = options;
  const share = Math.floor(fdsForClients() / FDS_OF_AN_INTERRUPT / maxClients);
  const plan = planOf(faults);
  return {
    tls: options.tls,
    timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    waitForSocket: options.waitForSocket ?? false,
    maxClients,
    versionTimeoutMs: options.versionTimeoutMs ?? DEFAULT_VERSION_TIMEOUT_MS,
    maxEventFds: options.maxEventFds ?? share,
    plan,
    twinSocket,
    interrupts: plan?.needsInterrupts === true || (options.interrupts ?? isWanted(trace, capture)),
    passesUncut: malformed === 'pass',
    maxMessageBytes: options.maxMessageBytes ?? MAX_MESSAGE_SIZE,
    spinUs: options.spinUs ?? DEFAULT_SPIN_US,
    onEvent: guarded(options.onEvent ?? (() => undefined)),
  };
}

/** It is told in the middle of what must come to its end: a session that ends gives its place back. */
function guarded(tell: (event: ProxyEvent) => void): (event: ProxyEvent) => void {
  return (event) => {
    try {
      tell(event);
    } catch (error) {
      process.nextTick(() => {
        throw error;
      });
    }
  };
}

function isWanted(trace: ProxyOptions['trace'], capture: ProxyOptions['capture']): boolean {
  return (trace !== undefined && trace !== false) || (capture !== undefined && capture !== false);
}

function planOf(faults: ProxyOptions['faults']): FaultPlan | undefined {
  if (faults === undefined) return undefined;
  const plan = faults instanceof FaultPlan ? faults : new FaultPlan(faults);
  return plan.size === 0 ? undefined : plan;
}
