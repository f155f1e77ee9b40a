/** DMA: the client's memory through mappings where it shared fds, through messages elsewhere. */
import { ClosedError } from '../errors.js';
import { DMA_MAP_FLAG_READ, DMA_MAP_FLAG_WRITE } from '../protocol/constants.js';
import { DmaError, EFAULT } from './device-error.js';
import type { ClientMemory } from './device-model.js';
import type { DirtyTracking } from './dirty-tracking.js';
import type { DmaSegment, DmaRegions } from './dma-regions.js';
import type { ServerRequests } from './server-requests.js';

const ADDRESS_SPACE_END = 1n << 64n;

export class DmaClient implements ClientMemory {
  readonly #table: DmaRegions;
  readonly #requests: ServerRequests;
  readonly #maxDataXferSize: number;
  readonly #dirty: DirtyTracking;
  #closed: Error | undefined;

  /** A message carries at most `maxDataXferSize` bytes of data. */
  constructor(table: DmaRegions, requests: ServerRequests, maxDataXferSize: number, dirty: DirtyTracking) {
    this.#table = table;
    this.#requests = requests;
    this.#maxDataXferSize = maxDataXferSize;
    this.#dirty = dirty;
  }

  async read(address: bigint, length: number): Promise<Buffer> {
    const into = Buffer.alloc(length);
    await this.#transfer(address, into, DMA_MAP_FLAG_READ);
    return into;
  }

  async write(address: bigint, bytes: Uint8Array): Promise<void> {
    await this.#transfer(address, bytes, DMA_MAP_FLAG_WRITE);
  }

  /** Nothing can be reached any more. */
  close(reason: Error): void {
    this.#closed = reason;
  }

  async #transfer(address: bigint, bytes: Uint8Array, direction: number): Promise<void> {
    if (typeof address !== 'bigint') throw new TypeError('a DMA address is a bigint');
    if (address < 0n || address + BigInt(bytes.byteLength) > ADDRESS_SPACE_END) {
      throw new DmaError(
        EFAULT,
        `${bytes.byteLength} bytes at ${address} are not in the 64-bit address space`,
      );
    }
    // Before the table is asked: it is empty once the client has gone.
    this.#throwIfClosed();
    const segments = this.#table.segments(address, bytes.byteLength, direction);
    for (const { window } of segments) window.uses++;
    try {
      let done = 0;
      for (const segment of segments) {
        this.#throwIfClosed();
        const part = bytes.subarray(done, done + segment.length);
        if (segment.window.memory !== undefined) {
          if (direction === DMA_MAP_FLAG_WRITE) {
            this.#dirty.mark(segment.window, segment.offset, segment.length);
          }
          copy(segment, part, direction);
        } else await this.#exchange(segment.address, part, direction);
        done += segment.length;
      }
    } finally {
      for (const { window } of segments) if (--window.uses === 0) window.onIdle?.();
    }
  }

  async #exchange(address: bigint, bytes: Uint8Array, direction: number): Promise<void> {
    for (let done = 0; done < bytes.byteLength; done += this.#maxDataXferSize) {
      this.#throwIfClosed();
      const part = bytes.subarray(done, done + this.#maxDataXferSize);
      if (direction === DMA_MAP_FLAG_READ) await this.#requests.dmaRead(address + BigInt(done), part);
      else await this.#requests.dmaWrite(address + BigInt(done), part);
    }
  }

  #throwIfClosed(): void {
    if (this.#closed !== undefined) throw new ClosedError('the client disconnected', { cause: this.#closed });
  }
}

function copy({ window, offset, length, address }: DmaSegment, bytes: Uint8Array, direction: number): void {
  const memory = window.memory!;
  const result =
    direction === DMA_MAP_FLAG_READ
      ? memory.copyOut(offset, bytes, 0, length)
      : memory.copyIn(offset, bytes, 0, length);
  if (result < 0)
    throw new DmaError(
      -result,
      `the client's file no longer has what is mapped at 0x${address.toString(16)}`,
    );
}
