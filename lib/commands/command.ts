/** What callers of a queue wait for: a command, or a transfer of many. */
import type { DmaBuffer } from '../index.js';
import type { Linked, LinkedList } from './backlog.js';
import type { Due } from './call-limits.js';

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

/** `Command.answer` until something else is set: the promise gives what the completion says. */
export const RESULT: unique symbol = Symbol('result of the completion');

/** A command on its way, for one caller that waits. What it is, and where its data is, is the driver's. */
export abstract class Command extends PendingCall {
  override answer: unknown = RESULT;
  /** How many times it is sent again after a reset. */
  retries = 0;
  /** Memory that the device reaches. */
  buffer: DmaBuffer | undefined = undefined;
  /** What it is a part of. */
  transfer: Transfer | undefined = undefined;
  /** No deadline, and nobody waits for it: it does not count as under way. */
  isUnattended = false;

  // What follows is the queue's.
  /** The slot while the command is in flight, else -1. */
  slot = -1;
  /** In the order in which they were first sent. */
  order = -1;

  /** The caller may be told before the device is done with the command: it changes nothing of the caller's, nor a disk. */
  abstract get canBeLeft(): boolean;

  /** Whether it can be sent as it is, and the memory still holds its data. @throws what is wrong with it. */
  abstract check(): void;
}

/**
 * A call that takes many commands: a long read or write, Write Zeroes or Deallocate of many blocks. Its commands are made
 * as there is room for them, so it takes memory for what is in flight, whatever its length.
 */
export class Transfer extends PendingCall {
  /** Parts that were sent, or wait to be sent again. */
  outCount = 0;
  /** Made, and waiting for room. */
  #made: Command | undefined;
  readonly #parts: Iterator<Command, void>;
  #isDone = false;

  /** `parts` makes the commands, in order, one when it is asked for one. */
  constructor(name: string, parts: Iterator<Command, void>) {
    super(name);
    this.#parts = parts;
  }

  /** All commands were sent. */
  get isDone(): boolean {
    return this.#isDone;
  }

  /** The command to be sent next; undefined where there is none left. Throws what making it throws. */
  peek(): Command | undefined {
    if (this.#made === undefined && !this.#isDone) {
      const { value, done } = this.#parts.next();
      if (done === true) this.#isDone = true;
      else {
        value.transfer = this;
        this.#made = value;
      }
    }
    return this.#made;
  }

  /** That command was sent. */
  advance(): void {
    this.#made = undefined;
    this.outCount++;
  }
}
