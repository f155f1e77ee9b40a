/**
 * A mapping of a device's own registers. Accesses are single loads and stores of exactly their width; while the device does not
 * answer they are refused, and what raw views see is empty memory of nobody's.
 */
import { VfioUserError } from '../errors.js';
import type { NativeMapping } from '../native.js';
import type { MemorySpace, Withdrawable } from './memory-space.js';

/** Where the mapping begins: in the device's fd, which stays whose it is. */
export interface HardwareFile {
  readonly fd: number;
  /** At a page. */
  readonly offset: number;
}

const WORD = 4;

export class HardwareRegisters implements Withdrawable {
  readonly #mapping: NativeMapping;
  readonly #space: MemorySpace;
  #file: HardwareFile;
  #why: string | undefined;

  constructor(mapping: NativeMapping, file: HardwareFile, space: MemorySpace) {
    this.#mapping = mapping;
    this.#file = file;
    this.#space = space;
    space.add(this);
  }

  withdraw(why: string): void {
    if (this.#why === undefined) this.#mapping.withdraw();
    this.#why = why;
  }

  putBack(): void {
    if (this.#why === undefined) return;
    const result = this.#mapping.remap(this.#file.fd, this.#file.offset);
    this.#why = result < 0 ? 'it could not be mapped again' : undefined;
  }

  /** The device is reached by another fd from now on. 0 or -errno. */
  restore(file: HardwareFile): number {
    this.#file = file;
    return this.#why === undefined ? this.#mapping.remap(file.fd, file.offset) : 0;
  }

  /** @throws VfioUserError EIO while the device does not answer. */
  load(at: number, width: number): number | bigint {
    if (this.#why !== undefined) this.#refuse(this.#why);
    return this.#mapping.load(at, width);
  }

  /** @throws VfioUserError EIO while the device does not answer. */
  store(at: number, width: number, value: number | bigint): void {
    if (this.#why !== undefined) this.#refuse(this.#why);
    this.#mapping.store(at, width, value);
  }

  /** By words where there are whole ones, else by bytes: registers are not copied as memory is. */
  copyOut(at: number, target: Uint8Array): void {
    for (const [i, width] of steps(at, target.length)) {
      const value = this.load(at + i, width) as number;
      for (let byte = 0; byte < width; byte++) target[i + byte] = value >>> (8 * byte);
    }
  }

  /** As `copyOut`. */
  copyIn(at: number, data: Uint8Array): void {
    for (const [i, width] of steps(at, data.length)) {
      let value = 0;
      for (let byte = 0; byte < width; byte++) value |= data[i + byte]! << (8 * byte);
      this.store(at + i, width, value >>> 0);
    }
  }

  /** The mapping is about to be closed. */
  close(): void {
    this.#space.delete(this);
  }

  #refuse(why: string): never {
    throw new VfioUserError('EIO', `mapped area: the device does not answer in its memory: ${why}`);
  }
}

/** The accesses that `length` bytes at `at` take. */
function* steps(at: number, length: number): Generator<readonly [i: number, width: number]> {
  for (let i = 0; i < length;) {
    const width = (at + i) % WORD === 0 && length - i >= WORD ? WORD : 1;
    yield [i, width];
    i += width;
  }
}
