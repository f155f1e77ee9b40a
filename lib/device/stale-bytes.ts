/**
 * Which bytes of a copy may no longer be what the original has: something that changes them was sent, and they have not
 * been read since. Commands are carried out in their order, so a read that was sent after a change has seen it, whatever
 * became of the change's own reply.
 */
export class StaleBytes {
  readonly #size: number;
  /** When each was last changed, by the count of changes; few, and none most of the time. */
  readonly #changed = new Map<number, number>();
  #count = 0;

  constructor(size: number) {
    this.#size = size;
  }

  /** How many changes there were so far: a read that is sent now sees them. */
  get count(): number {
    return this.#count;
  }

  get isEmpty(): boolean {
    return this.#changed.size === 0;
  }

  /** Bytes `[start, end)` are about to be changed. */
  mark(start = 0, end = this.#size): void {
    this.#count++;
    for (let at = start; at < end; at++) this.#changed.set(at, this.#count);
  }

  /** Bytes `[start, end)` have been read, by what was sent after `count` changes. */
  clear(start: number, end: number, count: number): void {
    if (this.isEmpty) return;
    for (let at = start; at < end; at++) {
      if ((this.#changed.get(at) ?? Infinity) <= count) this.#changed.delete(at);
    }
  }

  /** Whether any of the bytes `[start, end)` is stale. */
  includes(start: number, end: number): boolean {
    if (this.isEmpty) return false;
    for (let at = start; at < end; at++) if (this.#changed.has(at)) return true;
    return false;
  }

  /** Where blocks of so many bytes begin that have stale ones, in order. */
  blocks(size: number): number[] {
    const starts = new Set([...this.#changed.keys()].map((at) => at - (at % size)));
    return [...starts].sort((a, b) => a - b);
  }
}
