/** Faults on purpose, in the requests of a virtio device. */
import { integer } from '../../fields.js';

/** A request as it was taken. */
export interface VirtioInterceptedRequest {
  /** Which request it is since the device was made, counted from 1, of all queues. */
  readonly number: number;
  /** The virtqueue. */
  readonly queue: number;
  /** By which the driver knows it: the head of its chain, or the buffer id of a packed queue. */
  readonly id: number;
  /** The first 32 bits of what the device reads, where it reads as much: the type of a block request. */
  readonly type: number | undefined;
}

/** A used element as no device should write it. */
export interface VirtioUsedFault {
  /** By default the request's own. */
  id?: number;
  /** Bytes that were written; by default as many as were. */
  length?: number;
}

/**
 * What becomes of a request:
 * - `'pass'`, or nothing: it is carried out and given back;
 * - `'lose'`: it is carried out, but never given back;
 * - `'hold'`: it is not carried out, and never given back;
 * - `'silent'`: it is not carried out, and given back without anything written, its status neither;
 * - `{ status }`: it is not carried out, and given back with this status; empty where the device's requests have none;
 * - `{ delayMs }`: it is carried out later;
 * - `{ used }`: it is carried out, and given back by these elements, whichever they are;
 * - `{ jump }`: it is carried out and given back, and the used index goes on by so many elements that nobody wrote;
 * - `'scribble'`: it is carried out and given back, and its descriptors are changed afterwards.
 */
export type VirtioVerdict =
  | 'pass'
  | 'lose'
  | 'hold'
  | 'silent'
  | 'scribble'
  | { status: number }
  | { delayMs: number }
  | { used: readonly VirtioUsedFault[] }
  | { jump: number };

/** Sees every request of every queue, before it is carried out. */
export type VirtioIntercept = (request: VirtioInterceptedRequest) => VirtioVerdict | void;

/** The verdict for the `n`-th request from now on, counted from 1, of that type or of any. */
export function onNthRequest(n: number, verdict: VirtioVerdict, type?: number): VirtioIntercept {
  integer('onNthRequest: n', n, 1, Number.MAX_SAFE_INTEGER);
  let count = 0;
  return (request) => {
    if (type !== undefined && request.type !== type) return 'pass';
    return ++count === n ? verdict : 'pass';
  };
}
