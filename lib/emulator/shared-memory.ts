/** Memory that a device shares with its clients. */
import { forbidCloning } from '../cloning.js';
import { integer, outOfRange, wrongType } from '../fields.js';
import { check, holdFd, native, type HeldFd, type NativeMapping } from '../native.js';
import type { RegionMemory } from './device-model.js';

const PAGE = 4096;

/**
 * Memory that clients can map: a sealed memfd, and this process's own view of it. It belongs to its device, which closes it.
 *
 * @example
 * ```ts
 * const memory = new SharedMemory(4096);
 * this.addRegion({ index: 1, size: memory.size, memory });
 * ```
 */
export class SharedMemory implements RegionMemory {
  /** In bytes. */
  readonly size: number;
  /** The bytes that clients see when they map the memory. Empty once closed. */
  readonly bytes: Buffer;
  readonly #held: HeldFd;
  readonly #mapping: NativeMapping;

  /**
   * `size` is in bytes, a multiple of the page size.
   *
   * @throws TypeError and RangeError for another size; TransportError where the kernel gives no such memory, UnsupportedError without the addon.
   */
  constructor(size: number, name = 'vfio-user-device') {
    integer('SharedMemory: size', size, PAGE, Number.MAX_SAFE_INTEGER);
    if (size % PAGE !== 0) throw outOfRange(`SharedMemory: size must be a multiple of ${PAGE}, got ${size}`);
    if (typeof name !== 'string') throw wrongType('SharedMemory: name', 'a string', name);
    this.size = size;
    this.#held = holdFd(check(native().memfd(name, size, false), 'memfd_create'));
    try {
      this.#mapping = check(native().map(this.#held.fd, 0, size, true, true), 'mmap') as NativeMapping;
    } catch (error) {
      this.#held.close();
      throw error;
    }
    this.bytes = Buffer.from(check(this.#mapping.view(0, size), 'mmap') as ArrayBuffer);
    forbidCloning(this, 'a SharedMemory');
  }

  /** -1 once closed. */
  get fd(): number {
    return this.#held.fd;
  }

  /** Whether it was closed. */
  get isClosed(): boolean {
    return this.fd < 0;
  }

  /** Gives the memory back; what clients have mapped stays theirs. Idempotent. */
  close(): void {
    this.#mapping.close();
    this.#held.close();
  }

  /** Does what `close` does. */
  [Symbol.dispose](): void {
    this.close();
  }
}
