/**
 * The arenas of a device. Small buffers share arenas of one size, which are kept when they are empty; a buffer that is
 * larger has an arena to itself, which goes with it.
 *
 * Few mappings are the point: some servers take 16, and QEMU does not say so. From the ninth mapping on each new arena
 * is as large as those before it together, so that slots suffice as long as memory does; and where the server has said
 * that few are left, large buffers share arenas, too, which are then kept. What is mapped is never moved to be merged
 * with a neighbour: the device may be using it.
 */
import { timeoutOf, type CallOptions } from '../connection/index.js';
import { TimeoutError, TransportError } from '../errors.js';
import { Arena, arenaMemory, type ArenaKind } from './arena.js';
import { PAGE_SIZE, alignUp } from './dma-table.js';
import { HUGE_PAGE_SIZE, type DmaWindows } from './dma-windows.js';
import type { Session } from './session.js';

/** A place in an arena. */
export interface Place {
  readonly arena: Arena;
  readonly offset: number;
  /** Nobody had the memory before: it is zeroed. */
  readonly isFresh: boolean;
}

/** With no more slots than this left, arenas grow. */
const FEW_SLOTS = 8;
const LARGEST_ARENA_BYTES = 256 << 20;
const ENOMEM = 12;

/** The longest time that Node's timers take. */
const MAX_TIMER_MS = 0x7fff_ffff;

export class ArenaPool {
  readonly #session: Session;
  readonly #windows: DmaWindows;
  readonly #arenaBytes: number;
  readonly #hugePages: boolean;
  /** Those that small buffers share. */
  readonly #shared = new Set<Arena>();
  /** An arena that is being mapped for small buffers; never rejects. */
  #growing: Promise<void> | undefined;

  constructor(session: Session, windows: DmaWindows, arenaBytes: number, hugePages: boolean) {
    this.#session = session;
    this.#windows = windows;
    this.#arenaBytes = arenaBytes;
    this.#hugePages = hugePages;
  }

  /** A place for `size` bytes at a multiple of `alignment`, which is at most a huge page. */
  async take(size: number, alignment: number, kind: ArenaKind, options: CallOptions): Promise<Place> {
    const isLarge = size > this.#arenaBytes;
    if (isLarge && this.#windows.slotsToldLeft > FEW_SLOTS) return this.#takeOwn(size, kind, options);
    const timeoutMs = timeoutOf(options, this.#session.connection.timeoutMs);
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      options.signal?.throwIfAborted();
      const place = this.#find(size, alignment, kind);
      if (place !== undefined) return place;
      const left = deadline - performance.now();
      if (left <= 0) throw new TimeoutError('DMA_MAP', timeoutMs);
      const call = { timeoutMs: left, signal: options.signal };
      // Whoever finds no room while an arena is on its way waits for that one: asking for many makes no more than needed.
      if (this.#growing === undefined) await this.#grow(size, kind, call);
      else await settled(this.#growing, call);
    }
  }

  /** Gives a place back; the arena of a large buffer is unmapped, see `DmaWindows.unmap`. */
  release({ arena, offset }: Place, size: number, options: CallOptions | undefined): Promise<void> {
    if (!arena.isKept) return this.#windows.unmap(arena.window, options);
    arena.release(offset, size);
    return Promise.resolve();
  }

  #find(size: number, alignment: number, kind: ArenaKind): Place | undefined {
    for (const arena of this.#shared) {
      if (arena.window.closed) this.#shared.delete(arena);
      const offset = arena.suits(kind) ? arena.take(size, alignment) : undefined;
      if (offset !== undefined) return { arena, offset, isFresh: false };
    }
    return undefined;
  }

  async #grow(size: number, kind: ArenaKind, options: CallOptions): Promise<void> {
    const arena = this.#mapShared(Math.max(size, this.#arenaBytes), kind, options);
    const done = arena.then(
      (made) => void this.#shared.add(made),
      () => undefined,
    );
    this.#growing = done.finally(() => (this.#growing = undefined));
    await arena;
    await this.#growing;
  }

  /** An arena of at least `bytes`: of more where slots run short, and there is memory for it. */
  async #mapShared(bytes: number, kind: ArenaKind, options: CallOptions): Promise<Arena> {
    const wanted = Math.max(bytes, this.#grownBytes());
    try {
      return await this.#map(wanted, true, kind, options);
    } catch (error) {
      const isTooMuch = error instanceof TransportError && error.errno === ENOMEM;
      if (wanted === bytes || !isTooMuch) throw error;
      return this.#map(bytes, true, kind, options);
    }
  }

  #grownBytes(): number {
    if (this.#windows.slotsLeft > FEW_SLOTS) return 0;
    let total = 0;
    for (const { window } of this.#shared) if (!window.closed) total += window.size;
    return Math.min(total, LARGEST_ARENA_BYTES);
  }

  async #takeOwn(size: number, kind: ArenaKind, options: CallOptions): Promise<Place> {
    const arena = await this.#map(size, false, kind, options);
    return { arena, offset: 0, isFresh: true };
  }

  async #map(size: number, isKept: boolean, kind: ArenaKind, options: CallOptions): Promise<Arena> {
    const bytes = alignUp(size, Math.max(HUGE_PAGE_SIZE, this.#windows.granule));
    const pages = bytes / PAGE_SIZE;
    const page = this.#windows.choosePage(pages, kind.addressBits);
    const memory = arenaMemory(bytes, this.#hugePages);
    return new Arena(await this.#windows.map(page, pages, kind, memory, 0, options), isKept);
  }
}

/** Waits for `promise`, which does not reject, as long as the options allow. */
async function settled(
  promise: Promise<void>,
  options: { timeoutMs: number; signal: AbortSignal | undefined },
) {
  const { timeoutMs, signal } = options;
  let stop!: () => void;
  const stopped = new Promise<void>((resolve) => (stop = resolve));
  const timer = setTimeout(stop, Math.min(timeoutMs, MAX_TIMER_MS));
  signal?.addEventListener('abort', stop, { once: true });
  try {
    await Promise.race([promise, stopped]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
  }
}
