/**
 * The eventfds of one index for one action, and the messages that give them to the server (specification:
 * VFIO_USER_DEVICE_SET_IRQS with DATA_EVENTFD): one message for each run of consecutive interrupts, at most max_msg_fds
 * in each.
 *
 * What the server holds and what is open here are two things: a vector that its user has closed stays with the server
 * until the index is disabled.
 */
import { forUndoing, type CallOptions } from '../connection/index.js';
import { ClosedError, RemoteError, UnsupportedError, VfioUserError } from '../errors.js';
import { check, closeFds, native } from '../native.js';
import {
  Command,
  IRQ_SET_ACTION_MASK,
  IRQ_SET_ACTION_TRIGGER,
  IRQ_SET_ACTION_UNMASK,
  IRQ_SET_DATA_EVENTFD,
  IRQ_SET_DATA_NONE,
} from '../protocol/constants.js';
import { encodeSetIrqs, type SetIrqs } from '../protocol/set-irqs.js';
import type { DeviceContext } from './device-context.js';
import { Vector } from './irq-vector.js';

/** Linux passes no more fds in one message (SCM_MAX_FD), whatever a server allows. */
const MOST_FDS = 253;

export type IrqAction =
  typeof IRQ_SET_ACTION_MASK | typeof IRQ_SET_ACTION_UNMASK | typeof IRQ_SET_ACTION_TRIGGER;

/** What a vector of the action is called after its index. */
const NOUNS = {
  [IRQ_SET_ACTION_MASK]: 'mask event of vector',
  [IRQ_SET_ACTION_UNMASK]: 'unmask event of vector',
  [IRQ_SET_ACTION_TRIGGER]: 'vector',
} as const;

/** How far giving eventfds to the server has come. */
interface Progress {
  /** A message with them was sent. */
  sent: Vector[];
  /** The server said that it has them. */
  confirmed: Vector[];
}

/** The reply has no payload. */
function decodeNothing(): void {}

/** Sends one SET_IRQS. @throws what ends a call. */
export async function setIrqs(
  context: DeviceContext,
  request: SetIrqs,
  fds: readonly number[] | null,
  options: CallOptions | undefined,
): Promise<void> {
  return context
    .connectionFor(options)
    .call(Command.DEVICE_SET_IRQS, encodeSetIrqs(request), fds, decodeNothing, options);
}

export class IrqEventfds {
  readonly #context: DeviceContext;
  readonly #index: number;
  readonly #name: string;
  readonly #action: IrqAction;
  /** Open vectors by subindex. */
  readonly #vectors = new Map<number, Vector>();
  /** What vectors that are closed have counted. */
  #countedBefore = 0;
  /** Subindexes of which the server has, or may have, an eventfd. */
  readonly #armed = new Set<number>();
  #referenced = true;

  constructor(context: DeviceContext, index: number, name: string, action: IrqAction) {
    this.#context = context;
    this.#index = index;
    this.#name = name;
    this.#action = action;
  }

  /** Whether the server has, or may have, any eventfd of this set. */
  get isArmed(): boolean {
    return this.#armed.size > 0;
  }

