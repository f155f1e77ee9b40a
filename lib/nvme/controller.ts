/** An NVMe controller as its user has it. What it is made of: `ControllerParts`; its states: commands/device-lifecycle.ts. */
import { forbidCloning } from '../cloning.js';
import { DeviceLifecycle } from '../commands/device-lifecycle.js';
import { withSeat } from '../commands/driver-seat.js';
import { integer, UINT32_MAX, wrongType } from '../fields.js';
import { Device, type CallOptions } from '../index.js';
import * as option from '../options.js';
import { Aborter } from './abort.js';
import {
  ADMIN_COMMAND,
  GET_FEATURE_OPTIONS,
  LOG_PAGE_OPTIONS,
  SET_FEATURE_OPTIONS,
  type AdminCommand,
  type AdminResult,
  type GetFeatureOptions,
  type LogPageOptions,
  type SetFeatureOptions,
} from './admin-commands.js';
import { AdminQueue, type AdminQueueMemory } from './admin-queue.js';
import { AsyncEvents } from './async-events.js';
import { ControllerInfo, probe } from './controller-info.js';
import {
  nvmeSettings,
  QUEUE_OPTIONS,
  type NvmeOptions,
  type NvmeQueueOptions,
} from './controller-options.js';
import { ControllerSetup, type ControllerState } from './controller-setup.js';
import { DoorbellMap } from './doorbell-map.js';
import { NvmeNamespaceError } from './errors.js';
import { OptionalAdminCommands, type ControllerIdentity } from './identify.js';
import type { IoQueuePairHost } from './io-queue-pair.js';
import { IoQueues } from './io-queues.js';
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
import { AdminOpcode, ALL_NAMESPACES, LogPageId } from './opcodes.js';
import {
  checkIoLength,
  FORMAT_OPTIONS,
  IO_COMMAND,
  requireFormat,
  type FormatOptions,
  type IoCommand,
  type IoResult,
} from './passthrough.js';
import type { NvmeQueue } from './queue.js';
import type { ControllerCapabilities } from './registers.js';

const NAMESPACE_OPTIONS = new option.OptionTable<CallOptions & { refresh?: boolean }>({
  ...option.CALL_CHECKS,
  refresh: option.boolean,
});

/**
 * An NVMe controller (NVM Express Base Specification 2.0), driven: started, asked by admin commands, given I/O queues, reset
 * and shut down. Commands that a controller reset interrupts are sent again; another disk in the place of the first gets
 * nothing that was meant for that one.
 *
 * Any call rejects with ClosedError once the controller or its device is closed, and with NvmeControllerError once the
 * controller has failed. Options that make no sense are a TypeError or RangeError.
 * @example
 * ```ts
 * await using device = await connect('/run/nvme/cntrl');
 * await using controller = await NvmeController.open(device);
 * console.log(controller.identity.modelNumber, await controller.namespaceIds());
 * const queue = await controller.createQueue();
 * const data = await queue.read(0, 8);
 * ```
 */
export class NvmeController {
  /** The device that the controller was opened on. It stays its owner's. */
  readonly device: Device;
  readonly #info: ControllerInfo;
  readonly #admin: AdminQueue;
  readonly #queues: IoQueues;
  readonly #namespaces: Namespaces;
  readonly #events: AsyncEvents;
  readonly #setup: ControllerSetup;
  readonly #lifecycle: DeviceLifecycle;
  /** Namespaces are being compared; and are to be compared again. */
  #isVerifying = false;
  #isStale = false;

