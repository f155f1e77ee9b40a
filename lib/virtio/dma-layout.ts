/** How one DMA buffer is divided: a device may want each part of a queue in one mapping. */
import { roundUp } from '../commands/driver-memory.js';
import type { DmaBuffer } from '../index.js';

export class DmaLayout {
  #size = 0;

  /** Bytes that were taken so far. */
  get size(): number {
    return this.#size;
  }

  /** Takes `bytes`, and gives where they begin. */
  take(bytes: number, alignment: number): number {
    const at = roundUp(this.#size, alignment);
    this.#size = at + bytes;
    return at;
  }
}

export function wordsOf(buffer: DmaBuffer, at: number, bytes: number): Uint32Array {
  return new Uint32Array(buffer.bytes.buffer, buffer.bytes.byteOffset + at, bytes >>> 2);
}

export function halvesOf(buffer: DmaBuffer, at: number, bytes: number): Uint16Array {
  return new Uint16Array(buffer.bytes.buffer, buffer.bytes.byteOffset + at, bytes >>> 1);
}

export function low(address: bigint): number {
  return Number(address & 0xffff_ffffn);
}

export function high(address: bigint): number {
  return Number(address >> 32n);
}
