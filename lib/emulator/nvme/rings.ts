/** The queues of the controller, as it sees them (section 3.3.1). */
import { Fifo } from '../../fifo.js';
import { CQE_BYTES, SQE_BYTES } from './constants.js';

/** A completion before it has a place in the ring. */
export interface Completion {
  sq: SubmissionRing;
  cid: number;
  status: number;
  result: number;
}

export class CompletionRing {
  readonly id: number;
  readonly address: bigint;
  readonly size: number;
  /** The interrupt vector; undefined where interrupts are off. */
  readonly vector: number | undefined;
  /** Submission queues that complete here. */
  users = 0;
  /** What found the ring full. */
  readonly waiting = new Fifo<Completion>();
  head = 0;
  tail = 0;
  phase = 1;

  constructor(id: number, address: bigint, size: number, vector: number | undefined) {
    this.id = id;
    this.address = address;
    this.size = size;
    this.vector = vector;
  }

  get isFull(): boolean {
    return (this.tail + 1) % this.size === this.head;
  }

  /** Takes the next place: its address and phase tag. */
  advance(): { address: bigint; phase: number } {
    const place = { address: this.address + BigInt(this.tail * CQE_BYTES), phase: this.phase };
    this.tail = (this.tail + 1) % this.size;
    if (this.tail === 0) this.phase ^= 1;
    return place;
  }
}

/** A command that was fetched and is not completed. */
export interface Outstanding {
  /** Ends it before it is carried out; undefined where it is too late for that. */
  cancel: (() => void) | undefined;
}

export class SubmissionRing {
  readonly id: number;
  readonly address: bigint;
  readonly size: number;
  readonly cq: CompletionRing;
  readonly outstanding = new Map<number, Outstanding>();
  /** Commands that are being carried out. */
  running = 0;
  head = 0;
  /** Somebody is fetching; and is to look again. */
  isServed = false;
  isStale = false;
  isDeleted = false;

  constructor(id: number, address: bigint, size: number, cq: CompletionRing) {
    this.id = id;
    this.address = address;
    this.size = size;
    this.cq = cq;
  }

  /** Where entry `index` is. */
  addressOf(index: number): bigint {
    return this.address + BigInt(index * SQE_BYTES);
  }
}
