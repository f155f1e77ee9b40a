/**
 * The RAM device's DMA engine: one copy at a time, in chunks, within the client's memory.
 *
 * ```
 *   idle ──start──▶ copying ──the last chunk, an error, cancel()──▶ idle
 *   stop() waits for idle, and start() is refused from then on until run()
 * ```
 */
import { DeviceError, EBUSY, ECANCELED, EIO } from './device-error.js';
import type { ClientMemory } from './device-model.js';

/** The engine's own buffer. */
const CHUNK_BYTES = 1 << 20;

export interface RamCopy {
  source: bigint;
  destination: bigint;
  /** Bytes. */
  length: number;
}

/** How a copy ended. */
export type RamCopyEnd = 'done' | DeviceError;

export class RamDmaEngine {
  /** The copy that is under way; never rejects. */
  #copying: Promise<RamCopyEnd> | undefined;
  #isStopped = false;
  /** Of the copy that is under way. */
  #cancel: AbortController | undefined;

  /**
   * Resolves with how it ended, after `onEnd` was called.
   * @throws DeviceError EBUSY where one is under way, or none may be.
   */
  start(copy: RamCopy, memory: ClientMemory, onEnd: (end: RamCopyEnd) => void): Promise<RamCopyEnd> {
    if (this.#copying !== undefined) throw new DeviceError(EBUSY, 'the DMA engine is copying');
    if (this.#isStopped) throw new DeviceError(EBUSY, 'the device is stopped');
    const cancel = (this.#cancel = new AbortController());
    const copying = copyChunks(copy, memory, cancel.signal)
      .catch((error: unknown) =>
        error instanceof DeviceError ? error : new DeviceError(EIO, 'DMA', { cause: error }),
      )
      .then((end) => {
        this.#copying = undefined;
        onEnd(end);
        return end;
      });
    this.#copying = copying;
    return copying;
  }

  /** Begins no copy any more; the promise, where there is one, is kept when the one that is under way has ended. */
  stop(): void | Promise<void> {
    this.#isStopped = true;
    return this.#idle();
  }

  run(): void {
    this.#isStopped = false;
  }

  /** Ends the copy that is under way with its chunk; kept when it has ended. */
  cancel(): void | Promise<void> {
    this.#cancel?.abort();
    return this.#idle();
  }

  #idle(): void | Promise<void> {
    return this.#copying?.then(() => undefined);
  }
}

async function copyChunks(
  { source, destination, length }: RamCopy,
  memory: ClientMemory,
  cancelled: AbortSignal,
): Promise<RamCopyEnd> {
  for (let done = 0; done < length; done += CHUNK_BYTES) {
    if (cancelled.aborted) return new DeviceError(ECANCELED, 'the device was reset');
    const bytes = await memory.read(source + BigInt(done), Math.min(CHUNK_BYTES, length - done));
    await memory.write(destination + BigInt(done), bytes);
  }
  return 'done';
}
