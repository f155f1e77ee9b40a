/** A virtio block device as its user has it. */
import type { CallOptions, Device } from '../index.js';
import { readBlkConfig, type VirtioBlkConfig } from './blk-config.js';
import { BlkDisk } from './blk-disk.js';
import {
  BLK_OPTIONS,
  DEFAULT_MAX_TRANSFER,
  type BlkData,
  type BlkRange,
  type BlkTransferOptions,
  type BlkWriteZeroesOptions,
  type VirtioBlkOptions,
} from './blk-options.js';
import { BlkDriverQueue, type VirtioBlkQueue } from './blk-queue.js';
import { VirtioDeviceType } from './constants.js';
import { virtioSettings } from './driver-options.js';
import type { DriverKind, DriverSetup } from './driver-setup.js';
import { VirtioDriver, type VirtioParts } from './driver.js';
import { BlkFeature } from './features.js';

const FEATURES = [
  BlkFeature.SIZE_MAX,
  BlkFeature.SEG_MAX,
  BlkFeature.RO,
  BlkFeature.BLK_SIZE,
  BlkFeature.FLUSH,
  BlkFeature.TOPOLOGY,
  BlkFeature.CONFIG_WCE,
  BlkFeature.MQ,
  BlkFeature.DISCARD,
  BlkFeature.WRITE_ZEROES,
];

class BlkKind implements DriverKind {
  readonly features = FEATURES;
  readonly disk: BlkDisk;
  queues: readonly VirtioBlkQueue[] = [];
  readonly #options: VirtioBlkOptions;
  #refresh: () => void = () => undefined;

  constructor(options: VirtioBlkOptions) {
    this.#options = options;
    this.disk = new BlkDisk(options.maxTransferBytes ?? DEFAULT_MAX_TRANSFER);
  }

  async configure(setup: DriverSetup): Promise<void> {
    this.disk.update(await readBlkConfig(setup.transport, setup.features), setup.features);
    this.#refresh = () => void this.refresh(setup).catch(() => undefined);
  }

  async refresh({ transport, features }: DriverSetup): Promise<void> {
    this.disk.update(await readBlkConfig(transport, features), features);
  }

  async makeQueues(setup: DriverSetup): Promise<readonly BlkDriverQueue[]> {
    const { queues = 1, buffers } = this.#options;
    const count = Math.min(queues, this.disk.config.queues);
    const made: BlkDriverQueue[] = [];
    try {
      for (let index = 0; index < count; index++)
        made.push(await BlkDriverQueue.allocate(setup, this.disk, index, buffers));
    } catch (error) {
      for (const queue of made) await queue.free().catch(() => undefined);
      throw error;
    }
    this.queues = made.map(({ user }) => user);
    return made;
  }

  onConfigChange(): void {
    this.#refresh();
  }
}

/**
 * A virtio block device (Virtual I/O Device 1.2, section 5.2), driven: its blocks read and written by promises, or by each
 * queue's submit and poll calls. Requests that a device reset interrupts are sent again.
 *
 * Blocks are of `blockSize` bytes and numbered from 0. Calls here go by the first queue; `queues` has them all.
 * @example
 * ```ts
 * await using device = await connect('/run/virtio/blk');
 * await using disk = await VirtioBlk.open(device);
 * await disk.write(0, Buffer.alloc(disk.blockSize, 1));
 * console.log(await disk.id(), await disk.read(0, 8));
 * ```
 */
export class VirtioBlk extends VirtioDriver {
  readonly #kind: BlkKind;

  /**
   * Starts the device: enables it, negotiates features and sets up its queues (section 3.1.1). It stays the caller's: close
   * the driver first.
   * @throws UnsupportedError for a device that is no virtio block device, or whose structures cannot be used;
   * VirtioDeviceError where it does not come up: it does not offer VERSION_1, refuses the features, has a configuration that
   * makes no sense, does not reset; RangeError for options that make none; what the device's calls throw.
   */
  static async open(device: Device, options: VirtioBlkOptions = {}): Promise<VirtioBlk> {
    BLK_OPTIONS.check('VirtioBlk.open', options);
    const settings = virtioSettings(options);
    const kind = new BlkKind(options);
    const make = (parts: VirtioParts) => new VirtioBlk(parts, kind);
    return VirtioDriver.start<Record<never, never>, VirtioBlk>(
      'VirtioBlk.open',
      device,
      VirtioDeviceType.BLOCK,
      settings,
      make,
    );
  }

