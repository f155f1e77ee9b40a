/**
 * Which parts of an arena are taken: the first gap that is large enough is given out, and what comes back is
 * joined with its free neighbours. Offsets and sizes are in bytes.
 */

interface Gap {
  offset: number;
  size: number;
}

export class ArenaSpace {
  readonly size: number;
  /** Free places by offset; no two touch. */
  readonly #gaps: Gap[];

  constructor(size: number) {
    this.size = size;
    this.#gaps = [{ offset: 0, size }];
  }

  /** Nothing is taken. */
  get isEmpty(): boolean {
    return this.#gaps[0]?.size === this.size;
  }

  /** Takes `size` bytes at a multiple of `alignment`, a power of two. Undefined where no gap is large enough. */
  allocate(size: number, alignment: number): number | undefined {
    for (const [index, gap] of this.#gaps.entries()) {
      const offset = Math.ceil(gap.offset / alignment) * alignment;
      const end = gap.offset + gap.size;
      if (offset + size > end) continue;
      const left: Gap[] = [];
      if (offset > gap.offset) left.push({ offset: gap.offset, size: offset - gap.offset });
      if (offset + size < end) left.push({ offset: offset + size, size: end - offset - size });
      this.#gaps.splice(index, 1, ...left);
      return offset;
    }
    return undefined;
  }

  /** Frees what `allocate` returned. */
  free(offset: number, size: number): void {
    const at = this.#gaps.findIndex((gap) => gap.offset > offset);
    const index = at === -1 ? this.#gaps.length : at;
    const before = this.#gaps[index - 1];
    const after = this.#gaps[index];
    const joinsBefore = before !== undefined && before.offset + before.size === offset;
    const joinsAfter = after !== undefined && offset + size === after.offset;
    if (joinsBefore) {
      before.size += size + (joinsAfter ? after.size : 0);
      if (joinsAfter) this.#gaps.splice(index, 1);
    } else if (joinsAfter) {
      after.offset = offset;
      after.size += size;
    } else this.#gaps.splice(index, 0, { offset, size });
  }
}
