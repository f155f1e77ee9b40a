/** The configuration of a block device (Virtual I/O Device 1.2, section 5.2.4), as far as its features say that it is there. */
import { ProtocolError } from '../index.js';
import { BlkFeature, hasFeature } from './features.js';
import type { DeviceConfigReader, VirtioTransport } from './transport.js';

export const SECTOR_BYTES = 512;
const MOST_BLOCK = 1 << 20;
const MOST_SECTORS = Math.floor(Number.MAX_SAFE_INTEGER / SECTOR_BYTES);
const NO_LIMIT = 0xffff_ffff;

/** Offsets (section 5.2.4). */
const Field = {
  CAPACITY: 0,
  SIZE_MAX: 8,
  SEG_MAX: 12,
  BLK_SIZE: 20,
  PHYSICAL_BLOCK_EXP: 24,
  MIN_IO_SIZE: 26,
  OPT_IO_SIZE: 28,
  WRITEBACK: 32,
  NUM_QUEUES: 34,
  MAX_DISCARD_SECTORS: 36,
  MAX_DISCARD_SEG: 40,
  DISCARD_SECTOR_ALIGNMENT: 44,
  MAX_WRITE_ZEROES_SECTORS: 48,
  MAX_WRITE_ZEROES_SEG: 52,
  WRITE_ZEROES_MAY_UNMAP: 56,
} as const;

/** What a block device says of itself. Fields of features that were not negotiated are what the specification has without. */
export interface VirtioBlkConfig {
  /** In sectors of 512 bytes. */
  readonly capacity: number;
  /** The length of a block, bytes: 512 without BLK_SIZE. */
  readonly blockSize: number;
  /** The longest segment of a request, bytes; 4,294,967,295 without SIZE_MAX. */
  readonly segmentBytes: number;
  /** The most segments of a request; 1 without SEG_MAX. */
  readonly maxSegments: number;
  /** Blocks of a physical block; 1 without TOPOLOGY. */
  readonly physicalBlocks: number;
  /** The shortest transfer that the device likes, in blocks; 0 where it does not say. */
  readonly minIoBlocks: number;
  /** The best length of a transfer, in blocks; 0 where it does not say. */
  readonly optimalIoBlocks: number;
  /** Whether the device has a volatile write cache, as far as CONFIG_WCE says; undefined without it. */
  readonly isWriteback: boolean | undefined;
  /** Request queues; 1 without MQ. */
  readonly queues: number;
  /** The most sectors of a segment of Discard, the most segments, and what their beginning is best a multiple of. */
  readonly discard: BlkRangeLimits & { readonly alignmentSectors: number };
  /** The most sectors of a segment of Write Zeroes, the most segments, and whether it may unmap them. */
  readonly writeZeroes: BlkRangeLimits & { readonly mayUnmap: boolean };
}

/** What one request for ranges may be about. */
export interface BlkRangeLimits {
  /** Of one range, in sectors of 512 bytes. */
  readonly maxSectors: number;
  /** Of one request. */
  readonly maxRanges: number;
}

/** @throws ProtocolError for what no disk can be; what registers throw. */
export async function readBlkConfig(transport: VirtioTransport, features: bigint): Promise<VirtioBlkConfig> {
  return transport.readConfig((config) => read(config, features));
}

async function read(config: DeviceConfigReader, features: bigint): Promise<VirtioBlkConfig> {
  const has = (feature: number) => hasFeature(features, feature);
  const word = async (feature: number, offset: number, otherwise: number) =>
    has(feature) ? config.uint32(offset) : otherwise;
  const capacity = await config.uint64(Field.CAPACITY);
  if (capacity > BigInt(MOST_SECTORS))
    throw new ProtocolError(`the disk has ${capacity} sectors, more than ${MOST_SECTORS}`);
  const blockSize = (await word(BlkFeature.BLK_SIZE, Field.BLK_SIZE, SECTOR_BYTES)) || SECTOR_BYTES;
  if (blockSize < SECTOR_BYTES || blockSize > MOST_BLOCK || !Number.isInteger(Math.log2(blockSize)))
    throw new ProtocolError(`blk_size is ${blockSize}, and no power of two from 512 to ${MOST_BLOCK}`);
  const topology = has(BlkFeature.TOPOLOGY);
  return {
    capacity: Number(capacity),
    blockSize,
    segmentBytes: (await word(BlkFeature.SIZE_MAX, Field.SIZE_MAX, NO_LIMIT)) || NO_LIMIT,
    maxSegments: (await word(BlkFeature.SEG_MAX, Field.SEG_MAX, 1)) || 1,
    physicalBlocks: topology ? 2 ** ((await config.uint8(Field.PHYSICAL_BLOCK_EXP)) & 31) : 1,
    minIoBlocks: topology ? await config.uint16(Field.MIN_IO_SIZE) : 0,
    optimalIoBlocks: topology ? await config.uint32(Field.OPT_IO_SIZE) : 0,
    isWriteback: has(BlkFeature.CONFIG_WCE) ? (await config.uint8(Field.WRITEBACK)) === 1 : undefined,
    queues: has(BlkFeature.MQ) ? Math.max(1, await config.uint16(Field.NUM_QUEUES)) : 1,
    discard: {
      maxSectors: (await word(BlkFeature.DISCARD, Field.MAX_DISCARD_SECTORS, 0)) || NO_LIMIT,
      maxRanges: (await word(BlkFeature.DISCARD, Field.MAX_DISCARD_SEG, 0)) || 1,
      alignmentSectors: (await word(BlkFeature.DISCARD, Field.DISCARD_SECTOR_ALIGNMENT, 0)) || 1,
    },
    writeZeroes: {
      maxSectors: (await word(BlkFeature.WRITE_ZEROES, Field.MAX_WRITE_ZEROES_SECTORS, 0)) || NO_LIMIT,
      maxRanges: (await word(BlkFeature.WRITE_ZEROES, Field.MAX_WRITE_ZEROES_SEG, 0)) || 1,
      mayUnmap: has(BlkFeature.WRITE_ZEROES) && (await config.uint8(Field.WRITE_ZEROES_MAY_UNMAP)) === 1,
    },
  };
}
