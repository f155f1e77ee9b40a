/**
 * A virtio device's registers over PCI (Virtual I/O Device 1.2, section 4.1): by names, in accesses as wide as each register
 * is and of at most 4 bytes, which is what SPDK's target takes.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  RemoteError,
  TransportError,
  UnsupportedError,
  type Device,
  type MappedArea,
  type Region,
} from '../index.js';
import { findCapability, MsixControl } from '../pci/index.js';
import {
  CommonConfig,
  DeviceStatus,
  FIRST_MODERN_DEVICE_ID,
  NO_VECTOR,
  VIRTIO_VENDOR_ID,
} from './constants.js';
import { VirtioDeviceError } from './errors.js';
import { MappedNotifier, MessageNotifier, type Notifier } from './notify.js';
import { findAreas, type VirtioArea, type VirtioAreas } from './pci-areas.js';

const FIRST_PAUSE_MS = 0.25;
const LONGEST_PAUSE_MS = 10;
/** How often a configuration is read again because it changed meanwhile (section 2.5.1). */
const MOST_READS = 16;
const GONE = 0xff;

/** What a queue is set up with. */
export interface QueueSetup {
  readonly size: number;
  readonly vector: number | undefined;
  readonly descriptors: bigint;
  /** The available ring, or the driver event suppression structure. */
  readonly driver: bigint;
  /** The used ring, or the device event suppression structure. */
  readonly device: bigint;
}

export class VirtioTransport {
  readonly device: Device;
  /** As in `VirtioDeviceType`. */
  readonly type: number;
  readonly areas: VirtioAreas;
  readonly #common: Region;
  readonly #at: number;
  readonly #timeoutMs: number;
  #mapped: MappedArea[] = [];
  readonly #onNotifyError: (error: unknown) => void;

  /**
   * Enables the device and finds its structures.
   * @throws UnsupportedError for a device that is none of virtio 1.0 or later, or not of that type; what the device's calls
   * throw.
   */
  static async open(
    device: Device,
    type: number | undefined,
    timeoutMs: number,
    onNotifyError: (error: unknown) => void,
  ): Promise<VirtioTransport> {
    const { vendorId, deviceId } = device.config;
    const name = `${vendorId.toString(16).padStart(4, '0')}:${deviceId.toString(16).padStart(4, '0')}`;
    if (vendorId !== VIRTIO_VENDOR_ID || deviceId < 0x1000 || deviceId > 0x107f)
      throw new UnsupportedError(`${name} is no virtio device: those are 1af4:1000 to 1af4:107f`);
    if (deviceId < FIRST_MODERN_DEVICE_ID)
      throw new UnsupportedError(
        `${name} is a transitional virtio device; the driver takes modern ones, 1af4:1040 and later (disable-legacy=on)`,
      );
    const found = deviceId - FIRST_MODERN_DEVICE_ID;
    if (type !== undefined && found !== type)
      throw new UnsupportedError(`the device is of virtio type ${found}, not ${type}`);
    await device.enable();
    return new VirtioTransport(device, found, findAreas(device), timeoutMs, onNotifyError);
  }

  private constructor(
    device: Device,
    type: number,
    areas: VirtioAreas,
    timeoutMs: number,
    onNotifyError: (error: unknown) => void,
  ) {
    this.device = device;
    this.type = type;
    this.areas = areas;
    this.#common = areas.common.region;
    this.#at = areas.common.offset;
    this.#timeoutMs = timeoutMs;
    this.#onNotifyError = onNotifyError;
  }

  /** @throws VirtioDeviceError where the device is gone, which reads as all ones. */
  async status(): Promise<number> {
    const status = await this.#common.readUInt8(this.#at + CommonConfig.DEVICE_STATUS);
    if (status === GONE)
      throw new VirtioDeviceError('the device status reads as all ones: the device is gone');
    return status;
  }

  setStatus(status: number): Promise<void> {
    return this.#common.writeUInt8(this.#at + CommonConfig.DEVICE_STATUS, status);
  }

