/**
 * A packed virtqueue (Virtual I/O Device 1.2, section 2.8): one ring of descriptors that both sides write, whose AVAIL and USED
 * bits say by the wrap counters whose each is.
 *
 * A buffer's id is its slot. Of what was added the first descriptor's flags are written last (`publish`): the device takes
 * descriptors in order, and sees none of them before.
 */
import { loadAcquire, passesEventIndex } from '../commands/shared-memory-order.js';
import type { DmaBuffer } from '../index.js';
import { DESC_BYTES, DESC_INDIRECT, DESC_NEXT } from './constants.js';
import { halvesOf, wordsOf, type DmaLayout } from './dma-layout.js';
import { IndirectTables } from './indirect-tables.js';
import {
  BROKEN,
  CHAIN_WORDS,
  NOTHING_USED,
  slotsOf,
  type Ring,
  type RingAddresses,
  type RingOptions,
} from './ring.js';

/** Of a descriptor's last word: the id below, the flags above. */
const FLAGS_SHIFT = 16;
const AVAIL = 1 << 7;
const USED = 1 << 15;
/** Event suppression structures (section 2.8.10), in 16-bit units. */
const EVENT_OFFSET = 0;
const EVENT_FLAGS = 1;
const EVENT_BYTES = 4;
const EVENTS_ENABLED = 0;
const EVENTS_DISABLED = 1;
const EVENTS_AT_OFFSET = 2;
const WRAP_SHIFT = 15;
const OFFSET_MASK = 0x7fff;
const NOTHING_16 = new Uint16Array(8);
const NOTHING_32 = new Uint32Array(8);

export interface PackedPlace {
  readonly descriptors: number;
  readonly driver: number;
  readonly device: number;
  readonly tables: number;
}

export class PackedRing implements Ring {
  readonly slots: number;
  readonly addresses: RingAddresses;
  readonly chains: Uint32Array;
  usedLength = 0;
  problem = '';
  readonly #size: number;
  readonly #maxDescriptors: number;
  readonly #hasEventIndex: boolean;
  readonly #tables: IndirectTables | undefined;
  /** How many entries of the ring each slot has taken. */
  readonly #entries: Uint16Array;
  #ring: Uint32Array;
  #driverEvent: Uint16Array;
  #deviceEvent: Uint16Array;
  /** Where the next descriptor goes, and the driver's wrap counter. */
  #at = 0;
  #wrap = 1;
  /** Entries that were added and not shown; where they begin, and what the first one's last word is to be. */
  #newCount = 0;
  #firstNew = 0;
  #firstWord = 0;
  /** Where the device's next used descriptor is, and its wrap counter. */
  #usedAt = 0;
  #usedWrap = 1;

  static reserve(layout: DmaLayout, options: RingOptions): PackedPlace {
    const { size, maxDescriptors, isIndirect } = options;
    return {
      descriptors: layout.take(size * DESC_BYTES, 4096),
      driver: layout.take(EVENT_BYTES, 4096),
      device: layout.take(EVENT_BYTES, 4096),
      tables: isIndirect ? IndirectTables.reserve(layout, slotsOf(options), maxDescriptors) : 0,
    };
  }

  /** `place` is what `reserve` gave. */
  constructor(buffer: DmaBuffer, place: PackedPlace, options: RingOptions) {
    const { size, maxDescriptors, isIndirect, hasEventIndex } = options;
    const { iova } = buffer;
    this.slots = slotsOf(options);
    this.#size = size;
    this.#maxDescriptors = maxDescriptors;
    this.#hasEventIndex = hasEventIndex;
    this.#entries = new Uint16Array(this.slots);
    this.chains = new Uint32Array(this.slots * maxDescriptors * CHAIN_WORDS);
    this.#ring = wordsOf(buffer, place.descriptors, size * DESC_BYTES);
    this.#driverEvent = halvesOf(buffer, place.driver, EVENT_BYTES);
    this.#deviceEvent = halvesOf(buffer, place.device, EVENT_BYTES);
    this.#tables = isIndirect
      ? new IndirectTables(buffer, place.tables, this.slots, maxDescriptors)
      : undefined;
    this.addresses = {
      descriptors: iova + BigInt(place.descriptors),
      driver: iova + BigInt(place.driver),
      device: iova + BigInt(place.device),
    };
  }

  get hasNew(): boolean {
    return this.#newCount > 0;
  }

  clear(): void {
    this.#at = this.#usedAt = this.#newCount = 0;
    this.#wrap = this.#usedWrap = 1;
    this.#ring.fill(0);
    this.#driverEvent.fill(0);
    this.#deviceEvent.fill(0);
  }

