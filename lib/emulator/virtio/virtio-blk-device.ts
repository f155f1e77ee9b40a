/** An emulated virtio block device, 1af4:1042 (Virtual I/O Device 1.2, section 5.2). */
import * as option from '../../options.js';
import { wrongType } from '../../fields.js';
import type { BlockStore } from '../block-store.js';
import type { Chain } from './chain.js';
import { VIRTIO_DEVICE_CHECKS, VirtioPciDevice, type VirtioDeviceOptions } from './virtio-pci-device.js';

const SECTOR = 512;
const HEADER = 16;
const RANGE = 16;
const ID_BYTES = 20;
const CONFIG_BYTES = 60;
const PIECE_BYTES = 256 << 10;
const F = {
  SIZE_MAX: 1n << 1n,
  SEG_MAX: 1n << 2n,
  RO: 1n << 5n,
  BLK_SIZE: 1n << 6n,
  FLUSH: 1n << 9n,
  MQ: 1n << 12n,
  DISCARD: 1n << 13n,
  WRITE_ZEROES: 1n << 14n,
} as const;
const T = { IN: 0, OUT: 1, FLUSH: 4, GET_ID: 8, DISCARD: 11, WRITE_ZEROES: 13 } as const;
const S = { OK: 0, IOERR: 1, UNSUPP: 2 } as const;

/** Options of a `VirtioBlkDevice`. */
export interface VirtioBlkDeviceOptions extends VirtioDeviceOptions {
  /** Where the blocks are; the device closes it when it is closed. */
  store: BlockStore;
  /** 512, 1024, 2048 or 4096; 512 by default. */
  blockSize?: number;
  /** Request queues, 1 to 32; 4 by default. */
  queues?: number;
  /** What GET_ID answers: at most 20 characters. */
  id?: string;
  /** Cannot be written. False by default. */
  readOnly?: boolean;
  /** The longest segment, bytes; no limit by default. */
  sizeMax?: number;
  /** The most segments of a request; 126 by default. */
  segMax?: number;
  /** The most sectors of a range of Discard and Write Zeroes; 32,768 by default. */
  maxRangeSectors?: number;
  /** The most ranges of one request; 1 by default. */
  maxRanges?: number;
}

const OPTIONS = new option.OptionTable<VirtioBlkDeviceOptions>(
  {
    ...VIRTIO_DEVICE_CHECKS,
    store: (value, caller, name) =>
      typeof value === 'object' && value !== null && 'read' in value
        ? undefined
        : wrongType(`${caller}: ${name}`, 'a BlockStore', value),
    blockSize: option.oneOf(512, 1024, 2048, 4096),
    queues: option.wholeNumber(1, 32),
    id: option.string,
    readOnly: option.boolean,
    sizeMax: option.wholeNumber(1, 0xffff_ffff),
    segMax: option.wholeNumber(1, 32_766),
    maxRangeSectors: option.wholeNumber(1, 0xffff_ffff),
    maxRanges: option.wholeNumber(1, 256),
  },
  ['store'],
);

class BlkError extends Error {
  readonly status: number;

  constructor(status: number) {
    super(`status ${status}`);
    this.status = status;
  }
}

/**
 * A virtio block device with its blocks in memory or in a file, and faults by option.
 * @example
 * ```ts
 * await using device = new VirtioBlkDevice({ store: new MemoryStore(64 << 20) });
 * await using server = await serve(device, { path: '/tmp/blk.sock' });
 * ```
 */
export class VirtioBlkDevice extends VirtioPciDevice {
  #store: BlockStore;
  readonly #options: VirtioBlkDeviceOptions;

  /** @throws TypeError and RangeError for what a block device cannot be. */
  constructor(options: VirtioBlkDeviceOptions) {
    OPTIONS.check('VirtioBlkDevice', options);
    let features = F.SEG_MAX | F.BLK_SIZE | F.FLUSH | F.MQ | F.DISCARD | F.WRITE_ZEROES;
    if (options.readOnly === true) features |= F.RO;
    if (options.sizeMax !== undefined) features |= F.SIZE_MAX;
    super({ type: 2, classCode: 0x010000, features, queues: options.queues ?? 4 }, options);
    this.#options = options;
    this.#store = options.store;
  }

  /** Where the blocks are. */
  get store(): BlockStore {
    return this.#store;
  }

  /** Puts another store in the place of the first, of another size for example, and tells the driver. The old one is not closed. */
  replaceStore(store: BlockStore): void {
    this.#store = store;
    this.configChanged();
  }

  /** Also closes the store. */
  override async close(): Promise<void> {
    await super.close();
    await this.#store.close();
  }