  /** Sections 2.4 and 4.1.4.3.2: the device has let go of all memory when the status reads as 0. */
  async reset(): Promise<void> {
    await this.setStatus(0);
    const deadline = performance.now() + this.#timeoutMs;
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(LONGEST_PAUSE_MS, pause * 2)) {
      const isOver = performance.now() >= deadline;
      const status = await this.status();
      if (status === 0) return;
      if (isOver) {
        throw new VirtioDeviceError(
          `the device does not reset: its status is still 0x${status.toString(16)} after ${this.#timeoutMs} ms`,
        );
      }
      await sleep(pause);
    }
  }

  /** Writes the status, for a device whose memory is about to be taken away; nothing is waited for. */
  resetAtOnce(): void {
    this.setStatus(0).catch(() => undefined);
  }

  /** What the device offers. */
  async deviceFeatures(): Promise<bigint> {
    let features = 0n;
    for (const half of [0, 1]) {
      await this.#common.writeUInt32(this.#at + CommonConfig.DEVICE_FEATURE_SELECT, half);
      const word = await this.#common.readUInt32(this.#at + CommonConfig.DEVICE_FEATURE);
      features |= BigInt(word) << BigInt(32 * half);
    }
    return features;
  }

  /** Tells the device which features the driver takes. */
  async setDriverFeatures(features: bigint): Promise<void> {
    for (const half of [0, 1]) {
      const word = Number((features >> BigInt(32 * half)) & 0xffff_ffffn);
      await this.#common.writeUInt32(this.#at + CommonConfig.DRIVER_FEATURE_SELECT, half);
      await this.#common.writeUInt32(this.#at + CommonConfig.DRIVER_FEATURE, word);
    }
  }

  queueCount(): Promise<number> {
    return this.#common.readUInt16(this.#at + CommonConfig.NUM_QUEUES);
  }

  /** The most entries of a queue; 0 where there is no such queue. */
  async queueSize(index: number): Promise<number> {
    await this.#select(index);
    return this.#common.readUInt16(this.#at + CommonConfig.QUEUE_SIZE);
  }

  /**
   * Section 4.1.5.1.3: tells the device where the queue is, and enables it.
   * @throws VirtioDeviceError where the device does not take the vector.
   */
  async enableQueue(index: number, queue: QueueSetup): Promise<void> {
    await this.#select(index);
    await this.#write16(CommonConfig.QUEUE_SIZE, queue.size);
    if (queue.vector !== undefined)
      await this.#setVector(CommonConfig.QUEUE_MSIX_VECTOR, queue.vector, `queue ${index}`);
    await this.#writeAddress(CommonConfig.QUEUE_DESC, queue.descriptors);
    await this.#writeAddress(CommonConfig.QUEUE_DRIVER, queue.driver);
    await this.#writeAddress(CommonConfig.QUEUE_DEVICE, queue.device);
    await this.#write16(CommonConfig.QUEUE_ENABLE, 1);
  }

  /** @throws VirtioDeviceError where the device does not take it. */
  setConfigVector(vector: number): Promise<void> {
    return this.#setVector(CommonConfig.CONFIG_MSIX_VECTOR, vector, 'configuration changes');
  }

  /** How the device is told of new requests in queue `index`. @throws VirtioDeviceError for a register that is not there. */
  async notifier(index: number): Promise<Notifier> {
    await this.#select(index);
    const notifyOffset = await this.#common.readUInt16(this.#at + CommonConfig.QUEUE_NOTIFY_OFF);
    const { notify, notifyMultiplier } = this.areas;
    const within = notifyOffset * notifyMultiplier;
    if (within + 2 > notify.length) {
      throw new VirtioDeviceError(
        `queue ${index}: its notification register is at ${within} of a structure of ${notify.length} bytes`,
      );
    }
    const offset = notify.offset + within;
    const area = this.#map(notify.region, offset);
    if (area === undefined) return new MessageNotifier(notify.region, offset, index, this.#onNotifyError);
    return new MappedNotifier(area, offset - area.offset, index);
  }

  /** ISR status, which reading clears (section 4.1.4.5). */
  async takeIsr(): Promise<number> {
    const { isr } = this.areas;
    return isr === undefined ? 0 : isr.region.readUInt8(isr.offset);
  }

  /** The device's own configuration, read by `read` as often as it takes to be of one generation (section 2.5.1). */
  async readConfig<T>(read: (config: DeviceConfigReader) => Promise<T>): Promise<T> {
    const { device } = this.areas;
    if (device === undefined) throw new UnsupportedError('the device has no configuration structure');
    const reader = new DeviceConfigReader(device);
    for (let i = 0; i < MOST_READS; i++) {
      const before = await this.#generation();
      const value = await read(reader);
      if ((await this.#generation()) === before) return value;
    }
    throw new VirtioDeviceError(`the configuration has changed ${MOST_READS} times while it was read`);
  }

  /** Notification registers are mapped anew when they are needed. */
  unmap(): void {
    for (const area of this.#mapped) area.close();
    this.#mapped = [];
  }

  /** What another driver has left enabled would be signalled in vain, and keep INTx quiet. */
  async disableMsix(): Promise<void> {
    const msix = findCapability(this.device.config.capabilities, 'msix');
    if (msix === undefined || this.device.irqs.msix.enabled) return;
    try {
      await this.device.config.update(msix.controlOffset, 2, MsixControl.ENABLE, 0);
    } catch (error) {
      if (!(error instanceof RemoteError)) throw error;
    }
  }

  #generation(): Promise<number> {
    return this.#common.readUInt8(this.#at + CommonConfig.CONFIG_GENERATION);
  }

  #select(index: number): Promise<void> {
    return this.#write16(CommonConfig.QUEUE_SELECT, index);
  }

  #write16(register: number, value: number): Promise<void> {
    return this.#common.writeUInt16(this.#at + register, value);
  }

  async #writeAddress(register: number, address: bigint): Promise<void> {
    await this.#common.writeUInt32(this.#at + register, Number(address & 0xffff_ffffn));
    await this.#common.writeUInt32(this.#at + register + 4, Number(address >> 32n));
  }

  /** The device says by reading back whether it has the vector (section 4.1.5.1.2). */
  async #setVector(register: number, vector: number, what: string): Promise<void> {
    await this.#write16(register, vector);
    const taken = await this.#common.readUInt16(this.#at + register);
    if (taken === vector) return;
    const said = taken === NO_VECTOR ? 'none' : String(taken);
    throw new VirtioDeviceError(`MSI-X vector ${vector} for ${what}: the device took ${said}`);
  }

  /** The mapped area that has the two bytes at `offset`; undefined where there is none, or it must not be mapped. */
  #map(region: Region, offset: number): MappedArea | undefined {
    const has = (area: { offset: number; size: number }) =>
      area.offset <= offset && offset + 2 <= area.offset + area.size;
    const mapped = this.#mapped.find(has);
    if (mapped !== undefined) return mapped;
    const area = region.areas.find(has);
    if (area === undefined) return undefined;
    try {
      const made = region.map(area.offset, area.size);
      this.#mapped.push(made);
      return made;
    } catch (error) {
      if (error instanceof UnsupportedError || error instanceof TransportError) return undefined;
      throw error;
    }
  }
}

/** Fields of a device's own configuration. Those beyond its end read as 0: a device has what its features need. */
export class DeviceConfigReader {
  readonly #area: VirtioArea;

  constructor(area: VirtioArea) {
    this.#area = area;
  }

  async uint8(offset: number): Promise<number> {
    return this.#has(offset, 1) ? this.#area.region.readUInt8(this.#area.offset + offset) : 0;
  }

  async uint16(offset: number): Promise<number> {
    return this.#has(offset, 2) ? this.#area.region.readUInt16(this.#area.offset + offset) : 0;
  }

  async uint32(offset: number): Promise<number> {
    return this.#has(offset, 4) ? this.#area.region.readUInt32(this.#area.offset + offset) : 0;
  }

  /** In two accesses, low dword first. */
  async uint64(offset: number): Promise<bigint> {
    const low = await this.uint32(offset);
    const high = await this.uint32(offset + 4);
    return (BigInt(high) << 32n) | BigInt(low);
  }

  #has(offset: number, length: number): boolean {
    return offset + length <= this.#area.length;
  }
}

export function statusNames(status: number): string[] {
  return Object.entries(DeviceStatus)
    .filter(([, bit]) => (status & bit) !== 0)
    .map(([name]) => name);
}
