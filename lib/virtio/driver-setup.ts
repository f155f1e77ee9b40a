/**
 * Starts a device, step by step as Virtual I/O Device 1.2 has it (section 3.1.1), and resets it. Which of it happens when is
 * for commands/device-lifecycle.ts to say; what the device is, for the driver (`DriverKind`).
 */
import type { DeviceSetup } from '../commands/device-lifecycle.js';
import { allOf, freeRetained, retain } from '../commands/driver-memory.js';
import { UnsupportedError, type Device } from '../index.js';
import { DeviceStatus } from './constants.js';
import type { VirtioSettings } from './driver-options.js';
import { VirtioDeviceError, VirtioResetError } from './errors.js';
import { featureMask, hasFeature, VirtioFeature, virtioFeatureNames } from './features.js';
import { DriverInterrupts } from './interrupts.js';
import type { Notifier } from './notify.js';
import type { RingAddresses } from './ring.js';
import type { VirtioTransport } from './transport.js';

/** A queue of a driver. */
export interface DriverQueue {
  readonly index: number;
  /** Entries. */
  readonly size: number;
  readonly addresses: RingAddresses;
  /** Makes it a new queue, which the device is about to be told of. */
  clear(): void;
  /** The device runs, and has it. */
  open(notifier: Notifier): void;
  /** Nothing is sent from here on. */
  suspend(): void;
  /** The device was reset: it has let go of all that was in flight. */
  recover(): void;
  /** Takes completions; never throws. */
  poll(): void;
  /** Takes nothing any more, and waits for what is in flight, as long as requests may take. */
  drain(): Promise<void>;
  /** Whoever waits gets that error. */
  end(error: () => Error): void;
  /** Callers' buffers are theirs again. */
  giveBack(): void;
  /** Gives its memory back. */
  free(): Promise<void>;
}

/** What a driver knows of its device. */
export interface DriverKind {
  /** Feature bits of its own that it takes where they are offered. */
  readonly features: readonly number[];
  /**
   * Reads the device's configuration, at each start.
   * @throws where it is not what it was, in a way that matters.
   */
  configure(setup: DriverSetup): Promise<void>;
  /** Makes the queues, once, when features and configuration are known. */
  makeQueues(setup: DriverSetup): Promise<readonly DriverQueue[]>;
  /** The device says that its configuration has changed. */
  onConfigChange(): void;
}

export interface DriverHost {
  /** Never rejects: a device that cannot be reset has failed. */
  resetOrFail: () => Promise<void>;
  fail: (error: unknown) => void;
  onMemoryLost: (reason: Error) => void;
}

export class DriverSetup implements DeviceSetup {
  readonly noun = 'the device';
  readonly transport: VirtioTransport;
  readonly settings: VirtioSettings;
  readonly host: DriverHost;
  readonly #kind: DriverKind;
  readonly #interrupts: DriverInterrupts;
  #offered = 0n;
  #features: bigint | undefined;
  #queues: readonly DriverQueue[] = [];
  #isMade = false;
  /** The device is another's, or nobody's. */
  #isLeft = false;