  /** @internal */
  protected override deviceConfig(): Buffer {
    const { blockSize = SECTOR, sizeMax = 0, segMax = 126, queues = 4 } = this.#options;
    const { maxRangeSectors = 32_768, maxRanges = 1 } = this.#options;
    const bytes = Buffer.alloc(CONFIG_BYTES);
    bytes.writeBigUInt64LE(BigInt(Math.floor(this.#store.size / SECTOR)), 0);
    bytes.writeUInt32LE(sizeMax, 8);
    bytes.writeUInt32LE(segMax, 12);
    bytes.writeUInt32LE(blockSize, 20);
    bytes.writeUInt16LE(queues, 34);
    bytes.writeUInt32LE(maxRangeSectors, 36);
    bytes.writeUInt32LE(maxRanges, 40);
    bytes.writeUInt32LE(blockSize / SECTOR, 44);
    bytes.writeUInt32LE(maxRangeSectors, 48);
    bytes.writeUInt32LE(maxRanges, 52);
    bytes.writeUInt8(1, 56);
    return bytes;
  }

  /** @internal */
  protected override async execute(
    _queue: number,
    chain: Chain,
    status: number | undefined,
  ): Promise<number> {
    const statusAt = chain.writableBytes - 1;
    if (statusAt < 0 || chain.readableBytes < HEADER) return 0;
    const { segMax = 126, sizeMax = Infinity } = this.#options;
    const segments = [...chain.readable, ...chain.writable];
    const isTooMuch = segments.length > segMax + 2 || segments.some(({ length }) => length > sizeMax);
    let written = 0;
    let answer = status ?? (isTooMuch ? S.IOERR : S.OK);
    if (answer === S.OK) {
      try {
        written = await this.#carryOut(chain, statusAt);
      } catch (error) {
        answer = error instanceof BlkError ? error.status : S.IOERR;
      }
    }
    await chain.write(statusAt, Buffer.from([answer]));
    return written + 1;
  }

  /** How many bytes of data were written to the driver's memory. */
  async #carryOut(chain: Chain, room: number): Promise<number> {
    const header = await chain.read(0, HEADER);
    const type = header.readUInt32LE(0);
    const data = chain.readableBytes - HEADER;
    switch (type) {
      case T.IN:
        await this.#read(chain, this.#offset(header, room), room);
        return room;
      case T.OUT:
        this.#requireWritable();
        await this.#write(chain, this.#offset(header, data), data);
        return 0;
      case T.FLUSH:
        await this.#store.flush();
        return 0;
      case T.GET_ID: {
        const id = Buffer.alloc(Math.min(ID_BYTES, room));
        id.write(this.#options.id ?? 'emulated', 'latin1');
        await chain.write(0, id);
        return id.length;
      }
      case T.DISCARD:
      case T.WRITE_ZEROES:
        this.#requireWritable();
        await this.#clear(chain, data);
        return 0;
      default:
        throw new BlkError(S.UNSUPP);
    }
  }

  async #read(chain: Chain, offset: number, length: number): Promise<void> {
    for (let done = 0; done < length; done += PIECE_BYTES) {
      const size = Math.min(PIECE_BYTES, length - done);
      // A copy: the store's memory may be written to while the driver's is.
      await chain.write(done, Buffer.from(await this.#store.read(offset + done, size)));
    }
  }

  async #write(chain: Chain, offset: number, length: number): Promise<void> {
    for (let done = 0; done < length; done += PIECE_BYTES) {
      const bytes = await chain.read(HEADER + done, Math.min(PIECE_BYTES, length - done));
      await this.#store.write(offset + done, bytes);
    }
  }

  async #clear(chain: Chain, length: number): Promise<void> {
    const { maxRangeSectors = 32_768, maxRanges = 1 } = this.#options;
    if (length === 0 || length % RANGE !== 0 || length / RANGE > maxRanges) throw new BlkError(S.IOERR);
    const ranges = await chain.read(HEADER, length);
    for (let at = 0; at < length; at += RANGE) {
      const sectors = ranges.readUInt32LE(at + 8);
      if (sectors > maxRangeSectors) throw new BlkError(S.IOERR);
      const offset = this.#within(ranges.readBigUInt64LE(at), sectors * SECTOR);
      if (sectors > 0) await this.#store.clear(offset, sectors * SECTOR);
    }
  }

  #offset(header: Buffer, length: number): number {
    if (length === 0 || length % SECTOR !== 0) throw new BlkError(S.IOERR);
    return this.#within(header.readBigUInt64LE(8), length);
  }

  #within(sector: bigint, length: number): number {
    const sectors = BigInt(Math.floor(this.#store.size / SECTOR));
    if (sector + BigInt(length / SECTOR) > sectors) throw new BlkError(S.IOERR);
    return Number(sector) * SECTOR;
  }

  #requireWritable(): void {
    if (this.#options.readOnly === true) throw new BlkError(S.IOERR);
  }
}
