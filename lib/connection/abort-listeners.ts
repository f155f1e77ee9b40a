/**
 * Listens for the abort of signals, with one listener for each signal however many calls share it: an EventTarget looks
 * through all its listeners whenever one is added or removed.
 */
import { LinkedList, type Linked } from './linked-list.js';

/** A listener for the abort of a signal. */
export class AbortListener implements Linked<AbortListener> {
  previous: AbortListener | undefined;
  next: AbortListener | undefined;
  readonly #listeners: Listeners;
  readonly #onAbort: (reason: unknown) => void;

  constructor(listeners: Listeners, onAbort: (reason: unknown) => void) {
    this.#listeners = listeners;
    this.#onAbort = onAbort;
  }

  call(reason: unknown): void {
    this.#onAbort(reason);
  }

  /** Listens no more; idempotent. */
  remove(): void {
    this.#listeners.remove(this);
  }
}

/** The listeners for one signal, in the order in which they were added. */
class Listeners {
  readonly #list = new LinkedList<AbortListener>();
  readonly #signal: AbortSignal;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener('abort', this.#onAbort);
  }

  add(onAbort: (reason: unknown) => void): AbortListener {
    const listener = new AbortListener(this, onAbort);
    this.#list.push(listener);
    return listener;
  }

  remove(listener: AbortListener): void {
    this.#list.remove(listener);
    if (this.#list.first === undefined) this.#close();
  }

  readonly #onAbort = (): void => {
    const reason: unknown = this.#signal.reason;
    for (let listener = this.#list.first; listener !== undefined; listener = this.#list.first) {
      this.#list.remove(listener);
      listener.call(reason);
    }
    this.#close();
  };

  #close(): void {
    if (bySignal.get(this.#signal) === this) bySignal.delete(this.#signal);
    this.#signal.removeEventListener('abort', this.#onAbort);
  }
}

const bySignal = new WeakMap<AbortSignal, Listeners>();

/** Has `onAbort`, which must not throw, called with the signal's reason when it is aborted, unless removed before. */
export function listenForAbort(signal: AbortSignal, onAbort: (reason: unknown) => void): AbortListener {
  let listeners = bySignal.get(signal);
  if (listeners === undefined) bySignal.set(signal, (listeners = new Listeners(signal)));
  return listeners.add(onAbort);
}

/** @throws TypeError for what is no AbortSignal, and the reason of one that is aborted already. */
export function checkSignal(signal: AbortSignal | undefined): void {
  if (signal === undefined) return;
  if (typeof (signal as AbortSignal | null)?.addEventListener !== 'function') {
    throw new TypeError(`signal must be an AbortSignal, got ${signal === null ? 'null' : typeof signal}`);
  }
  if (signal.aborted) throw signal.reason;
}

/** Waits for `ms` milliseconds. Rejects with the signal's reason. */
export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    checkSignal(signal);
    const timer = setTimeout(() => {
      listener?.remove();
      resolve();
    }, ms);
    const listener =
      signal &&
      listenForAbort(signal, (reason) => {
        clearTimeout(timer);
        reject(reason);
      });
  });
}
