/** Whoever uses a queue of the model: calls that give promises, and the submit/poll calls. */
import type { DmaBuffer } from '../../../lib/index.js';
import { decodeStatus, type BlockRange, type NvmeQueue } from '../../../lib/nvme/index.js';
import type { Disk } from './disk.js';
import { blocksOf, endWrite, type BlockWrite } from './history.js';
import type { Buffers, IoStep, SubmitStep } from './steps.js';
import type { Session, World } from './world.js';

const BUFFERS = 4;
const PAGE = 4096;
/** The most of one command. */
const MOST_BLOCKS = 65_536;
/** More than one command of Dataset Management has. */
const MANY_RANGES = 290;
/** The last page that such a transfer touches is where a list that begins with its page has a pointer. */
const PAGES_UP_TO_POINTER = 513;
/** Of a call that is not to end by itself, and how long it goes on where it has no deadline: longer than the default one. */
const MANY_COMMANDS = 100_000;
const LONG_CALL_MS = 600;
/** A queue has more bounce pages. */
const SOME_POOL_BYTES = 512 << 10;

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
  readonly session: Session;
  readonly #submitted = new Map<number, Submitted>();
  readonly #free: number[];
  isClosed = false;
  /** Its namespace is not what it was, and it has said so. */
  isEnded = false;
  /** Since when it may have reached another disk than its own: the namespace was replaced, and it did not know. */
  isAstray = false;
  isClosing = false;
  /** Calls that give promises and have not ended, with the bytes of bounce pages that each may take. */
  readonly #waiting = new Set<{ bytes: number }>();
  /** Of calls that were given up. */
  #leftBytes = 0;
  /** There are bounce pages. */
  #hasPool = false;
  /** `poll` has said that it was all. */
  #isOver = false;

  constructor(world: World, session: Session, queue: NvmeQueue, disk: Disk, name: string) {
    this.#world = world;
    this.session = session;
    this.queue = queue;
    this.disk = disk;
    this.name = name;
    this.#free = Array.from({ length: queue.bufferCount }, (_, i) => i);
  }

  /** What `createQueue` is asked for. */
  static buffers({ pages, pageOffset }: Buffers, maxTransferBytes: number) {
    return { count: BUFFERS, bytes: Math.min(pages * PAGE, maxTransferBytes), pageOffset };
  }

  call(step: IoStep): void {
    const { queue } = this;
    const { lba, blocks } = this.#blocks(step, step.what === 'write zeroes' || step.what === 'deallocate');
    const label = `${this.name}: ${step.what} [${lba}, ${lba + blocks})`;
    const isLong = this.#isLong(step, blocks);
    const abort =
      step.isAbortable || (isLong && step.timeoutMs === undefined) ? new AbortController() : undefined;
    if (isLong) {
      this.#world.mayDelay();
      if (step.timeoutMs === undefined)
        setTimeout(() => abort?.abort(new Error('given up')), LONG_CALL_MS).unref();
    }
    const options = { timeoutMs: step.timeoutMs, signal: abort?.signal };
    const { blockSize } = this.disk;
    const { timeoutMs } = step;
    const make = { label, abort, user: this, hasOwnDeadline: timeoutMs !== undefined, timeoutMs };
    switch (step.what) {
      case 'read': {
        const begin = this.#world.now();
        void this.#world.call({
          ...make,
          promise: this.#watched(blocks * blockSize, queue.read(lba, blocks, options)),
          onValue: (bytes) => this.#checkRead(label, lba, bytes, begin),
        });
        break;
      }
      case 'read into':
        if (step.isDirect)
          this.#direct(make, blocks * blockSize, (buffer) => this.#readInto(lba, buffer, options));
        else {
          const array = Buffer.alloc(blocks * blockSize, 0xee);
          const promise = this.#watched(array.length, this.#readInto(lba, array, options));
          void this.#world.call({ ...make, array, promise });
        }
        break;
      case 'write': {
        const stamp = this.#world.stamp();
        const data = blocksOf(stamp, lba, blocks, blockSize);
        if (!step.isDirect) {
          void this.#world.call({
            ...make,
            array: data,
            ...this.#writing(stamp, lba, blocks, () =>
              this.#watched(data.length, queue.write(lba, data, options)),
            ),
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
          promise: this.#watched(theirs.length, queue.compare(lba, theirs, options)),
          onValue: () => this.#checkRead(label, lba, data, begin),
        });
        break;
      }
      case 'write zeroes':
        void this.#world.call({
          ...make,
          ...this.#writing(0, lba, blocks, () =>
            this.#watched(
              0,
              this.#world.takesLittle(label, () => queue.writeZeroes(lba, blocks, options)),
            ),
          ),
        });
        break;
      case 'deallocate': {
        const ranges = rangesOf(lba, blocks, step.isDirect);
        void this.#world.call({
          ...make,
          ...this.#writing(0, lba, blocks, () => this.#watched(PAGE, queue.deallocate(ranges, options))),
        });
        break;
      }
      case 'flush':
        void this.#world.call({ ...make, promise: this.#watched(0, queue.flush(options)) });
        break;
      case 'smart log':
        void this.#world.call({ ...make, promise: this.session.controller!.smartLog(options) });
        break;
      case 'refresh':
        void this.#world.call({
          ...make,
          promise: this.session.controller!.namespace(1, { ...options, refresh: true }),
        });
    }
  }

  /** Who waits although there is a slot, and bounce pages for all; undefined where nobody does. */
  whoWaits(): string | undefined {
    if (this.isClosing || this.isEnded || !this.#hasPool) return undefined;
    let bytes = this.#leftBytes;
    for (const call of this.#waiting) bytes += call.bytes;
    if (bytes > SOME_POOL_BYTES) return undefined;
    const { inFlight, depth } = this.queue;
    if (inFlight >= Math.min(this.#waiting.size, depth)) return undefined;
    return `${this.name}: of ${this.#waiting.size} calls ${inFlight} are in flight, and there is room for ${depth}`;
  }

  submit({ what, ...at }: SubmitStep): void {
    const { queue, disk } = this;
    const hasData = what === 'read' || what === 'write' || what === 'compare';
    const buffer = hasData ? this.#free.pop() : -1;
    // The memory may be gone.
    if (buffer === undefined || (hasData && queue.buffer(buffer).length === 0)) return;
    const { lba } = this.#blocks(at, false);
    const most = hasData ? Math.floor(queue.bufferBytes / disk.blockSize) : Infinity;
    const asked = hasData && at.blocks > 64 ? this.#longest(lba) : at.blocks;
    const blocks = Math.min(asked, most, queue.namespace.blocks - lba);
    if (blocks > MOST_BLOCKS && what === 'write zeroes') {
      this.#isRefused(lba, blocks);
      return;
    }
    if (blocks === 0) {
      this.#free.push(buffer);
      return;
    }
    const isWrite = what === 'write' || what === 'write zeroes';
    const write = isWrite ? this.#begin(what === 'write' ? this.#world.stamp() : 0, lba, blocks) : undefined;
    const tag = this.#world.stamp();
    const begin = this.#world.now();
    const isIn = this.#world.attempt(`${this.name}: submit`, this, () => {
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
      if (write !== undefined) this.#world.forget(write);
    }
  }

  ring(): void {
    this.queue.ring();
  }

  /** Takes what is completed. Whether something may still come. */
  poll(): boolean {
    const { queue } = this;
    const count = this.#world.attempt(`${this.name}: poll`, this, () => queue.poll());
    if (count === undefined) {
      this.#isOver = true;
      for (const [tag, { write }] of this.#submitted) {
        this.#submitted.delete(tag);
        if (write !== undefined) this.#world.isUnknown(write, this.session);
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
    if (status !== 0) this.#world.judgeStatus(label, this, decodeStatus(status).name, what === 'compare');
    if (write !== undefined) endWrite(write, status === 0, this.#world.now());
    if (buffer >= 0) this.#free.push(buffer);
  }

  /** Bytes for a write, and for a comparison what is there now. */
  #content(write: BlockWrite | undefined, lba: number, blocks: number): Buffer {
    const { blockSize, store } = this.disk;
    if (write !== undefined) return blocksOf(write.stamp, lba, blocks, blockSize);
    return Buffer.from(store.look(lba * blockSize, blocks * blockSize));
  }

  /** A call that waits for commands of the queue, `bytes` of whose data go through bounce pages. */
  #watched<T>(bytes: number, promise: Promise<T>): Promise<T> {
    const call = { bytes: Math.ceil(bytes / PAGE) * PAGE };
    this.#waiting.add(call);
    return promise.then(
      (value) => {
        this.#waiting.delete(call);
        this.#hasPool ||= bytes > 0;
        return value;
      },
      (error: unknown) => {
        this.#waiting.delete(call);
        this.#leftBytes += call.bytes;
        throw error;
      },
    );
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
    make: { label: string; abort: AbortController | undefined; user: QueueUser; hasOwnDeadline: boolean },
    size: number,
    run: (buffer: DmaBuffer) => Promise<void>,
  ): void {
    const { device } = this.session;
    const promise = device.dma.alloc(size).then(async (buffer) => {
      this.session.buffers.add(buffer);
      try {
        await run(buffer);
      } finally {
        this.session.buffers.delete(buffer);
        this.#world.handOver(buffer, this.session);
      }
    });
    void this.#world.call({ ...make, promise });
  }

  #writing(stamp: number, lba: number, blocks: number, run: () => Promise<void>) {
    const write = this.#begin(stamp, lba, blocks);
    const end = (isAcknowledged: boolean) => endWrite(write, isAcknowledged, this.#world.now());
    return {
      promise: run(),
      onValue: () => end(true),
      onError: (error: unknown) => {
        if (this.#world.isDone(error, this.session)) end(false);
        else this.#world.isUnknown(write, this.session);
      },
    };
  }

  #begin(stamp: number, lba: number, blocks: number): BlockWrite {
    const write = this.disk.history.begin(stamp, lba, blocks, this.#world.now());
    if (!this.isEnded) this.#world.mayStray(write, this.disk);
    return write;
  }

  #checkRead(label: string, lba: number, bytes: Buffer, begin: number): void {
    if (this.isAstray) return;
    const problem = this.disk.history.whatIsWrong(lba, bytes, begin, this.#world.now());
    if (problem !== undefined) this.#world.problem(`${label}: ${problem}`);
  }

  /** As much as a buffer has, or just as much as takes a list to where it has a pointer. */
  #longest(lba: number): number {
    const { bufferBytes } = this.queue;
    const bytes = PAGES_UP_TO_POINTER * PAGE;
    return Math.floor((bytes <= bufferBytes && lba % 2 === 0 ? bytes : bufferBytes) / this.disk.blockSize);
  }

  /** More than a command has is not sent in part. */
  #isRefused(lba: number, blocks: number): void {
    try {
      this.queue.submitWriteZeroes(lba, blocks, 0);
    } catch (error) {
      if (error instanceof RangeError) return;
    }
    this.#world.problem(`${this.name}: ${blocks} blocks in one command are not refused`);
  }

  /** The most of one command. */
  get #blocksOfCommand(): number {
    const { maxTransferBytes } = this.session.controller!;
    return Math.min(MOST_BLOCKS, Math.floor(maxTransferBytes / this.disk.blockSize));
  }

  /** It takes so many commands, or of a controller so much work, that the deadline of a command is not long. */
  #isLong({ what }: IoStep, blocks: number): boolean {
    if (what === 'deallocate') return blocks > 2 ** 24;
    return what === 'write zeroes' && blocks > 1_000 * this.#blocksOfCommand;
  }

  #blocks(at: { lba: number; blocks: number }, isWithoutData: boolean): { lba: number; blocks: number } {
    const { blocks: total, blockSize } = this.queue.namespace;
    const lba = at.lba % total;
    if (!isWithoutData)
      return { lba, blocks: Math.min(at.blocks, this.#world.mostDataBytes / blockSize, total - lba) };
    // All that there is, or at least as much as is not soon done.
    const most = at.blocks > 64 && at.blocks % 2 === 1 ? MANY_COMMANDS * this.#blocksOfCommand : at.blocks;
    return { lba, blocks: Math.min(most, total - lba) };
  }
}

/** Half and half, or so many that one command does not have them; the first of those again and again. */
function rangesOf(lba: number, blocks: number, areMany: boolean): BlockRange[] {
  if (areMany && blocks > 64) return [{ lba, blocks }];
  if (areMany) {
    const each = Array.from({ length: blocks }, (_, i) => ({ lba: lba + i, blocks: 1 }));
    return [...Array.from({ length: MANY_RANGES }, () => each[0]!), ...each];
  }
  const half = Math.ceil(blocks / 2);
  const ranges = [
    { lba, blocks: half },
    { lba: lba + half, blocks: blocks - half },
  ];
  return ranges.filter((range) => range.blocks > 0);
}
