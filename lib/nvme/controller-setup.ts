/**
 * Starts a controller and shuts it down, step by step as NVM Express Base 2.0 has it (sections 3.5.1 and 3.6.1). Which of
 * it happens when is for commands/device-lifecycle.ts to say.
 */
import type { DeviceSetup } from '../commands/device-lifecycle.js';
import { allOf, freeRetained, retain } from '../commands/driver-memory.js';
import type { AdminQueue } from './admin-queue.js';
import type { AsyncEvents } from './async-events.js';
import { queuesWithDoorbells, requireSameCapabilities, type ControllerInfo } from './controller-info.js';
import type { DoorbellMap } from './doorbell-map.js';
import { disable, disableInterrupts, enable, memoryRequests, shutDown, withLikelyReason } from './enable.js';
import { NvmeControllerError, NvmeResetError } from './errors.js';
import { OptionalAdminCommands } from './identify.js';
import type { IoQueues } from './io-queues.js';
import type { Namespaces } from './namespaces.js';
import { FeatureId, IdentifyCns, LogPageId } from './opcodes.js';
import {
  ControllerConfiguration,
  decodeCapabilities,
  enabledConfiguration,
  NvmeRegister,
} from './registers.js';
import { NvmeStatusError } from './status.js';

const ADMIN_QUEUE = 0;
/** An orderly shutdown may take RTD3E, and where that is not known this. */
const SHUTDOWN_MS = 5_000;
/** OAES, and CDW11 of Asynchronous Event Configuration: Namespace Attribute Notices. */
const NAMESPACE_NOTICES = 1 << 8;
const LOG_PAGE_BYTES = 4096;

/** What a controller is made of. */
export interface ControllerParts {
  readonly info: ControllerInfo;
  readonly admin: AdminQueue;
  readonly queues: IoQueues;
  readonly doorbells: DoorbellMap;
  readonly namespaces: Namespaces;
  readonly events: AsyncEvents;
}

/**
 * What a controller is doing: `opening` until `NvmeController.open` resolves; `live`; `resetting` from a reset's beginning
 * to its end, also while a lost connection is made again; `failed` where it could not be brought back, or lost its memory;
 * `closed` after `close`, or with its device.
 */
export type ControllerState = 'opening' | 'live' | 'resetting' | 'failed' | 'closed';

export class ControllerSetup implements DeviceSetup {
  readonly noun = 'the controller';
  readonly #parts: ControllerParts;
  /** Of the server, before the first start. */
  readonly #memoryRequests: number;
  /** The controller is another's, or nobody's. */
  #isLeft = false;

  constructor(parts: ControllerParts) {
    this.#parts = parts;
    this.#memoryRequests = memoryRequests(parts.info.device);
  }

  failure(message: string, cause: unknown): Error {
    return new NvmeControllerError(message, { cause });
  }

  interruption(message: string): Error {
    return new NvmeResetError(message);
  }

  isInterruption(error: unknown): boolean {
    return error instanceof NvmeResetError;
  }

  /**
   * Section 3.5.1, in its order. The queues of before are made again, in the controller that they were in.
   * @param throwIfEnded is called where the controller may have ended meanwhile
   */
  async start(throwIfEnded: () => void): Promise<void> {
    const { info, admin, queues, doorbells, namespaces, events } = this.#parts;
    const { bar, capabilities, device, pageSize, settings } = info;
    await disableInterrupts(device);
    await disable(bar, capabilities);
    await freeRetained(device);
    admin.commands.recover();
    queues.recover();
    requireSameCapabilities(capabilities, decodeCapabilities(await bar.readUInt64(NvmeRegister.CAP)));
    admin.clear();
    throwIfEnded();
    await enable(bar, capabilities, admin.addresses, pageSize);
    throwIfEnded();
    const { sq, cq } = doorbells.pair(ADMIN_QUEUE);
    admin.open(sq, cq);
    info.update(await admin.start.identify(IdentifyCns.CONTROLLER, 0));
    queues.limit = await this.#negotiateQueues();
    const missing = queues.whatIsMissing(info);
    if (missing !== undefined)
      throw new NvmeControllerError(`the controller grants less than before: ${missing}`);
    await this.#configureShadowDoorbells();
    // Before they are compared: what changes later is told.
    await this.#askForEvents();
    await namespaces.verify(admin.start);
    await queues.recreate(admin.start);
    throwIfEnded();
    queues.resume();
    admin.commands.release();
    if (settings.asyncEvents) events.start();
  }

