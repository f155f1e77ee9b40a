/**
 * A guest's worth of memory: what the device may write, a copy of it that dirty pages keep up to date, and lists of what
 * reports have to hold and may hold.
 */
import {
  VfioUserError,
  TimeoutError,
  type CallOptions,
  type Device,
  type DirtyRange,
  type DmaBuffer,
} from '../../../lib/index.js';
import { RamDma, RamRegister } from '../../../lib/emulator/index.js';
import type { Machine } from './machine.js';
import type { Record } from './record.js';
import type { Pause, Step } from './steps.js';
import { Watching, type Turn } from './watching.js';

const PAGE = 4096;
/** Of each block, what the device is made to write to. */
export const BLOCK_BYTES = 64 * PAGE;
const SOURCE_BYTES = 32 * PAGE;
/** Larger than the memory that buffers share: it is mapped and unmapped by itself. */
const PLUGGED_BYTES = (2 << 20) + PAGE;
const MOST_PLUGGED = 2;

interface Block {
  buffer: DmaBuffer;
  /** What a destination would have; undefined where nothing is watched. */
  mirror: Buffer | undefined;
  isPlugged: boolean;
}

/** Pages that the device may write, from when it was told to. */
interface Touch {
  from: number;
  to: number;
  begun: number;
  /** When it had done so at the latest; Infinity where nobody knows. */
  done: number;
}

export interface Ties {
  record: Record;
  machine: Machine;
  /** Counts what makes reports larger than what was written: faults, and connections that were lost. */
  suspicion: () => number;
  /** The connection is, or was just, away: every call may fail. */
  isDown: () => boolean;
}

export class Guest {
  readonly #device: Device;
  readonly #ties: Ties;
  #sources: DmaBuffer[] = [];
  readonly #blocks: Block[] = [];
  readonly #watching = new Watching();
  /** When watching began; undefined while nothing is watched, or a stop is under way. */
  #watchedSince: number | undefined;
  #touches: Touch[] = [];
  /** Pages that were written, and when that was known: the next report from then on has them. */
  readonly #owed = new Map<number, number>();
  /** Memory that was, or is being, unmapped, by its first page, and until when: its last report comes with that. */
  readonly #unplugged: { from: number; until: number }[] = [];
  /** When each page was reported last. */
  readonly #reported = new Map<number, number>();
  #stamp = 0;
  #copies = 0;
  #copying = 0;
  #failures = 0;
  #stops = 0;
  #suspicion = -1;
  #isPlugging = false;

  constructor(device: Device, ties: Ties) {
    this.#device = device;
    this.#ties = ties;
  }

  async setUp(): Promise<void> {
    const { dma } = this.#device;
    const [shared, byMessage] = [
      await dma.alloc(SOURCE_BYTES),
      await dma.alloc(SOURCE_BYTES, { share: false }),
    ];
    this.#sources = [shared, byMessage];
    this.#add(await dma.alloc(BLOCK_BYTES), false);
    this.#add(await dma.alloc(BLOCK_BYTES, { share: false }), false);
  }

  get isWatched(): boolean {
    return this.#watchedSince !== undefined;
  }

  /** Nothing is being copied, and nothing that was asked for is still on its way. */
  get isIdle(): boolean {
    const { machine } = this.#ties;
    return this.#copying === 0 && !machine.isCopying && !machine.line.isTroubled;
  }

  // Steps.

