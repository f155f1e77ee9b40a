/** Whoever uses a queue of the model: calls that give promises, and the submit/poll calls. */
import type { DmaBuffer } from '../../../lib/index.js';
import { decodeStatus, NvmeStatusError, type NvmeQueue } from '../../../lib/nvme/index.js';
import type { Disk } from './disk.js';
import { blocksOf, type BlockWrite } from './history.js';
import type { IoStep, SubmitStep } from './steps.js';
import type { Session, World } from './world.js';

const MOST_DATA_BYTES = 512 << 10;
const BUFFERS = 4;

/** A command that was submitted, and not reported. */
interface Submitted {
  what: SubmitStep['what'];
  lba: number;
  blocks: number;
  buffer: number;
  begin: number;
  write: BlockWrite | undefined;
}

export class QueueUser {
  readonly queue: NvmeQueue;
  readonly disk: Disk;
  readonly name: string;
  readonly #world: World;
  readonly #session: Session;
  readonly #submitted = new Map<number, Submitted>();
  readonly #free: number[];
  isClosed = false;
  /** `poll` has said that it was all. */
  #isOver = false;

  constructor(world: World, session: Session, queue: NvmeQueue, disk: Disk, name: string) {
    this.#world = world;
    this.#session = session;
    this.queue = queue;
    this.disk = disk;
    this.name = name;
    this.#free = Array.from({ length: queue.bufferCount }, (_, i) => i);
  }

  static readonly buffers = { count: BUFFERS, bytes: 8192 };

