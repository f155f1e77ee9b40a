/** The requests of a queue that are in flight, and the queue's memory that they have. */
import { CommandsInFlight } from '../commands/commands-in-flight.js';
import { SHORT_BYTES, type RequestMemory } from './request-memory.js';
import type { VirtioRequest } from './request.js';
import type { Virtqueue } from './virtqueue.js';

/** What a tail is filled with before the device has written it: no status has this value. */
export const UNWRITTEN = 0xff;

/** The error for a status that is not 0. */
export type StatusError = (request: VirtioRequest, status: number, slot: number) => Error;

/** Looks at a request that has status 0 once more, before what was read is given to the caller. An error that the caller gets. */
export type RequestCheck = (request: VirtioRequest, usedLength: number) => Error | undefined;

export class RequestsInFlight extends CommandsInFlight<VirtioRequest> {
  readonly #queue: Virtqueue;
  readonly #memory: RequestMemory;
  readonly #statusError: StatusError;
  readonly #check: RequestCheck;
  /** Of each slot how many bytes of data the device is to write. */
  readonly #expected: Uint32Array;

  constructor(
    queue: Virtqueue,
    memory: RequestMemory,
    expected: Uint32Array,
    statusError: StatusError,
    check: RequestCheck = () => undefined,
  ) {
    super(queue);
    this.#queue = queue;
    this.#memory = memory;
    this.#expected = expected;
    this.#statusError = statusError;
    this.#check = check;
  }

  override outcome(request: VirtioRequest, status: number, usedLength: number): unknown {
    if (status !== 0) return this.#statusError(request, status, request.slot);
    const problem = this.#check(request, usedLength);
    if (problem !== undefined) return problem;
    const { bytes, length } = request;
    if (bytes === undefined || request.isToDevice) return undefined;
    try {
      request.check();
      bytes.set(this.#memory.bounce(request.slot, request.chunk, length));
      return undefined;
    } catch (error) {
      return error;
    }
  }

  protected override takeMemory(request: VirtioRequest): boolean {
    if (request.bytes === undefined || request.length <= SHORT_BYTES) return true;
    request.chunk = this.#memory.takeChunk();
    return request.chunk >= 0;
  }

  protected override giveMemory(request: VirtioRequest): void {
    if (request.chunk < 0) return;
    this.#memory.giveChunk(request.chunk);
    request.chunk = -1;
  }

  protected override compose(request: VirtioRequest, slot: number): void {
    const memory = this.#memory;
    const { header, bytes, length, isToDevice, chunk } = request;
    const { heads, shape } = memory;
    heads.set(header, memory.headerAt(slot));
    const tail = memory.tailAt(slot);
    heads.fill(UNWRITTEN, tail, tail + shape.tailBytes);
    if (bytes !== undefined && length > 0) {
      if (isToDevice) memory.bounce(slot, chunk, length).set(bytes);
      const address = memory.bounceAddress(slot, chunk);
      request.low = Number(address & 0xffff_ffffn);
      request.high = Number(address >> 32n);
    }
    const count = memory.compose(this.#queue.rings, slot, request.low, request.high, length, isToDevice);
    this.#expected[slot] = isToDevice ? 0 : length;
    this.#queue.add(slot, count, shape.tailBytes + (isToDevice ? 0 : length));
  }
}
