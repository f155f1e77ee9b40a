/**
 * An NVMe controller (NVM Express Base Specification 2.0): bring-up, admin commands, queues, reset, shutdown.
 *
 * ```
 *   open ──▶ live ◀──▶ resetting ──▶ failed            commands in flight are sent again, or answered, after a reset
 *              │            │           │
 *              └── close(), or the device is closed ──▶ closed
 * ```
 * One transition at a time, under one mutex: a reset, the creation or deletion of a queue, the shutdown. A reset first
 * answers the admin commands of whoever has the mutex, so it never waits for a controller that does not answer; what it
 * interrupted begins again after it.
 *
 * After every start the controller and its namespaces are compared with what they were: another disk gets nothing that
 * was meant for the first.
 *
 * Memory that the controller may still write to is not given back: that of a controller that cannot be disabled stays
 * reserved until somebody can, or the device is closed. When the memory is taken away by others, everyone who waits is answered first.
 */
import { Mutex } from 'async-mutex';
import { forbidCloning } from '../cloning.js';
import { integer, UINT32_MAX, wrongType } from '../fields.js';
import {
  ClosedError,
  Device,
  TransportError,
  UnsupportedError,
  type CallOptions,
  type DmaBuffer,
  type Region,
} from '../index.js';
import * as option from '../options.js';
import {
  Admin,
  ADMIN_COMMAND,
  ADMIN_TRANSFER_BYTES,
  GET_FEATURE_OPTIONS,
  LOG_PAGE_OPTIONS,
  SET_FEATURE_OPTIONS,
  type AdminCommand,
  type AdminResult,
  type AdminTraits,
  type GetFeatureOptions,
  type LogPageOptions,
  type SetFeatureOptions,
} from './admin.js';
import { AsyncEvents } from './async-events.js';
import { BouncePool } from './bounce-pool.js';
import { disable, enable, memoryRequests, shutDown, withLikelyReason } from './enable.js';
import { CommandQueue, type CommandQueueOptions } from './command-queue.js';
import {
  nvmeSettings,
  QUEUE_OPTIONS,
  type NvmeOptions,
  type NvmeQueueOptions,
  type NvmeSettings,
} from './controller-options.js';
import { DoorbellMap } from './doorbell-map.js';
import { NvmeControllerError, NvmeNamespaceError, NvmeResetError } from './errors.js';
import {
  decodeControllerIdentity,
  OptionalAdminCommands,
  type ControllerIdentity,
} from './identify-controller.js';
import { requireSameCapabilities, requireSameController } from './identity-check.js';
import { IoQueues, UncertainChange, type IoQueuesHost } from './io-queues.js';
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
import { freeRetained, retain } from './retained-memory.js';
import { NvmeNamespace } from './namespace.js';
import { Namespaces } from './namespaces.js';
import { AdminOpcode, FeatureId, IdentifyCns, LogPageId } from './opcodes.js';
import { probe, queuesWithDoorbells, type Probed } from './probe.js';
import { disableInterrupts } from './disable-interrupts.js';
import type { NvmeQueue } from './queue.js';
import { QueueMemory } from './queue-memory.js';
import { QueuePair } from './queue-pair.js';
import { Aborter, type AborterHost } from './abort.js';
import {
  ControllerConfiguration,
  decodeCapabilities,
  enabledConfiguration,
  NvmeRegister,
  type ControllerCapabilities,
} from './registers.js';
import { takesSgls } from './sgls.js';
import { NvmeStatusError } from './status.js';

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
/** OAES, and CDW11 of Asynchronous Event Configuration: Namespace Attribute Notices. */
const NAMESPACE_NOTICES = 1 << 8;
const LOG_PAGE_BYTES = 4096;
/** The largest page that DMA memory is aligned to. */
const MOST_PAGE_SIZE = 2 << 20;
/** How often a change of queues begins again because of a reset. */
const MOST_TRIES = 8;
const NAMESPACE_OPTIONS = new option.OptionTable<CallOptions & { refresh?: boolean }>({
  ...option.CALL_CHECKS,
  refresh: option.boolean,
});

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
  /** Admin commands of users, of the driver on their behalf, and of the start: see `CommandOrigin`. */
  readonly #admin: Admin;
  readonly #driverAdmin: Admin;
  readonly #startAdmin: Admin;
  readonly #traits: AdminTraits = { hasLogOffsets: false };
  readonly #events: AsyncEvents;
  readonly #doorbells: DoorbellMap;
  readonly #aborter: Aborter;
  readonly #queues: IoQueues;
  /** What the parts know of the controller; kept up to date. */
  readonly #context: Mutable<IoQueuesHost>;
  readonly #namespaces: Namespaces;
  #identityBytes: Buffer = Buffer.alloc(0);
  #identity: ControllerIdentity | undefined;
  /** Held by whoever changes the controller's state or its queues. */
  readonly #mutex = new Mutex();
  #state: ControllerState = 'opening';
  #resetting: Promise<void> | undefined;
  /** Those that have begun. */
  #resets = 0;
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
   * @throws NvmeControllerError where it does not come up; UnsupportedError for a device that is no NVMe controller, not for
   * the NVM command set, or whose smallest memory page is larger than 2 MiB; RangeError for options that make no sense;
   * what the device's calls throw.
   */
  static async open(device: Device, options: NvmeOptions = {}): Promise<NvmeController> {
    if (!(device instanceof Device)) throw wrongType('NvmeController.open: device', 'a Device', device);
    const settings = nvmeSettings(options);
    await device.enable();
    const { bar, capabilities, version } = await probe(device);
    const pageSize = pageSizeFor(capabilities);
    const memory = { entries: ADMIN_ENTRIES, slots: ADMIN_ENTRIES - 1, pageSize };
    const adminMemory = await QueueMemory.allocate(device, {
      ...memory,
      maxTransferBytes: ADMIN_TRANSFER_BYTES,
    });
    let adminPool: DmaBuffer;
    try {
      // Room for several commands, also where a page is larger than what one transfers.
      const bytes = Math.max(ADMIN_POOL_BYTES, 4 * pageSize);
      adminPool = await device.dma.alloc(bytes, { alignment: pageSize });
    } catch (error) {
      adminMemory.buffer.close().catch(() => undefined);
      throw error;
    }
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
    const adminQueue = this.#adminQueue(parts);
    this.#admin = new Admin(adminQueue, 'user', this.#traits);
    this.#driverAdmin = new Admin(adminQueue, 'driver', this.#traits);
    this.#startAdmin = new Admin(adminQueue, 'start', this.#traits);
    this.#events = new AsyncEvents(adminQueue, () => void this.#verifyNamespaces());
    this.#namespaces = new Namespaces(this.#admin, (namespace, change) =>
      this.#queues.endThoseOf(namespace, () => new NvmeNamespaceError(namespace.id, change)),
    );
    this.#context = this.#makeContext();
    this.#aborter = new Aborter(bar, this.#aborterHost(), () => this.#resetOrFail());
    this.#queues = new IoQueues(this.#context);
    void device.closed.then((reason) => {
      const text = `the connection has ended: ${reason.message}`;
      this.#end('closed', () => new ClosedError(text, { cause: reason }));
      this.#queues.giveBack();
    });
    adminMemory.buffer.onRelease((reason) => this.#onMemoryLost(reason));
    device.on('lost', this.#onLost);
    device.on('reconnected', this.#onReconnected);
    forbidCloning(this, 'an NvmeController');
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
    if (this.#identity === undefined) throw new ClosedError('the controller did not come up');
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
  async namespaceIds(options?: CallOptions): Promise<number[]> {
    option.CALL_OPTIONS.check('NvmeController.namespaceIds', options);
    return this.#namespaces.ids(options);
  }

  /**
   * A namespace; the first active one where no number is given. Asked for once, until `refresh`.
   * @throws NvmeStatusError for one that the controller does not have; UnsupportedError where there is none.
   */
  async namespace(id?: number, options: CallOptions & { refresh?: boolean } = {}): Promise<NvmeNamespace> {
    NAMESPACE_OPTIONS.check('NvmeController.namespace', options);
    if (id !== undefined) integer('NvmeController.namespace: id', id, 0, UINT32_MAX);
    return this.#namespaces.get(id, options);
  }

  /**
   * Makes an I/O queue pair. Waits for a reset that is under way, and begins again where one comes between.
   * @throws RangeError for options that make no sense; UnsupportedError where the controller has no further queue, no
   * vector, or the namespace a format that the driver does not know; what commands throw.
   */
  async createQueue(options: NvmeQueueOptions = {}): Promise<NvmeQueue> {
    QUEUE_OPTIONS.check('NvmeController.createQueue', options);
    this.#throwIfClosing();
    return this.#whenLive(async () => {
      this.#throwIfClosing();
      const { namespace: wanted } = options;
      const namespace =
        wanted instanceof NvmeNamespace ? wanted : await this.#namespaces.get(wanted, {}, this.#driverAdmin);
      if (namespace.owner !== this.#namespaces)
        throw new TypeError(
          'namespace must be one that this controller has given (NvmeController.namespace)',
        );
      namespace.requireUsable();
      namespace.requireCurrent();
      return this.#queues.create(namespace, options);
    });
  }

  /**
   * Any admin command. An Asynchronous Event Request is the driver's own, unless `asyncEvents` is false: the promise then
   * gives the next event.
   * @throws as `NvmeQueue.read` rejects; RangeError for more data than 64 KiB, and for fields that are too long.
   */
  async adminCommand(command: AdminCommand, options?: CallOptions): Promise<AdminResult> {
    ADMIN_COMMAND.check('NvmeController.adminCommand', command);
    option.CALL_OPTIONS.check('NvmeController.adminCommand', options);
    if (command.opcode === AdminOpcode.ASYNC_EVENT_REQUEST && this.#settings.asyncEvents)
      return { result: await this.#events.next(options), data: Buffer.alloc(0) };
    return this.#admin.execute(command, options);
  }

  /** Identify: 4,096 bytes. `cns` as in `IdentifyCns`. */
  async identify(cns: number, namespace = 0, options?: CallOptions): Promise<Buffer> {
    option.CALL_OPTIONS.check('NvmeController.identify', options);
    integer('NvmeController.identify: namespace', namespace, 0, UINT32_MAX);
    return this.#admin.identify(cns, namespace, options);
  }

  /** `length` bytes of a log page, a multiple of 4. */
  async logPage(page: number, length: number, options?: LogPageOptions): Promise<Buffer> {
    LOG_PAGE_OPTIONS.check('NvmeController.logPage', options);
    integer('NvmeController.logPage: length', length);
    return this.#admin.logPage(page, length, options);
  }

  /** Entries in use, newest first; at most `limit`. */
  async errorLog(limit = this.identity.errorLogEntries, options?: CallOptions): Promise<ErrorLogEntry[]> {
    option.CALL_OPTIONS.check('NvmeController.errorLog', options);
    integer('NvmeController.errorLog: limit', limit, 1);
    const count = Math.min(limit, this.identity.errorLogEntries);
    return decodeErrorLog(
      await this.#admin.logPage(LogPageId.ERROR_INFORMATION, count * ERROR_ENTRY_SIZE, options),
    );
  }

  async smartLog(options?: LogPageOptions): Promise<SmartLog> {
    LOG_PAGE_OPTIONS.check('NvmeController.smartLog', options);
    return decodeSmartLog(await this.#admin.logPage(LogPageId.SMART_HEALTH, SMART_LOG_SIZE, options));
  }

  async firmwareLog(options?: CallOptions): Promise<FirmwareLog> {
    option.CALL_OPTIONS.check('NvmeController.firmwareLog', options);
    return decodeFirmwareLog(await this.#admin.logPage(LogPageId.FIRMWARE_SLOT, FIRMWARE_LOG_SIZE, options));
  }

  async getFeature(feature: number, options?: GetFeatureOptions): Promise<AdminResult> {
    GET_FEATURE_OPTIONS.check('NvmeController.getFeature', options);
    return this.#admin.getFeature(feature, options);
  }

  /** The promise gives dword 0 of the completion. */
  async setFeature(feature: number, options?: SetFeatureOptions): Promise<number> {
    SET_FEATURE_OPTIONS.check('NvmeController.setFeature', options);
    return this.#admin.setFeature(feature, options);
  }

  /**
   * Controller reset: CC.EN to 0 and back, and all queues made again. Commands in flight are sent again once (`retries`);
   * those that must not be are rejected with NvmeResetError, and reported as ABORTED_BY_HOST to the submit/poll calls.
   * Admin commands are rejected with NvmeResetError at once. Several resets at a time are one.
   * @throws NvmeControllerError where the controller does not come back, or another one does: it has failed then;
   * ClosedError where it is closed, or being closed.
   */
  async reset(): Promise<void> {
    this.#throwIfClosing();
    await this.#resetOnce();
  }

  /**
   * Orderly shutdown: waits for what is in flight, deletes the queues, CC.SHN, disables the controller and gives its
   * memory back. Idempotent. A controller that failed is disabled, where it can be reached; one whose device is closed is
   * asked nothing.
   * @throws NvmeControllerError where the shutdown does not end; the controller is closed all the same.
   */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #open(): Promise<void> {
    const asked = memoryRequests(this.device);
    try {
      await this.#mutex.runExclusive(async () => {
        await this.#start();
        this.#enter('live');
      });
    } catch (error) {
      await sameTurn();
      const reason = withLikelyReason(error, this.device, this.#adminMemory.buffer, asked);
      const failure = this.#fail(reason);
      await this.#mutex.runExclusive(() => this.#letGo());
      throw failure;
    }
  }

  /** Section 3.5.1, in its order. The queues of before are made again, in the controller that they were in. */
  async #start(): Promise<void> {
    const { queue } = this.#startAdmin;
    await disableInterrupts(this.device);
    await disable(this.#bar, this.capabilities);
    await freeRetained(this.device);
    queue.recover();
    this.#queues.recover();
    requireSameCapabilities(
      this.capabilities,
      decodeCapabilities(await this.#bar.readUInt64(NvmeRegister.CAP)),
    );
    queue.pair.clear();
    const { sqAddress, cqAddress } = this.#adminMemory;
    const addresses = { entries: ADMIN_ENTRIES, sqAddress, cqAddress };
    this.#throwIfEnded();
    await enable(this.#bar, this.capabilities, addresses, this.pageSize);
    this.#throwIfEnded();
    const { sq, cq } = this.#doorbells.pair(ADMIN_QUEUE);
    queue.pair.open(sq, cq);
    queue.resume();
    await this.#identify();
    this.#queues.limit = await this.#negotiateQueues();
    this.#requireQueues();
    await this.#configureShadowDoorbells();
    // Before they are compared: what changes later is told.
    await this.#askForEvents();
    await this.#namespaces.verify(this.#startAdmin);
    await this.#queues.recreate(this.#startAdmin);
    this.#throwIfEnded();
    this.#queues.resume();
    queue.release();
    if (this.#settings.asyncEvents) this.#events.start();
  }

  async #identify(): Promise<void> {
    const bytes = await this.#startAdmin.identify(IdentifyCns.CONTROLLER, 0);
    const identity = decodeControllerIdentity(bytes);
    if (this.#identity !== undefined) requireSameController(this.#identity, identity);
    this.#identityBytes = bytes;
    this.#identity = identity;
    const { maxDataTransfer, logPageAttributes, optionalNvmCommands, maxOutstandingCommands } = identity;
    const limit = maxDataTransfer === 0 ? Infinity : 2 ** maxDataTransfer * this.capabilities.minPageSize;
    this.#context.maxTransferBytes = Math.min(limit, this.#settings.maxTransferBytes);
    this.#context.optionalCommands = optionalNvmCommands;
    this.#context.maxOutstanding = maxOutstandingCommands;
    this.#context.usesSgls = this.#settings.sgls && takesSgls(identity.sgls);
    this.#traits.hasLogOffsets = (logPageAttributes & LOG_PAGE_OFFSETS) !== 0;
  }

  /** Number of Queues (5.27.1.5): both kinds, zero-based, before any is created. */
  async #negotiateQueues(): Promise<number> {
    const wanted = this.#settings.queues - 1;
    const cdw11 = (wanted | (wanted << 16)) >>> 0;
    const granted = await this.#startAdmin.setFeature(FeatureId.NUMBER_OF_QUEUES, { cdw11 });
    // The admin queue has doorbells, too.
    const room = queuesWithDoorbells(this.#bar, this.capabilities) - 1;
    return Math.min(this.#settings.queues, (granted & 0xffff) + 1, (granted >>> 16) + 1, room);
  }

  /** @throws NvmeControllerError where the queues that exist are more than the controller grants now. */
  #requireQueues(): void {
    const { maxTransferBytes, usesSgls } = this.#context;
    const { maxQueueEntries } = this.capabilities;
    const missing = this.#queues.whatIsMissing({ maxQueueEntries, maxTransferBytes, usesSgls });
    if (missing !== undefined)
      throw new NvmeControllerError(`the controller grants less than before: ${missing}`);
  }

  async #configureShadowDoorbells(): Promise<void> {
    const { optionalAdminCommands } = this.identity;
    if (!this.#settings.shadowDoorbells) return;
    if ((optionalAdminCommands & OptionalAdminCommands.DOORBELL_BUFFER_CONFIG) === 0) return;
    const { shadow, eventIndexes } = await this.#doorbells.shadowBuffers(this.device, this.pageSize);
    await this.#startAdmin.configureDoorbellBuffers(shadow, eventIndexes);
  }

  /** Of changed namespaces, where the controller tells of them. */
  async #askForEvents(): Promise<void> {
    if (!this.#settings.asyncEvents || (this.identity.asyncEvents & NAMESPACE_NOTICES) === 0) return;
    try {
      await this.#startAdmin.setFeature(FeatureId.ASYNC_EVENT_CONFIGURATION, { cdw11: NAMESPACE_NOTICES });
    } catch (error) {
      if (!(error instanceof NvmeStatusError)) throw error;
    }
  }

  /** Namespace attributes have changed: nothing is sent until it is known which are what they were. */
  async #verifyNamespaces(): Promise<void> {
    try {
      await this.#whenLive(() =>
        this.#queues.paused(async () => {
          // Until it is read no other such event comes. Who cannot read it has all compared all the same.
          await this.#driverAdmin
            .logPage(LogPageId.CHANGED_NAMESPACES, LOG_PAGE_BYTES)
            .catch((error: unknown) => {
              if (!(error instanceof NvmeStatusError)) throw error;
            });
          await this.#namespaces.verify(this.#driverAdmin);
        }),
      );
    } catch {
      // A reset compares them, too, and whoever cannot be reset has failed.
      await this.#resetOrFail();
    }
  }

  /**
   * Runs while nobody else changes the controller, and it is live; again where a reset comes between. What the controller
   * did not answer is followed by a reset, and tried once more.
   * @throws what ended the controller, and what `run` throws.
   */
  async #whenLive<T>(run: () => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      const resets = this.#resets;
      await this.#resetting?.catch(() => undefined);
      try {
        return await this.#mutex.runExclusive(async () => {
          this.#throwIfEnded();
          if (this.#resetting !== undefined) throw new NvmeResetError('the controller is being reset');
          return run();
        });
      } catch (error) {
        await sameTurn();
        // What was under way when it ended has failed because of that, whatever it failed with.
        this.#throwIfEnded();
        if (error instanceof UncertainChange) {
          await this.#resetOrFail();
          if (tries > 1) throw error.cause;
        } else if (!isInterruption(error) || resets === this.#resets || tries === MOST_TRIES) throw error;
      }
    }
  }

  #resetOnce(): Promise<void> {
    return (this.#resetting ??= this.#reset().finally(() => (this.#resetting = undefined)));
  }

  async #reset(): Promise<void> {
    this.#enter('resetting');
    this.#resets++;
    this.#queues.suspend();
    this.#admin.queue.hold();
    await this.#mutex.runExclusive(async () => {
      for (;;) {
        await this.#back;
        this.#throwIfEnded();
        const losses = this.#losses;
        try {
          await this.#start();
          this.#enter('live');
          return;
        } catch (error) {
          await sameTurn();
          // What a loss of the connection interrupted begins again when the device is back.
          if (losses === this.#losses || this.#makeEndError !== undefined) throw this.#fail(error);
          this.#queues.suspend();
          this.#admin.queue.hold();
        }
      }
    });
  }

  async #resetOrFail(): Promise<void> {
    if (this.#state === 'live' || this.#state === 'resetting') await this.#resetOnce().catch(() => undefined);
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
    if (this.#makeEndError === undefined) await this.#queues.drain();
    const closed = () => new ClosedError('the controller is closed');
    // While the connection is lost there is nothing to wait for: a reset that waits for it ends.
    if (this.#back !== undefined) this.#end('closed', closed);
    let failure: unknown;
    await this.#mutex.runExclusive(async () => {
      if (this.#makeEndError === undefined) failure = await this.#shutDown();
      this.#end('closed', closed);
      await this.#letGo();
    });
    if (failure !== undefined) throw failure;
  }

  /** Section 3.6.1. Disabling comes next, whatever comes of this: what went wrong, if anything did. */
  async #shutDown(): Promise<unknown> {
    // What it does not delete, or answer, goes when it is disabled.
    await this.#queues.deleteAll().catch(() => undefined);
    if (this.#makeEndError !== undefined) return undefined;
    const losses = this.#losses;
    try {
      const { entryLatencyUs } = this.identity;
      await shutDown(this.#bar, Math.max(SHUTDOWN_MS, Math.ceil(entryLatencyUs / 1000)));
    } catch (error) {
      await sameTurn();
      // Whoever lost the connection knows, and there is nothing to shut down.
      return this.#makeEndError === undefined && losses === this.#losses ? error : undefined;
    }
    return undefined;
  }

  /** The controller has ended: disables it where it can be reached, and gives back what it does not use any more. */
  async #letGo(): Promise<void> {
    const isDisabled = await this.#quiesce();
    this.#doorbells.close();
    if (isDisabled) {
      await this.#queues.disableInterrupts().catch(() => undefined);
      await this.#giveBack();
    } else retain(this.device, () => this.#giveBack());
  }

  /** The controller does not use any memory any more. */
  async #giveBack(): Promise<void> {
    this.#queues.giveBack();
    await this.#queues.free();
    for (const buffer of [this.#adminMemory.buffer, this.#adminPool, this.#doorbells.buffer])
      await buffer?.free();
  }

  /** Disables a controller that has ended. Whether that could be done: it uses no memory then. */
  async #quiesce(): Promise<boolean> {
    try {
      await disable(this.#bar, this.capabilities);
    } catch {
      return false;
    }
    this.#queues.giveBack();
    return true;
  }

  /** The device is closed, or all its memory unmapped: whoever waits is answered before the memory is gone. */
  #onMemoryLost(reason: Error): void {
    const isNew = this.#makeEndError === undefined;
    const text = `the controller has lost its memory: ${reason.message}`;
    this.#end('failed', () => new ClosedError(text, { cause: reason }));
    this.#queues.giveBack();
    if (!isNew) return;
    // It leaves before whatever takes the memory away; and again when nobody can enable it any more.
    this.#disableAtOnce();
    void this.#mutex.runExclusive(() => this.#quiesce());
  }

  #disableAtOnce(): void {
    const enabled = enabledConfiguration(this.pageSize, this.capabilities.commandSets);
    const disabled = (enabled & ~ControllerConfiguration.EN) >>> 0;
    this.#bar.writeUInt32(NvmeRegister.CC, disabled).catch(() => undefined);
  }

  #enter(state: 'live' | 'resetting'): void {
    this.#throwIfEnded();
    this.#state = state;
  }

  /** Fails the controller for that reason, unless it has ended already; what its users get from here on. */
  #fail(cause: unknown): Error {
    const message = cause instanceof Error ? cause.message : String(cause);
    const error = () => new NvmeControllerError(`the controller has failed: ${message}`, { cause });
    if (this.#makeEndError === undefined) {
      this.#end('failed', error);
      // When whoever has the mutex, and may be about to enable it, is done.
      void this.#mutex.runExclusive(() => this.#quiesce());
    }
    return this.#makeEndError!();
  }

  #end(state: 'failed' | 'closed', error: () => Error): void {
    if (this.#state !== 'closed') this.#state = state;
    if (this.#makeEndError !== undefined) return;
    this.#makeEndError = error;
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

  #throwIfClosing(): void {
    this.#throwIfEnded();
    if (this.#closing !== undefined) throw new ClosedError('the controller is being closed');
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
      spinUs: this.device.spinUs,
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
      admin: this.#driverAdmin,
      doorbells: this.#doorbells,
      timeoutMs,
      maxQueueEntries: this.capabilities.maxQueueEntries,
      maxOutstanding: 0,
      usesSgls: false,
      watch: this.#watch(),
      onViolation: (error) => void this.#fail(error),
      onMemoryLost: (reason) => this.#onMemoryLost(reason),
      whenLive: (run) => this.#whenLive(run),
      closeQueue: (queue) => this.#queues.close(queue),
    };
  }

  #aborterHost(): AborterHost {
    const isLive = () => this.#state === 'live';
    return {
      admin: this.#driverAdmin,
      timeoutMs: this.#settings.timeoutMs,
      get isLive() {
        return isLive();
      },
    };
  }

  #watch(): Pick<CommandQueueOptions, 'onStuck' | 'onUnwanted' | 'onBroken'> {
    return {
      onStuck: (queue, slot, claim) => this.#aborter.rescue(queue, slot, claim),
      onUnwanted: (queue, slot, claim) => this.#aborter.unwanted(queue, slot, claim),
      onBroken: (error) => void this.#fail(error),
    };
  }
}

/** Calls that a reset, or the loss of the connection, has ended. */
function isInterruption(error: unknown): boolean {
  return error instanceof NvmeResetError || error instanceof ClosedError || error instanceof TransportError;
}

/** Settles when whatever ended a call has been told to everyone: who sees it first must not take it for something else. */
function sameTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** @throws UnsupportedError for a controller whose pages memory cannot be aligned to. */
function pageSizeFor({ minPageSize }: ControllerCapabilities): number {
  if (minPageSize <= MOST_PAGE_SIZE) return Math.max(PAGE_SIZE, minPageSize);
  throw new UnsupportedError(
    `the controller's smallest memory page has ${minPageSize} bytes (CAP.MPSMIN); the driver knows pages of up to ${MOST_PAGE_SIZE}`,
  );
}
