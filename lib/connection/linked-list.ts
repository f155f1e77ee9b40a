/** A list whose items know their neighbours: each is added and taken out in constant time, wherever it stands. */

/** An item is in one list at a time. */
export interface Linked<T> {
  previous: T | undefined;
  next: T | undefined;
}

export class LinkedList<T extends Linked<T>> {
  #first: T | undefined;
  #last: T | undefined;

  get first(): T | undefined {
    return this.#first;
  }

  push(item: T): void {
    item.previous = this.#last;
    if (this.#last === undefined) this.#first = item;
    else this.#last.next = item;
    this.#last = item;
  }

  /** Takes `item` out; nothing happens where it is in no list. */
  remove(item: T): void {
    const { previous, next } = item;
    if (previous !== undefined) previous.next = next;
    else if (this.#first === item) this.#first = next;
    if (next !== undefined) next.previous = previous;
    else if (this.#last === item) this.#last = previous;
    item.previous = undefined;
    item.next = undefined;
  }

  /** Forgets all items. */
  clear(): void {
    this.#first = undefined;
    this.#last = undefined;
  }
}
