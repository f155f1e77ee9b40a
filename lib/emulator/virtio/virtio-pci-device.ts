/**
 * A virtio device over PCI (Virtual I/O Device 1.2, section 4.1), as all emulated ones are.
 *
 * ```
 *   BAR1   MSI-X table at 0, pending bits at 0x800
 *   BAR4   common configuration at 0, ISR status at 0x1000, the device's own configuration at 0x2000, notifications at 0x3000
 * ```
 * It is the device of one driver: it uses the memory of the client that has set DRIVER_OK, until it is reset or that client
 * has gone. Where notifications can be mapped nobody hears of them, so the queues are looked at in a loop, as SPDK does.
 */
import * as option from '../../options.js';
import { IRQ_FLAG_EVENTFD, PciIrq, PciRegion } from '../../protocol/constants.js';
import { DeviceError, EINVAL } from '../device-error.js';
import type { ClientContext } from '../device-model.js';
import { LookLoop } from '../look-loop.js';
import { MsixTable } from '../msix-table.js';
import { msixCapability, PciConfigSpace, type ConfigCapability } from '../pci-config.js';
import { PciDevice } from '../pci-device.js';
import { SharedMemory } from '../shared-memory.js';
import type { Chain } from './chain.js';
import { CommonRegisters, type CommonHost } from './common-registers.js';
import {
  Feature,
  MODERN_DEVICES,
  NO_VECTOR,
  NOTIFY_MULTIPLIER,
  Place,
  Status,
  VIRTIO_VENDOR,
} from './constants.js';
import { PackedDeviceQueue } from './packed-device-queue.js';
import { QueueWorker } from './queue-worker.js';
import { SplitDeviceQueue } from './split-device-queue.js';
import type { VirtioIntercept, VirtioVerdict } from './virtio-faults.js';

const MSIX_BAR_SIZE = 0x1000;
const MSIX_PENDING = 0x800;
const MOST_VECTORS = 64;
const ISR_QUEUE = 1;
const ISR_CONFIG = 2;
const VENDOR_SPECIFIC = 0x09;
const CAP_TYPES = { COMMON: 1, NOTIFY: 2, ISR: 3, DEVICE: 4 } as const;
const PAGE = 0x1000;

/** What all emulated virtio devices take. */
export interface VirtioDeviceOptions {
  /** Entries of each queue; 256 by default. */
  queueEntries?: number;
  /** Offers packed virtqueues. True by default. */
  packed?: boolean;
  /** Offers indirect descriptors. True by default. */
  indirect?: boolean;
  /** Offers EVENT_IDX. True by default. */
  eventIndex?: boolean;
  /** Offers ACCESS_PLATFORM. True by default. */
  accessPlatform?: boolean;
  /** Offers VERSION_1, without which no driver of now takes it. True by default. */
  version1?: boolean;
  /** MSI-X vectors; one more than queues by default. 0 for none: INTx alone. */
  vectors?: number;
  /** Whether clients can map the notifications; true by default. It takes the addon. */
  mapNotifications?: boolean;
  /** Sees every request, and may make it fail. See `intercept`. */
  intercept?: VirtioIntercept;
}

export const VIRTIO_DEVICE_CHECKS: option.Checks<VirtioDeviceOptions> = {
  queueEntries: option.wholeNumber(2, 32_768),
  packed: option.boolean,
  indirect: option.boolean,
  eventIndex: option.boolean,
  accessPlatform: option.boolean,
  version1: option.boolean,
  vectors: option.wholeNumber(0, MOST_VECTORS),
  mapNotifications: option.boolean,
  intercept: option.callback,
};

/** What kind of device it is. */
export interface VirtioPersonality {
  /** Section 5. */
  readonly type: number;
  readonly classCode: number;
  /** Feature bits of its own. */
  readonly features: bigint;
  readonly queues: number;
}

/**
 * A virtio device (Virtual I/O Device 1.2, over PCI): registers, queues split and packed, MSI-X or INTx, and faults by option.
 * `VirtioBlkDevice`, `VirtioScsiDevice`, `VirtioNetDevice` and `VirtioRngDevice` are ready.
 * @example
 * ```ts
 * const device: VirtioPciDevice = new VirtioRngDevice();
 * await using server = await serve(device, { path: '/tmp/rng.sock' });
 * ```
 */
export abstract class VirtioPciDevice extends PciDevice {
  /** Sees every request, and may make it fail; can be set at any time. */
  intercept: VirtioIntercept | undefined;
  /** The status stays what it is when the driver resets the device. */
  isResetStuck = false;
  /** @internal */
  protected readonly registers: CommonRegisters;
  readonly #msix: MsixTable | undefined;
  readonly #memory: SharedMemory | undefined;
  readonly #loop = new LookLoop();
  readonly #workers = new Map<number, QueueWorker>();
  #isr = 0;
  #requests = 0;
  #isClosed = false;
  /** The client whose memory the queues are in. */
  #owner: ClientContext | undefined;
  #resetting: Promise<void> | undefined;

