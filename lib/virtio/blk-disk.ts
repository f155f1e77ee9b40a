/** What a block device is, as its driver and the queues of it share it. */
import { outOfRange } from '../fields.js';
import { ProtocolError, UnsupportedError } from '../index.js';
import { SECTOR_BYTES, type VirtioBlkConfig } from './blk-config.js';
import { VirtioDeviceError } from './errors.js';
import { BlkFeature, hasFeature } from './features.js';
import type { RequestShape } from './request-memory.js';

export const HEADER_BYTES = 16;
const TAIL_BYTES = 1;

export class BlkDisk {
  config!: VirtioBlkConfig;
  features = 0n;
  /** How many blocks there are. */
  blocks = 0;
  /** The length of a block, bytes. */
  blockSize = 0;
  sectorsPerBlock = 1;
  isReadOnly = false;
  shape!: RequestShape;
  readonly #wantedTransfer: number;
  #isKnown = false;

  constructor(maxTransferBytes: number) {
    this.#wantedTransfer = maxTransferBytes;
  }

  /** @throws VirtioDeviceError where it is not the disk that it was. */
  update(config: VirtioBlkConfig, features: bigint): void {
    const blocks = Math.floor((config.capacity * SECTOR_BYTES) / config.blockSize);
    if (this.#isKnown) {
      if (config.blockSize !== this.blockSize)
        throw new VirtioDeviceError(
          `the disk has blocks of ${config.blockSize} bytes, and had ${this.blockSize}`,
        );
      const { segmentBytes, maxSegments } = this.shape;
      if (config.segmentBytes < segmentBytes || config.maxSegments < maxSegments)
        throw new VirtioDeviceError(
          `the disk takes ${config.maxSegments} segments of ${config.segmentBytes} bytes, and took ${maxSegments} of ${segmentBytes}`,
        );
    }
    this.config = config;
    this.features = features;
    this.blocks = blocks;
    this.isReadOnly = hasFeature(features, BlkFeature.RO);
    if (this.#isKnown) return;
    this.blockSize = config.blockSize;
    this.sectorsPerBlock = config.blockSize / SECTOR_BYTES;
    this.shape = this.#shape(config);
    this.#isKnown = true;
  }

  /** The most blocks of one request. */
  get mostBlocks(): number {
    return this.shape.maxTransferBytes / this.blockSize;
  }

  has(feature: number): boolean {
    return hasFeature(this.features, feature);
  }

  /** @throws RangeError. */
  requireBlocks(lba: number, blocks: number): void {
    if (
      Number.isSafeInteger(lba) &&
      Number.isSafeInteger(blocks) &&
      lba >= 0 &&
      blocks > 0 &&
      lba + blocks <= this.blocks
    ) {
      return;
    }
    throw this.rangeError(lba, blocks);
  }

  rangeError(lba: unknown, blocks: unknown): RangeError {
    return outOfRange(
      `lba ${String(lba)} and ${String(blocks)} blocks are not within the disk's ${this.blocks} blocks`,
    );
  }

  /** @throws UnsupportedError for a disk that cannot be written. */
  requireWritable(): void {
    if (this.isReadOnly) throw new UnsupportedError('the disk is read-only (VIRTIO_BLK_F_RO)');
  }

  /** @throws UnsupportedError. */
  require(feature: number, name: string): void {
    if (!this.has(feature)) throw new UnsupportedError(`the device does not offer VIRTIO_BLK_F_${name}`);
  }

  /** In as few segments as `size_max` makes them: data is contiguous. @throws ProtocolError. */
  #shape({ segmentBytes, maxSegments, blockSize }: VirtioBlkConfig): RequestShape {
    // Segments begin on blocks: devices are seldom tried with others.
    const segment = Math.min(Math.floor(segmentBytes / SECTOR_BYTES) * SECTOR_BYTES, 1 << 30);
    const most = Math.min(this.#wantedTransfer, segment * maxSegments);
    const maxTransferBytes = Math.floor(most / blockSize) * blockSize;
    if (maxTransferBytes === 0)
      throw new ProtocolError(
        `a request has room for ${maxSegments} segments of ${segmentBytes} bytes (size_max, seg_max), and not for a block of ${blockSize}`,
      );
    return {
      headerBytes: HEADER_BYTES,
      tailBytes: TAIL_BYTES,
      isTailFirst: false,
      segmentBytes: segment,
      maxSegments: Math.ceil(maxTransferBytes / segment),
      maxTransferBytes,
    };
  }
}
