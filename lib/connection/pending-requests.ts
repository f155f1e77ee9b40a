/** Who waits for what: slots by message id, and the ids given out. */
import { LinkedList } from './linked-list.js';
import { Slot, clearSlot } from './pending-request.js';

/** Calls use the lower half of the id space, posted writes the upper: some servers answer errors even to those. */
export const POSTED_ID_BASE = 0x8000;

/** Room for as many ids at first; a power of two, as it always is. */
const FIRST_PLACES = 8;
const KEPT_SLOTS = 256;

/**
 * A process may have a thousand connections, each of which calls now and then: what a call touches here is little, and lies
 * close together, since most of it has to be fetched from memory.
 */
export class SlotTable {
  /** The slot that was given an id while no other had one, as most are: it needs no place. */
  #alone: Slot | undefined;
  #taken = 0;
  #nextId = 0;
  /** Slots that no call uses, by `next`. Of this connection alone: a mistake with one must not reach another server's calls. */
  #spare: Slot | undefined;
  #spareCount = 0;
  /** Calls that somebody waits for, in their order. */
  readonly #waiting = new LinkedList<Slot>();
  /** The other slots by their ids modulo its length. Ids count up, passing over those whose place is taken. */
  #places = newPlaces(FIRST_PLACES);

  /** The slot that a reply's id names, if any call or tombstone has it. */
  get(id: number): Slot | undefined {
    if (this.#alone?.id === id) return this.#alone;
    const slot = this.#places[id & (this.#places.length - 1)];
    return slot?.id === id ? slot : undefined;
  }

  /** A slot for a new call, in the list of those that wait. */
  take(): Slot {
    const slot = this.#takeSpare() ?? new Slot();
    this.#waiting.push(slot);
    return slot;
  }

  /**
   * The id for the next call, which `adopt` follows, or nothing where there is none after all. It is used again after all
   * others: so a reply that is sent twice, or far too late, is seen to be one.
   */
  borrowId(): number {
    let id = this.#nextId;
    if (this.#taken > 0) {
      const places = this.#roomyPlaces();
      while (places[id & (places.length - 1)] !== undefined || this.#alone?.id === id) id = successor(id);
    }
    this.#nextId = successor(id);
    return id;
  }

  /** The slot has the id from now on, which was borrowed. */
  adopt(slot: Slot, id: number): void {
    slot.id = id;
    if (this.#taken === 0) this.#alone = slot;
    else this.#places[id & (this.#places.length - 1)] = slot;
    this.#taken++;
  }

  /** Nobody waits for the slot any more: it was given up, or its reply has come. */
  unlink(slot: Slot): void {
    this.#waiting.remove(slot);
  }

  /** The slot and its id may be used again. */
  release(slot: Slot): void {
    if (slot.id >= 0) {
      if (slot === this.#alone) this.#alone = undefined;
      else this.#places[slot.id & (this.#places.length - 1)] = undefined;
      this.#taken--;
    }
    clearSlot(slot);
    if (this.#spareCount === KEPT_SLOTS) return;
    slot.next = this.#spare;
    this.#spare = slot;
    this.#spareCount++;
  }

  /** The call that waits longest. */
  get first(): Slot | undefined {
    return this.#waiting.first;
  }

  /** Lets go of what no call uses: a burst is over. */
  trim(): void {
    this.#spare = undefined;
    this.#spareCount = 0;
    if (this.#taken === 0) this.#places = newPlaces(FIRST_PLACES);
  }

  #takeSpare(): Slot | undefined {
    const slot = this.#spare;
    if (slot === undefined) return undefined;
    this.#spare = slot.next;
    this.#spareCount--;
    slot.next = undefined;
    return slot;
  }

  /** Places of which half are free, unless there is one for each id: then more are than calls may be in flight. */
  #roomyPlaces(): (Slot | undefined)[] {
    const { length } = this.#places;
    if (this.#taken * 2 >= length && length < POSTED_ID_BASE) {
      const places = newPlaces(length * 2);
      for (const slot of this.#places) if (slot !== undefined) places[slot.id & (places.length - 1)] = slot;
      this.#places = places;
    }
    return this.#places;
  }
}

function newPlaces(length: number): (Slot | undefined)[] {
  return new Array<Slot | undefined>(length).fill(undefined);
}

function successor(id: number): number {
  return (id + 1) & (POSTED_ID_BASE - 1);
}
