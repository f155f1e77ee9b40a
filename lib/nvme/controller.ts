/**
 * An NVMe controller (NVM Express Base Specification 2.0): bring-up, admin commands, queues, reset, shutdown.
 *
 * ```
 *   open ──▶ live ◀──▶ resetting ──▶ failed            commands in flight are sent again, or answered, after a reset
 *              │            │           │
 *              └── close(), or the connection ends ──▶ closed
 * ```
 * Memory that the controller may still write to is not given back: that of a controller that failed, or that is closed
 * without having been disabled, stays reserved until the device is closed.
 */
import { ClosedError, type CallOptions, type Device, type DmaBuffer, type Region } from '../index.js';
import {
  Admin,
  ADMIN_TRANSFER_BYTES,
  type AdminCommand,
  type AdminResult,
  type GetFeatureOptions,
  type LogPageOptions,
  type SetFeatureOptions,
} from './admin.js';
import { BouncePool } from './bounce-pool.js';
import { disable, enable, shutDown } from './bring-up.js';
import { CommandQueue, type CommandQueueOptions } from './command-queue.js';
import {
  nvmeSettings,
  type NvmeOptions,
  type NvmeQueueOptions,
  type NvmeSettings,
} from './controller-options.js';
import { DoorbellMap } from './doorbell-map.js';
import { NvmeControllerError } from './errors.js';
import {
  decodeControllerIdentity,
  OptionalAdminCommands,
  type ControllerIdentity,
} from './identify-controller.js';
import { IoQueues, type IoQueuesHost } from './io-queues.js';
import {
  decodeErrorLog,
  decodeFirmwareLog,
  decodeSmartLog,
  ERROR_ENTRY_SIZE,
  FIRMWARE_LOG_SIZE,
  SMART_LOG_SIZE,
  type ErrorLogEntry,
  type FirmwareLog,
  type SmartLog,
} from './log-pages.js';
import { NvmeNamespace } from './namespace.js';
import { Namespaces } from './namespaces.js';
import { FeatureId, IdentifyCns, LogPageId } from './opcodes.js';
import { probe, queuesWithDoorbells, type Probed } from './probe.js';
import { quietInterrupts } from './quiet-interrupts.js';
import type { NvmeQueue } from './queue.js';
import { QueueMemory } from './queue-memory.js';
import { QueuePair } from './queue-pair.js';
import { Recovery } from './recovery.js';
import type { ControllerCapabilities } from './registers.js';
import { takesSgls } from './sgls.js';

export type ControllerState = 'opening' | 'live' | 'resetting' | 'failed' | 'closed';

const ADMIN_QUEUE = 0;
const ADMIN_ENTRIES = 32;
const ADMIN_POOL_BYTES = 4 * ADMIN_TRANSFER_BYTES;
/** The host's own; a controller whose smallest page is larger has its way. */
const PAGE_SIZE = 4096;
/** An orderly shutdown may take RTD3E, and where that is not known this. */
const SHUTDOWN_MS = 5_000;
/** LPA bit. */
const LOG_PAGE_OFFSETS = 1 << 2;
/** Parts that exist from the beginning. */
interface Parts extends Probed {
  device: Device;
  pageSize: number;
  settings: NvmeSettings;
  adminMemory: QueueMemory;
  adminPool: DmaBuffer;
}

export class NvmeController {
  readonly device: Device;
  /** CAP. */
  readonly capabilities: ControllerCapabilities;
  /** VS, for example `1.4.0`. */
  readonly version: string;
  /** The memory page size that the controller was given, bytes. */
  readonly pageSize: number;
  readonly #bar: Region;
  readonly #settings: NvmeSettings;
  readonly #adminMemory: QueueMemory;
  readonly #adminPool: DmaBuffer;
  readonly #admin: Admin;
  readonly #doorbells: DoorbellMap;
  readonly #recovery: Recovery;
  readonly #queues: IoQueues;
  /** What the parts know of the controller; kept up to date. */
  readonly #context: Mutable<IoQueuesHost>;
  readonly #namespaces: Namespaces;
  #identityBytes: Buffer = Buffer.alloc(0);
  #identity!: ControllerIdentity;
  #state: ControllerState = 'opening';
  #resetting: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #makeEndError: (() => Error) | undefined;
  /** Losses of the connection, of a device that reconnects. */
  #losses = 0;
  /** While the connection is lost: settles when it is back, or the controller has ended. */
  #back: Promise<void> | undefined;
  #resolveBack: (() => void) | undefined;
  readonly #ended: Promise<Error>;
  #resolveEnded!: (reason: Error) => void;

