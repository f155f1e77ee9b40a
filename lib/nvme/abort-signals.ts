/**
 * Calls by the signals that may give them up: one listener a signal, as Node looks through all listeners of a signal when
 * one is added or removed. Those that share a signal are given up in slices.
 */
import { inSlices } from './slices.js';

export class AbortSignals<T extends { signal: AbortSignal | undefined }> {
  readonly #groups = new Map<AbortSignal, { items: Set<T>; listener: () => void }>();
  readonly #onAbort: (item: T) => void;

  /** `onAbort` hears of each item whose signal is aborted, unless it was removed before. */
  constructor(onAbort: (item: T) => void) {
    this.#onAbort = onAbort;
  }

  /** `signal` is not aborted yet. */
  add(item: T, signal: AbortSignal): void {
    item.signal = signal;
    const group = this.#groups.get(signal);
    if (group !== undefined) {
      group.items.add(item);
      return;
    }
    const items = new Set([item]);
    const listener = () => {
      this.#groups.delete(signal);
      this.#giveUp(items);
    };
    this.#groups.set(signal, { items, listener });
    signal.addEventListener('abort', listener, { once: true });
  }

  /** Nothing is done where it is not there. */
  remove(item: T): void {
    const { signal } = item;
    if (signal === undefined) return;
    const group = this.#groups.get(signal);
    if (group === undefined) return;
    group.items.delete(item);
    if (group.items.size > 0) return;
    this.#groups.delete(signal);
    signal.removeEventListener('abort', group.listener);
  }

  #giveUp(items: Set<T>): void {
    const left = items.values();
    inSlices(() => {
      const { value, done } = left.next();
      if (done === true) return false;
      this.#onAbort(value);
      return true;
    });
  }
}
