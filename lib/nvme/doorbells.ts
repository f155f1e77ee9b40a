/**
 * Doorbells: how the controller learns of a new submission queue tail or completion queue head.
 *
 * ```
 *   mapped    a store into the server's memory behind BAR 0
 *   message   REGION_WRITE; one at a time for each doorbell, and the newest value after it
 *   shadow    a store into a buffer of ours, and one of the above when the controller asked to be told
 * ```
 */
import type { MappedArea, Region } from '../index.js';
import { storeRelease } from './memory-order.js';

/**
 * How the controller is told of new queue entries: by a store to `mapped` memory of BAR 0, by a `message` (REGION_WRITE), or
 * by `shadow` doorbells (NVM Express Base 2.0, section 5.8) and one of the others where the controller asks for it.
 */
export type DoorbellKind = 'mapped' | 'message' | 'shadow';

export interface Doorbell {
  readonly kind: DoorbellKind;
  /** Tells the controller. What was stored before is visible to it when the value is. */
  write(value: number): void;
  /** The queue is about to be deleted: nothing is written any more, nor told of what was. */
  retire?(): void;
}

export class MappedDoorbell implements Doorbell {
  readonly kind = 'mapped';
  readonly #words: Uint32Array;
  readonly #index: number;

  /** `offset` is the doorbell's in the area. */
  constructor(area: MappedArea, offset: number) {
    this.#words = area.u32;
    this.#index = offset >>> 2;
  }

  write(value: number): void {
    storeRelease(this.#words, this.#index, value);
  }
}

export class MessageDoorbell implements Doorbell {
  readonly kind = 'message';
  readonly #region: Region;
  readonly #offset: number;
  readonly #onError: (error: unknown) => void;
  #value = 0;
  #isSending = false;
  #isStale = false;
  #isRetired = false;

  /** `onError` hears of a write that failed: the controller may not know of commands then. */
  constructor(region: Region, offset: number, onError: (error: unknown) => void) {
    this.#region = region;
    this.#offset = offset;
    this.#onError = onError;
  }

  write(value: number): void {
    this.#value = value;
    if (this.#isSending) this.#isStale = true;
    else void this.#send();
  }

  /** The value of a queue that is gone must not reach the one that is made in its place. */
  retire(): void {
    this.#isRetired = true;
  }

  async #send(): Promise<void> {
    this.#isSending = true;
    try {
      do {
        this.#isStale = false;
        await this.#region.writeUInt32(this.#offset, this.#value);
      } while (this.#isStale && !this.#isRetired);
    } catch (error) {
      if (!this.#isRetired) this.#onError(error);
    } finally {
      this.#isSending = false;
    }
  }
}

/** Doorbell Buffer Config (NVM Express Base 2.0, section 5.8 and annex B.5). */
export class ShadowDoorbell implements Doorbell {
  readonly kind = 'shadow';
  readonly #shadow: Uint32Array;
  readonly #eventIndexes: Uint32Array;
  readonly #index: number;
  readonly #real: Doorbell;

  /** `index` is the doorbell's in both buffers, in dwords. */
  constructor(shadow: Uint32Array, eventIndexes: Uint32Array, index: number, real: Doorbell) {
    this.#shadow = shadow;
    this.#eventIndexes = eventIndexes;
    this.#index = index;
    this.#real = real;
    // A new queue begins at 0. The event index is the controller's once it has the queue: what it left there of the one
    // before it would have the first commands pass unnoticed.
    shadow[index] = eventIndexes[index] = 0;
  }

  retire(): void {
    this.#real.retire?.();
  }

  write(value: number): void {
    // In the page of doorbells: `DoorbellMap` has checked that.
    const old = this.#shadow[this.#index]!;
    // Both sequentially consistent: the controller sets its index and looks at the shadow again in the same way, so that
    // one of the two sees the other's store.
    Atomics.store(this.#shadow, this.#index, value);
    const eventIndex = Atomics.load(this.#eventIndexes, this.#index);
    if (passesEventIndex(eventIndex, value, old)) this.#real.write(value);
  }
}

/** Whether the way from `old` to `value` went past the index that the controller waits at, in 16 bits. */
export function passesEventIndex(eventIndex: number, value: number, old: number): boolean {
  return ((value - eventIndex - 1) & 0xffff) < ((value - old) & 0xffff);
}
