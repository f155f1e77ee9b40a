/** The data of a transfer of blocks, and how it is cut into requests. */
import { wrongType } from '../fields.js';
import { ClosedError, DmaBuffer, type CallOptions } from '../index.js';
import type { BlkData } from './blk-options.js';
import type { VirtioRequest } from './request.js';

/** What is left of a call's options when its own were taken out. */
export function callOptions(options: CallOptions | undefined): CallOptions | undefined {
  return options === undefined ? undefined : { timeoutMs: options.timeoutMs, signal: options.signal };
}

/** Requests for `total` blocks, of at most `most` each. */
export function* partsOf(
  total: number,
  most: number,
  make: (at: number, count: number) => VirtioRequest,
): Generator<VirtioRequest, void> {
  for (let at = 0; at < total; at += most) yield make(at, Math.min(most, total - at));
}

export function sizeOf(data: BlkData): number {
  if (data instanceof DmaBuffer) {
    if (data.isClosed) throw new ClosedError('the DMA buffer is closed');
    return data.size;
  }
  if (data instanceof Uint8Array) return data.length;
  throw wrongType('data', 'a Buffer, a Uint8Array or a DmaBuffer', data);
}

/** `length` bytes of the caller's from `from` on. @throws TypeError where the array was transferred or resized meanwhile. */
export function bytesOf(name: string, data: Uint8Array, from: number, length: number): Uint8Array {
  if (from === 0 && data.length === length) return data;
  if (from + length <= data.length) return data.subarray(from, from + length);
  throw new TypeError(
    `${name}: [${from}, ${from + length}) is out of bounds (the array has ${data.length} bytes): it was transferred or resized`,
  );
}
