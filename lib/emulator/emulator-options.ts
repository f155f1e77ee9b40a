/** Options of a server: how it treats its clients. */
import { inspect } from 'node:util';
import type { VfioUserError } from '../errors.js';
import { UINT64_MAX } from '../fields.js';
import type { FaultPlan, FaultPlanSpec, FaultSpec, FiredFault } from '../faults/index.js';
import * as option from '../options.js';
import { DEFAULT_MAX_DATA_XFER_SIZE, DEFAULT_MAX_DMA_MAPS, DEFAULT_PGSIZES } from '../protocol/constants.js';
import { MAX_MESSAGE_FDS } from '../transport/index.js';
import { CommandMetrics } from './command-metrics.js';
import type { Hardware } from './device-model.js';
import type { DirtyTelling } from './dirty-tracking.js';
import type { Intercept } from './faults.js';
import { fdsForClients, mappingsForClients, queuedFdsFor } from '../process-limits.js';
import { MAX_TIMER_MS } from '../system-numbers.js';

/** The most that every known client takes for an answer: QEMU 10 is the strictest (VFIO_USER_MAX_MAX_FDS). */
const STRICTEST_MAX_MSG_FDS = 16;

/** Options of `serve`, `serveFd` and `serveStream`. */
export interface EmulatorOptions {
  /** The highest minor version that is spoken, 0 to 2; 2 by default. */
  minor?: number;
  /** Whether clients that ask for a twin socket get one; true by default. It takes a Unix socket. */
  twinSocket?: boolean;
  /** Whether clients that know REGION_WRITE_MULTI may use it; true by default. */
  writeMultiple?: boolean;
  /** The most bytes of data in one REGION_READ or REGION_WRITE, at most and by default 1 MiB. */
  maxDataXferSize?: number;
  /** The most fds that a client may send in one message, at most 64; 16 by default, as QEMU refuses servers that take more. */
  maxMsgFds?: number;
  /**
   * The most DMA mappings of a client; further ones are answered ENOSPC. By default an equal share for each client that
   * is served at the same time, of half of what the kernel lets a process have (vm.max_map_count), at most 65,535. All
   * servers of a process together map no more than that half: then the answer is ENOMEM.
   */
  maxDmaMaps?: number;
  /**
   * The most eventfds that are kept for a client; further ones are answered EMFILE. By default an equal share of half of
   * the file descriptors that the process may have (RLIMIT_NOFILE).
   */
  maxEventFds?: number;
  /**
   * Whether clients may map what can be mapped of the regions, and write doorbells by fd; 'always' by default. With 'never' all
   * accesses are messages, and no fd of the device's leaves the process. Of hardware it would be the fd that its owner has.
   */
  mmap?: 'always' | 'never';
  /** The page sizes of DMA mappings, or'ed together; 4096 by default, of hardware those of its IOMMU. The smallest is what mappings are aligned to. */
  pgsizes?: bigint;
  /** How a client can learn which of its memory the device wrote through mappings; 'none' by default. */
  dirtyPages?: DirtyTelling;
  /** How long a client may take to answer DMA_READ and DMA_WRITE, in milliseconds; 5,000 by default. */
  dmaTimeoutMs?: number;
  /** How long a client may take to send VERSION once it is connected, in milliseconds; 5,000 by default. */
  versionTimeoutMs?: number;
  /** How long the rest of a message may take that has begun, in milliseconds; 10,000 by default. */
  messageTimeoutMs?: number;
  /** Called for every client that gets a place: it has sent VERSION, and is about to be answered. */
  onClient?: (client: ConnectedClient) => void;
  /** Sees every command before it is carried out, and may make it fail: see `Intercept`. */
  intercept?: Intercept;
  /**
   * What goes wrong with the device. Regions whose registers it is about are not mapped then: all accesses come by message. A
   * `FaultPlan` can be asked what happened.
   */
  faults?: readonly FaultSpec[] | FaultPlanSpec | FaultPlan;
  /** Told of each fault as it happens. */
  onFault?: (fault: FiredFault) => void;
  /**
   * Called with errors that are the device's own fault: what a handler threw that was no `DeviceError`. The command is
   * answered EIO all the same. A process warning by default.
   */
  onError?: (error: unknown) => void;
}

const MOST_DMA_MAPS = 0xffff_ffff;
const MOST_FDS = 0x7fff_ffff;

/** A connection, for those who watch a server. */
export interface ConnectedClient {
  /** The reason, when the connection has ended. */
  readonly closed: Promise<VfioUserError>;
  /** Whether the connection has ended. */
  readonly isClosed: boolean;
  /** Ends the connection. Idempotent. */
  close(): void;
}

