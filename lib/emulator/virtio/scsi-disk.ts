/** An emulated SCSI disk: what it does for a command descriptor block (SPC-4, SBC-3). */
import type { BlockStore } from '../block-store.js';

const GOOD = 0;
const CHECK_CONDITION = 2;
const SENSE_BYTES = 18;
const MOST_TRANSFER = 64 << 20;

/** Operation codes. */
const Op = {
  TEST_UNIT_READY: 0x00,
  REQUEST_SENSE: 0x03,
  INQUIRY: 0x12,
  READ_CAPACITY_10: 0x25,
  READ_10: 0x28,
  WRITE_10: 0x2a,
  SYNCHRONIZE_CACHE_10: 0x35,
  READ_16: 0x88,
  WRITE_16: 0x8a,
  SERVICE_ACTION_IN_16: 0x9e,
} as const;
const READ_CAPACITY_16 = 0x10;

/** Sense key, ASC and ASCQ. */
type SenseTriple = readonly [key: number, asc: number, ascq: number];
export const Sense = {
  MEDIUM_ERROR: [3, 0x11, 0x00],
  INVALID_OPCODE: [5, 0x20, 0x00],
  OUT_OF_RANGE: [5, 0x21, 0x00],
  INVALID_FIELD: [5, 0x24, 0x00],
  NO_SUCH_UNIT: [5, 0x25, 0x00],
  WRITE_PROTECTED: [7, 0x27, 0x00],
  POWER_ON: [6, 0x29, 0x00],
  CAPACITY_CHANGED: [6, 0x2a, 0x09],
} as const satisfies Record<string, SenseTriple>;

export interface ScsiAnswer {
  readonly status: number;
  readonly sense: Buffer;
  /** What goes to the driver. */
  readonly data: Buffer;
  /** How many bytes of the driver's were taken. */
  readonly taken: number;
}

export interface ScsiDiskOptions {
  readonly store: BlockStore;
  readonly blockSize: number;
  readonly readOnly: boolean;
  readonly serial: string;
  readonly product: string;
}

/** Sense data in the fixed format. */
export function refusal([key, asc, ascq]: SenseTriple): ScsiAnswer {
  const sense = Buffer.alloc(SENSE_BYTES);
  sense[0] = 0x70;
  sense[2] = key;
  sense[7] = SENSE_BYTES - 8;
  sense[12] = asc;
  sense[13] = ascq;
  return { status: CHECK_CONDITION, sense, data: Buffer.alloc(0), taken: 0 };
}

export function answer(data: Buffer = Buffer.alloc(0), taken = 0): ScsiAnswer {
  return { status: GOOD, sense: Buffer.alloc(0), data, taken };
}

export class ScsiDisk {
  readonly options: ScsiDiskOptions;
  store: BlockStore;
  /** Unit attentions that are to be told, each once. */
  readonly attentions: SenseTriple[] = [Sense.POWER_ON];

  constructor(options: ScsiDiskOptions) {
    this.options = options;
    this.store = options.store;
  }

