/** Commands of the NVM command set (NVM Command Set Specification 1.0, section 3.2). */
import type { ClientMemory } from '../device-model.js';
import type { TurnPace } from '../../turn-share.js';
import { ALL_NAMESPACES, PAGE, Status } from './constants.js';
import type { Health } from './health.js';
import type { Personality } from './identify-data.js';
import type { EmulatedNamespace } from './namespace.js';
import { bytesOf, dataSegments, pieces, readSegments, writeSegments, type Segment } from './prps.js';
import { sglSegments } from './sgls.js';
import { CommandError, type Sqe } from './sqe.js';

const Opcode = {
  FLUSH: 0x00,
  WRITE: 0x01,
  READ: 0x02,
  COMPARE: 0x05,
  WRITE_ZEROES: 0x08,
  DATASET_MANAGEMENT: 0x09,
} as const;

const RANGE_BYTES = 16;
/** What a transfer has in memory at a time, whatever its length: more than the longest one has with MDTS as it is by default. */
const PIECE_BYTES = 256 * 1024;
const CLEARED_AT_ONCE = 64 << 20;
/** Flags: 0 with PRPs, 01b and 10b with SGLs (which differ in how metadata is found), 11b is reserved. */
const PSDT = 0b1100_0000;
const FORCE_UNIT_ACCESS = 1 << 30;
/** CDW11 of Dataset Management. */
const DEALLOCATE = 1 << 2;

export class IoCommands {
  readonly #memory: ClientMemory;
  readonly #personality: Personality;
  readonly #health: Health;
  readonly #pace: TurnPace;

  constructor(memory: ClientMemory, personality: Personality, health: Health, pace: TurnPace) {
    this.#memory = memory;
    this.#personality = personality;
    this.#health = health;
    this.#pace = pace;
  }

  /** Dword 0 of the completion. Throws a CommandError. */
  async execute(sqe: Sqe): Promise<number> {
    const isUnknown = (sqe.flags & ~PSDT) !== 0 || (sqe.flags & PSDT) === PSDT;
    const isSgl = (sqe.flags & PSDT) !== 0;
    if (isUnknown || (isSgl && !this.#personality.takesSgls)) throw new CommandError(Status.INVALID_FIELD);
    switch (sqe.opcode) {
      case Opcode.READ:
        await this.#read(sqe);
        break;
      case Opcode.WRITE:
        await this.#write(sqe);
        break;
      case Opcode.COMPARE:
        await this.#compare(sqe);
        break;
      case Opcode.WRITE_ZEROES: {
        const { namespace, offset, length } = this.#blocks(sqe);
        await this.#clear(namespace, offset, length);
        break;
      }
      case Opcode.DATASET_MANAGEMENT:
        await this.#manage(sqe);
        break;
      case Opcode.FLUSH:
        await this.#flush(sqe);
        break;
      default:
        throw new CommandError(Status.INVALID_OPCODE);
    }
    return 0;
  }

  async #read(sqe: Sqe): Promise<void> {
    const { namespace, offset, length } = this.#transfer(sqe);
    const segments = await this.#data(sqe, length);
    let at = offset;
    for (const piece of pieces(segments, PIECE_BYTES)) {
      const size = bytesOf(piece);
      // A copy: the store's memory may be written to while the client's is, page by page or by message.
      const bytes = Buffer.from(await readStore(namespace, at, size));
      await writeSegments(this.#memory, piece, bytes);
      at += size;
      if (at < offset + length) await this.#pace.rest();
    }
    await this.#readMetadata(sqe, namespace);
    this.#health.readCommands++;
    this.#health.bytesRead += BigInt(length);
  }

  async #write(sqe: Sqe): Promise<void> {
    const { namespace, offset, length } = this.#transfer(sqe);
    const segments = await this.#data(sqe, length);
    let at = offset;
    for (const piece of pieces(segments, PIECE_BYTES)) {
      const data = await readSegments(this.#memory, piece);
      await namespace.store.write(at, data);
      at += data.length;
      if (at < offset + length) await this.#pace.rest();
    }
    await this.#writeMetadata(sqe, namespace);
    if ((sqe.cdw12 & FORCE_UNIT_ACCESS) !== 0) await namespace.store.flush();
    this.#health.writeCommands++;
    this.#health.bytesWritten += BigInt(length);
  }

  async #compare(sqe: Sqe): Promise<void> {
    const { namespace, offset, length } = this.#transfer(sqe);
    const segments = await this.#data(sqe, length);
    let at = offset;
    for (const piece of pieces(segments, PIECE_BYTES)) {
      const theirs = await readSegments(this.#memory, piece);
      if (!theirs.equals(await readStore(namespace, at, theirs.length)))
        throw new CommandError(Status.COMPARE_FAILURE);
      at += theirs.length;
      if (at < offset + length) await this.#pace.rest();
    }
    this.#health.readCommands++;
  }

  /** A host that gives no buffer for metadata gets none. */
  async #readMetadata(sqe: Sqe, namespace: EmulatedNamespace): Promise<void> {
    const { metadata } = namespace;
    if (metadata === undefined || sqe.mptr === 0n) return;
    const { offset, length } = metadataOf(sqe, namespace);
    await this.#memory.write(sqe.mptr, Buffer.from(metadata.read(offset, length)));
  }

  /** What is written without metadata has zeroes. */
  async #writeMetadata(sqe: Sqe, namespace: EmulatedNamespace): Promise<void> {
    const { metadata } = namespace;
    if (metadata === undefined) return;
    const { offset, length } = metadataOf(sqe, namespace);
    if (sqe.mptr === 0n) metadata.clear(offset, length);
    else metadata.write(offset, await this.#memory.read(sqe.mptr, length));
  }

  async #manage(sqe: Sqe): Promise<void> {
    const namespace = this.#namespace(sqe.nsid);
    const count = (sqe.cdw10 & 0xff) + 1;
    const segments = await this.#data(sqe, count * RANGE_BYTES);
    const ranges = await readSegments(this.#memory, segments);
    for (let at = 0; at < ranges.byteLength; at += RANGE_BYTES) {
      const blocks = ranges.readUInt32LE(at + 4);
      const { offset, length } = within(namespace, ranges.readBigUInt64LE(at + 8), blocks);
      if ((sqe.cdw11 & DEALLOCATE) !== 0) await this.#clear(namespace, offset, length);
    }
  }

  /** In pieces: a range may be the whole of a large namespace. */
  async #clear(namespace: EmulatedNamespace, offset: number, length: number): Promise<void> {
    const { store, metadata, metadataSize, blockSize } = namespace;
    metadata?.clear((offset / blockSize) * metadataSize, (length / blockSize) * metadataSize);
    for (let done = 0; done < length; done += CLEARED_AT_ONCE) {
      await store.clear(offset + done, Math.min(CLEARED_AT_ONCE, length - done));
      await this.#pace.rest();
    }
  }