  /** The error of the first `start`, with the likely reason where there is one: see `withLikelyReason`. */
  explain(error: unknown): unknown {
    const { info, admin } = this.#parts;
    return withLikelyReason(error, info.device, admin.buffer, this.#memoryRequests);
  }

  /** Nothing is sent from here on but commands of a start; callers of admin commands are answered. */
  suspend(): void {
    this.#parts.queues.suspend();
    this.#parts.admin.commands.hold();
  }

  /** Namespace attributes have changed: nothing is sent until it is known which are what they were. */
  async verifyNamespaces(): Promise<void> {
    const { admin, queues, namespaces } = this.#parts;
    await queues.paused(async () => {
      try {
        // Until it is read no other such event comes. Who cannot read it has all compared all the same.
        await admin.driver.logPage(LogPageId.CHANGED_NAMESPACES, LOG_PAGE_BYTES);
      } catch (error) {
        if (!(error instanceof NvmeStatusError)) throw error;
      }
      await namespaces.verify(admin.driver);
    });
  }

  /** Nothing is taken any more. Waits for what is in flight, as long as commands may take. */
  drain(): Promise<void> {
    return this.#parts.queues.drain();
  }

  /** Deletes the queues. What the controller does not delete, or answer, goes when it is disabled. */
  async deleteQueues(): Promise<void> {
    await this.#parts.queues.deleteAll().catch(() => undefined);
  }

  /** Section 3.6.1. @throws NvmeControllerError where it does not end in time; what registers throw. */
  async shutDown(): Promise<void> {
    const { bar, identity } = this.#parts.info;
    await shutDown(bar, Math.max(SHUTDOWN_MS, Math.ceil(identity.entryLatencyUs / 1000)));
  }

  /** Whoever waits gets that error, and nothing is sent any more. */
  end(error: () => Error): void {
    this.#parts.admin.commands.end(error);
    this.#parts.queues.end(error);
    this.#parts.events.end(error);
  }

  /** Callers' buffers are theirs again: the controller has ended, and does not use them any more. */
  giveBackBuffers(): void {
    this.#parts.queues.giveBack();
  }

  /** Disables a controller that has ended. Whether that could be done: it uses no memory then. */
  async disable(): Promise<boolean> {
    const { bar, capabilities } = this.#parts.info;
    try {
      await disable(bar, capabilities);
    } catch {
      return false;
    }
    this.giveBackBuffers();
    return true;
  }

  /** Writes CC, and waits for nothing: what comes next takes the memory away. */
  disableAtOnce(): void {
    const { bar, capabilities, pageSize } = this.#parts.info;
    const enabled = enabledConfiguration(pageSize, capabilities.commandSets);
    const disabled = (enabled & ~ControllerConfiguration.EN) >>> 0;
    bar.writeUInt32(NvmeRegister.CC, disabled).catch(() => undefined);
  }

  /** The server has come back: its BAR 0 is mapped anew when doorbells are needed. */
  unmapDoorbells(): void {
    this.#parts.doorbells.close();
  }

  /** The controller has ended: disables it where it can be reached, and gives back what it does not use any more. */
  async free(): Promise<void> {
    if (this.#isLeft) return;
    const isDisabled = await this.disable();
    if (!isDisabled) return this.handOver();
    this.#isLeft = true;
    this.#parts.doorbells.close();
    await this.#freeMemory();
  }

  /** The controller has ended, and is not touched from here any more: whoever disables it next gives the memory back. */
  handOver(): void {
    if (this.#isLeft) return;
    this.#isLeft = true;
    const { info, doorbells } = this.#parts;
    doorbells.close();
    retain(info.device, () => this.#freeMemory());
  }

  async #freeMemory(): Promise<void> {
    const { admin, queues, doorbells } = this.#parts;
    queues.giveBack();
    await queues.disableInterrupts().catch(() => undefined);
    await allOf([() => queues.free(), () => admin.free(), () => doorbells.buffer?.free()]);
  }

  /** Number of Queues (5.27.1.5): both kinds, zero-based, before any is created. */
  async #negotiateQueues(): Promise<number> {
    const { info, admin } = this.#parts;
    const { bar, capabilities, settings } = info;
    const wanted = settings.queues - 1;
    const cdw11 = (wanted | (wanted << 16)) >>> 0;
    const granted = await admin.start.setFeature(FeatureId.NUMBER_OF_QUEUES, { cdw11 });
    // The admin queue has doorbells, too.
    const room = queuesWithDoorbells(bar, capabilities) - 1;
    return Math.min(settings.queues, (granted & 0xffff) + 1, (granted >>> 16) + 1, room);
  }

  async #configureShadowDoorbells(): Promise<void> {
    const { info, admin, doorbells } = this.#parts;
    const { identity, settings, device, pageSize } = info;
    if (!settings.shadowDoorbells) return;
    if ((identity.optionalAdminCommands & OptionalAdminCommands.DOORBELL_BUFFER_CONFIG) === 0) return;
    const { shadow, eventIndexes } = await doorbells.shadowBuffers(device, pageSize);
    await admin.start.configureDoorbellBuffers(shadow, eventIndexes);
  }

  /** Of changed namespaces, where the controller tells of them. */
  async #askForEvents(): Promise<void> {
    const { info, admin } = this.#parts;
    if (!info.settings.asyncEvents || (info.identity.asyncEvents & NAMESPACE_NOTICES) === 0) return;
    try {
      await admin.start.setFeature(FeatureId.ASYNC_EVENT_CONFIGURATION, { cdw11: NAMESPACE_NOTICES });
    } catch (error) {
      if (!(error instanceof NvmeStatusError)) throw error;
    }
  }
}
