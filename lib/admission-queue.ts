/**
 * Who comes to a server, and in what order they are served. Nobody knows yet whether they are clients at all.
 *
 * ```
 *   come: silent ──has spoken──▶ waiting ── a place is free ──▶ inside ──▶ gone
 *            └── says nothing in time, or is in the way ──────────────────▲
 * ```
 * A place is taken by who has spoken: who says nothing keeps nobody out. Those that wait are served in the order in which
 * they spoke. Who has a place keeps it.
 */
import { TransportError, type VfioUserError } from './errors.js';
import { ETIMEDOUT } from './system-numbers.js';

/** Those that may be there without a place. */
const WAITING = 64;
/** With the room full, who has been silent for so long makes room, in milliseconds: clients speak at once. */
export const EVICTED_AFTER_MS = 250;

export interface WaitingClient {
  /** When it came: milliseconds of `performance.now`. */
  readonly since: number;
  /** It has not said yet what it wants. */
  readonly isSilent: boolean;
  readonly isInside: boolean;
  /** Takes a place; settles when it has left. */
  enter(): Promise<void>;
  /** Sends it away, without a word. */
  end(reason: VfioUserError): void;
}

export class AdmissionQueue<G extends WaitingClient> {
  /** How many are inside at the same time. */
  readonly places: number;
  readonly #onRoom: () => void;
  /** In the order in which they came. */
  readonly #guests = new Set<G>();
  readonly #waiting = new Set<G>();
  #inside = 0;
  #isClosed = false;

  /** `onRoom` is told when somebody has gone. */
  constructor(places: number, onRoom: () => void) {
    this.places = places;
    this.#onRoom = onRoom;
  }

  get size(): number {
    return this.#guests.size;
  }

  [Symbol.iterator](): Iterator<G> {
    return this.#guests[Symbol.iterator]();
  }

  /** Whether one more may come: where there is no room, who has been silent for the longest time goes. */
  hasRoom(): boolean {
    const hasRoom = this.#guests.size < this.places + WAITING || this.#makeRoom();
    // Who is sent away is told of, and whoever hears it may close.
    return hasRoom && !this.#isClosed;
  }

  add(guest: G): void {
    this.#guests.add(guest);
  }

  /** It is not silent any more. */
  onSpoken(guest: G): void {
    this.#waiting.add(guest);
    this.#fillPlaces();
  }

  forget(guest: G): void {
    this.#waiting.delete(guest);
    if (this.#guests.delete(guest) && !this.#isClosed) this.#onRoom();
  }

  /** Sends all away that have no place. */
  close(reason: VfioUserError): void {
    this.#isClosed = true;
    this.#waiting.clear();
    for (const guest of this.#guests) if (!guest.isInside) guest.end(reason);
  }

  #makeRoom(): boolean {
    const latest = performance.now() - EVICTED_AFTER_MS;
    for (const guest of this.#guests) {
      if (!guest.isSilent) continue;
      if (guest.since > latest) return false;
      const what = 'the client sent nothing while others were waiting';
      guest.end(new TransportError('recvmsg', ETIMEDOUT, what));
      return true;
    }
    return false;
  }

  #fillPlaces(): void {
    for (const guest of this.#waiting) {
      if (this.#isClosed || this.#inside >= this.places) return;
      this.#waiting.delete(guest);
      this.#inside++;
      void guest.enter().finally(() => {
        this.#inside--;
        this.forget(guest);
        this.#fillPlaces();
      });
    }
  }
}