/** Options with nothing left open. */
export interface Settings extends Omit<
  Required<EmulatorOptions>,
  'intercept' | 'onClient' | 'faults' | 'onFault'
> {
  /** The most fds of a client whose commands wait. */
  maxQueuedFds: number;
  /** `maxDmaMaps` was given: the reply to VERSION names it, also to clients that do not propose it. */
  tellsMaxDmaMaps: boolean;
  /** Of all clients together. */
  metrics: CommandMetrics;
  intercept: Intercept | undefined;
  onFault: ((fault: FiredFault) => void) | undefined;
  onClient: ((client: ConnectedClient) => void) | undefined;
}

export const EMULATOR_CHECKS: option.Checks<EmulatorOptions> = {
  minor: option.wholeNumber(0, 2),
  twinSocket: option.boolean,
  writeMultiple: option.boolean,
  maxDataXferSize: option.wholeNumber(1, DEFAULT_MAX_DATA_XFER_SIZE),
  maxMsgFds: option.wholeNumber(0, MAX_MESSAGE_FDS),
  maxDmaMaps: option.wholeNumber(0, MOST_DMA_MAPS),
  maxEventFds: option.wholeNumber(0, MOST_FDS),
  mmap: option.oneOf('always', 'never'),
  pgsizes: option.bigInteger(1n, UINT64_MAX),
  dirtyPages: option.oneOf('none', 'logging', 'legacy', 'unmap'),
  dmaTimeoutMs: option.wholeNumber(1, MAX_TIMER_MS),
  versionTimeoutMs: option.wholeNumber(1, MAX_TIMER_MS),
  messageTimeoutMs: option.wholeNumber(1, MAX_TIMER_MS),
  onClient: option.callback,
  intercept: option.callback,
  // What a plan says is checked with it.
  faults: option.unchecked,
  onFault: option.callback,
  onError: option.callback,
};
export const EMULATOR_OPTIONS = new option.OptionTable<EmulatorOptions>(EMULATOR_CHECKS);

/**
 * Fills in the defaults of options that were checked, for a server that has `places` clients at the same time. Hardware takes
 * no more than its IOMMU does.
 */
export function settingsOf(options: EmulatorOptions, places = 1, hardware?: Hardware): Settings {
  const limits = hardware?.limits;
  return {
    minor: options.minor ?? 2,
    twinSocket: options.twinSocket ?? true,
    writeMultiple: options.writeMultiple ?? true,
    maxDataXferSize: options.maxDataXferSize ?? DEFAULT_MAX_DATA_XFER_SIZE,
    maxMsgFds: options.maxMsgFds ?? STRICTEST_MAX_MSG_FDS,
    maxDmaMaps:
      options.maxDmaMaps ?? Math.min(shareOf(mappingsForClients(), places), limits?.maxDmaMaps ?? Infinity),
    maxEventFds: options.maxEventFds ?? shareOf(fdsForClients(), places),
    maxQueuedFds: queuedFdsFor(places),
    tellsMaxDmaMaps:
      (options.maxDmaMaps ?? limits?.maxDmaMaps ?? DEFAULT_MAX_DMA_MAPS) !== DEFAULT_MAX_DMA_MAPS,
    mmap: options.mmap ?? 'always',
    pgsizes: options.pgsizes ?? limits?.pgsizes ?? DEFAULT_PGSIZES,
    dirtyPages: options.dirtyPages ?? 'none',
    dmaTimeoutMs: options.dmaTimeoutMs ?? 5_000,
    versionTimeoutMs: options.versionTimeoutMs ?? 5_000,
    messageTimeoutMs: options.messageTimeoutMs ?? 10_000,
    metrics: new CommandMetrics(),
    intercept: options.intercept,
    onFault: options.onFault,
    onClient: options.onClient,
    onError: guarded(options.onError ?? warn),
  };
}

/** Called from timers and from the receive loop, so what `onError` throws must not end the process. */
function guarded(tell: (error: unknown) => void): (error: unknown) => void {
  return (error) => {
    try {
      tell(error);
    } catch (own) {
      warn(error);
      warn(own);
    }
  };
}

function warn(error: unknown): void {
  try {
    process.emitWarning(error as Error);
  } catch {
    // No error, or one of another realm.
    process.emitWarning(inspect(error));
  }
}

function shareOf(all: number, places: number): number {
  return Math.min(Math.floor(all / places), DEFAULT_MAX_DMA_MAPS);
}
