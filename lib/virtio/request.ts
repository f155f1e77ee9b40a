/** A request of a queue, for one caller that waits: its header, and where its data is. */
import { Command } from '../commands/command.js';
import { ClosedError, type DmaBuffer } from '../index.js';

const TWO_32 = 2 ** 32;

export class VirtioRequest extends Command {
  /** What the device reads first. */
  readonly header: Buffer;
  /** Bytes of data; 0 for none. */
  length = 0;
  /** Memory of this process, which goes through the queue's; without it `low` and `high` are a DMA address. */
  bytes: Uint8Array | undefined = undefined;
  isToDevice = false;
  low = 0;
  high = 0;
  /** The chunk of the queue's memory while it is in flight; -1 for none. */
  chunk = -1;

  constructor(name: string, header: Buffer) {
    super(name);
    this.header = header;
    this.answer = undefined;
  }

  /** Data in memory of this process. */
  through(bytes: Uint8Array, isToDevice: boolean): this {
    this.bytes = bytes;
    this.length = bytes.length;
    this.isToDevice = isToDevice;
    return this;
  }

  /** Data in memory that the device reaches, from `offset`. It must not be reused before the promise settles. */
  direct(buffer: DmaBuffer, offset: number, length: number, isToDevice: boolean): this {
    const address = buffer.iova + BigInt(offset);
    this.buffer = buffer;
    this.low = Number(address & 0xffff_ffffn);
    this.high = Number(address / BigInt(TWO_32));
    this.length = length;
    this.isToDevice = isToDevice;
    return this;
  }

  override get canBeLeft(): boolean {
    return this.bytes !== undefined && !this.isToDevice;
  }

  /** @throws TypeError, ClosedError where the memory does not hold the data any more. */
  override check(): void {
    if (this.bytes !== undefined && this.bytes.length !== this.length) {
      throw new TypeError(
        `${this.name}: the array has ${this.bytes.length} bytes and had ${this.length} when the call was made: ` +
          'it was transferred or resized',
      );
    }
    if (this.buffer?.isClosed === true) throw new ClosedError(`${this.name}: the DMA buffer is closed`);
  }
}
