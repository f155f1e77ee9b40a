/** A command of a queue pair: what it is, where its data is, and its entry in the submission ring. */
import { Command } from '../commands/command.js';
import { notInteger } from '../fields.js';
import { ClosedError, type DmaBuffer } from '../index.js';
import type { NvmeNamespace } from './namespace.js';

/** What few commands have: dwords 2 and 3, and metadata in a buffer of its own (MPTR), contiguous. */
export interface CommandExtra {
  readonly cdw2: number;
  readonly cdw3: number;
  readonly metadata: DmaBuffer | undefined;
}

export class NvmeCommand extends Command {
  readonly opcode: number;
  readonly namespace: number;
  cdw10 = 0;
  cdw11 = 0;
  cdw12 = 0;
  cdw13 = 0;
  cdw14 = 0;
  cdw15 = 0;
  /** Bytes of data; 0 for none. */
  length = 0;
  /** Memory of this process, which goes through bounce pages; without it `low` and `high` are a DMA address. */
  bytes: Uint8Array | undefined = undefined;
  isToDevice = false;
  /** The device may transfer less than there is room for: what it leaves is zeroes, and not another command's data. */
  mayBeShort = false;
  /** The data's address; without `length` what PRP1 is, as it stands. */
  low = 0;
  high = 0;
  /** Without `length`: what PRP2 is. */
  secondPointer = 0n;
  extra: CommandExtra | undefined = undefined;
  /** The namespace that it is for, where the driver knows it. */
  target: NvmeNamespace | undefined = undefined;
  /** Bounce pages, while it is in flight. */
  pages: number[] | undefined = undefined;

  constructor(name: string, opcode: number, namespace: number) {
    super(name);
    this.opcode = opcode;
    this.namespace = namespace;
  }

  /** Data in memory of this process. */
  through(bytes: Uint8Array, isToDevice: boolean): this {
    this.bytes = bytes;
    this.length = bytes.length;
    this.isToDevice = isToDevice;
    return this;
  }

  /**
   * What the caller has room for, of a command whose length only the controller knows. Without room there is a page all the
   * same: a controller that has data would put it at address 0 otherwise.
   */
  into(bytes: Uint8Array): this {
    this.mayBeShort = true;
    return this.through(bytes.length > 0 ? bytes : new Uint8Array(1), false);
  }

  /** Data in memory that the device reaches, from `offset`. It must not be reused before the promise settles. */
  direct(buffer: DmaBuffer, offset: number, length: number): this {
    const { iova } = buffer;
    this.buffer = buffer;
    // A number where that is exact: bigints cost more than the rest of a command.
    if (iova <= MAX_EXACT) {
      const address = Number(iova) + offset;
      this.low = address >>> 0;
      this.high = Math.floor(address / TWO_32);
    } else {
      const address = iova + BigInt(offset);
      this.low = Number(BigInt.asUintN(32, address));
      this.high = Number(address >> 32n);
    }
    this.length = length;
    return this;
  }

  /**
   * The caller may be told before the controller is done with the command: it changes nothing but bounce pages. All
   * others are waited for, or a write that comes late would undo a later one, and memory of the caller's would change.
   */
  override get canBeLeft(): boolean {
    return this.bytes !== undefined && !this.isToDevice && this.extra?.metadata === undefined;
  }

  override check(): void {
    this.checkFields();
    this.checkData();
  }

  /**
   * Whether the memory still holds the data, and the namespace is what it was: a caller may have transferred or resized an
   * array while the command waited.
   * @throws TypeError, ClosedError, NvmeNamespaceError.
   */
  checkData(): void {
    this.target?.requireCurrent();
    if (this.bytes !== undefined && this.bytes.length !== this.length) {
      throw new TypeError(
        `${this.name}: the array has ${this.bytes.length} bytes and had ${this.length} when the call was made: ` +
          'it was transferred or resized',
      );
    }
    if (this.buffer?.isClosed === true) throw new ClosedError(`${this.name}: the DMA buffer is closed`);
  }

  /** Common command format (NVM Express Base 2.0, section 3.3.3.1). `pointers` are DPTR. @throws RangeError. */
  encode(sq: Uint32Array, at: number, commandId: number, flags: number, pointers: Uint32Array): void {
    sq[at] = this.opcode | flags | (commandId << 16);
    sq[at + 1] = this.namespace;
    sq[at + 2] = 0;
    sq[at + 3] = 0;
    sq[at + 4] = 0;
    sq[at + 5] = 0;
    sq[at + 6] = pointers[0]!;
    sq[at + 7] = pointers[1]!;
    sq[at + 8] = pointers[2]!;
    sq[at + 9] = pointers[3]!;
    sq[at + 10] = this.cdw10;
    sq[at + 11] = this.cdw11;
    sq[at + 12] = this.cdw12;
    sq[at + 13] = this.cdw13;
    sq[at + 14] = this.cdw14;
    sq[at + 15] = this.cdw15;
    if (this.extra !== undefined) encodeExtra(sq, at, this.extra);
  }

  /** What `encode` would cut off. @throws RangeError. */
  checkFields(): void {
    field('opcode', this.opcode, 8);
    field('NSID', this.namespace, 32);
    if (this.extra !== undefined) {
      field('CDW2', this.extra.cdw2, 32);
      field('CDW3', this.extra.cdw3, 32);
    }
    field('CDW10', this.cdw10, 32);
    field('CDW11', this.cdw11, 32);
    field('CDW12', this.cdw12, 32);
    field('CDW13', this.cdw13, 32);
    field('CDW14', this.cdw14, 32);
    field('CDW15', this.cdw15, 32);
  }
}

/** CDW2, CDW3 and MPTR. */
function encodeExtra(sq: Uint32Array, at: number, { cdw2, cdw3, metadata }: CommandExtra): void {
  sq[at + 2] = cdw2;
  sq[at + 3] = cdw3;
  if (metadata === undefined) return;
  sq[at + 4] = Number(BigInt.asUintN(32, metadata.iova));
  sq[at + 5] = Number(metadata.iova >> 32n);
}

const TWO_32 = 2 ** 32;
const MAX_EXACT = 1n << 52n;

/** `value`, which goes into a field of so many bits, 32 at most. @throws TypeError and RangeError, which name the field. */
export function field(name: string, value: number, bits: number): number {
  if (typeof value === 'number' && value >>> 0 === value && (bits === 32 || value < 1 << bits)) return value;
  throw notInteger(name, value, 0, 2 ** bits - 1);
}