  /** All that was ever counted. */
  get count(): number {
    let count = this.#countedBefore;
    for (const vector of this.#vectors.values()) count += vector.count;
    return count;
  }

  /** Open vectors, by subindex. */
  get vectors(): Vector[] {
    return [...this.#vectors.values()].sort((a, b) => a.subindex - b.subindex);
  }

  has(subindex: number): boolean {
    return this.#armed.has(subindex);
  }

  /** The open ones of `subindexes`, by subindex. */
  present(subindexes: readonly number[]): Map<number, Vector> {
    const wanted = new Set(subindexes);
    return new Map([...this.#vectors].filter(([subindex]) => wanted.has(subindex)));
  }

  /** How many fds one message takes. @throws UnsupportedError where the transport or the server takes none. */
  groupSize(): number {
    const { connection, maxMsgFds } = this.#context;
    if (!connection.passesFds) {
      throw new UnsupportedError(
        `${this.#name}: interrupts come by eventfd, and no file descriptor can be passed over ${connection.peer}`,
      );
    }
    if (maxMsgFds < 1)
      throw new UnsupportedError(`${this.#name}: the server takes no file descriptors (max_msg_fds 0)`);
    return Math.min(maxMsgFds, MOST_FDS);
  }

  /**
   * Makes a vector for each of `subindexes` (ascending, none of them open), gives their eventfds to the server, does
   * `afterwards` and starts them. What fails takes everything back that was done so far, and the error says so.
   * @returns the vectors, of which some may have been closed meanwhile.
   */
  async arm(
    subindexes: readonly number[],
    afterwards: () => Promise<void>,
    options: CallOptions | undefined,
  ): Promise<Vector[]> {
    const wasArmed = this.isArmed;
    const vectors = this.#make(subindexes);
    const progress: Progress = { sent: [], confirmed: [] };
    try {
      await this.#assign(vectors, progress, options);
      await afterwards();
      for (const vector of vectors) vector.start();
      return vectors;
    } catch (error) {
      for (const vector of vectors) vector.close();
      return await this.#unassign(error, progress, wasArmed, options);
    }
  }

  /** Gives the eventfds of the open vectors to the server again. */
  async restore(options: CallOptions | undefined): Promise<void> {
    const vectors = this.vectors;
    if (vectors.length > 0) await this.#assign(vectors, { sent: [], confirmed: [] }, options);
    for (const vector of vectors) vector.start();
  }

  /** The server has, or is to have, none any more. */
  clear(): void {
    this.#armed.clear();
    for (const vector of this.vectors) vector.close();
  }

  disconnect(reason: VfioUserError): void {
    for (const vector of this.vectors) vector.disconnect(reason);
  }

  setReferenced(on: boolean): void {
    this.#referenced = on;
    for (const vector of this.#vectors.values()) {
      if (on) vector.ref();
      else vector.unref();
    }
  }

  #make(subindexes: readonly number[]): Vector[] {
    const vectors: Vector[] = [];
    try {
      for (const subindex of subindexes) {
        const identity = {
          index: this.#index,
          subindex,
          name: `${this.#name} ${NOUNS[this.#action]} ${subindex}`,
          isTrigger: this.#action === IRQ_SET_ACTION_TRIGGER,
        };
        const vector = new Vector(this.#context, identity, () => this.#forget(vector));
        if (!this.#referenced) vector.unref();
        this.#vectors.set(subindex, vector);
        vectors.push(vector);
      }
    } catch (error) {
      for (const vector of vectors) vector.close();
      throw error;
    }
    return vectors;
  }

  #forget(vector: Vector): void {
    if (this.#vectors.get(vector.subindex) !== vector) return;
    this.#vectors.delete(vector.subindex);
    this.#countedBefore += vector.count;
  }

  async #assign(
    vectors: readonly Vector[],
    progress: Progress,
    options: CallOptions | undefined,
  ): Promise<void> {
    for (const group of consecutive(open(vectors), this.groupSize())) {
      options?.signal?.throwIfAborted();
      const fds = duplicate(group);
      progress.sent.push(...group);
      for (const { subindex } of group) this.#armed.add(subindex);
      try {
        await setIrqs(this.#context, this.#request(group), fds, options);
      } finally {
        closeFds(fds);
      }
      progress.confirmed.push(...group);
    }
  }

  /** Undoes `#assign` and throws `error`, the one that matters: what fails here is only added to it. */
  async #unassign(
    error: unknown,
    { sent, confirmed }: Progress,
    wasArmed: boolean,
    options: CallOptions | undefined,
  ): Promise<never> {
    // Of a group that was refused the server has nothing; of one that was not answered it may have all.
    const given = error instanceof RemoteError ? confirmed : sent;
    let outcome = `${rangeName(this.#name, given)} disabled again`;
    try {
      const undo = forUndoing(options, this.#context.connection.timeoutMs);
      if (given.length > 0) await this.#disarm(given, wasArmed, undo);
    } catch (cause) {
      outcome = `${rangeName(this.#name, given)} not disabled again (${String(cause)})`;
    }
    for (const { subindex } of sent) this.#armed.delete(subindex);
    // An abort's reason is the caller's own, and with the connection everything is gone.
    const plain = !(error instanceof VfioUserError) || error instanceof ClosedError;
    if (plain || confirmed.length === 0) throw error;
    throw new VfioUserError(error.code, `${error.message}; ${outcome}`, { cause: error });
  }

  async #disarm(given: readonly Vector[], wasArmed: boolean, options: CallOptions): Promise<void> {
    if (!wasArmed && this.#action === IRQ_SET_ACTION_TRIGGER) {
      await setIrqs(this.#context, disableRequest(this.#index), null, options);
      return;
    }
    // Without fds the message de-assigns its range.
    for (const group of consecutive(given, Infinity)) {
      await setIrqs(this.#context, this.#request(group), null, options);
    }
  }

  #request(group: readonly Vector[]): SetIrqs {
    const flags = IRQ_SET_DATA_EVENTFD | this.#action;
    // `consecutive` gives no empty group.
    return { index: this.#index, start: group[0]!.subindex, count: group.length, flags };
  }
}

/** The message that disables all interrupts of an index. */
export function disableRequest(index: number): SetIrqs {
  return { index, start: 0, count: 0, flags: IRQ_SET_DATA_NONE | IRQ_SET_ACTION_TRIGGER };
}

function rangeName(name: string, vectors: readonly Vector[]): string {
  const [first, last] = [vectors[0]?.subindex, vectors.at(-1)?.subindex];
  return first === last ? `${name} vector ${first} was` : `${name} vectors ${first} to ${last} were`;
}

function* open(vectors: readonly Vector[]): Generator<Vector> {
  for (const vector of vectors) if (!vector.isClosed) yield vector;
}

/**
 * Eventfds for a message. A message may wait for its turn, and a vector that is closed meanwhile must not leave its
 * number there for whatever file gets it next.
 */
function duplicate(vectors: readonly Vector[]): number[] {
  const fds: number[] = [];
  try {
    for (const { fd } of vectors) fds.push(check(native().dupFd(fd), 'dup', 'an eventfd'));
  } catch (error) {
    closeFds(fds);
    throw error;
  }
  return fds;
}

/** Runs of consecutive subindexes, at most `most` in each. */
function* consecutive(vectors: Iterable<Vector>, most: number): Generator<Vector[]> {
  let group: Vector[] = [];
  for (const vector of vectors) {
    const last = group.at(-1);
    const follows = last === undefined || last.subindex + 1 === vector.subindex;
    if (!follows || group.length === most) {
      yield group;
      group = [];
    }
    group.push(vector);
  }
  if (group.length > 0) yield group;
}
