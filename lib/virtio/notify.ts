/**
 * How a device is told of new requests (Virtual I/O Device 1.2, section 4.1.5.2): the queue's number is written to the
 * queue's register, by a store where the register can be mapped and by message elsewhere.
 */
import { LatestWrite } from '../commands/latest-write.js';
import type { MappedArea, Region } from '../index.js';

/** `mapped`: a store into the device's memory; `message`: a REGION_WRITE. */
export type NotifierKind = 'mapped' | 'message';

export interface Notifier {
  readonly kind: NotifierKind;
  /** Tells the device. What was stored before is visible to it when the write is. */
  notify(): void;
  /** The queue is about to be gone: errors of what was written are not told of. */
  retire(): void;
}

export class MappedNotifier implements Notifier {
  readonly kind = 'mapped';
  readonly #words: Uint16Array;
  readonly #queue: number;

  /** `offset` is the register's in the area. */
  constructor(area: MappedArea, offset: number, queue: number) {
    const { buffer, byteOffset } = area.bytes;
    this.#words = new Uint16Array(buffer, byteOffset + offset, 1);
    this.#queue = queue;
  }

  notify(): void {
    Atomics.store(this.#words, 0, this.#queue);
  }

  retire(): void {}
}

export class MessageNotifier implements Notifier {
  readonly kind = 'message';
  readonly #write: LatestWrite;

  /** `onError` hears of a write that failed: the device may not know of requests then. */
  constructor(region: Region, offset: number, queue: number, onError: (error: unknown) => void) {
    this.#write = new LatestWrite(() => region.writeUInt16(offset, queue), onError);
  }

  notify(): void {
    this.#write.request();
  }

  retire(): void {
    this.#write.retire();
  }
}
