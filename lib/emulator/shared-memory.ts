/** Memory that a device shares with its clients. */
import { check, native, type NativeMapping } from '../native.js';
import type { RegionMemory } from './device-model.js';

/** A sealed memfd and our own view of it. Belongs to its device, which closes it. */
export class SharedMemory implements RegionMemory {
  readonly size: number;
  /** The bytes that clients see when they map the memory. Empty once closed. */
  readonly bytes: Buffer;
  readonly #fd: number;
  readonly #mapping: NativeMapping;
  #closed = false;

  /**
   * `size` is in bytes, a multiple of the page size.
   *
   * @throws TransportError where the kernel gives no such memory, UnsupportedError without the addon.
   */
  constructor(size: number, name = 'vfio-user-device') {
    this.size = size;
    this.#fd = check(native().memfd(name, size, false), 'memfd_create');
    try {
      this.#mapping = check(native().map(this.#fd, 0, size, true, true), 'mmap') as NativeMapping;
    } catch (error) {
      native().closeFd(this.#fd);
      throw error;
    }
    this.bytes = Buffer.from(check(this.#mapping.view(0, size), 'mmap') as ArrayBuffer);
  }

  /** -1 once closed. */
  get fd(): number {
    return this.#closed ? -1 : this.#fd;
  }

  /** Gives the memory back; what clients have mapped stays theirs. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#mapping.close();
    native().closeFd(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
