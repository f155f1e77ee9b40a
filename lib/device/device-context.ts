/**
 * What the parts of a device share: the connection that is in use, what was negotiated on it, and what must be undone
 * when the device is closed.
 *
 * ```
 *            the connection ends             close()
 *   live ─────────────────────▶ ended ◀──────────────── (any)
 *    ▲ │ the same, with `reconnect`  ▲ time over, or another device
 *    │ ▼                             │
 *    └── lost, then being set up ────┘
 * ```
 */
import { ClosedError, type VfioUserError } from '../errors.js';
import type { CallOptions, Connection, Negotiated, SyncCallOptions } from '../connection/index.js';
import type { AddressRange } from '../emulator/address-range.js';
import { MemorySpace } from './memory-space.js';
import type { CheckedQuirks } from './quirks.js';

/** Which mappable areas of the server's memory may be mapped; SECURITY.md says what each choice risks. */
export type MmapPolicy = 'always' | 'sealed' | 'never';

/** Something with an end of its own that must not outlive the device: a mapping, a vector, a DMA buffer. */
export interface Resource {
  close(): void;
}

export interface DeviceContextOptions {
  mmap: MmapPolicy;
  /** The most bytes of data in one REGION_WRITE. */
  writeChunkBytes: number;
  /** How many chunks of one long transfer may be under way at once. */
  chunksInFlight: number;
  /** The user said how many commands may be in flight: nothing else changes it. */
  inFlightFixed: boolean;
  /** The most that a wait may spin, in microseconds. */
  spinUs: number;
  /** Optional commands are tried even on a server that answered minor 0. */
  tryOptional: boolean;
  /** By region index: the widths that its accesses may have, the widest first. Default any. */
  accessWidths?: CheckedQuirks['accessWidths'];
  /** The DMA addresses that the device can be given, where that is known. */
  addresses?: readonly AddressRange[] | undefined;
  /** Why the device cannot be reset, where that is known. */
  whyNoReset?: string | undefined;
}

/** What we take in one message (MAX_MESSAGE_SIZE without its headers), whatever the server allows. */
const MAX_DATA_BYTES = 1 << 20;

/** Marks what the library does itself to set a device up again, when its users are refused. */
const SETTING_UP = Symbol('setting up');

export function forSettingUp(options: CallOptions): CallOptions {
  return { ...options, [SETTING_UP]: true } as CallOptions;
}

export class DeviceContext {
  #connection: Connection;
  #unavailable: ClosedError | undefined;
  /** Why calls are refused for good: `resume` does not lift it. */
  #refusal: ClosedError | undefined;
  #negotiated: Negotiated;
  readonly options: DeviceContextOptions;
  /** Whether the device answers in its memory, for what is mapped of hardware. */
  readonly memorySpace = new MemorySpace();
  /** Settles, never rejects, with the reason when the device is lost for good. */
  readonly ended: Promise<VfioUserError>;
  #settleEnded!: (reason: VfioUserError) => void;
  readonly #resources = new Set<Resource>();
  #isEnded = false;
  #isClosed = false;

  constructor(connection: Connection, negotiated: Negotiated, options: DeviceContextOptions) {
    this.#connection = connection;
    this.#negotiated = negotiated;
    this.options = options;
    this.ended = new Promise((resolve) => (this.#settleEnded = resolve));
  }

  /** Whether the device is lost for good. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  get connection(): Connection {
    return this.#connection;
  }

  /** Why users may not reach the device just now, as an error of its own for each caller; undefined where they may. */
  get unavailable(): ClosedError | undefined {
    return this.#unavailable === undefined
      ? undefined
      : new ClosedError(this.#unavailable.message, { cause: this.#unavailable.cause });
  }

  /** The connection, for calls of the user. @throws ClosedError while the device is being set up again, or is lost. */
  get userConnection(): Connection {
    return this.connectionFor(undefined);
  }

  /** The connection for a call with these options: a user's, or one `forSettingUp`. @throws as `userConnection` does. */
  connectionFor(options: SyncCallOptions | undefined): Connection {
    this.requireAvailable(options);
    return this.#connection;
  }

  /** @throws ClosedError where a call with these options may not be made just now. */
  requireAvailable(options: SyncCallOptions | undefined): void {
    const problem = this.problemOf(options);
    if (problem !== undefined) throw problem;
  }

  /** Why a call with these options may not be made just now; undefined where it may. */
  problemOf(options: SyncCallOptions | undefined): ClosedError | undefined {
    const isOurs = (options as { [SETTING_UP]?: true } | undefined)?.[SETTING_UP] === true;
    return this.#unavailable === undefined || isOurs ? undefined : this.unavailable;
  }

  get negotiated(): Negotiated {
    return this.#negotiated;
  }

  /** The server has come back; users wait until `resume`. */
  restoreConnection(connection: Connection, negotiated: Negotiated): void {
    this.#unavailable = new ClosedError(
      'the server has come back, and the device is still being set up again',
    );
    this.#connection = connection;
    this.#negotiated = negotiated;
  }

  resume(): void {
    this.#unavailable = this.#refusal;
  }

  /** Its owner closes the device, which has something left to do: users may not reach it any more. */
  refuseCalls(reason: ClosedError): void {
    this.#refusal = reason;
    this.#unavailable ??= reason;
  }

  /** The device is lost for good. */
  end(reason: VfioUserError): void {
    this.#isEnded = true;
    this.#unavailable = new ClosedError(reason.message, { cause: reason });
    this.#settleEnded(reason);
  }

  /** The most bytes of data that one message to this server may carry or ask for. */
  get maxDataXferSize(): number {
    return Math.min(this.#negotiated.capabilities.maxDataXferSize, MAX_DATA_BYTES);
  }

  /** How many fds one message to this server may carry; 0 where none can be passed. */
  get maxMsgFds(): number {
    return this.#connection.passesFds ? this.#negotiated.capabilities.maxMsgFds : 0;
  }

  /**
   * Whether commands that old servers do not know may be tried: one that answered minor 0 leaves their bodies in the
   * stream and loses step.
   */
  get mayTryOptional(): boolean {
    return this.#negotiated.minor > 0 || this.options.tryOptional;
  }

  /** Closes `resource` with the device. */
  addResource(resource: Resource): void {
    // What was under way when the device was closed must not outlive it.
    if (this.#isClosed) resource.close();
    else this.#resources.add(resource);
  }

  /** The resource was closed by its user. */
  removeResource(resource: Resource): void {
    this.#resources.delete(resource);
  }

  closeResources(): void {
    this.#isClosed = true;
    // In the order opposite to their opening: what was made of another goes first.
    for (const resource of [...this.#resources].reverse()) resource.close();
    this.#resources.clear();
  }
}
