/** The two APIs that a bench can use: submit/poll, and promises. */
import type { Device, DmaBuffer } from '../../../index.js';
import { decodeStatus, type NvmeQueue } from '../../../nvme/index.js';
import type { LatencySampler } from '../../latency.js';
import { isStamped, stamp, wrongAnswer, type Load } from './bench-workload.js';

/** Keeps `depth` transfers under way. */
export interface Runner {
  /** Runs for that long; transfers stay under way at its end. The number that were completed. */
  run(ms: number): Promise<number>;
  /** Waits for what is under way. The number. */
  drain(): Promise<number>;
}

export interface RunnerOptions {
  queue: NvmeQueue;
  load: Load;
  depth: number;
  latency: LatencySampler;
  /** Checks all that is read, and stamps what is written. */
  isChecked: boolean;
}

/** How often the loop turns, so that deadlines pass and the end of the connection is seen. */
const TURN_MS = 50;
/** Polls between two readings of the clock. */
const POLLS = 256;

const turn = () => new Promise<void>(setImmediate);

export class PollRunner implements Runner {
  readonly #options: RunnerOptions;
  readonly #lbas: Float64Array;
  /** With messages for doorbells nothing is seen unless the loop turns. */
  readonly #sliceMs: number;
  #isStarted = false;

  constructor(options: RunnerOptions) {
    this.#options = options;
    this.#lbas = new Float64Array(options.depth);
    this.#sliceMs = options.queue.doorbell === 'mapped' ? TURN_MS : 0;
  }

  async run(ms: number): Promise<number> {
    const end = performance.now() + ms;
    if (!this.#isStarted) this.#start();
    this.#isStarted = true;
    let count = 0;
    for (let now = performance.now(); now < end; now = performance.now()) {
      count += this.#slice(Math.min(end, now + this.#sliceMs));
      await turn();
    }
    return count;
  }

  async drain(): Promise<number> {
    const { queue } = this.#options;
    let count = 0;
    while (queue.inFlight > 0) {
      const n = queue.poll();
      for (let i = 0; i < n; i++) this.#take(queue.completedTags[i]!, queue.completedStatus[i]!);
      count += n;
      if (n === 0) await turn();
    }
    this.#isStarted = false;
    return count;
  }

  #start(): void {
    for (let tag = 0; tag < this.#options.depth; tag++) this.#submit(tag);
    this.#options.queue.ring();
  }

  /** Polls until `end`, at least once. */
  #slice(end: number): number {
    const { queue } = this.#options;
    const { completedTags, completedStatus } = queue;
    const polls = this.#sliceMs === 0 ? 1 : POLLS;
    let count = 0;
    do {
      for (let i = 0; i < polls; i++) {
        const n = queue.poll();
        if (n === 0) continue;
        for (let j = 0; j < n; j++) {
          const tag = completedTags[j]!;
          this.#take(tag, completedStatus[j]!);
          this.#submit(tag);
        }
        queue.ring();
        count += n;
      }
    } while (performance.now() < end);
    return count;
  }

  #submit(tag: number): void {
    const { queue, load, latency, isChecked } = this.#options;
    const lba = load.next();
    this.#lbas[tag] = lba;
    if (isChecked && !load.isRead) stamp(queue.buffer(tag), lba, queue.namespace.blockSize);
    latency.begin(tag);
    const isTaken = load.isRead
      ? queue.submitRead(lba, load.blocks, tag, tag)
      : queue.submitWrite(lba, load.blocks, tag, tag);
    if (!isTaken) throw new Error('the controller is being reset');
  }

  #take(tag: number, status: number): void {
    const { queue, load, latency, isChecked } = this.#options;
    latency.end(tag);
    if (status !== 0) throw new Error(`a transfer was completed with ${decodeStatus(status).name}`);
    if (!isChecked || !load.isRead) return;
    const lba = this.#lbas[tag]!;
    if (!isStamped(queue.buffer(tag), lba, queue.namespace.blockSize)) throw wrongAnswer(lba);
  }
}

export class PromiseRunner implements Runner {
  readonly #options: RunnerOptions;
  readonly #buffers: readonly DmaBuffer[];
  #count = 0;
  #isStopped = true;
  #workers: Promise<void>[] = [];

  /** Buffers of the transfers' size, as many as are under way. */
  static async make(device: Device, options: RunnerOptions): Promise<PromiseRunner> {
    const { depth, load, queue } = options;
    const buffers: DmaBuffer[] = [];
    for (let i = 0; i < depth; i++)
      buffers.push(await device.dma.alloc(load.blocks * queue.namespace.blockSize));
    return new PromiseRunner(options, buffers);
  }

  private constructor(options: RunnerOptions, buffers: readonly DmaBuffer[]) {
    this.#options = options;
    this.#buffers = buffers;
  }

  async run(ms: number): Promise<number> {
    if (this.#isStopped) this.#start();
    const before = this.#count;
    let timer: NodeJS.Timeout | undefined;
    const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
    // A worker that ends early has failed.
    await Promise.race([over, ...this.#workers]);
    clearTimeout(timer);
    return this.#count - before;
  }

  async drain(): Promise<number> {
    const before = this.#count;
    this.#isStopped = true;
    await Promise.all(this.#workers);
    return this.#count - before;
  }

  #start(): void {
    this.#isStopped = false;
    this.#workers = this.#buffers.map((buffer, tag) => this.#work(buffer, tag));
    for (const worker of this.#workers) worker.catch(() => undefined);
  }

  async #work(buffer: DmaBuffer, tag: number): Promise<void> {
    const { queue, load, latency, isChecked } = this.#options;
    const { blockSize } = queue.namespace;
    const { bytes } = buffer;
    while (!this.#isStopped) {
      const lba = load.next();
      if (isChecked && !load.isRead) stamp(bytes, lba, blockSize);
      latency.begin(tag);
      if (load.isRead) await queue.readInto(lba, buffer);
      else await queue.write(lba, buffer);
      latency.end(tag);
      this.#count++;
      if (isChecked && load.isRead && !isStamped(bytes, lba, blockSize)) throw wrongAnswer(lba);
    }
  }
}
