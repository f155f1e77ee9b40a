/**
 * The memory of requests, by slot: the header that the device reads, the tail that it writes (the status), and a page for short
 * data; and chunks for longer data. It is composed into chains here, without allocating anything.
 */
import type { DmaBuffer } from '../index.js';
import { DESC_WRITE } from './constants.js';
import { high, low, type DmaLayout } from './dma-layout.js';
import { CHAIN_WORDS, type Ring } from './ring.js';

/** Data that is no longer goes through the slot's own page. */
export const SHORT_BYTES = 4096;
const TWO_32 = 2 ** 32;

export interface RequestShape {
  /** 0 for none. */
  readonly headerBytes: number;
  /** 0 for none. */
  readonly tailBytes: number;
  /** The tail stands before data that the device writes; else behind all data. */
  readonly isTailFirst: boolean;
  /** The longest segment of data, and the most segments. */
  readonly segmentBytes: number;
  readonly maxSegments: number;
  /** The longest data of one request. */
  readonly maxTransferBytes: number;
}

export interface RequestPlace {
  readonly heads: number;
  readonly pages: number;
  readonly chunks: number;
  readonly chunkBytes: number;
  readonly chunkCount: number;
}

const CHUNKS = 8;

export class RequestMemory {
  readonly shape: RequestShape;
  /** All headers and tails: one byte of it is the status of a request. */
  readonly heads: Buffer;
  /** The same in words. */
  readonly headWords: Uint32Array;
  readonly #headStride: number;
  readonly #tailAt: number;
  readonly #buffer: DmaBuffer;
  readonly #place: RequestPlace;
  /** Addresses, low and high, as numbers: bigints cost more than the rest of a request. */
  readonly #headAddresses: Uint32Array;
  readonly #freeChunks: number[];

  static reserve(layout: DmaLayout, slots: number, shape: RequestShape): RequestPlace {
    const chunkBytes = Math.max(SHORT_BYTES, shape.maxTransferBytes);
    return {
      heads: layout.take(slots * headStride(shape), 64),
      pages: layout.take(slots * SHORT_BYTES, SHORT_BYTES),
      chunks: layout.take(CHUNKS * chunkBytes, SHORT_BYTES),
      chunkBytes,
      chunkCount: CHUNKS,
    };
  }

  /** `place` is what `reserve` gave. */
  constructor(buffer: DmaBuffer, place: RequestPlace, slots: number, shape: RequestShape) {
    const stride = headStride(shape);
    this.shape = shape;
    this.#headStride = stride;
    this.#tailAt = align(shape.headerBytes);
    this.#buffer = buffer;
    this.#place = place;
    this.heads = buffer.bytes.subarray(place.heads, place.heads + slots * stride);
    this.headWords = new Uint32Array(this.heads.buffer, this.heads.byteOffset, (slots * stride) >>> 2);
    this.#headAddresses = new Uint32Array(2 * slots);
    for (let slot = 0; slot < slots; slot++) {
      const address = buffer.iova + BigInt(place.heads + slot * stride);
      this.#headAddresses[2 * slot] = low(address);
      this.#headAddresses[2 * slot + 1] = high(address);
    }
    this.#freeChunks = Array.from({ length: place.chunkCount }, (_, i) => i);
  }

  /** The most descriptors of one request. */
  static maxDescriptors({ headerBytes, tailBytes, maxSegments }: RequestShape): number {
    return maxSegments + (headerBytes > 0 ? 1 : 0) + (tailBytes > 0 ? 1 : 0);
  }

  /** Where in `heads` the slot's header begins. */
  headerAt(slot: number): number {
    return slot * this.#headStride;
  }

  /** Where in `heads` the slot's tail begins. */
  tailAt(slot: number): number {
    return slot * this.#headStride + this.#tailAt;
  }

  takeChunk(): number {
    return this.#freeChunks.pop() ?? -1;
  }

  giveChunk(chunk: number): void {
    this.#freeChunks.push(chunk);
  }

  /** Memory for data that goes through the queue's own: the chunk, or without one the slot's page. */
  bounce(slot: number, chunk: number, length: number): Buffer {
    const at = this.#bounceAt(slot, chunk);
    return this.#buffer.bytes.subarray(at, at + length);
  }

  bounceAddress(slot: number, chunk: number): bigint {
    return this.#buffer.iova + BigInt(this.#bounceAt(slot, chunk));
  }

  /**
   * Composes the slot's chain: header, data, tail. Returns the number of descriptors. The header and the tail must be as the
   * device is to find them.
   */
  compose(
    ring: Ring,
    slot: number,
    dataLow: number,
    dataHigh: number,
    length: number,
    isToDevice: boolean,
  ): number {
    const { headerBytes, tailBytes, isTailFirst, segmentBytes } = this.shape;
    const { chains } = ring;
    const headLow = this.#headAddresses[2 * slot]!;
    const headHigh = this.#headAddresses[2 * slot + 1]!;
    // A header and its tail lie within 4 KiB, and the whole queue within one mapping that begins on 4 KiB.
    let at = ring.chainAt(slot);
    let count = 0;
    if (headerBytes > 0) {
      put(chains, at, headLow, headHigh, headerBytes, 0);
      at += CHAIN_WORDS;
      count++;
    }
    if (tailBytes > 0) count++;
    const isTailNow = tailBytes > 0 && isTailFirst && !isToDevice;
    if (isTailNow) {
      put(chains, at, headLow + this.#tailAt, headHigh, tailBytes, DESC_WRITE);
      at += CHAIN_WORDS;
    }
    const flags = isToDevice ? 0 : DESC_WRITE;
    for (let done = 0; done < length; done += segmentBytes) {
      const sum = dataLow + done;
      const carry = sum >= TWO_32 ? 1 : 0;
      put(chains, at, sum - carry * TWO_32, dataHigh + carry, Math.min(segmentBytes, length - done), flags);
      at += CHAIN_WORDS;
      count++;
    }
    if (tailBytes > 0 && !isTailNow) put(chains, at, headLow + this.#tailAt, headHigh, tailBytes, DESC_WRITE);
    return count;
  }

  #bounceAt(slot: number, chunk: number): number {
    const { pages, chunks, chunkBytes } = this.#place;
    return chunk < 0 ? pages + slot * SHORT_BYTES : chunks + chunk * chunkBytes;
  }
}

function put(words: Uint32Array, at: number, low: number, high: number, length: number, flags: number): void {
  words[at] = low;
  words[at + 1] = high;
  words[at + 2] = length;
  words[at + 3] = flags;
}

function align(bytes: number): number {
  return (bytes + 15) & ~15;
}

/** A power of two, so that none lies across a page. */
function headStride({ headerBytes, tailBytes }: RequestShape): number {
  const bytes = align(headerBytes) + align(tailBytes);
  return bytes === 0 ? 0 : 2 ** Math.ceil(Math.log2(bytes));
}
