/** An NVMe controller as its user has it. What it is made of: `ControllerParts`; its states: controller-lifecycle.ts. */
import { forbidCloning } from '../cloning.js';
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
} from './admin-options.js';
import { AdminQueue, type AdminQueueMemory } from './admin-queue.js';
import { AsyncEvents } from './async-events.js';
import { ControllerInfo } from './controller-info.js';
import { ControllerLifecycle, type ControllerState } from './controller-lifecycle.js';
import {
  nvmeSettings,
  QUEUE_OPTIONS,
  type NvmeOptions,
  type NvmeQueueOptions,
} from './controller-options.js';
import { ControllerSetup } from './controller-setup.js';
import { DoorbellMap } from './doorbell-map.js';
import { NvmeNamespaceError } from './errors.js';
import type { ControllerIdentity } from './identify-controller.js';
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
import { AdminOpcode, LogPageId } from './opcodes.js';
import { probe } from './probe.js';
import type { NvmeQueue } from './queue.js';
import type { ControllerCapabilities } from './registers.js';

const NAMESPACE_OPTIONS = new option.OptionTable<CallOptions & { refresh?: boolean }>({
  ...option.CALL_CHECKS,
  refresh: option.boolean,
});

export class NvmeController {
  readonly device: Device;
  readonly #info: ControllerInfo;
  readonly #admin: AdminQueue;
  readonly #queues: IoQueues;
  readonly #namespaces: Namespaces;
  readonly #events: AsyncEvents;
  readonly #setup: ControllerSetup;
  readonly #lifecycle: ControllerLifecycle;

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
    const info = new ControllerInfo(device, await probe(device), settings);
    const controller = new NvmeController(info, await AdminQueue.allocate(info));
    await controller.#lifecycle.open();
    return controller;
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
    this.#lifecycle = new ControllerLifecycle(device, this.#setup);
    memory.rings.buffer.onRelease((reason) => this.#lifecycle.onMemoryLost(reason));
    forbidCloning(this, 'an NvmeController');
  }

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

  /** CAP. */
  get capabilities(): ControllerCapabilities {
    return this.#info.capabilities;
  }

  /** VS, for example `1.4.0`. */
  get version(): string {
    return this.#info.version;
  }

  /** The memory page size that the controller was given, bytes. */
  get pageSize(): number {
    return this.#info.pageSize;
  }

  /** What Identify Controller said. */
  get identity(): ControllerIdentity {
    return this.#info.identity;
  }

  /** Identify Controller as it came, 4,096 bytes. */
  get identityBytes(): Buffer {
    return Buffer.from(this.#info.identityBytes);
  }

  /** The longest transfer of one command, bytes. */
  get maxTransferBytes(): number {
    return this.#info.maxTransferBytes;
  }

  /** The most entries of a queue's rings. */
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
   * Any admin command. An Asynchronous Event Request is the driver's own, unless `asyncEvents` is false: the promise then
   * gives the next event.
   * @throws as `NvmeQueue.read` rejects; RangeError for more data than 64 KiB, and for fields that are too long.
   */
  async adminCommand(command: AdminCommand, options?: CallOptions): Promise<AdminResult> {
    ADMIN_COMMAND.check('NvmeController.adminCommand', command);
    option.CALL_OPTIONS.check('NvmeController.adminCommand', options);
    if (command.opcode === AdminOpcode.ASYNC_EVENT_REQUEST && this.#info.settings.asyncEvents)
      return { result: await this.#events.next(options), data: Buffer.alloc(0) };
    return this.#admin.user.execute(command, options);
  }

  /** Identify: 4,096 bytes. `cns` as in `IdentifyCns`. */
  async identify(cns: number, namespace = 0, options?: CallOptions): Promise<Buffer> {
    option.CALL_OPTIONS.check('NvmeController.identify', options);
    integer('NvmeController.identify: namespace', namespace, 0, UINT32_MAX);
    return this.#admin.user.identify(cns, namespace, options);
  }

  /** `length` bytes of a log page, a multiple of 4. */
  async logPage(page: number, length: number, options?: LogPageOptions): Promise<Buffer> {
    LOG_PAGE_OPTIONS.check('NvmeController.logPage', options);
    integer('NvmeController.logPage: length', length);
    return this.#admin.user.logPage(page, length, options);
  }

  /** Entries in use, newest first; at most `limit`. */
  async errorLog(limit = this.identity.errorLogEntries, options?: CallOptions): Promise<ErrorLogEntry[]> {
    option.CALL_OPTIONS.check('NvmeController.errorLog', options);
    integer('NvmeController.errorLog: limit', limit, 1);
    const count = Math.min(limit, this.identity.errorLogEntries);
    return decodeErrorLog(
      await this.#admin.user.logPage(LogPageId.ERROR_INFORMATION, count * ERROR_ENTRY_SIZE, options),
    );
  }

  async smartLog(options?: LogPageOptions): Promise<SmartLog> {
    LOG_PAGE_OPTIONS.check('NvmeController.smartLog', options);
    return decodeSmartLog(await this.#admin.user.logPage(LogPageId.SMART_HEALTH, SMART_LOG_SIZE, options));
  }

  async firmwareLog(options?: CallOptions): Promise<FirmwareLog> {
    option.CALL_OPTIONS.check('NvmeController.firmwareLog', options);
    return decodeFirmwareLog(
      await this.#admin.user.logPage(LogPageId.FIRMWARE_SLOT, FIRMWARE_LOG_SIZE, options),
    );
  }

  async getFeature(feature: number, options?: GetFeatureOptions): Promise<AdminResult> {
    GET_FEATURE_OPTIONS.check('NvmeController.getFeature', options);
    return this.#admin.user.getFeature(feature, options);
  }

  /** The promise gives dword 0 of the completion. */
  async setFeature(feature: number, options?: SetFeatureOptions): Promise<number> {
    SET_FEATURE_OPTIONS.check('NvmeController.setFeature', options);
    return this.#admin.user.setFeature(feature, options);
  }

  /**
   * Controller reset: CC.EN to 0 and back, and all queues made again. Commands in flight are sent again once (`retries`);
   * those that must not be are rejected with NvmeResetError, and reported as ABORTED_BY_HOST to the submit/poll calls.
   * Admin commands are rejected with NvmeResetError at once. Several resets at a time are one.
   * @throws NvmeControllerError where the controller does not come back, or another one does: it has failed then;
   * ClosedError where it is closed, or being closed.
   */
  async reset(): Promise<void> {
    await this.#lifecycle.reset();
  }

  /**
   * Orderly shutdown: waits for what is in flight, deletes the queues, CC.SHN, disables the controller and gives its
   * memory back. Idempotent. A controller that failed is disabled, where it can be reached; one whose device is closed is
   * asked nothing.
   * @throws NvmeControllerError where the shutdown does not end; the controller is closed all the same.
   */
  close(): Promise<void> {
    return this.#lifecycle.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #verifyNamespaces(): Promise<void> {
    try {
      await this.#lifecycle.whenLive(() => this.#setup.verifyNamespaces());
    } catch {
      // A reset compares them, too, and whoever cannot be reset has failed.
      await this.#lifecycle.resetOrFail();
    }
  }
}
