/** What a caller of a queue waits for: one command (command.ts), or a transfer of many (transfer.ts). */
import type { Due } from './deadlines.js';
import type { Linked, LinkedList } from './linked-list.js';

export class PendingCall implements Linked<PendingCall>, Due {
  /** For errors: what was asked for. */
  readonly name: string;
  /** What the promise gives. */
  answer: unknown = undefined;

  // What follows is the queue's.
  resolve!: (value: never) => void;
  reject!: (reason: unknown) => void;
  /** The caller has an answer; a command's slot may still be in use. */
  isSettled = false;
  /** Why the caller gets an error whatever comes, when there is one. */
  failure: unknown = undefined;
  /** The epoch in which it began to wait for room. */
  epoch = 0;
  /** The caller gave a deadline, for the whole call. */
  hasOwnDeadline = false;
  /** How long that is, milliseconds. */
  timeoutMs = 0;
  due = 0;
  heapIndex = -1;
  signal: AbortSignal | undefined = undefined;
  list: LinkedList<PendingCall> | undefined = undefined;
  previous: PendingCall | undefined = undefined;
  next: PendingCall | undefined = undefined;

  constructor(name: string) {
    this.name = name;
  }
}