  detach(): void {
    this.#ring = NOTHING_32;
    this.#driverEvent = this.#deviceEvent = NOTHING_16;
    this.#usedAt = 0;
    this.#usedWrap = 1;
  }

  chainAt(slot: number): number {
    return slot * this.#maxDescriptors * CHAIN_WORDS;
  }

  add(slot: number, count: number): void {
    const { chains } = this;
    const tables = this.#tables;
    const from = this.chainAt(slot);
    if (tables !== undefined && count > 1) {
      const at = tables.at(slot);
      const { words } = tables;
      // In a table all descriptors are of the buffer, in their order; only WRITE says something (section 2.8.7).
      for (let i = 0; i < count; i++) {
        const source = from + i * CHAIN_WORDS;
        const target = at + (i << 2);
        words[target] = chains[source]!;
        words[target + 1] = chains[source + 1]!;
        words[target + 2] = chains[source + 2]!;
        words[target + 3] = chains[source + 3]! << FLAGS_SHIFT;
      }
      this.#put(tables.low(slot), tables.high(slot), count * DESC_BYTES, DESC_INDIRECT, slot);
      this.#entries[slot] = 1;
      return;
    }
    for (let i = 0; i < count; i++) {
      const source = from + i * CHAIN_WORDS;
      const flags = chains[source + 3]! | (i + 1 === count ? 0 : DESC_NEXT);
      this.#put(chains[source]!, chains[source + 1]!, chains[source + 2]!, flags, slot);
    }
    this.#entries[slot] = count;
  }

  publish(): boolean {
    const count = this.#newCount;
    this.#newCount = 0;
    // Sequentially consistent: what the device says of notifications is looked at after it can see the descriptor.
    Atomics.store(this.#ring, (this.#firstNew << 2) + 3, this.#firstWord);
    const flags = Atomics.load(this.#deviceEvent, EVENT_FLAGS);
    if (flags !== EVENTS_AT_OFFSET || !this.#hasEventIndex) return flags !== EVENTS_DISABLED;
    const event = this.#deviceEvent[EVENT_OFFSET]!;
    let offset = event & OFFSET_MASK;
    if (event >>> WRAP_SHIFT !== this.#wrap) offset -= this.#size;
    return passesEventIndex(offset, this.#at, this.#at - count);
  }

  next(): number {
    const word = loadAcquire(this.#ring, (this.#usedAt << 2) + 3);
    const flags = word >>> FLAGS_SHIFT;
    const wanted = this.#usedWrap === 1 ? AVAIL | USED : 0;
    if ((flags & (AVAIL | USED)) !== wanted) return NOTHING_USED;
    const slot = word & 0xffff;
    this.usedLength = this.#ring[(this.#usedAt << 2) + 2]!;
    if (slot < this.slots) return slot;
    this.problem = `a used descriptor has buffer id ${slot}, which no request has`;
    return BROKEN;
  }

  advance(slot: number): void {
    this.#usedAt += this.#entries[slot]!;
    if (this.#usedAt < this.#size) return;
    this.#usedAt -= this.#size;
    this.#usedWrap ^= 1;
  }

  disarm(): void {
    Atomics.store(this.#driverEvent, EVENT_FLAGS, EVENTS_DISABLED);
  }

  arm(): boolean {
    if (this.#hasEventIndex) {
      this.#driverEvent[EVENT_OFFSET] = this.#usedAt | (this.#usedWrap << WRAP_SHIFT);
      Atomics.store(this.#driverEvent, EVENT_FLAGS, EVENTS_AT_OFFSET);
    } else Atomics.store(this.#driverEvent, EVENT_FLAGS, EVENTS_ENABLED);
    const flags = Atomics.load(this.#ring, (this.#usedAt << 2) + 3) >>> FLAGS_SHIFT;
    return (flags & (AVAIL | USED)) === (this.#usedWrap === 1 ? AVAIL | USED : 0);
  }

  /** The next descriptor of the ring. */
  #put(low: number, high: number, length: number, flags: number, id: number): void {
    const ring = this.#ring;
    const at = this.#at << 2;
    const word = (((flags | (this.#wrap === 1 ? AVAIL : USED)) << FLAGS_SHIFT) | id) >>> 0;
    ring[at] = low;
    ring[at + 1] = high;
    ring[at + 2] = length;
    if (this.#newCount++ === 0) {
      this.#firstNew = this.#at;
      this.#firstWord = word;
    } else ring[at + 3] = word;
    if (++this.#at < this.#size) return;
    this.#at = 0;
    this.#wrap ^= 1;
  }
}
