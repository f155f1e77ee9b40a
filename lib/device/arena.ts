/** A region of our own memory that buffers are cut from. */
import { TransportError } from '../errors.js';
import { check, native } from '../native.js';
import { ArenaSpace } from './arena-space.js';
import type { DmaRegion, DmaRegionMemory } from './dma-region.js';

/** What a buffer wants of its arena. */
export interface ArenaKind {
  readonly readable: boolean;
  readonly writable: boolean;
  readonly shared: boolean;
  /** How many address lines the device has. */
  readonly addressBits: number;
}

export class Arena {
  readonly region: DmaRegion;
  /** It stays when it is empty, for the next buffers. */
  readonly isKept: boolean;
  readonly #space: ArenaSpace;

  constructor(region: DmaRegion, isKept: boolean) {
    this.region = region;
    this.isKept = isKept;
    this.#space = new ArenaSpace(region.size);
  }

  get isEmpty(): boolean {
    return this.#space.isEmpty;
  }

  /** Whether a buffer of that kind may lie here. */
  suits(kind: ArenaKind): boolean {
    return this.region.state === 'mapped' && this.isLike(kind);
  }

  /** The same, once it is mapped. */
  isLike({ readable, writable, shared, addressBits }: ArenaKind): boolean {
    const { access, iova, size } = this.region;
    return (
      access.readable === readable &&
      access.writable === writable &&
      access.shared === shared &&
      iova + BigInt(size) <= 1n << BigInt(addressBits)
    );
  }

  /** See `ArenaSpace.allocate`. */
  allocate(size: number, alignment: number): number | undefined {
    return this.#space.allocate(size, alignment);
  }

  free(offset: number, size: number): void {
    this.#space.free(offset, size);
  }
}

/**
 * Memory for an arena: zeroed, allocated, and sealed, so that nobody can make touching it fail.
 * @throws TransportError, ENOMEM among them.
 */
export function arenaMemory(size: number, hugePages: boolean): DmaRegionMemory {
  const fd = native().memfd('vfio-user-dma', size, hugePages);
  check(fd, 'memfd_create', `${size} bytes of DMA memory${hugePages ? ' in huge pages' : ''}`);
  const mapping = native().map(fd, 0, size, true, true);
  if (typeof mapping !== 'number') return { fd, mapping, sealed: true };
  native().closeFd(fd);
  throw new TransportError('mmap', -mapping, `${size} bytes of DMA memory`);
}
