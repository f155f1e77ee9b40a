/** Memory that the device reads and writes, and this process too. */
import { forbidCloning } from '../cloning.js';
import { isOver, withDeadline, within, type CallOptions } from '../connection/index.js';
import { ClosedError } from '../errors.js';
import { wrongType } from '../fields.js';
import * as option from '../options.js';
import type { ArenaPool, Allocation } from './arena-pool.js';
import type { DmaRegion } from './dma-region.js';

const NOTHING = Buffer.alloc(0);

/**
 * Memory that the device and this process share. `device.dma.alloc` makes it; it is the caller's until `close`.
 *
 * @example
 * ```ts
 * await using buffer = await device.dma.alloc(4096);
 * buffer.bytes.write('hello, device');
 * await bar.writeUInt64(0x80, buffer.iova);
 * ```
 */
export class DmaBuffer {
  /** Where the device finds it. */
  readonly iova: bigint;
  /** In bytes. */
  readonly size: number;
  readonly #pool: ArenaPool;
  readonly #allocation: Allocation;
  #bytes: Buffer;
  #isFreed = false;
  #closing: Promise<void> | undefined;
  /** How many have said that the device uses the memory. */
  #uses = 0;
  #onUnused: (() => void) | undefined;

  /** @internal */
  constructor(pool: ArenaPool, allocation: Allocation, size: number) {
    this.#pool = pool;
    this.#allocation = allocation;
    this.size = size;
    this.iova = allocation.arena.region.iova + BigInt(allocation.offset);
    this.#bytes = Buffer.from(allocation.arena.region.view(allocation.offset, size));
    if (!allocation.isFresh) this.#bytes.fill(0);
    forbidCloning(this, 'a DmaBuffer');
  }

  /**
   * The memory, zeroed at first; `bytes.buffer` begins and ends with it. Empty once the buffer is closed. Do not keep it
   * beyond that: the memory of a small buffer goes to the next one.
   */
  get bytes(): Buffer {
    return this.isClosed ? NOTHING : this.#bytes;
  }

  /** The server has the memory's fd and maps it; otherwise it asks for every byte by message. */
  get shared(): boolean {
    return this.#region.access.shared;
  }

  /** Whether the buffer has been closed, or is being closed, or the device has been closed. */
  get isClosed(): boolean {
    return this.#isFreed || this.#region.isClosed;
  }

  /**
   * Gives the memory back; idempotent. `bytes` is empty at once. Waits until each driver that called `beginUse` has called
   * `endUse`: then a small buffer's memory is free for the next one, and a large one's is taken from the server
   * (DMA_UNMAP). A device that was given the address by other means must be done with it before. Where this is given up, it
   * goes on: called again, it waits for what is under way.
   * @throws RemoteError, after which it is not closed and may be tried again; TimeoutError, ProtocolError, or the signal's
   * reason: the device may still use the memory then, which stays reserved until it is done or closed; ClosedError where the
   * memory is taken away while a driver uses it; TypeError while it is being mapped in a transaction.
   */
  async close(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('DmaBuffer.close', options);
    if (this.#closing === undefined && this.isClosed) return;
    if (this.#region.state === 'mapping') throw new TypeError('it is being mapped in a transaction');
    options?.signal?.throwIfAborted();
    const call = withDeadline(options);
    const waitsForOthers = this.#closing !== undefined || this.#uses > 0;
    this.#closing ??= this.#freeMemory(call).finally(() => (this.#closing = undefined));
    // Several calls are one, but each waits no longer than its own options allow.
    return waitsForOthers
      ? within('DmaBuffer.close', this.#closing, call, this.#pool.timeoutMs)
      : this.#closing;
  }

  /** Another name for `close`. */
  async free(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('DmaBuffer.free', options);
    return this.close(options);
  }

  /**
   * Says that the device uses the memory from now on, for a command of a driver: `close` waits for as many calls of `endUse`.
   * @throws ClosedError where the buffer is closed.
   */
  beginUse(): void {
    if (this.isClosed) throw new ClosedError('the DMA buffer is closed');
    this.#uses++;
  }

  /** The command is done, or the device cannot reach the memory any more. See `beginUse`. */
  endUse(): void {
    if (this.#uses === 0) throw new RangeError('endUse: beginUse was not called as often');
    if (--this.#uses > 0) return;
    this.#onUnused?.();
    this.#onUnused = undefined;
  }

  /**
   * @internal Calls `listener` once, synchronously, before the memory is unmapped or the device is closed: whoever looks at
   * the memory must have stopped when it returns. `reason` says what happened. Not called by `close`.
   * @returns a function that takes the listener back
   */
  onRelease(listener: (reason: ClosedError) => void): () => void {
    if (typeof listener !== 'function')
      throw wrongType('DmaBuffer.onRelease: listener', 'a function', listener);
    return this.#region.onRelease(listener);
  }

  /** @internal It was never the caller's: the transaction that made it failed, and unmaps what it mapped. */
  rollBack(): void {
    if (this.#isFreed) return;
    this.#isFreed = true;
    this.#bytes = NOTHING;
    if (this.#allocation.arena.isKept) this.#allocation.arena.free(this.#allocation.offset, this.size);
  }

  /** Does what `close` does. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #region(): DmaRegion {
    return this.#allocation.arena.region;
  }

  async #freeMemory(call: CallOptions | undefined): Promise<void> {
    this.#isFreed = true;
    try {
      if (this.#uses > 0) await this.#unused();
      // Whoever wanted it may have given up meanwhile.
      await this.#pool.free(this.#allocation, this.size, isOver(call) ? undefined : call);
      this.#bytes = NOTHING;
    } catch (error) {
      this.#isFreed = this.#region.state === 'quarantined';
      throw error;
    }
  }

  /** Settles when nobody uses the memory any more. @throws ClosedError where it is taken away before. */
  #unused(): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      // Others hear of it in the same turn, and may let go of the memory: then it is closed as it was to be.
      const stopListening = this.#region.onRelease((reason) => queueMicrotask(() => reject(reason)));
      this.#onUnused = () => {
        stopListening();
        resolve();
      };
    });
  }
}