  /** `dataOut` gives that many bytes of what the driver has for the disk, which has `room` bytes for an answer. */
  async execute(
    cdb: Buffer,
    outBytes: number,
    dataOut: (bytes: number) => Promise<Buffer>,
  ): Promise<ScsiAnswer> {
    const op = cdb[0]!;
    if (op === Op.INQUIRY) return this.#inquiry(cdb);
    const attention = this.attentions.shift();
    if (attention !== undefined) return refusal(attention);
    switch (op) {
      case Op.TEST_UNIT_READY:
        return answer();
      case Op.READ_CAPACITY_10:
        return answer(this.#capacity10());
      case Op.SERVICE_ACTION_IN_16:
        if ((cdb[1]! & 0x1f) !== READ_CAPACITY_16) return refusal(Sense.INVALID_FIELD);
        return answer(this.#capacity16().subarray(0, cdb.readUInt32BE(10)));
      case Op.READ_10:
      case Op.READ_16:
        return this.#read(cdb);
      case Op.WRITE_10:
      case Op.WRITE_16:
        return this.#write(cdb, outBytes, dataOut);
      case Op.SYNCHRONIZE_CACHE_10:
        await this.store.flush();
        return answer();
      default:
        return refusal(Sense.INVALID_OPCODE);
    }
  }

  get #blocks(): number {
    return Math.floor(this.store.size / this.options.blockSize);
  }

  #inquiry(cdb: Buffer): ScsiAnswer {
    const bytes = cdb.readUInt16BE(3);
    if ((cdb[1]! & 1) === 0)
      return cdb[2] === 0 ? answer(this.#standard().subarray(0, bytes)) : refusal(Sense.INVALID_FIELD);
    const page = this.#page(cdb[2]!);
    if (page === undefined) return refusal(Sense.INVALID_FIELD);
    const header = Buffer.from([0, cdb[2]!, 0, page.length]);
    return answer(Buffer.concat([header, page]).subarray(0, bytes));
  }

  #standard(): Buffer {
    const data = Buffer.alloc(36);
    data[2] = 6;
    data[3] = 2;
    data[4] = data.length - 5;
    data.write('vfiouser', 8, 'latin1');
    data.write(this.options.product.padEnd(16).slice(0, 16), 16, 'latin1');
    data.write('1.0 ', 32, 'latin1');
    return data;
  }

  #page(page: number): Buffer | undefined {
    const { serial } = this.options;
    if (page === 0x00) return Buffer.from([0x00, 0x80, 0x83]);
    if (page === 0x80) return Buffer.from(serial, 'latin1');
    if (page !== 0x83) return undefined;
    const name = Buffer.from(`vfiouser${serial}`, 'latin1');
    // ASCII, of the logical unit, T10 vendor identification.
    return Buffer.concat([Buffer.from([2, 1, 0, name.length]), name]);
  }

  #capacity10(): Buffer {
    const data = Buffer.alloc(8);
    data.writeUInt32BE(Math.min(0xffff_ffff, this.#blocks - 1), 0);
    data.writeUInt32BE(this.options.blockSize, 4);
    return data;
  }

  #capacity16(): Buffer {
    const data = Buffer.alloc(32);
    data.writeBigUInt64BE(BigInt(this.#blocks - 1), 0);
    data.writeUInt32BE(this.options.blockSize, 8);
    return data;
  }

  /** undefined for blocks that are not there. */
  #range(cdb: Buffer): { offset: number; bytes: number } | undefined {
    const { blockSize } = this.options;
    const isLong = cdb[0] === Op.READ_16 || cdb[0] === Op.WRITE_16;
    const lba = isLong ? cdb.readBigUInt64BE(2) : BigInt(cdb.readUInt32BE(2));
    const blocks = isLong ? cdb.readUInt32BE(10) : cdb.readUInt16BE(7);
    if (lba + BigInt(blocks) > BigInt(this.#blocks) || blocks * blockSize > MOST_TRANSFER) return undefined;
    return { offset: Number(lba) * blockSize, bytes: blocks * blockSize };
  }

  async #read(cdb: Buffer): Promise<ScsiAnswer> {
    const range = this.#range(cdb);
    if (range === undefined) return refusal(Sense.OUT_OF_RANGE);
    // A copy: the store's memory may be written to while the driver's is.
    return answer(Buffer.from(await this.store.read(range.offset, range.bytes)));
  }

  async #write(
    cdb: Buffer,
    outBytes: number,
    dataOut: (bytes: number) => Promise<Buffer>,
  ): Promise<ScsiAnswer> {
    const range = this.#range(cdb);
    if (range === undefined) return refusal(Sense.OUT_OF_RANGE);
    if (this.options.readOnly) return refusal(Sense.WRITE_PROTECTED);
    if (outBytes < range.bytes) return refusal(Sense.INVALID_FIELD);
    await this.store.write(range.offset, await dataOut(range.bytes));
    return answer(undefined, range.bytes);
  }
}