  private constructor(parts: VirtioParts, kind: BlkKind) {
    super(parts, kind);
    this.#kind = kind;
  }

  /** What the device says of itself; read again at each reset and, with interrupts, when the device says that it changed. */
  get config(): VirtioBlkConfig {
    return this.#kind.disk.config;
  }

  /** The length of a block, bytes. */
  get blockSize(): number {
    return this.#kind.disk.blockSize;
  }

  /** How many blocks there are. */
  get blocks(): number {
    return this.#kind.disk.blocks;
  }

  /** `blocks` times `blockSize`, bytes. */
  get sizeBytes(): number {
    return this.blocks * this.blockSize;
  }

  /** VIRTIO_BLK_F_RO: the disk cannot be written. */
  get isReadOnly(): boolean {
    return this.#kind.disk.isReadOnly;
  }

  /** The longest transfer of one request, bytes. */
  get maxTransferBytes(): number {
    return this.#kind.disk.shape.maxTransferBytes;
  }

  /** The request queues in use. */
  get queues(): readonly VirtioBlkQueue[] {
    return this.#kind.queues;
  }

  /** Reads the configuration again, where the device may have changed it. @throws as `open`. */
  async refresh(): Promise<VirtioBlkConfig> {
    await this.lifecycle.whenLive(() => this.#kind.refresh(this.setup));
    return this.config;
  }

  /**
   * Reads blocks into a new Buffer, with as many requests as the device's limits make it.
   * @param lba - the first block, from 0
   * @param blocks - how many, from 1
   * @throws VirtioStatusError, TimeoutError, VirtioResetError, VirtioDeviceError, ClosedError; RangeError for blocks that the
   * disk does not have; the signal's reason.
   */
  read(lba: number, blocks: number, options?: CallOptions): Promise<Buffer> {
    return this.#queue.read(lba, blocks, options);
  }

  /**
   * Reads blocks into a DMA buffer, a Buffer or a Uint8Array, which must not be used before the promise settles. A DMA buffer
   * is read into directly.
   * @throws as `read`; TypeError for data that is none.
   */
  readInto(lba: number, data: BlkData, options?: BlkTransferOptions): Promise<void> {
    return this.#queue.readInto(lba, data, options);
  }

  /**
   * Writes `data` from `lba` on, or the first `blocks` blocks of it. It must not be changed before the promise settles.
   * @throws as `read`; UnsupportedError for a disk that is read-only.
   */
  write(lba: number, data: BlkData, options?: BlkTransferOptions): Promise<void> {
    return this.#queue.write(lba, data, options);
  }

  /** Has the device keep what was written (VIRTIO_BLK_T_FLUSH). @throws as `read`; UnsupportedError without FLUSH. */
  flush(options?: CallOptions): Promise<void> {
    return this.#queue.flush(options);
  }

  /** Says that these blocks' data is not needed any more. @throws as `write`; UnsupportedError without DISCARD. */
  discard(ranges: readonly BlkRange[], options?: CallOptions): Promise<void> {
    return this.#queue.discard(ranges, options);
  }

  /** Writes zeroes without transferring any. @throws as `write`; UnsupportedError without WRITE_ZEROES. */
  writeZeroes(lba: number, blocks: number, options?: BlkWriteZeroesOptions): Promise<void> {
    return this.#queue.writeZeroes(lba, blocks, options);
  }

  /** What the device calls itself: its serial number, or name, of up to 20 characters. @throws as `read`. */
  id(options?: CallOptions): Promise<string> {
    return this.#queue.id(options);
  }

  get #queue(): VirtioBlkQueue {
    return this.queues[0]!;
  }
}