  /**
   * Starts the controller of `device`: enables the device, resets and configures the controller, and asks it what it is
   * (section 3.5.1). The device stays the caller's: close the controller first.
   * @throws NvmeControllerError where it does not become ready, or does not answer; UnsupportedError for a device that is no NVMe controller, not for
   * the NVM command set, or whose smallest memory page is larger than 2 MiB; RangeError for options that make no sense;
   * TypeError for a device whose controller is open: after `close()` has resolved, or when it has failed, it can be opened
   * again; what the device's calls throw.
   */
  static async open(device: Device, options: NvmeOptions = {}): Promise<NvmeController> {
    if (!(device instanceof Device)) throw wrongType('NvmeController.open: device', 'a Device', device);
    const settings = nvmeSettings(options);
    return withSeat('NvmeController.open', device, async (sit) => {
      await device.enable();
      const info = new ControllerInfo(device, await probe(device), settings);
      const controller = new NvmeController(info, await AdminQueue.allocate(info));
      sit(controller.#lifecycle);
      await controller.#lifecycle.open();
      return controller;
    });
  }

  private constructor(info: ControllerInfo, memory: AdminQueueMemory) {
    const { device, bar, capabilities, settings } = info;
    const host: IoQueuePairHost = {
      onOverdue: (command, queue) => aborter.getBack(command, () => queue.pollSafely()),
      onUnwanted: (command) => aborter.abort(command),
      onBroken: (error) => void this.#lifecycle.fail(error),
      onViolation: (error) => void this.#lifecycle.fail(error),
      onMemoryLost: (reason) => this.#lifecycle.onMemoryLost(reason),
    };
    const resetOrFail = () => this.#lifecycle.resetOrFail();
    const doorbells = new DoorbellMap(bar, capabilities.doorbellStride, () => void resetOrFail());
    const admin = new AdminQueue(info, memory, host);
    const queues = new IoQueues({
      ...{ info, admin: admin.driver, doorbells, host },
      whenLive: (run) => this.#lifecycle.whenLive(run),
    });
    const namespaces = new Namespaces(admin.user, (namespace, change) =>
      queues.retireThoseOf(namespace, () => new NvmeNamespaceError(namespace.id, change)),
    );
    const events = new AsyncEvents(admin.commands, () => void this.#verifyNamespaces());
    const aborter = new Aborter({
      ...{ bar, admin: admin.driver, timeoutMs: settings.timeoutMs, resetOrFail },
      isLive: () => this.#lifecycle.state === 'live',
    });
    this.device = device;
    this.#info = info;
    this.#admin = admin;
    this.#queues = queues;
    this.#namespaces = namespaces;
    this.#events = events;
    this.#setup = new ControllerSetup({ info, admin, queues, doorbells, namespaces, events });
    this.#lifecycle = new DeviceLifecycle(device, this.#setup);
    memory.rings.buffer.onRelease((reason) => this.#lifecycle.onMemoryLost(reason));
    forbidCloning(this, 'an NvmeController');
  }

  /** What the controller is doing. */
  get state(): ControllerState {
    return this.#lifecycle.state;
  }

  /** Settles, never rejects, with the reason when the controller has failed or is closed. */
  get closed(): Promise<Error> {
    return this.#lifecycle.closed;
  }

  /** Whether `close` has been called, or the controller has failed, or its device is closed. */
  get isClosed(): boolean {
    return this.#lifecycle.isClosed;
  }

  /** CAP, Controller Capabilities (section 3.1.3.1). */
  get capabilities(): ControllerCapabilities {
    return this.#info.capabilities;
  }

  /** VS, the version of the specification that the controller implements, for example `1.4.0` (section 3.1.3.2). */
  get version(): string {
    return this.#info.version;
  }

  /** The memory page size that the controller was given, bytes. */
  get pageSize(): number {
    return this.#info.pageSize;
  }

  /** What Identify Controller said when the controller was started last. */
  get identity(): ControllerIdentity {
    return this.#info.identity;
  }

  /** Identify Controller as it came, 4,096 bytes. */
  get identityBytes(): Buffer {
    return Buffer.from(this.#info.identityBytes);
  }

  /** The longest transfer of one command, bytes: MDTS, or the option `maxTransferBytes` where that is less. */
  get maxTransferBytes(): number {
    return this.#info.maxTransferBytes;
  }

  /** MQES: the most entries of an I/O queue. */
  get maxQueueEntries(): number {
    return this.#info.capabilities.maxQueueEntries;
  }

  /** How many I/O queue pairs the controller granted. */
  get maxQueues(): number {
    return this.#queues.limit;
  }

  /** The I/O queue pairs that are open. */
  get queues(): readonly NvmeQueue[] {
    return this.#queues.all;
  }

  /**
   * The identifiers of the active namespaces, in ascending order (Identify, CNS 02h).
   * @throws as `adminCommand`; ProtocolError for a list that is not in ascending order.
   */
  async namespaceIds(options?: CallOptions): Promise<number[]> {
    option.CALL_OPTIONS.check('NvmeController.namespaceIds', options);
    return this.#namespaces.ids(options);
  }

  /**
   * A namespace; the first active one where no number is given. The controller is asked once; with `refresh` it is asked
   * again, and what has changed ends the queues of the namespace of before.
   * @param id - NSID
   * @throws NvmeStatusError for a number that the controller does not accept; UnsupportedError where no namespace is
   * active; ProtocolError for an identity that contradicts itself; as `adminCommand`.
   */
  async namespace(id?: number, options: CallOptions & { refresh?: boolean } = {}): Promise<NvmeNamespace> {
    NAMESPACE_OPTIONS.check('NvmeController.namespace', options);
    if (id !== undefined) integer('NvmeController.namespace: id', id, 0, UINT32_MAX);
    return this.#namespaces.get(id, options);
  }

  /**
   * Makes an I/O queue pair (sections 5.4 and 5.5). Waits for a reset that is under way, and begins again where one comes
   * between.
   * @throws RangeError for options that are out of the controller's limits; UnsupportedError where the controller has no
   * further queue, no vector, or the namespace a format that the driver does not support (metadata, blocks of more than
   * 4,096 bytes); NvmeNamespaceError for a namespace that has changed; what `adminCommand` and `device.dma.alloc` throw.
   */
  async createQueue(options: NvmeQueueOptions = {}): Promise<NvmeQueue> {
    QUEUE_OPTIONS.check('NvmeController.createQueue', options);
    this.#lifecycle.throwIfClosing();
    return this.#lifecycle.whenLive(async () => {
      this.#lifecycle.throwIfClosing();
      const { namespace: wanted } = options;
      const namespace =
        wanted instanceof NvmeNamespace ? wanted : await this.#namespaces.get(wanted, {}, this.#admin.driver);
      if (namespace.owner !== this.#namespaces)
        throw new TypeError('namespace must be one of this controller, from NvmeController.namespace');
      namespace.requireUsable();
      namespace.requireCurrent();
      return this.#queues.create(namespace, options);
    });
  }

  /**
   * Any admin command (section 5). Asynchronous Event Request is sent by the driver, unless the option `asyncEvents` is
   * false: the promise gives the next event then.
   * @throws RangeError for more data than 64 KiB, for fields that are too long, for data that goes another way than the opcode
   * says, and for another length than the command names (Identify, Get Log Page, Firmware Image Download, Security Send and
   * the like); NvmeStatusError where the controller
   * completes it with an error; TimeoutError; NvmeResetError where the controller was reset meanwhile; the signal's reason.
   * @example
   * ```ts
   * const { data } = await controller.adminCommand({ opcode: AdminOpcode.IDENTIFY, cdw10: 1, receive: 4096 });
   * ```
   */
  async adminCommand(command: AdminCommand, options?: CallOptions): Promise<AdminResult> {
    ADMIN_COMMAND.check('NvmeController.adminCommand', command);
    option.CALL_OPTIONS.check('NvmeController.adminCommand', options);
    if (command.opcode === AdminOpcode.ASYNC_EVENT_REQUEST && this.#info.settings.asyncEvents)
      return { result: await this.#events.next(options), data: Buffer.alloc(0) };
    return this.#admin.user.execute(command, options);
  }

  /**
   * Any I/O command, by a queue that is open, or by one for this command alone. Data goes the way that the opcode says. Of commands
   * that name how much they transfer (Read, Write, Compare, Dataset Management, Copy, reservations) the length is checked. It is not sent again
   * after a reset.
   * @throws RangeError for fields that are too long, data that goes another way, and a length that is not what the controller
   * will transfer; UnsupportedError where the controller has no further queue; NvmeStatusError where it completes the
   * command with an error; TimeoutError; NvmeResetError; the signal's reason.
   * @example
   * ```ts
   * const { data } = await controller.ioCommand({ opcode: NvmOpcode.READ, namespace: 1, receive: 512 });
   * ```
   */
  async ioCommand(command: IoCommand, options?: CallOptions): Promise<IoResult> {
    IO_COMMAND.check('NvmeController.ioCommand', command);
    option.CALL_OPTIONS.check('NvmeController.ioCommand', options);
    this.#lifecycle.throwIfClosing();
    const { namespace: id = 0 } = command;
    const isOne = id !== 0 && id !== ALL_NAMESPACES;
    const namespace = isOne ? await this.#namespaces.get(id, options ?? {}) : undefined;
    checkIoLength(command, namespace);
    const open = this.#queues.all.find(({ isClosed }) => !isClosed);
    if (open !== undefined) return open.passThrough(command, namespace, options);
    const target = namespace ?? (await this.#namespaces.get(undefined, options ?? {}));
    const queue = await this.#lifecycle.whenLive(() => this.#queues.create(target, {}));
    try {
      return await queue.passThrough(command, namespace, options);
    } finally {
      await queue.close();
    }
  }

  /**
   * Format NVM (section 5.14): erases a namespace, and gives its blocks another format. What the controller's namespaces are
   * is asked again after it; queues of a namespace whose blocks have another size are ended. Its deadline is ten minutes
   * where none is given.
   * @throws UnsupportedError where the controller cannot; as `adminCommand`.
   */
  async format(options: FormatOptions): Promise<void> {
    FORMAT_OPTIONS.check('NvmeController.format', options);
    requireFormat(this.identity.optionalAdminCommands, OptionalAdminCommands.FORMAT);
    try {
      await this.#admin.user.format(options);
    } finally {
      if (!this.isClosed) await this.#verifyNamespaces();
    }
  }

  /**
   * Identify (section 5.17): 4,096 bytes.
   * @param cns - what to identify, 0 to 255; see `IdentifyCns`
   * @param namespace - NSID, where `cns` is about one; default 0
   * @throws as `adminCommand`.
   */
  async identify(cns: number, namespace = 0, options?: CallOptions): Promise<Buffer> {
    option.CALL_OPTIONS.check('NvmeController.identify', options);
    integer('NvmeController.identify: namespace', namespace, 0, UINT32_MAX);
    return this.#admin.user.identify(cns, namespace, options);
  }

  /**
   * Get Log Page (section 5.16). A page of more than 4,096 bytes is read in parts, where the controller can.
   * @param page - the log page identifier, 0 to 255; see `LogPageId`
   * @param length - how many bytes, a multiple of 4
   * @throws UnsupportedError for an offset, or more than 64 KiB, where the controller does not support offsets (LPA bit 2);
   * RangeError for more than 64 KiB from an index on (`isIndexOffset`); as `adminCommand`.
   */
  async logPage(page: number, length: number, options?: LogPageOptions): Promise<Buffer> {
    LOG_PAGE_OPTIONS.check('NvmeController.logPage', options);
    integer('NvmeController.logPage: length', length);
    return this.#admin.user.logPage(page, length, options);
  }

  /**
   * Error Information (section 5.16.1.2): the entries in use, newest first.
   * @param limit - the most entries, from 1; default: as many as the controller keeps
   * @throws as `adminCommand`.
   */
  async errorLog(limit = this.identity.errorLogEntries, options?: CallOptions): Promise<ErrorLogEntry[]> {
    option.CALL_OPTIONS.check('NvmeController.errorLog', options);
    integer('NvmeController.errorLog: limit', limit, 1);
    const count = Math.min(limit, this.identity.errorLogEntries);
    return decodeErrorLog(
      await this.#admin.user.logPage(LogPageId.ERROR_INFORMATION, count * ERROR_ENTRY_SIZE, options),
    );
  }

  /** SMART / Health Information (section 5.16.1.3). @throws as `logPage`. */
  async smartLog(options?: LogPageOptions): Promise<SmartLog> {
    LOG_PAGE_OPTIONS.check('NvmeController.smartLog', options);
    return decodeSmartLog(await this.#admin.user.logPage(LogPageId.SMART_HEALTH, SMART_LOG_SIZE, options));
  }

  /** Firmware Slot Information (section 5.16.1.4). @throws as `adminCommand`. */
  async firmwareLog(options?: CallOptions): Promise<FirmwareLog> {
    option.CALL_OPTIONS.check('NvmeController.firmwareLog', options);
    return decodeFirmwareLog(
      await this.#admin.user.logPage(LogPageId.FIRMWARE_SLOT, FIRMWARE_LOG_SIZE, options),
    );
  }

  /**
   * Get Features (section 5.15). `result` is the value, `data` what goes with it where `receive` is given.
   * @param feature - the feature identifier, 0 to 255; see `FeatureId`
   * @throws as `adminCommand`.
   */
  async getFeature(feature: number, options?: GetFeatureOptions): Promise<AdminResult> {
    GET_FEATURE_OPTIONS.check('NvmeController.getFeature', options);
    return this.#admin.user.getFeature(feature, options);
  }

  /**
   * Set Features (section 5.27). The promise gives dword 0 of the completion.
   * @param feature - the feature identifier, 0 to 255; see `FeatureId`
   * @throws as `adminCommand`.
   */
  async setFeature(feature: number, options?: SetFeatureOptions): Promise<number> {
    SET_FEATURE_OPTIONS.check('NvmeController.setFeature', options);
    return this.#admin.user.setFeature(feature, options);
  }

  /**
   * Controller reset (section 3.7.2): CC.EN to 0 and back, and all queues made again. Commands in flight are sent again once (`retries`);
   * those that must not be are rejected with NvmeResetError, and reported as ABORTED_BY_HOST to the submit/poll calls.
   * Admin commands are rejected with NvmeResetError at once. Several resets at a time are one.
   * @throws NvmeControllerError where the controller does not come back, or another one does: it has failed then;
   * ClosedError where it is closed, or being closed.
   */
  async reset(): Promise<void> {
    await this.#lifecycle.reset();
  }

  /**
   * Orderly shutdown (section 3.6.1): waits for what is in flight, deletes the queues, CC.SHN, disables the controller and gives its
   * memory back. Idempotent. A controller that failed is disabled, where it can be reached; one whose device is closed is
   * asked nothing.
   * @throws NvmeControllerError where the shutdown does not end; RemoteError where the server does not let go of memory. The
   * controller is closed all the same.
   */
  close(): Promise<void> {
    return this.#lifecycle.close();
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** However many events come meanwhile, one comparison is under way, and one follows it. */
  async #verifyNamespaces(): Promise<void> {
    this.#isStale = true;
    if (this.#isVerifying) return;
    this.#isVerifying = true;
    try {
      while (this.#isStale) {
        this.#isStale = false;
        await this.#lifecycle.whenLive(() => this.#setup.verifyNamespaces());
      }
    } catch {
      // A reset compares them, too, and whoever cannot be reset has failed.
      await this.#lifecycle.resetOrFail();
    } finally {
      this.#isVerifying = false;
    }
  }
}