  /** @internal */
  protected constructor(personality: VirtioPersonality, options: VirtioDeviceOptions) {
    const { queues } = personality;
    const vectors = options.vectors ?? Math.min(MOST_VECTORS, queues + 1);
    const config = configOf(personality, vectors);
    super(config, irqsOf(vectors));
    this.intercept = options.intercept;
    this.#msix =
      vectors === 0 ? undefined : new MsixTable(config, { vectors, table: 0, pending: MSIX_PENDING });
    const host: CommonHost = {
      vectors,
      onDriverOk: (client) => this.#start(client),
      onReset: () => void this.#stop(),
    };
    this.registers = new CommonRegisters(
      featuresOf(personality, options),
      queues,
      options.queueEntries ?? 256,
      host,
    );
    if (options.mapNotifications !== false) this.#memory = new SharedMemory(Place.SIZE, 'vfio-user-virtio');
    this.#addBars();
  }

  /** Requests that were taken since the device was made. */
  get requestCount(): number {
    return this.#requests;
  }

  /** The features that the driver has taken. */
  get driverFeatures(): bigint {
    return this.registers.driverFeatures;
  }

  /** Whether it was closed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The device cannot go on: DEVICE_NEEDS_RESET is set, and the driver is told (section 2.1.2). */
  needReset(): void {
    this.registers.status |= Status.NEEDS_RESET;
    this.#interruptConfig();
  }

  /** The client has disconnected: where its memory had the queues, they are gone. */
  override detach(client: ClientContext): void {
    super.detach(client);
    this.#msix?.detach(client);
    if (client !== this.#owner) return;
    // The next client's reset waits for what is being stopped; the fault is for this one's.
    if (this.isResetStuck) this.registers.clear();
    void this.#stop();
  }

  /** DEVICE_RESET: registers and config space are as they were at first. */
  override async reset(): Promise<void> {
    await this.#stop();
    this.registers.clear();
    this.#msix?.reset();
    await super.reset();
  }

  /** Resets the device, and gives its memory back. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#stop();
    this.#memory?.close();
  }

  /** Does what `close` does. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal The device's own configuration as it is now. */
  protected abstract deviceConfig(): Buffer;

  /**
   * @internal Carries a request out. How many bytes were written; undefined where `give` is to follow. With `status` it is
   * not carried out, and gets that.
   */
  protected abstract execute(
    queue: number,
    chain: Chain,
    status: number | undefined,
  ): Promise<number | undefined>;

  /** @internal The driver runs, or has stopped. */
  protected onRunning(_isRunning: boolean): void {}

  /** @internal Gives back what `execute` has left for later. */
  protected give(queue: number, chain: Chain, length: number): void {
    this.#workers.get(queue)?.give(chain, length);
  }

  /** @internal The configuration has changed: the driver is told. */
  protected configChanged(): void {
    this.registers.generation = (this.registers.generation + 1) & 0xff;
    this.#interruptConfig();
  }

  /** @internal */
  protected override configWritten(): void {
    super.configWritten();
    this.#msix?.update();
  }

  #addBars(): void {
    const memory = this.#memory;
    const mapping = memory === undefined ? {} : { memory, mappable: [{ offset: Place.NOTIFY, size: PAGE }] };
    this.addRegion({
      index: PciRegion.BAR4,
      size: Place.SIZE,
      handler: {
        read: (offset, count) => this.#read(offset, count),
        write: (offset, data, client) => this.#write(offset, data, client),
      },
      ...mapping,
    });
    if (this.#msix !== undefined)
      this.addRegion({ index: PciRegion.BAR1, size: MSIX_BAR_SIZE, handler: this.#msix });
  }

  #read(offset: number, count: number): Buffer {
    if (offset < Place.ISR) return this.registers.read(offset, count);
    if (offset < Place.DEVICE) {
      // Reading clears it, and lowers INTx.
      const isr = this.#isr;
      this.#isr = 0;
      this.setIntx(false);
      return Buffer.from([isr]);
    }
    const bytes = Buffer.alloc(count);
    if (offset < Place.NOTIFY) this.deviceConfig().copy(bytes, 0, offset - Place.DEVICE);
    return bytes;
  }

  #write(offset: number, data: Buffer, client: ClientContext): void {
    if (offset < Place.ISR) this.registers.write(offset, data, client);
    else if (offset >= Place.NOTIFY) {
      if (data.byteLength !== 2) throw new DeviceError(EINVAL, 'a notification has 2 bytes');
      this.#workers.get((offset - Place.NOTIFY) / NOTIFY_MULTIPLIER)?.look();
    }
  }

  #start(client: ClientContext): void {
    this.#owner = client;
    const { queues, driverFeatures } = this.registers;
    const isPacked = (driverFeatures & Feature.RING_PACKED) !== 0n;
    const hasEventIndex = (driverFeatures & Feature.EVENT_IDX) !== 0n;
    for (const [index, queue] of queues.entries()) {
      if (!queue.isEnabled) continue;
      const Queue = isPacked ? PackedDeviceQueue : SplitDeviceQueue;
      const worker = new QueueWorker(new Queue(client.dma, { ...queue }, hasEventIndex), {
        verdict: (chain) => this.#verdict(index, chain),
        execute: (chain, status) => this.execute(index, chain, status),
        interrupt: () => this.#interrupt(queue.vector, ISR_QUEUE),
        onFault: () => this.needReset(),
      });
      this.#workers.set(index, worker);
      worker.begin(this.#memory === undefined);
    }
    if (this.#memory !== undefined) this.#loop.start(() => this.#look());
    this.onRunning(true);
  }

  #look(): boolean {
    let isBusy = false;
    for (const worker of this.#workers.values()) {
      isBusy ||= worker.isBusy;
      worker.look();
    }
    return isBusy;
  }

  /**
   * The status reads as 0 when no memory of the driver's is touched any more, and not before: what is cleared later would take away
   * what the driver has written by then. A device that does not run is reset at once, as further messages may be handled in this turn.
   */
  #stop(): Promise<void> {
    if (this.#resetting !== undefined) return this.#resetting;
    this.#loop.stop();
    this.onRunning(false);
    const workers = [...this.#workers.values()];
    this.#workers.clear();
    this.#owner = undefined;
    if (workers.length === 0) {
      this.#clear();
      return Promise.resolve();
    }
    const stopped = Promise.all(workers.map((worker) => worker.stop()));
    this.#resetting = stopped.then(() => {
      this.#resetting = undefined;
      this.#clear();
    });
    return this.#resetting;
  }

