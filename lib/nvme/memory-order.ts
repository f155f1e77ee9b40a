/**
 * Stores and loads that the controller watches. On x86-64 loads are not reordered with loads, nor stores with stores,
 * and the engine keeps the program's order of accesses to typed arrays: plain ones do, and cost a nanosecond. Other
 * processors need Atomics.
 */
const ORDERED_BY_ITSELF = process.arch === 'x64';

/** Stores after all earlier stores of this thread. */
export function storeRelease(words: Uint32Array, index: number, value: number): void {
  if (ORDERED_BY_ITSELF) words[index] = value;
  else Atomics.store(words, index, value);
}

/** Loads before all later loads of this thread. */
export function loadAcquire(words: Uint32Array, index: number): number {
  return ORDERED_BY_ITSELF ? words[index]! : Atomics.load(words, index);
}
