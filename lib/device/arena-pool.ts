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

/** An arena whose DMA_MAP is under way. */
interface BegunArena {
  readonly arena: Arena;
  readonly mapped: Promise<void>;
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

  /**
   * A place at once: in an arena that is there, in one of `begun`, or in a new one, which is added to `begun` while its
   * DMA_MAP is under way. What has begun is nobody else's until it is given to `keep`.
   * @returns with a new arena, what settles when it is mapped; see `DmaWindows.begin`.
   */
  begin(
    size: number,
    alignment: number,
    kind: ArenaKind,
    begun: Arena[],
    options: CallOptions,
  ): { place: Place; mapped?: Promise<void> } {
    const isLarge = size > this.#arenaBytes && this.#windows.slotsToldLeft > FEW_SLOTS;
    const known = isLarge
      ? undefined
      : (this.#find(size, alignment, kind) ?? placeIn(begun, size, alignment, kind));
    if (known !== undefined) return { place: known };
    const { arena, mapped } = isLarge
      ? this.#begin(size, false, kind, options)
      : this.#beginShared(Math.max(size, this.#arenaBytes), kind, options);
    begun.push(arena);
    const offset = isLarge ? 0 : arena.take(size, alignment)!;
    return { place: { arena, offset, isFresh: true }, mapped };
  }

  /** Arenas that have begun, and are mapped now, are everybody's. */
  keep(begun: readonly Arena[]): void {
    for (const arena of begun) if (arena.isKept) this.#shared.add(arena);
  }

  /** Gives a place back; the arena of a large buffer is unmapped, see `DmaWindows.unmap`. */
  release({ arena, offset }: Place, size: number, options: CallOptions | undefined): Promise<void> {
    if (!arena.isKept) return this.#windows.unmap(arena.window, options);
    arena.release(offset, size);
    return Promise.resolve();
  }

  /**
   * Waits for `promise` as long as the options of a call allow.
   * @throws what it rejects with; TimeoutError, which names `what`; the signal's reason.
   */
  async within(what: string, promise: Promise<void>, options: CallOptions | undefined): Promise<void> {
    options?.signal?.throwIfAborted();
    const timeoutMs = timeoutOf(options, this.#session.connection.timeoutMs);
    let isDone = false;
    const done = promise.then(() => void (isDone = true));
    await settled(done, { timeoutMs, signal: options?.signal });
    if (isDone) return;
    options?.signal?.throwIfAborted();
    throw new TimeoutError(what, timeoutMs);
  }

  #find(size: number, alignment: number, kind: ArenaKind): Place | undefined {
    for (const arena of this.#shared) {
      if (arena.window.isClosed) this.#shared.delete(arena);
      const offset = arena.suits(kind) ? arena.take(size, alignment) : undefined;
      if (offset !== undefined) return { arena, offset, isFresh: false };
    }
    return undefined;
  }

  async #grow(size: number, kind: ArenaKind, options: CallOptions): Promise<void> {
    const { arena, mapped } = this.#beginShared(Math.max(size, this.#arenaBytes), kind, options);
    const done = mapped.then(
      () => void this.#shared.add(arena),
      () => undefined,
    );
    this.#growing = done.finally(() => (this.#growing = undefined));
    await mapped;
    await this.#growing;
  }

  /** An arena of at least `bytes`: of more where slots run short, and there is memory for it. */
  #beginShared(bytes: number, kind: ArenaKind, options: CallOptions): BegunArena {
    const wanted = Math.max(bytes, this.#grownBytes());
    try {
      return this.#begin(wanted, true, kind, options);
    } catch (error) {
      const isTooMuch = error instanceof TransportError && error.errno === ENOMEM;
      if (wanted === bytes || !isTooMuch) throw error;
      return this.#begin(bytes, true, kind, options);
    }
  }

  #grownBytes(): number {
    if (this.#windows.slotsLeft > FEW_SLOTS) return 0;
    let total = 0;
    for (const { window } of this.#shared) if (!window.isClosed) total += window.size;
    return Math.min(total, LARGEST_ARENA_BYTES);
  }

  async #takeOwn(size: number, kind: ArenaKind, options: CallOptions): Promise<Place> {
    const { arena, mapped } = this.#begin(size, false, kind, options);
    await mapped;
    return { arena, offset: 0, isFresh: true };
  }

  #begin(size: number, isKept: boolean, kind: ArenaKind, options: CallOptions): BegunArena {
    const bytes = alignUp(size, Math.max(HUGE_PAGE_SIZE, this.#windows.granule));
    const pages = bytes / PAGE_SIZE;
    const page = this.#windows.choosePage(pages, kind.addressBits);
    const memory = arenaMemory(bytes, this.#hugePages);
    const { window, mapped } = this.#windows.begin(page, pages, kind, memory, 0, options);
    return { arena: new Arena(window, isKept), mapped };
  }
}

/** In an arena that many buffers share and whose DMA_MAP has not failed. */
function placeIn(
  arenas: readonly Arena[],
  size: number,
  alignment: number,
  kind: ArenaKind,
): Place | undefined {
  for (const arena of arenas) {
    if (!arena.isKept || arena.window.isClosed || !arena.isLike(kind)) continue;
    const offset = arena.take(size, alignment);
    if (offset !== undefined) return { arena, offset, isFresh: false };
  }
  return undefined;
}

/** Waits for `promise` as long as the options allow. */
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
