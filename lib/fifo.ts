/** A queue, first in, first out, in which every operation takes the same time however long it is; an array's shift does not. */

interface Node<T> {
  readonly value: T;
  next: Node<T> | undefined;
}

export class Fifo<T> {
  #first: Node<T> | undefined;
  #last: Node<T> | undefined;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** The one whose turn it is. */
  peek(): T | undefined {
    return this.#first?.value;
  }

  push(value: T): void {
    const node = { value, next: undefined };
    if (this.#last === undefined) this.#first = node;
    else this.#last.next = node;
    this.#last = node;
    this.#length++;
  }

  /** Before all others. */
  pushFirst(value: T): void {
    this.#first = { value, next: this.#first };
    this.#last ??= this.#first;
    this.#length++;
  }

  shift(): T | undefined {
    const first = this.#first;
    if (first === undefined) return undefined;
    this.#first = first.next;
    if (this.#first === undefined) this.#last = undefined;
    this.#length--;
    return first.value;
  }

  /** Takes all of them out, in order. */
  drain(): T[] {
    const values: T[] = [];
    for (let node = this.#first; node !== undefined; node = node.next) values.push(node.value);
    this.#first = undefined;
    this.#last = undefined;
    this.#length = 0;
    return values;
  }
}
