/**
 * The common configuration (Virtual I/O Device 1.2, section 4.1.4.3) as a device has it. It is as strict as SPDK's: each
 * register is read and written at its own offset and width, and addresses in two halves of 4 bytes.
 */
import { DeviceError, EINVAL } from '../device-error.js';
import type { ClientContext } from '../device-model.js';
import { NO_VECTOR, Status } from './constants.js';

export interface CommonHost {
  readonly vectors: number;
  onDriverOk(client: ClientContext): void;
  /** The driver has written 0 to the status: `clear` is to follow. */
  onReset(): void;
}

interface QueueRegisters {
  size: number;
  vector: number;
  isEnabled: boolean;
  descriptors: bigint;
  driver: bigint;
  device: bigint;
}

const WIDTHS: Readonly<Record<number, number>> = {
  0x00: 4,
  0x04: 4,
  0x08: 4,
  0x0c: 4,
  0x10: 2,
  0x12: 2,
  0x14: 1,
  0x15: 1,
  0x16: 2,
  0x18: 2,
  0x1a: 2,
  0x1c: 2,
  0x1e: 2,
  0x20: 4,
  0x24: 4,
  0x28: 4,
  0x2c: 4,
  0x30: 4,
  0x34: 4,
};
const LOW = 0xffff_ffffn;

export class CommonRegisters {
  readonly offered: bigint;
  readonly queues: QueueRegisters[] = [];
  driverFeatures = 0n;
  status = 0;
  generation = 0;
  configVector = NO_VECTOR;
  readonly #host: CommonHost;
  readonly #entries: number;
  #deviceSelect = 0;
  #driverSelect = 0;
  #queueSelect = 0;

  constructor(offered: bigint, queues: number, entries: number, host: CommonHost) {
    this.offered = offered;
    this.#entries = entries;
    this.#host = host;
    for (let i = 0; i < queues; i++) this.queues.push(this.#newQueue());
  }

  /** As after a reset. */
  clear(): void {
    this.driverFeatures = 0n;
    this.status = 0;
    this.configVector = NO_VECTOR;
    this.#deviceSelect = this.#driverSelect = this.#queueSelect = 0;
    for (let i = 0; i < this.queues.length; i++) this.queues[i] = this.#newQueue();
  }

  read(offset: number, count: number): Buffer {
    checkAccess(offset, count);
    const bytes = Buffer.alloc(count);
    bytes.writeUIntLE(this.#value(offset), 0, count);
    return bytes;
  }

  write(offset: number, data: Buffer, client: ClientContext): void {
    checkAccess(offset, data.byteLength);
    this.#set(offset, data.readUIntLE(0, data.byteLength), client);
  }

  #value(offset: number): number {
    const queue = this.queues[this.#queueSelect];
    switch (offset) {
      case 0x00:
        return this.#deviceSelect;
      case 0x04:
        return half(this.offered, this.#deviceSelect);
      case 0x08:
        return this.#driverSelect;
      case 0x0c:
        return half(this.driverFeatures, this.#driverSelect);
      case 0x10:
        return this.configVector;
      case 0x12:
        return this.queues.length;
      case 0x14:
        return this.status;
      case 0x15:
        return this.generation;
      case 0x16:
        return this.#queueSelect;
      case 0x18:
        return queue?.size ?? 0;
      case 0x1a:
        return queue?.vector ?? NO_VECTOR;
      case 0x1c:
        return queue?.isEnabled === true ? 1 : 0;
      case 0x1e:
        return queue === undefined ? 0 : this.#queueSelect;
      default:
        return queue === undefined ? 0 : half(queue[addressAt(offset)], (offset >>> 2) & 1);
    }
  }

  #set(offset: number, value: number, client: ClientContext): void {
    const queue = this.queues[this.#queueSelect];
    switch (offset) {
      case 0x00:
        this.#deviceSelect = value;
        break;
      case 0x08:
        this.#driverSelect = value;
        break;
      case 0x0c:
        if ((this.status & Status.FEATURES_OK) === 0)
          this.driverFeatures = withHalf(this.driverFeatures, this.#driverSelect, value);
        break;
      case 0x10:
        this.configVector = this.#vector(value);
        break;
      case 0x14:
        this.#setStatus(value, client);
        break;
      case 0x16:
        this.#queueSelect = value;
        break;
      case 0x18:
        if (queue?.isEnabled === false && value > 0 && value <= this.#entries) queue.size = value;
        break;
      case 0x1a:
        if (queue !== undefined) queue.vector = this.#vector(value);
        break;
      case 0x1c:
        if (queue !== undefined && value === 1) queue.isEnabled = true;
        break;
      default:
        if (offset >= 0x20 && queue?.isEnabled === false) {
          const name = addressAt(offset);
          queue[name] = withHalf(queue[name], (offset >>> 2) & 1, value);
        }
    }
  }

  /** FEATURES_OK stays off where the driver took what was not offered, or not VERSION_1 where it was. */
  #setStatus(value: number, client: ClientContext): void {
    if (value === 0) {
      this.#host.onReset();
      return;
    }
    let status = value | (this.status & Status.NEEDS_RESET);
    if ((this.driverFeatures & ~this.offered) !== 0n) status &= ~Status.FEATURES_OK;
    const isNew = (this.status & Status.DRIVER_OK) === 0;
    this.status = status;
    if (
      isNew &&
      (status & (Status.DRIVER_OK | Status.FEATURES_OK)) === (Status.DRIVER_OK | Status.FEATURES_OK)
    )
      this.#host.onDriverOk(client);
  }

  #vector(value: number): number {
    return value < this.#host.vectors ? value : NO_VECTOR;
  }

  #newQueue(): QueueRegisters {
    const size = this.#entries;
    return { size, vector: NO_VECTOR, isEnabled: false, descriptors: 0n, driver: 0n, device: 0n };
  }
}

function checkAccess(offset: number, count: number): void {
  if (WIDTHS[offset] === count) return;
  throw new DeviceError(EINVAL, `the common configuration has no register of ${count} bytes at ${offset}`);
}

function addressAt(offset: number): 'descriptors' | 'driver' | 'device' {
  return offset < 0x28 ? 'descriptors' : offset < 0x30 ? 'driver' : 'device';
}

function half(value: bigint, which: number): number {
  return which > 1 ? 0 : Number((value >> BigInt(32 * which)) & LOW);
}

function withHalf(value: bigint, which: number, word: number): bigint {
  if (which > 1) return value;
  const shift = BigInt(32 * which);
  return (value & ~(LOW << shift)) | (BigInt(word) << shift);
}
