/**
 * The doorbells behind BAR0, as a host that mapped them and one that writes messages see them, and the loop that looks
 * at them: a store to a mapping causes no event.
 */
import { LookLoop } from '../look-loop.js';
import { SharedMemory } from '../shared-memory.js';
import { PAGE, Reg } from './constants.js';

export class DoorbellPage {
  /** BAR0's memory: only the doorbells of it are ever looked at. Without sharing, plain bytes. */
  readonly memory: SharedMemory | undefined;
  readonly #words: Uint32Array;
  readonly #strideWords: number;
  readonly #loop = new LookLoop();

  /** `stride` is in bytes; `isShared` says whether hosts may map the doorbells. */
  constructor(barSize: number, stride: number, isShared: boolean) {
    this.#strideWords = stride >>> 2;
    if (isShared) {
      this.memory = new SharedMemory(barSize, 'vfio-user-nvme');
      const { buffer, byteOffset } = this.memory.bytes;
      this.#words = new Uint32Array(buffer, byteOffset + Reg.DOORBELLS, (barSize - Reg.DOORBELLS) >>> 2);
    } else this.#words = new Uint32Array((barSize - Reg.DOORBELLS) >>> 2);
  }

  /** The part that can be mapped. */
  static mappable(barSize: number): { offset: number; size: number } {
    return { offset: Reg.DOORBELLS, size: barSize - Reg.DOORBELLS };
  }

  /** BAR0's size for so many queues, the admin queue among them. */
  static barSize(queues: number, stride: number): number {
    const bytes = Math.ceil((2 * queues * stride) / PAGE) * PAGE;
    return 2 ** Math.ceil(Math.log2(Reg.DOORBELLS + bytes));
  }

  tail(queue: number): number {
    return Atomics.load(this.#words, 2 * queue * this.#strideWords);
  }

  head(queue: number): number {
    return Atomics.load(this.#words, (2 * queue + 1) * this.#strideWords);
  }

  /** A new queue begins at 0. */
  clear(queue: number, kind: 'tail' | 'head'): void {
    Atomics.store(this.#words, (2 * queue + (kind === 'tail' ? 0 : 1)) * this.#strideWords, 0);
  }

  /** A write by message, of one dword at `offset` from the first doorbell. */
  write(offset: number, value: number): void {
    Atomics.store(this.#words, offset >>> 2, value);
  }

  /** Looks from now on, often at first; `look` says whether there was work. Only for doorbells that can be mapped. */
  watch(look: () => boolean): void {
    this.unwatch();
    if (this.memory !== undefined) this.#loop.start(look);
  }

  unwatch(): void {
    this.#loop.stop();
  }

  close(): void {
    this.unwatch();
    this.memory?.close();
  }
}