  dma(step: Omit<Extract<Step, { do: 'dma' }>, 'do' | 'then'>): Promise<void> | undefined {
    const block = this.#blocks[step.block % this.#blocks.length];
    const source = this.#sources[step.isByMessage ? 1 : 0];
    if (block === undefined || source === undefined || block.buffer.isClosed || source.isClosed)
      return undefined;
    // What was said of its regions was damaged as it was opened.
    if (this.#device.regions[0]?.size === 0) return undefined;
    const at = step.at % BLOCK_BYTES;
    const length = Math.min(step.length, BLOCK_BYTES - at, SOURCE_BYTES);
    fill(source.bytes, ++this.#stamp, length);
    const destination = block.buffer.iova + BigInt(at);
    const registers = Buffer.alloc(24);
    registers.writeBigUInt64LE(source.iova, 0);
    registers.writeBigUInt64LE(destination, 8);
    registers.writeUInt32LE(length, 16);
    registers.writeUInt32LE(RamDma.COPY | (step.isPosted ? RamDma.POSTED : 0), 20);
    const from = pageOf(destination);
    const to = pageOf(destination + BigInt(length - 1)) + 1;
    const touch: Touch = { from, to, begun: this.#ties.record.now(), done: Infinity };
    this.#touches.push(touch);
    this.#copies++;
    this.#copying++;
    const promise = this.#device.bar(0).write(RamRegister.DMA_SOURCE, registers);
    const onEnd = () => this.#copying--;
    promise.then(onEnd, onEnd);
    return this.#ties.record.call({
      label: `DMA of ${length} to page ${from}${step.isPosted ? ', posted' : ''}`,
      promise,
      onValue: () => void (step.isPosted || this.#written(touch)),
      whyNot: (error) => this.#named(error),
    });
  }

  watch(options: CallOptions = {}): Promise<void> {
    const { record } = this.#ties;
    const stops = this.#stops;
    const suspicion = this.#ties.suspicion();
    const promise = this.#device.dma.dirty.start(options);
    const turn = this.#watching.start(promise);
    return record.call({
      label: 'start',
      promise,
      onValue: () => {
        if (stops === this.#stops) {
          this.#watchedSince = record.now();
          this.#suspicion = suspicion;
          this.#owed.clear();
          for (const block of this.#blocks) if (!block.buffer.isClosed) block.mirror = bytesOf(block);
        }
        return this.#isGranted('start', turn, false);
      },
      whyNot: (error) => this.#whyRefused(turn, true, error),
    });
  }

  unwatch(): Promise<void> {
    this.#watchedSince = undefined;
    this.#stops++;
    for (const block of this.#blocks) block.mirror = undefined;
    const promise = this.#device.dma.dirty.stop();
    this.#watching.stop(promise);
    return this.#ties.record.call({
      label: 'stop',
      promise,
      onError: () => this.#failures++,
      whyNot: (error) => this.#named(error),
    });
  }

  report(
    options: { timeoutMs?: number | undefined; isAbortable?: boolean; abortsAfter?: Pause | undefined } = {},
  ): Promise<boolean> {
    const { record, machine } = this.#ties;
    const stops = this.#stops;
    const isIdle = this.isIdle;
    const called = record.now();
    const copies = this.#copies;
    const suspicion = this.#suspected;
    if (isIdle) for (const touch of this.#touches) touch.done = Math.min(touch.done, called);
    const abort =
      options.isAbortable === true || options.abortsAfter !== undefined ? new AbortController() : undefined;
    abortAfter(abort, options.abortsAfter);
    let isGood = false;
    const promise = this.#device.dma.dirty.report({ timeoutMs: options.timeoutMs, signal: abort?.signal });
    const turn = this.#watching.next();
    return record
      .call({
        label: 'report',
        promise,
        abort,
        onValue: (ranges) => {
          if (stops === this.#stops && this.isWatched) {
            isGood = true;
            record.note(
              `reported ${ranges.map(({ iova, length }) => `${pageOf(iova)}+${length / PAGE}`).join(' ')}`,
            );
            this.#copy(ranges);
            this.#check(ranges, called, suspicion);
            if (isIdle && this.isIdle && copies === this.#copies && !machine.line.isTroubled) this.compare();
          }
          return this.#isGranted('report', turn, true);
        },
        onError: () => this.#failures++,
        whyNot: (error) => this.#whyRefused(turn, false, error),
      })
      .then(() => isGood);
  }

  plug(): Promise<void> | undefined {
    if (this.#isPlugging || this.#blocks.filter((block) => block.isPlugged).length >= MOST_PLUGGED)
      return undefined;
    this.#isPlugging = true;
    return this.#ties.record.call({
      label: 'plug',
      promise: this.#device.dma.alloc(PLUGGED_BYTES).finally(() => (this.#isPlugging = false)),
      onValue: (buffer) => this.#add(buffer, true),
      whyNot: (error) => this.#named(error),
    });
  }

  unplug(which: number): Promise<void> | undefined {
    const plugged = this.#blocks.filter((block) => block.isPlugged);
    const block = plugged[which % Math.max(1, plugged.length)];
    if (block === undefined) return undefined;
    this.#blocks.splice(this.#blocks.indexOf(block), 1);
    const unplugged = { from: pageOf(block.buffer.iova), until: Infinity };
    this.#unplugged.push(unplugged);
    const onEnd = () => (unplugged.until = this.#ties.record.now());
    const promise = block.buffer.free();
    promise.then(onEnd, onEnd);
    return this.#ties.record.call({
      label: `unplug pages from ${pageOf(block.buffer.iova)}`,
      promise,
      onError: () => this.#failures++,
      whyNot: (error) => this.#named(error),
    });
  }

  // Checks.

  /** What the device had written; undefined once its memory is gone. */
  snapshot(): ReadonlyMap<DmaBuffer, Buffer> {
    return new Map(
      this.#blocks.filter(({ buffer }) => !buffer.isClosed).map((block) => [block.buffer, bytesOf(block)]),
    );
  }

  /** A device that is stopped has written nothing since. */
  compareWith(before: ReadonlyMap<DmaBuffer, Buffer>): void {
    for (const [buffer, bytes] of before) {
      if (buffer.isClosed || bytes.equals(buffer.bytes.subarray(0, BLOCK_BYTES))) continue;
      this.#ties.record.problem(`${firstDifference(bytes, buffer)} was written after the device had stopped`);
    }
  }

  /** With nothing under way, the copy is what the memory is. */
  compare(): void {
    for (const { buffer, mirror } of this.#blocks) {
      if (mirror === undefined || buffer.isClosed || mirror.equals(buffer.bytes.subarray(0, BLOCK_BYTES)))
        continue;
      this.#ties.record.problem(
        `the copy by dirty pages is not what the memory is: ${firstDifference(mirror, buffer)}`,
      );
    }
  }

  /** Every page that is known to have been written is in this report, or was in one before; and no others are. */
  #check(ranges: readonly DirtyRange[], called: number, suspicion: number): void {
    const { record } = this.#ties;
    const pages = pagesOf(ranges);
    const now = record.now();
    for (const page of pages) this.#reported.set(page, now);
    for (const [page, written] of this.#owed) {
      const isBeingUnplugged = this.#unplugged.some(
        ({ from, until }) => page >= from && page < from + PLUGGED_BYTES / PAGE && until > called,
      );
      if (!pages.has(page) && isBeingUnplugged) continue;
      if (!pages.has(page) && written < called)
        record.problem(`page ${page} was written, and is in no report`);
      if (pages.has(page) || written < called) this.#owed.delete(page);
    }
    const isExact = this.#suspicion === this.#suspected && !this.#ties.machine.line.isTroubled;
    if (isExact) {
      const stray = [...pages].find(
        (page) => !this.#touches.some(({ from, to }) => page >= from && page < to),
      );
      if (stray !== undefined) record.problem(`page ${stray} is reported, and nobody wrote to it`);
    }
    this.#suspicion = suspicion;
    this.#touches = this.#touches.filter(({ done }) => done >= called);
  }

  get #suspected(): number {
    return this.#failures + this.#ties.suspicion();
  }

  #written(touch: Touch): void {
    touch.done = this.#ties.record.now();
    if (this.#watchedSince === undefined || touch.begun < this.#watchedSince) return;
    for (let page = touch.from; page < touch.to; page++) {
      // A report that came while it was being written may have had it.
      if ((this.#reported.get(page) ?? -1) < touch.begun) this.#owed.set(page, touch.done);
    }
  }

  #copy(ranges: readonly DirtyRange[]): void {
    for (const { buffer, mirror } of this.#blocks) {
      if (mirror === undefined || buffer.isClosed) continue;
      for (const { iova, length } of ranges) {
        const from = Math.max(0, Number(iova - buffer.iova));
        const to = Math.min(BLOCK_BYTES, Number(iova - buffer.iova) + length);
        if (from < to) mirror.set(buffer.bytes.subarray(from, to), from);
      }
    }
  }

  #add(buffer: DmaBuffer, isPlugged: boolean): void {
    const block: Block = { buffer, mirror: undefined, isPlugged };
    if (this.isWatched) block.mirror = bytesOf(block);
    this.#blocks.push(block);
  }

  /** It was the time for it: once those before it have told, too, which takes them some microtasks. */
  async #isGranted(what: string, turn: Turn, ifWatched: boolean): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    if (turn.foundWatched !== ifWatched)
      this.#ties.record.problem(`${what} is done, and dirty pages were ${ifWatched ? 'not ' : ''}watched`);
  }

  /** A call at the wrong time is refused as such, and no other is. */
  #whyRefused(turn: Turn, ifWatched: boolean, error: unknown): string | undefined {
    // It never had its turn.
    if (error instanceof TimeoutError && /waiting for its turn/.test(error.message)) return undefined;
    const isWrongTime = turn.foundWatched === ifWatched;
    if (error instanceof TypeError === isWrongTime) return isWrongTime ? undefined : this.#named(error);
    return `dirty pages were ${turn.foundWatched ? '' : 'not '}watched`;
  }

  /** Errors of memory and of dirty logs have a name, and what is down says so. */
  #named(error: unknown): string | undefined {
    if (error instanceof TimeoutError || (error instanceof VfioUserError && error.name !== 'ClosedError'))
      return undefined;
    if (error instanceof VfioUserError) return this.#ties.isDown() ? undefined : 'nothing was closed';
    return 'an error that it must not have';
  }
}

