/** Memory that the device reads and writes, and this process too. */
import type { CallOptions } from '../connection/index.js';
import type { ArenaPool, Place } from './arena-pool.js';

const NOTHING = Buffer.alloc(0);

/** Made by `device.dma.alloc`. */
export class DmaBuffer {
  /** Where the device finds it. */
  readonly iova: bigint;
  /** In bytes. */
  readonly size: number;
  readonly #pool: ArenaPool;
  readonly #place: Place;
  #bytes: Buffer;
  #freed = false;

  /** @internal */
  constructor(pool: ArenaPool, place: Place, size: number) {
    this.#pool = pool;
    this.#place = place;
    this.size = size;
    this.iova = place.arena.window.iova + BigInt(place.offset);
    this.#bytes = Buffer.from(place.arena.window.view(place.offset, size));
    if (!place.isFresh) this.#bytes.fill(0);
  }

  /**
   * The memory, zeroed at first; `bytes.buffer` begins and ends with it. Empty once the buffer is closed. Do not keep it
   * beyond that: the memory of a small buffer goes to the next one.
   */
  get bytes(): Buffer {
    return this.closed ? NOTHING : this.#bytes;
  }

  /** It was freed, or the device was closed. */
  get closed(): boolean {
    return this.#freed || this.#place.arena.window.closed;
  }

  /**
   * Gives the memory back; idempotent. The device must be done with it: a small buffer's memory is free for the next one
   * at once. A large one's is taken from the server first (DMA_UNMAP).
   * @throws RemoteError, after which it is not freed and may be tried again; TimeoutError, ProtocolError, or the signal's
   * reason: the server may still use the memory then, which stays reserved until the device is closed; TypeError while it
   * is being mapped in a transaction.
   */
  async free(options?: CallOptions): Promise<void> {
    if (this.closed) return;
    if (this.#place.arena.window.state === 'mapping')
      throw new TypeError('it is being mapped in a transaction');
    this.#freed = true;
    try {
      await this.#pool.release(this.#place, this.size, options);
      this.#bytes = NOTHING;
    } catch (error) {
      this.#freed = this.#place.arena.window.state !== 'mapped';
      throw error;
    }
  }

  /** @internal It was never the caller's: the transaction that made it failed, and unmaps what it mapped. */
  discard(): void {
    if (this.#freed) return;
    this.#freed = true;
    this.#bytes = NOTHING;
    if (this.#place.arena.isKept) this.#place.arena.release(this.#place.offset, this.size);
  }

  /** `free` without waiting for the server, and without hearing of a failure. */
  close(): void {
    this.free().catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.free();
  }
}
