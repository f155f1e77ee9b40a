/**
 * The arenas of a device. Small buffers share arenas of one size, which are kept when they are empty; a buffer that is
 * larger has an arena to itself, which goes with it.
 *
 * Few mappings are the point: some servers take 16, and QEMU does not say so. From the ninth mapping on each new arena
 * is as large as those before it together, so that slots suffice as long as memory does; and where the server has said
 * that few are left, large buffers share arenas, too, which are then kept. What is mapped is never moved to be merged
 * with a neighbour: the device may be using it.
 */
import { timeoutOf, withDeadline, within, type CallOptions } from '../connection/index.js';
import { TransportError } from '../errors.js';
import { Arena, arenaMemory, type ArenaKind } from './arena.js';
import { PAGE_SIZE, alignUp } from './iova-map.js';
import { HUGE_PAGE_SIZE, type DmaMapManager } from './dma-map-manager.js';
import { ENOMEM } from '../system-numbers.js';

/** Memory of an arena that a buffer has. */
export interface Allocation {
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

export class ArenaPool {
  readonly #manager: DmaMapManager;
  readonly #arenaBytes: number;
  readonly #hugePages: boolean;
  /** Those that small buffers share. */
  readonly #shared = new Set<Arena>();
  /** An arena that is being mapped for small buffers; never rejects. */
  #growing: Promise<void> | undefined;

  constructor(manager: DmaMapManager, arenaBytes: number, hugePages: boolean) {
    this.#manager = manager;
    this.#arenaBytes = arenaBytes;
    this.#hugePages = hugePages;
  }

  /** How long a wait for others may last where its caller says nothing. */
  get timeoutMs(): number {
    return this.#manager.timeoutMs;
  }

  /** Allocates `size` bytes at a multiple of `alignment`, which is at most a huge page. */
  async allocate(
    size: number,
    alignment: number,
    kind: ArenaKind,
    options: CallOptions,
  ): Promise<Allocation> {
    const isLarge = size > this.#arenaBytes;
    if (isLarge && this.#manager.advertisedSlotsLeft > FEW_SLOTS)
      return this.#allocateOwn(size, kind, options);
    const timeoutMs = timeoutOf(options, this.timeoutMs);
    const call = withDeadline({ timeoutMs, signal: options.signal });
    for (;;) {
      options.signal?.throwIfAborted();
      const allocation = this.#find(size, alignment, kind);
      if (allocation !== undefined) return allocation;
      // Whoever finds no room while an arena is on its way waits for that one: asking for many makes no more than needed.
      if (this.#growing === undefined) await this.#grow(size, kind, call);
      else await within('DMA_MAP', this.#growing, call, timeoutMs);
    }
  }

  /**
   * Allocates at once: in an arena that is there, in one of `begun`, or in a new one, which is added to `begun` while its
   * DMA_MAP is under way. Arenas in `begun` are for the caller alone until `publish`.
   * @returns with a new arena, what settles when it is mapped; see `DmaMapManager.beginMap`.
   */
  begin(
    size: number,
    alignment: number,
    kind: ArenaKind,
    begun: Arena[],
    options: CallOptions,
  ): { allocation: Allocation; mapped?: Promise<void> } {
    const isLarge = size > this.#arenaBytes && this.#manager.advertisedSlotsLeft > FEW_SLOTS;
    const known = isLarge
      ? undefined
      : (this.#find(size, alignment, kind) ?? allocateIn(begun, size, alignment, kind));
    if (known !== undefined) return { allocation: known };
    const { arena, mapped } = isLarge
      ? this.#begin(size, false, kind, options)
      : this.#beginShared(Math.max(size, this.#arenaBytes), kind, options);
    begun.push(arena);
    // The arena is new, and as large as the buffer: there is room.
    const offset = isLarge ? 0 : arena.allocate(size, alignment)!;
    return { allocation: { arena, offset, isFresh: true }, mapped };
  }

  /** Arenas that have begun, and are mapped now, are everybody's. */
  publish(begun: readonly Arena[]): void {
    for (const arena of begun) if (arena.isKept) this.#shared.add(arena);
  }

  /** Frees an allocation; the arena of a large buffer is unmapped, see `DmaMapManager.unmap`. */
  free({ arena, offset }: Allocation, size: number, options: CallOptions | undefined): Promise<void> {
    if (!arena.isKept) return this.#manager.unmap(arena.region, options);
    arena.free(offset, size);
    return Promise.resolve();
  }

  #find(size: number, alignment: number, kind: ArenaKind): Allocation | undefined {
    for (const arena of this.#shared) {
      if (arena.region.isClosed) this.#shared.delete(arena);
      const offset = arena.suits(kind) ? arena.allocate(size, alignment) : undefined;
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
    if (this.#manager.slotsLeft > FEW_SLOTS) return 0;
    let total = 0;
    for (const { region } of this.#shared) if (!region.isClosed) total += region.size;
    return Math.min(total, LARGEST_ARENA_BYTES);
  }

  async #allocateOwn(size: number, kind: ArenaKind, options: CallOptions): Promise<Allocation> {
    const { arena, mapped } = this.#begin(size, false, kind, options);
    await mapped;
    return { arena, offset: 0, isFresh: true };
  }

  #begin(size: number, isKept: boolean, kind: ArenaKind, options: CallOptions): BegunArena {
    const bytes = alignUp(size, Math.max(HUGE_PAGE_SIZE, this.#manager.granule));
    const pages = bytes / PAGE_SIZE;
    const page = this.#manager.choosePage(pages, kind.addressBits);
    const memory = arenaMemory(bytes, this.#hugePages);
    const { region, mapped } = this.#manager.beginMap(page, pages, kind, memory, 0, options);
    return { arena: new Arena(region, isKept), mapped };
  }
}

/** In an arena that many buffers share and whose DMA_MAP has not failed. */
function allocateIn(
  arenas: readonly Arena[],
  size: number,
  alignment: number,
  kind: ArenaKind,
): Allocation | undefined {
  for (const arena of arenas) {
    if (!arena.isKept || arena.region.isClosed || !arena.isLike(kind)) continue;
    const offset = arena.allocate(size, alignment);
    if (offset !== undefined) return { arena, offset, isFresh: false };
  }
  return undefined;
}