  constructor(transport: VirtioTransport, settings: VirtioSettings, kind: DriverKind, host: DriverHost) {
    this.transport = transport;
    this.settings = settings;
    this.host = host;
    this.#kind = kind;
    this.#interrupts = new DriverInterrupts(transport, {
      poll: (queue) => this.#poll(queue),
      onConfigChange: () => void this.#onConfigChange(),
    });
  }

  get device(): Device {
    return this.transport.device;
  }

  /** What the device offered last. */
  get offered(): bigint {
    return this.#offered;
  }

  /** What was negotiated. */
  get features(): bigint {
    return this.#features ?? 0n;
  }

  has(feature: number): boolean {
    return hasFeature(this.features, feature);
  }

  get queues(): readonly DriverQueue[] {
    return this.#queues;
  }

  failure(message: string, cause: unknown): Error {
    return new VirtioDeviceError(message, { cause });
  }

  interruption(message: string): Error {
    return new VirtioResetError(message);
  }

  isInterruption(error: unknown): boolean {
    return error instanceof VirtioResetError;
  }

  explain(error: unknown): unknown {
    return error;
  }

  /** Section 3.1.1, in its order. The queues of before are made again. */
  async start(throwIfEnded: () => void): Promise<void> {
    const { transport } = this;
    await this.#interrupts.prepare(this.settings.isPolled);
    await transport.reset();
    await freeRetained(this.device);
    for (const queue of this.#queues) queue.recover();
    throwIfEnded();
    await transport.setStatus(DeviceStatus.ACKNOWLEDGE);
    await transport.setStatus(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER);
    const features = await this.#negotiate();
    this.#features = features;
    await this.#kind.configure(this);
    throwIfEnded();
    if (!this.#isMade) {
      this.#queues = await this.#kind.makeQueues(this);
      this.#isMade = true;
    }
    throwIfEnded();
    await this.#enableQueues();
    const notifiers: Notifier[] = [];
    for (const { index } of this.#queues) notifiers.push(await transport.notifier(index));
    throwIfEnded();
    await transport.setStatus(RUNNING);
    await this.#requireRunning();
    throwIfEnded();
    for (const [i, queue] of this.#queues.entries()) queue.open(notifiers[i]!);
  }

  suspend(): void {
    for (const queue of this.#queues) queue.suspend();
  }

  async drain(): Promise<void> {
    await Promise.all(this.#queues.map((queue) => queue.drain()));
  }

  async deleteQueues(): Promise<void> {}

  /** A device has no shutdown but its reset, which `free` does. */
  async shutDown(): Promise<void> {}

  end(error: () => Error): void {
    for (const queue of this.#queues) queue.end(error);
  }

  giveBackBuffers(): void {
    for (const queue of this.#queues) queue.giveBack();
  }

  async disable(): Promise<boolean> {
    try {
      await this.transport.reset();
    } catch {
      return false;
    }
    this.giveBackBuffers();
    return true;
  }

  disableAtOnce(): void {
    this.transport.resetAtOnce();
  }

  async free(): Promise<void> {
    if (this.#isLeft) return;
    const isReset = await this.disable();
    if (!isReset) return this.handOver();
    this.#isLeft = true;
    this.transport.unmap();
    await this.#freeMemory();
  }

  handOver(): void {
    if (this.#isLeft) return;
    this.#isLeft = true;
    this.transport.unmap();
    retain(this.device, () => this.#freeMemory());
  }

  unmapDoorbells(): void {
    this.transport.unmap();
  }

  async #freeMemory(): Promise<void> {
    this.giveBackBuffers();
    await this.#interrupts.disable();
    await allOf(this.#queues.map((queue) => () => queue.free()));
  }

  /** Sections 2.2 and 3.1.1, steps 4 to 6. What was negotiated once is negotiated again, or nothing. */
  async #negotiate(): Promise<bigint> {
    const { transport } = this;
    const offered = await transport.deviceFeatures();
    this.#offered = offered;
    const names = (features: bigint) => virtioFeatureNames(transport.type, features).join(', ');
    if (!hasFeature(offered, VirtioFeature.VERSION_1)) {
      throw new UnsupportedError(
        `the device does not offer VERSION_1, and is one of before virtio 1.0 (it offers ${names(offered) || 'nothing'})`,
      );
    }
    const before = this.#features;
    const wanted = before ?? this.#wanted();
    const missing = wanted & ~offered;
    if (before !== undefined && missing !== 0n)
      throw new VirtioDeviceError(`the device offers less than before: ${names(missing)}`);
    const features = wanted & offered;
    await transport.setDriverFeatures(features);
    await transport.setStatus(NEGOTIATED);
    const status = await transport.status();
    if ((status & DeviceStatus.FEATURES_OK) === 0)
      throw new UnsupportedError(`the device refuses the features ${names(features)}`);
    return features;
  }

  #wanted(): bigint {
    const { ring, indirect, eventIndex } = this.settings;
    const bits: number[] = [VirtioFeature.VERSION_1, VirtioFeature.ACCESS_PLATFORM, ...this.#kind.features];
    if (ring === 'packed') bits.push(VirtioFeature.RING_PACKED);
    if (indirect) bits.push(VirtioFeature.INDIRECT_DESC);
    if (eventIndex) bits.push(VirtioFeature.EVENT_IDX);
    return featureMask(...bits);
  }

  async #enableQueues(): Promise<void> {
    const { transport } = this;
    const vectors = await this.#interrupts.enable(this.#queues);
    for (const queue of this.#queues) {
      const { index, size, addresses } = queue;
      const most = await transport.queueSize(index);
      if (most < size)
        throw new VirtioDeviceError(`queue ${index} has at most ${most} entries, and had ${size}`);
      queue.clear();
      await transport.enableQueue(index, { size, vector: vectors.get(index), ...addresses });
    }
  }

  /** A device that cannot go on says so (section 2.1.2). */
  async #requireRunning(): Promise<void> {
    const status = await this.transport.status();
    if ((status & DeviceStatus.NEEDS_RESET) === 0 && (status & DeviceStatus.DRIVER_OK) !== 0) return;
    throw new VirtioDeviceError(`the device does not run: its status is 0x${status.toString(16)}`);
  }

  #poll(index: number | undefined): void {
    for (const queue of this.#queues) if (index === undefined || queue.index === index) queue.poll();
  }

  async #onConfigChange(): Promise<void> {
    try {
      const status = await this.transport.status();
      if ((status & DeviceStatus.NEEDS_RESET) !== 0) await this.host.resetOrFail();
      else this.#kind.onConfigChange();
    } catch {
      // A device that cannot be asked is found out by its requests.
    }
  }
}

const NEGOTIATED = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK;
const RUNNING = NEGOTIATED | DeviceStatus.DRIVER_OK;
