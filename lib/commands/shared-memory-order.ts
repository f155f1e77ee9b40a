/**
 * Stores and loads of memory that a device watches, and the indexes at which each side wants to hear of the other.
 *
 * On x86-64 loads are not reordered with loads, nor stores with stores, and the engine keeps the program's order of accesses
 * to typed arrays: plain ones do, and cost a nanosecond. Other processors need Atomics.
 */

const ORDERED_BY_ITSELF = process.arch === 'x64';

/** Stores after all earlier stores of this thread. */
export function storeRelease(words: Uint32Array, index: number, value: number): void {
  if (ORDERED_BY_ITSELF) words[index] = value;
  else Atomics.store(words, index, value);
}

/** Loads before all later loads of this thread. */
export function loadAcquire(words: Uint16Array | Uint32Array, index: number): number {
  return ORDERED_BY_ITSELF ? words[index]! : Atomics.load(words, index);
}

/**
 * Whether the way from `old` to `value` went past the index that the other side waits at, in 16 bits (Virtual I/O Device 1.2,
 * section 2.7.10; NVM Express Base 2.0, annex B.5).
 */
export function passesEventIndex(eventIndex: number, value: number, old: number): boolean {
  return ((value - eventIndex - 1) & 0xffff) < ((value - old) & 0xffff);
}