  /**
   * Brings the controller of `device` up. The device stays the caller's: close the controller first.
   * @throws NvmeControllerError where it does not come up; UnsupportedError for a device that is no NVMe controller or
   * not for the NVM command set; RangeError for options that make no sense; what the device's calls throw.
   */
  static async open(device: Device, options: NvmeOptions = {}): Promise<NvmeController> {
    const settings = nvmeSettings(options);
    await device.enable();
    const { bar, capabilities, version } = await probe(device);
    const pageSize = Math.max(PAGE_SIZE, capabilities.minPageSize);
    const memory = { entries: ADMIN_ENTRIES, slots: ADMIN_ENTRIES - 1, pageSize };
    const adminMemory = await QueueMemory.allocate(device, {
      ...memory,
      maxTransferBytes: ADMIN_TRANSFER_BYTES,
    });
    const adminPool = await device.dma.alloc(ADMIN_POOL_BYTES, { alignment: pageSize });
    const parts = { device, bar, capabilities, version, pageSize, settings, adminMemory, adminPool };
    const controller = new NvmeController(parts);
    await controller.#open();
    return controller;
  }

  private constructor(parts: Parts) {
    const { device, bar, capabilities, settings, adminMemory } = parts;
    this.device = device;
    this.capabilities = capabilities;
    this.version = parts.version;
    this.pageSize = parts.pageSize;
    this.#bar = bar;
    this.#settings = settings;
    this.#adminMemory = adminMemory;
    this.#adminPool = parts.adminPool;
    this.#ended = new Promise((resolve) => (this.#resolveEnded = resolve));
    this.#doorbells = new DoorbellMap(bar, capabilities.doorbellStride, () => void this.#resetOrFail());
    this.#admin = new Admin(this.#adminQueue(parts));
    this.#namespaces = new Namespaces(this.#admin);
    this.#context = this.#makeContext();
    this.#recovery = new Recovery(bar, this.#context, () => this.#resetOrFail());
    this.#queues = new IoQueues(this.#context);
    void device.closed.then((reason) => {
      const text = `the connection has ended: ${reason.message}`;
      this.#end('closed', () => new ClosedError(text, { cause: reason }));
    });
    device.on('lost', this.#onLost);
    device.on('reconnected', this.#onReconnected);
  }

  get state(): ControllerState {
    return this.#state;
  }

  /** Settles, never rejects, with the reason when the controller has failed or is closed. */
  get ended(): Promise<Error> {
    return this.#ended;
  }

  /** What Identify Controller said. */
  get identity(): ControllerIdentity {
    return this.#identity;
  }

  /** Identify Controller as it came, 4,096 bytes. */
  get identityBytes(): Buffer {
    return Buffer.from(this.#identityBytes);
  }

  /** The longest transfer of one command, bytes. */
  get maxTransferBytes(): number {
    return this.#context.maxTransferBytes;
  }

  /** The most entries of a queue's rings. */
  get maxQueueEntries(): number {
    return this.capabilities.maxQueueEntries;
  }

  /** How many I/O queue pairs the controller granted. */
  get maxQueues(): number {
    return this.#queues.limit;
  }

  /** The I/O queue pairs that are open. */
  get queues(): readonly NvmeQueue[] {
    return this.#queues.all;
  }

  /** The identifiers of the active namespaces (Identify, CNS 02h). */
  namespaceIds(options?: CallOptions): Promise<number[]> {
    return this.#namespaces.ids(options);
  }

  /**
   * A namespace; the first active one where no number is given. Asked for once, until `refresh`.
   * @throws NvmeStatusError for one that the controller does not have; UnsupportedError where there is none.
   */
  namespace(id?: number, options: CallOptions & { refresh?: boolean } = {}): Promise<NvmeNamespace> {
    return this.#namespaces.get(id, options);
  }

  /**
   * Makes an I/O queue pair.
   * @throws RangeError for options that make no sense; UnsupportedError where the controller has no further queue, no
   * vector, or the namespace a format that the driver does not know; what commands throw.
   */
  async createQueue(options: NvmeQueueOptions = {}): Promise<NvmeQueue> {
    const { namespace: wanted } = options;
    const namespace = wanted instanceof NvmeNamespace ? wanted : await this.namespace(wanted);
    namespace.requireUsable();
    return this.#queues.create(namespace, options);
  }

  /** Any admin command. @throws as `NvmeQueue.read`; RangeError for more data than 64 KiB. */
  adminCommand(command: AdminCommand, options?: CallOptions): Promise<AdminResult> {
    return this.#admin.execute(command, options);
  }

  /** Identify: 4,096 bytes. `cns` as in `IdentifyCns`. */
  identify(cns: number, namespace = 0, options?: CallOptions): Promise<Buffer> {
    return this.#admin.identify(cns, namespace, options);
  }

  /** `length` bytes of a log page, a multiple of 4. */
  logPage(page: number, length: number, options?: LogPageOptions): Promise<Buffer> {
    return this.#admin.logPage(page, length, options);
  }

  /** Entries in use, newest first; at most `limit`. */
  async errorLog(limit = this.#identity.errorLogEntries, options?: CallOptions): Promise<ErrorLogEntry[]> {
    const count = Math.min(limit, this.#identity.errorLogEntries);
    return decodeErrorLog(
      await this.#admin.logPage(LogPageId.ERROR_INFORMATION, count * ERROR_ENTRY_SIZE, options),
    );
  }

  async smartLog(options?: LogPageOptions): Promise<SmartLog> {
    return decodeSmartLog(await this.#admin.logPage(LogPageId.SMART_HEALTH, SMART_LOG_SIZE, options));
  }

  async firmwareLog(options?: CallOptions): Promise<FirmwareLog> {
    return decodeFirmwareLog(await this.#admin.logPage(LogPageId.FIRMWARE_SLOT, FIRMWARE_LOG_SIZE, options));
  }

  getFeature(feature: number, options?: GetFeatureOptions): Promise<AdminResult> {
    return this.#admin.getFeature(feature, options);
  }

  /** The promise gives dword 0 of the completion. */
  setFeature(feature: number, options?: SetFeatureOptions): Promise<number> {
    return this.#admin.setFeature(feature, options);
  }

  /**
   * Controller reset: CC.EN to 0 and back, and all queues made again. Commands in flight are sent again once (`retries`);
   * those that must not be are rejected with NvmeResetError, and reported as ABORTED_BY_HOST to the submit/poll face.
   * @throws NvmeControllerError where the controller does not come back: it has failed then.
   */
  reset(): Promise<void> {
    return (this.#resetting ??= this.#reset().finally(() => (this.#resetting = undefined)));
  }

  /**
   * Orderly shutdown: waits for what is in flight, deletes the queues, CC.SHN, disables the controller and gives its
   * memory back. Idempotent. Of a controller that failed, or whose connection has ended, nothing is asked.
   * @throws NvmeControllerError where the shutdown does not end; the controller is closed all the same.
   */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #open(): Promise<void> {
    try {
      await this.#start();
      this.#enter('live');
    } catch (error) {
      throw this.#fail(error);
    }
  }

  /** Section 3.5.1, in its order. The queues of before are made again. */
  async #start(): Promise<void> {
    const { queue } = this.#admin;
    await quietInterrupts(this.device);
    await disable(this.#bar, this.capabilities);
    queue.recover();
    this.#queues.recover();
    queue.pair.clear();
    const { sqAddress, cqAddress } = this.#adminMemory;
    const addresses = { entries: ADMIN_ENTRIES, sqAddress, cqAddress };
    await enable(this.#bar, this.capabilities, addresses, this.pageSize);
    this.#throwIfEnded();
    const { sq, cq } = this.#doorbells.pair(ADMIN_QUEUE);
    queue.pair.open(sq, cq);
    queue.resume();
    await this.#identify();
    this.#queues.limit = await this.#negotiateQueues();
    await this.#configureShadowDoorbells();
    await this.#queues.recreate();
    this.#queues.resume();
  }

  async #identify(): Promise<void> {
    this.#identityBytes = await this.#admin.identify(IdentifyCns.CONTROLLER, 0);
    this.#identity = decodeControllerIdentity(this.#identityBytes);
    const { maxDataTransfer, logPageAttributes, optionalNvmCommands, maxOutstandingCommands } =
      this.#identity;
    const limit = maxDataTransfer === 0 ? Infinity : 2 ** maxDataTransfer * this.capabilities.minPageSize;
    this.#context.maxTransferBytes = Math.min(limit, this.#settings.maxTransferBytes);
    this.#context.optionalCommands = optionalNvmCommands;
    this.#context.maxOutstanding = maxOutstandingCommands;
    this.#context.usesSgls = this.#settings.sgls && takesSgls(this.#identity.sgls);
    this.#admin.hasLogOffsets = (logPageAttributes & LOG_PAGE_OFFSETS) !== 0;
  }

  /** Number of Queues (5.27.1.5): both kinds, zero-based, before any is created. */
  async #negotiateQueues(): Promise<number> {
    const wanted = this.#settings.queues - 1;
    const cdw11 = (wanted | (wanted << 16)) >>> 0;
    const granted = await this.#admin.setFeature(FeatureId.NUMBER_OF_QUEUES, { cdw11 });
    // The admin queue has doorbells, too.
    const room = queuesWithDoorbells(this.#bar, this.capabilities) - 1;
    return Math.min(this.#settings.queues, (granted & 0xffff) + 1, (granted >>> 16) + 1, room);
  }

  async #configureShadowDoorbells(): Promise<void> {
    const { optionalAdminCommands } = this.#identity;
    if (!this.#settings.shadowDoorbells) return;
    if ((optionalAdminCommands & OptionalAdminCommands.DOORBELL_BUFFER_CONFIG) === 0) return;
    const { shadow, eventIndexes } = await this.#doorbells.shadowBuffers(this.device, this.pageSize);
    await this.#admin.configureDoorbellBuffers(shadow, eventIndexes);
  }

  async #reset(): Promise<void> {
    this.#enter('resetting');
    this.#admin.queue.pair.close();
    this.#queues.suspend();
    for (;;) {
      await this.#back;
      const losses = this.#losses;
      try {
        await this.#start();
        this.#enter('live');
        return;
      } catch (error) {
        // What a loss of the connection interrupted begins again when the device is back.
        if (losses === this.#losses || this.#makeEndError !== undefined) throw this.#fail(error);
      }
    }
  }

  async #resetOrFail(): Promise<void> {
    if (this.#state === 'live' || this.#state === 'resetting') await this.reset().catch(() => undefined);
  }

  /** A server that comes back may be a new one: the controller is set up from the beginning. */
  readonly #onLost = (): void => {
    this.#losses++;
    this.#back ??= new Promise((resolve) => (this.#resolveBack = resolve));
    void this.#resetOrFail();
  };

  readonly #onReconnected = (): void => {
    this.#doorbells.close();
    this.#comeBack();
  };

  #comeBack(): void {
    this.#back = undefined;
    this.#resolveBack?.();
  }

  async #close(): Promise<void> {
    await this.#resetting?.catch(() => undefined);
    const wasLive = this.#state === 'live';
    try {
      if (wasLive) await this.#shutDown();
    } catch (error) {
      // Whoever lost the connection knows, and there is nothing to shut down.
      if (this.#makeEndError === undefined) throw error;
      return;
    } finally {
      this.#end('closed', () => new ClosedError('the controller is closed'));
      this.#doorbells.close();
    }
    if (wasLive) await this.#free();
  }

  /** Section 3.6.1; and disabled, so that the memory can be given back. */
  async #shutDown(): Promise<void> {
    for (const queue of this.#queues.all) await queue.close();
    const { entryLatencyUs } = this.#identity;
    await shutDown(this.#bar, Math.max(SHUTDOWN_MS, Math.ceil(entryLatencyUs / 1000)));
    await disable(this.#bar, this.capabilities);
    await this.#queues.disableInterrupts();
  }

  async #free(): Promise<void> {
    this.#admin.queue.pair.detach();
    await this.#queues.free();
    for (const buffer of [this.#adminMemory.buffer, this.#adminPool, this.#doorbells.buffer])
      await buffer?.free();
  }

  #enter(state: 'live' | 'resetting'): void {
    this.#throwIfEnded();
    this.#state = state;
    this.#context.isLive = state === 'live';
  }

  /** Fails the controller for that reason, unless it has ended already; what its users get from here on. */
  #fail(cause: unknown): Error {
    const message = cause instanceof Error ? cause.message : String(cause);
    const error = () => new NvmeControllerError(`the controller has failed: ${message}`, { cause });
    this.#end('failed', error);
    return this.#makeEndError!();
  }

  #end(state: 'failed' | 'closed', error: () => Error): void {
    if (this.#state !== 'closed') this.#state = state;
    if (this.#makeEndError !== undefined) return;
    this.#makeEndError = error;
    this.#context.isLive = false;
    this.#admin.queue.end(error);
    this.#queues.end(error);
    this.device.off('lost', this.#onLost);
    this.device.off('reconnected', this.#onReconnected);
    this.#comeBack();
    this.#resolveEnded(error());
  }

  #throwIfEnded(): void {
    if (this.#makeEndError !== undefined) throw this.#makeEndError();
  }

  #adminQueue({ settings, adminMemory, adminPool, pageSize }: Parts): CommandQueue {
    const { sq, cq, prps } = adminMemory;
    const slots = ADMIN_ENTRIES - 1;
    const pair = new QueuePair({
      id: ADMIN_QUEUE,
      entries: ADMIN_ENTRIES,
      slots,
      sq,
      cq,
      tellsHeadAtOnce: true,
    });
    pair.onViolation = (error) => void this.#fail(error);
    const queue = new CommandQueue({
      pair,
      prps,
      timeoutMs: settings.timeoutMs,
      isPolled: true,
      usesSgls: false,
      ...this.#watch(),
    });
    queue.pool = new BouncePool(adminPool, pageSize);
    return queue;
  }

  #makeContext(): Mutable<IoQueuesHost> {
    const { retries, timeoutMs } = this.#settings;
    return {
      device: this.device,
      pageSize: this.pageSize,
      maxTransferBytes: PAGE_SIZE,
      optionalCommands: 0,
      retries,
      admin: this.#admin,
      doorbells: this.#doorbells,
      timeoutMs,
      maxQueueEntries: this.capabilities.maxQueueEntries,
      maxOutstanding: 0,
      usesSgls: false,
      isLive: false,
      watch: this.#watch(),
      onViolation: (error) => void this.#fail(error),
      afterReset: async () => void (await this.#resetting?.catch(() => undefined)),
      closeQueue: (queue) => this.#queues.close(queue),
    };
  }

  #watch(): Pick<CommandQueueOptions, 'onStuck' | 'onUnwanted'> {
    return {
      onStuck: (queue, slot, claim) => this.#recovery.rescue(queue, slot, claim),
      onUnwanted: (queue, slot, claim) => this.#recovery.unwanted(queue, slot, claim),
    };
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
