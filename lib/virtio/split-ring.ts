/**
 * A split virtqueue (Virtual I/O Device 1.2, section 2.7): descriptors, the available ring and the used ring.
 *
 * ```
 *   add() ──▶ descriptors and an entry of the available ring ──▶ publish() stores its index ──▶ the device
 *   next(), advance() ◀── entries of the used ring, up to its index
 * ```
 * A slot is one entry of the descriptor table where there are indirect descriptors, and otherwise `maxDescriptors` of them.
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

/** Of the available ring and the used ring, in 16-bit units. */
const FLAGS = 0;
const INDEX = 1;
const AVAILABLE_RING = 2;
/** The used ring's elements, in 32-bit units. */
const USED_RING = 1;
const NO_INTERRUPT = 1;
const NO_NOTIFY = 1;
const NOTHING_16 = new Uint16Array(8);
const NOTHING_32 = new Uint32Array(8);

export interface SplitPlace {
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
  readonly tables: number;
}

export class SplitRing implements Ring {
  readonly slots: number;
  readonly addresses: RingAddresses;
  readonly chains: Uint32Array;
  usedLength = 0;
  problem = '';
  readonly #size: number;
  readonly #mask: number;
  readonly #maxDescriptors: number;
  readonly #hasEventIndex: boolean;
  readonly #tables: IndirectTables | undefined;
  /** Descriptors of the table that a slot has. */
  readonly #each: number;
  #descriptors: Uint32Array;
  #available: Uint16Array;
  #usedHalves: Uint16Array;
  #usedWords: Uint32Array;
  /** Indexes of 16 bits: what was added, what the device was shown of it, what was taken of the used ring. */
  #added = 0;
  #shown = 0;
  #taken = 0;

  static reserve(layout: DmaLayout, options: RingOptions): SplitPlace {
    const { size, maxDescriptors, isIndirect } = options;
    return {
      descriptors: layout.take(size * DESC_BYTES, 4096),
      available: layout.take(6 + 2 * size, 4096),
      used: layout.take(8 + 8 * size, 4096),
      tables: isIndirect ? IndirectTables.reserve(layout, slotsOf(options), maxDescriptors) : 0,
    };
  }

  /** `place` is what `reserve` gave. */
  constructor(buffer: DmaBuffer, place: SplitPlace, options: RingOptions) {
    const { size, maxDescriptors, isIndirect, hasEventIndex } = options;
    const { iova } = buffer;
    this.slots = slotsOf(options);
    this.#size = size;
    this.#mask = size - 1;
    this.#maxDescriptors = maxDescriptors;
    this.#hasEventIndex = hasEventIndex;
    this.#each = isIndirect ? 1 : maxDescriptors;
    this.chains = new Uint32Array(this.slots * maxDescriptors * CHAIN_WORDS);
    this.#descriptors = wordsOf(buffer, place.descriptors, size * DESC_BYTES);
    this.#available = halvesOf(buffer, place.available, 6 + 2 * size);
    this.#usedHalves = halvesOf(buffer, place.used, 8 + 8 * size);
    this.#usedWords = wordsOf(buffer, place.used, 8 + 8 * size);
    this.#tables = isIndirect
      ? new IndirectTables(buffer, place.tables, this.slots, maxDescriptors)
      : undefined;
    this.addresses = {
      descriptors: iova + BigInt(place.descriptors),
      driver: iova + BigInt(place.available),
      device: iova + BigInt(place.used),
    };
  }

  get hasNew(): boolean {
    return this.#added !== this.#shown;
  }

  clear(): void {
    this.#added = this.#shown = this.#taken = 0;
    this.#descriptors.fill(0);
    this.#available.fill(0);
    this.#usedWords.fill(0);
  }

  detach(): void {
    this.#descriptors = NOTHING_32;
    this.#available = this.#usedHalves = NOTHING_16;
    this.#usedWords = NOTHING_32;
    this.#taken = 0;
  }

  chainAt(slot: number): number {
    return slot * this.#maxDescriptors * CHAIN_WORDS;
  }

  add(slot: number, count: number): void {
    const head = slot * this.#each;
    const tables = this.#tables;
    const from = this.chainAt(slot);
    if (tables === undefined || count === 1) this.#write(this.#descriptors, head, from, count, head);
    else {
      const at = tables.at(slot);
      this.#write(tables.words, at >>> 2, from, count, 0);
      const descriptors = this.#descriptors;
      const entry = head << 2;
      descriptors[entry] = tables.low(slot);
      descriptors[entry + 1] = tables.high(slot);
      descriptors[entry + 2] = count * DESC_BYTES;
      descriptors[entry + 3] = DESC_INDIRECT;
    }
    this.#available[AVAILABLE_RING + (this.#added & this.#mask)] = head;
    this.#added = (this.#added + 1) & 0xffff;
  }

  publish(): boolean {
    const old = this.#shown;
    const added = this.#added;
    // Sequentially consistent: what the device says of notifications is looked at after it can see the index.
    Atomics.store(this.#available, INDEX, added);
    this.#shown = added;
    if (!this.#hasEventIndex) return (Atomics.load(this.#usedHalves, FLAGS) & NO_NOTIFY) === 0;
    // avail_event stands behind the used ring's elements.
    return passesEventIndex(Atomics.load(this.#usedHalves, 2 + 4 * this.#size), added, old);
  }

  next(): number {
    const index = loadAcquire(this.#usedHalves, INDEX);
    const taken = this.#taken;
    if (index === taken) return NOTHING_USED;
    const outstanding = (this.#shown - taken) & 0xffff;
    const claimed = (index - taken) & 0xffff;
    if (claimed > outstanding)
      return this.#broken(
        `the used index ${index} is ${claimed} past what was taken, of ${outstanding} requests`,
      );
    const at = USED_RING + ((taken & this.#mask) << 1);
    const id = this.#usedWords[at]!;
    this.usedLength = this.#usedWords[at + 1]!;
    const slot = this.#each === 1 ? id : id / this.#each;
    if (slot < this.slots && Number.isInteger(slot)) return slot;
    return this.#broken(`a used element names descriptor ${id}, at which no request begins`);
  }

  advance(): void {
    this.#taken = (this.#taken + 1) & 0xffff;
  }

  disarm(): void {
    this.#available[FLAGS] = NO_INTERRUPT;
    // As far away as it can be: the device passes it once in 65,536 requests.
    if (this.#hasEventIndex) this.#available[AVAILABLE_RING + this.#size] = (this.#taken - 1) & 0xffff;
  }

  arm(): boolean {
    if (this.#hasEventIndex) Atomics.store(this.#available, AVAILABLE_RING + this.#size, this.#taken);
    else Atomics.store(this.#available, FLAGS, 0);
    return Atomics.load(this.#usedHalves, INDEX) !== this.#taken;
  }

  /** Writes a chain from entry `to` on of a table, in which it begins at `base`. */
  #write(table: Uint32Array, to: number, from: number, count: number, base: number): void {
    const { chains } = this;
    for (let i = 0; i < count; i++) {
      const source = from + i * CHAIN_WORDS;
      const target = (to + i) << 2;
      table[target] = chains[source]!;
      table[target + 1] = chains[source + 1]!;
      table[target + 2] = chains[source + 2]!;
      const flags = chains[source + 3]!;
      table[target + 3] = i + 1 === count ? flags : flags | DESC_NEXT | ((base + i + 1) << 16);
    }
  }

  #broken(problem: string): typeof BROKEN {
    this.problem = problem;
    return BROKEN;
  }
}
