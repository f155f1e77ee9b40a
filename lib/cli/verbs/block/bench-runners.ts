/** The two APIs that a bench can use: submit/poll, and promises. */
import type { DmaBuffer } from '../../../index.js';
import type { BenchDisk, BenchQueue } from './bench-disk.js';
import type { Meters } from './bench-meters.js';
import { isStamped, stamp, wrongAnswer, type Load } from './bench-workload.js';

/** A queue, and what is done to it. */
export interface Lane {
  readonly queue: BenchQueue;
  readonly disk: BenchDisk;
  readonly load: Load;
}

/** Keeps transfers under way in every lane. */
export interface Runner {
  /** Runs for that long, or until so many were completed; transfers stay under way at its end. The number that were. */
  run(ms: number, most: number): Promise<number>;
  /** Waits for what is under way. The number. */
  drain(): Promise<number>;
}

/** Says when the next transfer may begin. */
export class Pacer {
  readonly #perMs: number;
  readonly #begin = performance.now();
  #taken = 0;

  constructor(perSecond: number) {
    this.#perMs = perSecond / 1000;
  }

  /** Whether one may begin now. What was not used for a while is not made up for. */
  take(): boolean {
    const due = Math.floor((performance.now() - this.#begin) * this.#perMs) + 1;
    if (this.#taken >= due) return false;
    // Some milliseconds' worth may be behind.
    this.#taken = Math.max(this.#taken, due - Math.ceil(this.#perMs * 10) - 1) + 1;
    return true;
  }
}

export interface RunnerOptions {
  lanes: readonly Lane[];
  /** Transfers under way in each. */
  depth: number;
  meters: Meters;
  pacer: Pacer | undefined;
  /** Checks all that is read, and stamps what is written. */
  isChecked: boolean;
}

/** How often the loop turns, so that deadlines pass and the end of the connection is seen. */
const TURN_MS = 50;
/** Polls between two readings of the clock. */
const POLLS = 256;
/** Of a promise that waits for its turn. */
const PACE_MS = 1;

const turn = () => new Promise<void>(setImmediate);

/** What is under way in one lane. */
class PolledLane {
  readonly #lane: Lane;
  readonly #options: RunnerOptions;
  /** Of tag 0, among the tags of all lanes. */
  readonly #first: number;
  readonly #lbas: Float64Array;
  readonly #reads: Uint8Array;
  /** Tags that wait for their turn. */
  readonly #idle: number[] = [];

  constructor(lane: Lane, index: number, options: RunnerOptions) {
    this.#lane = lane;
    this.#options = options;
    this.#first = index * options.depth;
    this.#lbas = new Float64Array(options.depth);
    this.#reads = new Uint8Array(options.depth);
  }

  get inFlight(): number {
    return this.#lane.queue.inFlight;
  }

  start(): void {
    this.#idle.length = 0;
    for (let tag = 0; tag < this.#options.depth; tag++) this.#begin(tag);
    this.#lane.queue.ring();
  }

  /** Takes what is completed, and begins as many. */
  poll(): number {
    const { queue } = this.#lane;
    const count = queue.poll();
    for (let i = 0; i < count; i++) {
      const tag = queue.completedTags[i]!;
      this.#take(tag, queue.completedStatus[i]!);
      this.#begin(tag);
    }
    if (this.#idle.length > 0) this.#wake();
    if (count > 0 || this.#idle.length > 0) queue.ring();
    return count;
  }

  /** Takes what is completed. */
  take(): number {
    const { queue } = this.#lane;
    const count = queue.poll();
    for (let i = 0; i < count; i++) this.#take(queue.completedTags[i]!, queue.completedStatus[i]!);
    return count;
  }

  #wake(): void {
    while (this.#idle.length > 0 && this.#options.pacer?.take() !== false) this.#submit(this.#idle.pop()!);
  }

  #begin(tag: number): void {
    const { pacer } = this.#options;
    if (pacer === undefined || pacer.take()) this.#submit(tag);
    else this.#idle.push(tag);
  }

  #submit(tag: number): void {
    const { queue, disk, load } = this.#lane;
    const { meters, isChecked } = this.#options;
    const lba = load.next();
    const reads = load.nextReads();
    this.#lbas[tag] = lba;
    this.#reads[tag] = Number(reads);
    if (isChecked && !reads) stamp(queue.buffer(tag), lba, disk.blockSize);
    meters.begin(reads, this.#first + tag);
    const isTaken = reads
      ? queue.submitRead(lba, load.blocks, tag, tag)
      : queue.submitWrite(lba, load.blocks, tag, tag);
    if (!isTaken) throw new Error('the device is being reset');
  }

  #take(tag: number, status: number): void {
    const { queue, disk } = this.#lane;
    const { meters, isChecked } = this.#options;
    const reads = this.#reads[tag] === 1;
    meters.end(reads, this.#first + tag);
    if (status !== 0) throw new Error(`a transfer was completed with ${disk.statusName(status)}`);
    if (!isChecked || !reads) return;
    const lba = this.#lbas[tag]!;
    if (!isStamped(queue.buffer(tag), lba, disk.blockSize)) throw wrongAnswer(lba);
  }
}

export class PollRunner implements Runner {
  readonly #lanes: readonly PolledLane[];
  /** With messages for doorbells nothing is seen unless the loop turns. */
  readonly #sliceMs: number;
  #isStarted = false;

  constructor(options: RunnerOptions) {
    this.#lanes = options.lanes.map((lane, i) => new PolledLane(lane, i, options));
    this.#sliceMs = options.lanes.every(({ disk }) => disk.doorbell === 'mapped') ? TURN_MS : 0;
  }

  async run(ms: number, most: number): Promise<number> {
    const end = performance.now() + ms;
    if (!this.#isStarted) for (const lane of this.#lanes) lane.start();
    this.#isStarted = true;
    let count = 0;
    for (let now = performance.now(); now < end && count < most; now = performance.now()) {
      count += this.#slice(Math.min(end, now + this.#sliceMs), most - count);
      await turn();
    }
    return count;
  }

  async drain(): Promise<number> {
    let count = 0;
    while (this.#lanes.some(({ inFlight }) => inFlight > 0)) {
      let n = 0;
      for (const lane of this.#lanes) n += lane.take();
      count += n;
      if (n === 0) await turn();
    }
    this.#isStarted = false;
    return count;
  }

  /** Polls until `end`, at least once. */
  #slice(end: number, most: number): number {
    const polls = this.#sliceMs === 0 ? 1 : POLLS;
    let count = 0;
    do {
      for (let i = 0; i < polls; i++) for (const lane of this.#lanes) count += lane.poll();
    } while (performance.now() < end && count < most);
    return count;
  }
}

/** A buffer of a lane's, which has a transfer under way. */
interface Slot {
  readonly lane: Lane;
  readonly buffer: DmaBuffer;
}

export class PromiseRunner implements Runner {
  readonly #options: RunnerOptions;
  readonly #slots: readonly Slot[];
  #count = 0;
  #isStopped = true;
  #workers: Promise<void>[] = [];
  /** Whoever is in `run`: nothing is left behind on promises that last as long as the bench. */
  #waiting: { count: number; resolve: () => void; reject: (error: Error) => void } | undefined;
  /** Of the first worker that has failed. */
  #failure: Error | undefined;

  /** Buffers of the transfers' size, as many as are under way. */
  static async make(options: RunnerOptions): Promise<PromiseRunner> {
    const slots: Slot[] = [];
    for (const lane of options.lanes)
      for (let i = 0; i < options.depth; i++) {
        const size = lane.load.blocks * lane.disk.blockSize;
        slots.push({ lane, buffer: await lane.disk.device.dma.alloc(size) });
      }
    return new PromiseRunner(options, slots);
  }

  private constructor(options: RunnerOptions, slots: readonly Slot[]) {
    this.#options = options;
    this.#slots = slots;
  }

  async run(ms: number, most: number): Promise<number> {
    if (this.#isStopped) this.#start();
    const before = this.#count;
    let timer: NodeJS.Timeout | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        timer = setTimeout(resolve, ms);
        this.#waiting = { count: before + most, resolve, reject };
        if (this.#failure !== undefined) reject(this.#failure);
      });
    } finally {
      clearTimeout(timer);
      this.#waiting = undefined;
    }
    return this.#count - before;
  }

  async drain(): Promise<number> {
    const before = this.#count;
    this.#isStopped = true;
    await Promise.all(this.#workers);
    return this.#count - before;
  }

  /** Gives the buffers back. */
  async close(): Promise<void> {
    for (const { buffer } of this.#slots) await buffer.close();
  }

  #start(): void {
    this.#isStopped = false;
    this.#workers = this.#slots.map((slot, tag) => this.#work(slot, tag));
    for (const worker of this.#workers) worker.catch((error: Error) => this.#failed(error));
  }

  #failed(error: Error): void {
    this.#failure ??= error;
    this.#waiting?.reject(error);
  }

  async #work({ lane, buffer }: Slot, tag: number): Promise<void> {
    const { meters, pacer, isChecked } = this.#options;
    const { queue, disk, load } = lane;
    const { blockSize } = disk;
    const { bytes } = buffer;
    while (!this.#isStopped) {
      if (pacer !== undefined && !pacer.take()) {
        await new Promise((resolve) => setTimeout(resolve, PACE_MS));
        continue;
      }
      const lba = load.next();
      const reads = load.nextReads();
      if (isChecked && !reads) stamp(bytes, lba, blockSize);
      meters.begin(reads, tag);
      if (reads) await queue.readInto(lba, buffer);
      else await queue.write(lba, buffer);
      meters.end(reads, tag);
      if (++this.#count >= (this.#waiting?.count ?? Infinity)) this.#waiting?.resolve();
      if (isChecked && reads && !isStamped(bytes, lba, blockSize)) throw wrongAnswer(lba);
    }
  }
}
