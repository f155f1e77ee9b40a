/** Which request has which message id, and the ids given out. */
import { LinkedList } from './linked-list.js';
import type { PendingRequest } from './pending-request.js';

/** Calls use the lower half of the id space, posted writes the upper: some servers answer errors even to those. */
export const POSTED_ID_BASE = 0x8000;

/** Room for so many ids at first; a power of two, as it always is. */
const FIRST_PLACES = 8;

/** In the place of a request that was given up after it had been sent: its late reply is known by it. */
export class Tombstone {
  readonly id: number;

  constructor(id: number) {
    this.id = id;
  }
}

type Holder = PendingRequest | Tombstone;

/**
 * A process may have a thousand connections, each of which calls now and then: what a call touches here is little, and lies
 * close together, since most of it has to be fetched from memory.
 */
export class PendingRequests {
  /** Who was given an id while no other had one, as most are: that one needs no place. */
  #alone: Holder | undefined;
  #taken = 0;
  #nextId = 0;
  /** Calls that somebody waits for, in their order. */
  readonly #waiting = new LinkedList<PendingRequest>();
  /** The other holders by their ids modulo its length. Ids count up, passing over those whose place is taken. */
  #places = newPlaces(FIRST_PLACES);

  /** Who has the id. */
  get(id: number): Holder | undefined {
    if (this.#alone?.id === id) return this.#alone;
    const holder = this.#places[id & (this.#places.length - 1)];
    return holder?.id === id ? holder : undefined;
  }

  /** The call that waits longest. */
  get first(): PendingRequest | undefined {
    return this.#waiting.first;
  }

  /** Somebody waits for the request. */
  add(request: PendingRequest): void {
    this.#waiting.push(request);
  }

  /**
   * The id for the next request, which `give` follows, or nothing where there is none after all. It is used again after all
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

  /** The request has the id from now on, which was borrowed. */
  give(request: PendingRequest, id: number): void {
    request.id = id;
    if (this.#taken === 0) this.#alone = request;
    else this.#places[id & (this.#places.length - 1)] = request;
    this.#taken++;
  }

  /** Nobody waits for the request any more: its reply has come, or it was not sent. Its id, if any, is free. */
  remove(request: PendingRequest): void {
    this.#waiting.remove(request);
    if (request.id < 0) return;
    this.free(request);
    request.id = -1;
  }

  /** Nobody waits for the request any more, which was sent: its id stays taken until `free` of the tombstone. */
  bury(request: PendingRequest): void {
    this.#waiting.remove(request);
    const tombstone = new Tombstone(request.id);
    if (request === this.#alone) this.#alone = tombstone;
    else this.#places[request.id & (this.#places.length - 1)] = tombstone;
  }

  /** The holder's id may be used again. */
  free(holder: Holder): void {
    if (holder === this.#alone) this.#alone = undefined;
    else this.#places[holder.id & (this.#places.length - 1)] = undefined;
    this.#taken--;
  }

  /** Gives back what no id needs: a burst is over. */
  trim(): void {
    if (this.#taken === 0) this.#places = newPlaces(FIRST_PLACES);
  }

  /** Places of which half are free, unless there is one for each id: then there are more than calls may be in flight. */
  #roomyPlaces(): (Holder | undefined)[] {
    const { length } = this.#places;
    if (this.#taken * 2 >= length && length < POSTED_ID_BASE) {
      const places = newPlaces(length * 2);
      for (const holder of this.#places) {
        if (holder !== undefined) places[holder.id & (places.length - 1)] = holder;
      }
      this.#places = places;
    }
    return this.#places;
  }
}

function newPlaces(length: number): (Holder | undefined)[] {
  return new Array<Holder | undefined>(length).fill(undefined);
}

function successor(id: number): number {
  return (id + 1) & (POSTED_ID_BASE - 1);
}