  async #flush({ nsid }: Sqe): Promise<void> {
    const { namespaces } = this.#personality;
    const wanted = nsid === ALL_NAMESPACES ? namespaces : [this.#namespace(nsid)];
    for (const { store } of wanted) await store.flush();
  }

  /** Where a command's data is. */
  #data(sqe: Sqe, length: number): Promise<Segment[]> {
    if ((sqe.flags & PSDT) !== 0) return sglSegments(this.#memory, sqe.sgl, length);
    return dataSegments(this.#memory, sqe.prp1, sqe.prp2, length, this.#pace);
  }

  #transfer(sqe: Sqe): { namespace: EmulatedNamespace; offset: number; length: number } {
    const blocks = this.#blocks(sqe);
    const { mdts } = this.#personality;
    if (mdts !== 0 && blocks.length > 2 ** mdts * PAGE) throw new CommandError(Status.INVALID_FIELD);
    return blocks;
  }

  #blocks({ nsid, cdw10, cdw11, cdw12 }: Sqe): {
    namespace: EmulatedNamespace;
    offset: number;
    length: number;
  } {
    const namespace = this.#namespace(nsid);
    const lba = (BigInt(cdw11) << 32n) | BigInt(cdw10);
    return { namespace, ...within(namespace, lba, (cdw12 & 0xffff) + 1) };
  }

  #namespace(nsid: number): EmulatedNamespace {
    const namespace = this.#personality.namespaces.find(({ id }) => id === nsid);
    if (namespace === undefined) throw new CommandError(Status.INVALID_NAMESPACE);
    return namespace;
  }
}

/** @throws RangeError for a store that gives another length. */
async function readStore({ id, store }: EmulatedNamespace, offset: number, length: number): Promise<Buffer> {
  const bytes = await store.read(offset, length);
  if (bytes.byteLength !== length)
    throw new RangeError(
      `the store of namespace ${id} gave ${bytes.byteLength} bytes where ${length} were asked for`,
    );
  return bytes;
}

/** Where the metadata of a command's blocks is, which have been checked. */
function metadataOf(
  { cdw10, cdw11, cdw12 }: Sqe,
  { metadataSize }: EmulatedNamespace,
): { offset: number; length: number } {
  const lba = cdw11 * 2 ** 32 + cdw10;
  return { offset: lba * metadataSize, length: ((cdw12 & 0xffff) + 1) * metadataSize };
}

/** In bytes. */
function within(
  { blocks, blockSize }: EmulatedNamespace,
  lba: bigint,
  count: number,
): { offset: number; length: number } {
  if (lba + BigInt(count) > BigInt(blocks)) throw new CommandError(Status.LBA_OUT_OF_RANGE);
  return { offset: Number(lba) * blockSize, length: count * blockSize };
}
