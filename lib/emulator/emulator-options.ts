/** What a server can be told about the way it treats its clients. */
import type { VfioUserError } from '../errors.js';
import { DEFAULT_MAX_DATA_XFER_SIZE, DEFAULT_MAX_DMA_MAPS, DEFAULT_PGSIZES } from '../protocol/constants.js';
import { MAX_MESSAGE_FDS } from '../transport/index.js';
import type { DirtyTelling } from './dirty-tracking.js';
import type { Intercept } from './faults.js';

/** The most that every known client takes for an answer: QEMU 10 is the strictest (VFIO_USER_MAX_MAX_FDS). */
const STRICTEST_MAX_MSG_FDS = 16;

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
  /** The most DMA mappings of a client; 65535 by default. */
  maxDmaMaps?: number;
  /** The page sizes of DMA mappings, or'ed together; 4096 by default. The smallest is what mappings are aligned to. */
  pgsizes?: bigint;
  /** How a client can learn which of its memory the device wrote through mappings; 'none' by default. */
  dirtyPages?: DirtyTelling;
  /** How long a client may take to answer DMA_READ and DMA_WRITE, in milliseconds; 5,000 by default. */
  dmaTimeoutMs?: number;
  /** Is told of every client as it is accepted, before it has negotiated. */
  onClient?: (client: ConnectedClient) => void;
  /** Sees every command before it is carried out, and may make it fail: see `Intercept`. */
  intercept?: Intercept;
  /**
   * Is told of errors that are the device's own fault: what a handler threw that was no `DeviceError`. The command is
   * answered EIO all the same. A process warning by default.
   */
  onError?: (error: unknown) => void;
}

/** A connection, for those who watch a server. */
export interface ConnectedClient {
  /** The reason, when the connection has ended. */
  readonly closed: Promise<VfioUserError>;
  /** Ends it. */
  close(): void;
}

/** Options with nothing left open. */
export interface Settings extends Omit<Required<EmulatorOptions>, 'intercept' | 'onClient'> {
  intercept: Intercept | undefined;
  onClient: ((client: ConnectedClient) => void) | undefined;
}

/** Fills in the defaults. Throws a RangeError for numbers that make no sense. */
export function settingsOf(options: EmulatorOptions): Settings {
  const { pgsizes = DEFAULT_PGSIZES } = options;
  if (pgsizes <= 0n || pgsizes >= 1n << 64n) throw new RangeError(`pgsizes must be page sizes in 64 bits`);
  return {
    minor: whole('minor', options.minor ?? 2, 0, 2),
    twinSocket: options.twinSocket ?? true,
    writeMultiple: options.writeMultiple ?? true,
    maxDataXferSize: whole(
      'maxDataXferSize',
      options.maxDataXferSize ?? DEFAULT_MAX_DATA_XFER_SIZE,
      1,
      DEFAULT_MAX_DATA_XFER_SIZE,
    ),
    maxMsgFds: whole('maxMsgFds', options.maxMsgFds ?? STRICTEST_MAX_MSG_FDS, 0, MAX_MESSAGE_FDS),
    maxDmaMaps: whole('maxDmaMaps', options.maxDmaMaps ?? DEFAULT_MAX_DMA_MAPS, 0, 0xffffffff),
    pgsizes,
    dirtyPages: options.dirtyPages ?? 'none',
    dmaTimeoutMs: whole('dmaTimeoutMs', options.dmaTimeoutMs ?? 5_000, 1, 0x7fffffff),
    intercept: options.intercept,
    onClient: options.onClient,
    onError: options.onError ?? warn,
  };
}

function warn(error: unknown): void {
  process.emitWarning(error instanceof Error ? error : new Error(String(error)));
}

function whole(name: string, value: number, least: number, most: number): number {
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new RangeError(`${name} must be a whole number from ${least} to ${most}, not ${value}`);
}