function fill({ buffer, byteOffset }: Buffer, stamp: number, length: number): void {
  new Uint32Array(buffer, byteOffset, Math.ceil(length / 4)).fill(stamp);
}

function pageOf(iova: bigint): number {
  return Number(iova / BigInt(PAGE));
}

function pagesOf(ranges: readonly DirtyRange[]): Set<number> {
  const pages = new Set<number>();
  for (const { iova, length } of ranges) {
    const from = pageOf(iova);
    for (let page = from; page < from + length / PAGE; page++) pages.add(page);
  }
  return pages;
}

function bytesOf({ buffer }: Block): Buffer {
  return Buffer.from(buffer.bytes.subarray(0, BLOCK_BYTES));
}

function firstDifference(before: Buffer, { iova, bytes }: DmaBuffer): string {
  let at = 0;
  while (before[at] === bytes[at]) at++;
  return `page ${pageOf(iova + BigInt(at))} (${Math.floor(at / PAGE)} of its block)`;
}

function abortAfter(abort: AbortController | undefined, when: Pause | undefined): void {
  if (abort === undefined || when === undefined) return;
  const give = () => abort.abort(new Error('given up'));
  if (when === 'nothing') process.nextTick(give);
  else if (when === 'microtasks') void Promise.resolve().then(() => Promise.resolve().then(give));
  else if (when === 'a turn') setImmediate(give);
  else setTimeout(give, Number(when));
}