  call(step: IoStep): void {
    const { queue } = this;
    const { lba, blocks } = this.#blocks(step, step.what === 'write zeroes' || step.what === 'deallocate');
    const label = `${this.name}: ${step.what} [${lba}, ${lba + blocks})`;
    const abort = step.isAbortable ? new AbortController() : undefined;
    const options = { timeoutMs: step.timeoutMs, signal: abort?.signal };
    const { blockSize } = this.disk;
    const make = { label, abort, session: this.#session };
    switch (step.what) {
      case 'read': {
        const begin = this.#world.now();
        void this.#world.call({
          ...make,
          promise: queue.read(lba, blocks, options),
          onValue: (bytes) => this.#checkRead(label, lba, bytes, begin),
        });
        break;
      }
      case 'read into':
        if (step.isDirect)
          this.#direct(make, blocks * blockSize, (buffer) => this.#readInto(lba, buffer, options));
        else {
          const array = Buffer.alloc(blocks * blockSize, 0xee);
          void this.#world.call({ ...make, array, promise: this.#readInto(lba, array, options) });
        }
        break;
      case 'write': {
        const stamp = this.#world.stamp();
        const data = blocksOf(stamp, lba, blocks, blockSize);
        if (!step.isDirect) {
          void this.#world.call({
            ...make,
            array: data,
            ...this.#writing(stamp, lba, blocks, () => queue.write(lba, data, options)),
          });
          break;
        }
        this.#direct(make, data.length, async (buffer) => {
          data.copy(buffer.bytes);
          const { promise, onValue, onError } = this.#writing(stamp, lba, blocks, () =>
            queue.write(lba, buffer, options),
          );
          await promise.then(onValue, (error: unknown) => {
            onError(error);
            throw error;
          });
        });
        break;
      }
      case 'compare': {
        const begin = this.#world.now();
        const data = this.disk.store.look(lba * blockSize, blocks * blockSize);
        const theirs = Buffer.from(data);
        void this.#world.call({
          ...make,
          promise: queue.compare(lba, theirs, options),
          onValue: () => this.#checkRead(label, lba, data, begin),
        });
        break;
      }
      case 'write zeroes':
        void this.#world.call({
          ...make,
          ...this.#writing(0, lba, blocks, () => queue.writeZeroes(lba, blocks, options)),
        });
        break;
      case 'deallocate': {
        const half = Math.ceil(blocks / 2);
        const ranges = [
          { lba, blocks: half },
          { lba: lba + half, blocks: blocks - half },
        ].filter((range) => range.blocks > 0);
        void this.#world.call({
          ...make,
          ...this.#writing(0, lba, blocks, () => queue.deallocate(ranges, options)),
        });
        break;
      }
      case 'flush':
        void this.#world.call({ ...make, promise: queue.flush(options) });
        break;
      case 'smart log':
        void this.#world.call({ ...make, promise: this.#session.controller!.smartLog(options) });
        break;
      case 'refresh':
        void this.#world.call({
          ...make,
          promise: this.#session.controller!.namespace(1, { ...options, refresh: true }),
        });
    }
  }

  submit({ what, ...at }: SubmitStep): void {
    const { queue, disk } = this;
    const hasData = what === 'read' || what === 'write' || what === 'compare';
    const buffer = hasData ? this.#free.pop() : -1;
    // The memory may be gone.
    if (buffer === undefined || (hasData && queue.buffer(buffer).length === 0)) return;
    const { lba } = this.#blocks(at, false);
    const most = hasData ? queue.bufferBytes / disk.blockSize : 65_536;
    const blocks = Math.min(at.blocks, most, queue.namespace.blocks - lba);
    const isWrite = what === 'write' || what === 'write zeroes';
    const write = isWrite ? this.#begin(what === 'write' ? this.#world.stamp() : 0, lba, blocks) : undefined;
    const tag = this.#world.stamp();
    const begin = this.#world.now();
    const isIn = this.#world.attempt(`${this.name}: submit`, this.#session, () => {
      if (hasData && what !== 'read') queue.buffer(buffer).set(this.#content(write, lba, blocks));
      if (what === 'read') return queue.submitRead(lba, blocks, buffer, tag);
      if (what === 'write') return queue.submitWrite(lba, blocks, buffer, tag);
      if (what === 'compare') return queue.submitCompare(lba, blocks, buffer, tag);
      return what === 'flush' ? queue.submitFlush(tag) : queue.submitWriteZeroes(lba, blocks, tag);
    });
    if (isIn === true) this.#submitted.set(tag, { what, lba, blocks, buffer, begin, write });
    else {
      if (buffer >= 0) this.#free.push(buffer);
      // It was not sent.
      if (write !== undefined) this.disk.history.writes.splice(this.disk.history.writes.indexOf(write), 1);
    }
  }

  ring(): void {
    this.queue.ring();
  }

  /** Takes what is completed. Whether something may still come. */
  poll(): boolean {
    const { queue } = this;
    const count = this.#world.attempt(`${this.name}: poll`, this.#session, () => queue.poll());
    if (count === undefined) {
      this.#isOver = true;
      for (const [tag, { write }] of this.#submitted) {
        this.#submitted.delete(tag);
        if (write !== undefined) this.#world.isUnknown(write, this.#session);
      }
      return false;
    }
    if (count > 0 && this.#isOver)
      this.#world.problem(`${this.name}: poll gives completions after it has thrown`);
    for (let i = 0; i < count; i++) this.#completed(queue.completedTags[i]!, queue.completedStatus[i]!);
    return this.#submitted.size > 0;
  }

  /** As commands fare. */
  #completed(tag: number, status: number): void {
    const command = this.#submitted.get(tag);
    const label = `${this.name}: tag ${tag}`;
    if (command === undefined) {
      this.#world.problem(`${label} is reported, and is not in flight`);
      return;
    }
    const { what, lba, blocks, buffer, begin, write } = command;
    this.#submitted.delete(tag);
    if (status === 0 && what === 'read') {
      const bytes = this.queue.buffer(buffer).subarray(0, blocks * this.disk.blockSize);
      this.#checkRead(label, lba, bytes, begin);
    }
    if (status !== 0)
      this.#world.judgeStatus(label, this.#session, decodeStatus(status).name, what === 'compare');
    if (write !== undefined) {
      write.end = this.#world.now();
      write.isAcknowledged = status === 0;
    }
    if (buffer >= 0) this.#free.push(buffer);
  }

  /** Bytes for a write, and for a comparison what is there now. */
  #content(write: BlockWrite | undefined, lba: number, blocks: number): Buffer {
    const { blockSize, store } = this.disk;
    if (write !== undefined) return blocksOf(write.stamp, lba, blocks, blockSize);
    return Buffer.from(store.look(lba * blockSize, blocks * blockSize));
  }

  async #readInto(lba: number, into: Buffer | DmaBuffer, options: object): Promise<void> {
    const begin = this.#world.now();
    await this.queue.readInto(lba, into, options);
    const bytes = Buffer.isBuffer(into) ? into : into.bytes;
    // It was transferred, or freed, when all was done.
    if (bytes.length > 0) this.#checkRead(`${this.name}: read into`, lba, bytes, begin);
  }

  /** A call with memory that the device reaches, which is somebody else's afterwards. */
  #direct(
    make: { label: string; abort: AbortController | undefined; session: Session },
    size: number,
    run: (buffer: DmaBuffer) => Promise<void>,
  ): void {
    const { device } = this.#session;
    const promise = device.dma.alloc(size).then(async (buffer) => {
      this.#session.buffers.add(buffer);
      try {
        await run(buffer);
      } finally {
        this.#session.buffers.delete(buffer);
        this.#world.handOver(buffer, this.#session);
      }
    });
    void this.#world.call({ ...make, promise });
  }

  #writing(stamp: number, lba: number, blocks: number, run: () => Promise<void>) {
    const write = this.#begin(stamp, lba, blocks);
    const end = (isAcknowledged: boolean) => {
      write.end = this.#world.now();
      write.isAcknowledged = isAcknowledged;
    };
    return {
      promise: run(),
      onValue: () => end(true),
      onError: (error: unknown) => {
        if (this.#world.isDone(error, this.#session)) end(false);
        else this.#world.isUnknown(write, this.#session);
      },
    };
  }

  #begin(stamp: number, lba: number, blocks: number): BlockWrite {
    return this.disk.history.begin(stamp, lba, blocks, this.#world.now());
  }

  #checkRead(label: string, lba: number, bytes: Buffer, begin: number): void {
    const problem = this.disk.history.whatIsWrong(lba, bytes, begin, this.#world.now());
    if (problem !== undefined) this.#world.problem(`${label}: ${problem}`);
  }

  #blocks(at: { lba: number; blocks: number }, isWithoutData: boolean): { lba: number; blocks: number } {
    const { blocks: total, blockSize } = this.queue.namespace;
    const lba = at.lba % total;
    const most = isWithoutData ? total : MOST_DATA_BYTES / blockSize;
    return { lba, blocks: Math.min(at.blocks, most, total - lba) };
  }
}

export function isCompareFailure(error: unknown): boolean {
  return error instanceof NvmeStatusError && error.statusName === 'COMPARE_FAILURE';
}