  #clear(): void {
    this.#isr = 0;
    this.setIntx(false);
    if (!this.isResetStuck) this.registers.clear();
  }

  async #verdict(queue: number, chain: Chain): Promise<VirtioVerdict> {
    const number = ++this.#requests;
    if (this.intercept === undefined) return 'pass';
    const type = chain.readableBytes < 4 ? undefined : (await chain.read(0, 4)).readUInt32LE(0);
    return this.intercept({ number, queue, id: chain.id, type }) ?? 'pass';
  }

  #interruptConfig(): void {
    this.#interrupt(this.registers.configVector, ISR_CONFIG);
  }

  #interrupt(vector: number, isr: number): void {
    if (this.#msix !== undefined && this.config.msixEnabled) {
      if (vector === NO_VECTOR) return;
      for (const client of this.clients) this.#msix.interrupt(client, vector);
      return;
    }
    this.#isr |= isr;
    this.setIntx(true);
  }
}

function featuresOf({ features }: VirtioPersonality, options: VirtioDeviceOptions): bigint {
  let offered = features;
  if (options.version1 !== false) offered |= Feature.VERSION_1;
  if (options.accessPlatform !== false) offered |= Feature.ACCESS_PLATFORM;
  if (options.packed !== false) offered |= Feature.RING_PACKED;
  if (options.indirect !== false) offered |= Feature.INDIRECT_DESC;
  if (options.eventIndex !== false) offered |= Feature.EVENT_IDX;
  return offered;
}

function configOf({ type, classCode }: VirtioPersonality, vectors: number): PciConfigSpace {
  const msix =
    vectors === 0 ? [] : [msixCapability(vectors, { bir: 1, offset: 0 }, { bir: 1, offset: MSIX_PENDING })];
  return new PciConfigSpace({
    vendorId: VIRTIO_VENDOR,
    deviceId: MODERN_DEVICES + type,
    revisionId: 1,
    classCode,
    subsystemVendorId: VIRTIO_VENDOR,
    subsystemId: 0x1100,
    interruptPin: 1,
    bars: [
      ...(vectors === 0 ? [] : [{ index: PciRegion.BAR1, size: MSIX_BAR_SIZE }]),
      { index: PciRegion.BAR4, size: Place.SIZE, kind: 'memory64', prefetchable: true },
    ],
    capabilities: [
      ...msix,
      structure(CAP_TYPES.COMMON, Place.COMMON),
      structure(CAP_TYPES.ISR, Place.ISR),
      structure(CAP_TYPES.DEVICE, Place.DEVICE),
      structure(CAP_TYPES.NOTIFY, Place.NOTIFY, NOTIFY_MULTIPLIER),
    ],
  });
}

function irqsOf(vectors: number) {
  const intx = { index: PciIrq.INTX, count: 1, flags: IRQ_FLAG_EVENTFD };
  return vectors === 0 ? [intx] : [intx, { index: PciIrq.MSIX, count: vectors, flags: IRQ_FLAG_EVENTFD }];
}

/** struct virtio_pci_cap, and with a multiplier struct virtio_pci_notify_cap. */
function structure(type: number, offset: number, multiplier?: number): ConfigCapability {
  const body = Buffer.alloc(multiplier === undefined ? 14 : 18);
  body.writeUInt8(body.length + 2, 0);
  body.writeUInt8(type, 1);
  body.writeUInt8(PciRegion.BAR4, 2);
  body.writeUInt32LE(offset, 6);
  body.writeUInt32LE(PAGE, 10);
  if (multiplier !== undefined) body.writeUInt32LE(multiplier, 14);
  return { id: VENDOR_SPECIFIC, body, writable: Buffer.alloc(body.length) };
}
