/** The I/O queue pairs of a controller: made, made again after a reset, and deleted. */
import { integer, outOfRange } from '../fields.js';
import { ClosedError, TimeoutError, UnsupportedError, type DmaBuffer, type Vector } from '../index.js';
import type { Admin, QueueCreation } from './admin.js';
import { CommandQueue, type CommandQueueOptions } from './command-queue.js';
import type { NvmeQueueOptions } from './controller-options.js';
import type { DoorbellMap } from './doorbell-map.js';
import { NvmeControllerError } from './errors.js';
import { IoBuffers, type BufferSizes } from './io-buffers.js';
import type { NvmeNamespace } from './namespace.js';
import { NvmeQueue, type QueueHost } from './queue.js';
import { QueueMemory } from './queue-memory.js';
import { QueuePair } from './queue-pair.js';
import { NvmeStatusError } from './status.js';

/** Where nothing is said. */
const DEFAULT_ENTRIES = 256;
const LEAST_ENTRIES = 2;
const DEFAULT_BUFFER_BYTES = 4096;

export interface IoQueuesHost extends QueueHost {
  readonly admin: Admin;
  readonly doorbells: DoorbellMap;
  readonly timeoutMs: number;
  /** Of one ring. */
  readonly maxQueueEntries: number;
  /** MAXCMD; 0 where the controller does not say. */
  readonly maxOutstanding: number;
  /** Whether data may be named by SGLs. */
  readonly usesSgls: boolean;
  readonly watch: Pick<CommandQueueOptions, 'onStuck' | 'onUnwanted' | 'onBroken'>;
  onViolation(error: Error): void;
  /** The memory of queues is about to be taken away. */
  onMemoryLost(reason: Error): void;
  /** Runs while nothing else changes the controller's queues, and no reset is under way. @throws what ended the controller. */
  whenLive<T>(run: () => Promise<T>): Promise<T>;
}

/** What the controller must be capable of for a queue. */
export interface QueueNeeds {
  maxQueueEntries: number;
  maxTransferBytes: number;
  usesSgls: boolean;
}

/** The controller was asked to make or delete a queue, and did not answer: nobody knows what it has, until it is reset. */
export class UncertainChange extends Error {
  constructor(cause: TimeoutError) {
    super(cause.message, { cause });
  }
}

interface Member {
  readonly queue: NvmeQueue;
  readonly commands: CommandQueue;
  readonly memory: QueueMemory;
  readonly buffers: IoBuffers | undefined;
  readonly entries: number;
  /** What the queue was made for. */
  readonly needs: Pick<QueueNeeds, 'maxTransferBytes' | 'usesSgls'>;
  /** The interrupt's number. */
  readonly vector: number | undefined;
  readonly stopListening: (() => void) | undefined;
  readonly stopWatching: () => void;
  /** The controller has the queue. */
  isCreated: boolean;
  closing: Promise<void> | undefined;
  /** It is about to be deleted, and is not made again after a reset. */
  isLeaving: boolean;
}

export class IoQueues {
  readonly #host: IoQueuesHost;
  readonly #members = new Map<number, Member>();
  /** Identifiers of queues that are being made. */
  readonly #reserved = new Set<number>();
  /** Memory of queues that were never made, which the controller may have been told of: free when it is disabled. */
  #orphans: DmaBuffer[] = [];
  /** As the controller granted. */
  limit = 0;
  #usesInterrupts = false;

  constructor(host: IoQueuesHost) {
    this.#host = host;
  }

  get all(): NvmeQueue[] {
    return [...this.#members.values()].map(({ queue }) => queue);
  }

  /**
   * In a controller that is live, and that nobody else changes.
   * @throws RangeError; UnsupportedError where the controller has no further queue or vector; what commands throw.
   */
  async create(namespace: NvmeNamespace, options: NvmeQueueOptions): Promise<NvmeQueue> {
    const { maxQueueEntries, maxOutstanding } = this.#host;
    const entries = integer(
      'entries',
      options.entries ?? Math.min(DEFAULT_ENTRIES, maxQueueEntries),
      LEAST_ENTRIES,
      maxQueueEntries,
    );
    const slots = maxOutstanding === 0 ? entries - 1 : Math.min(entries - 1, maxOutstanding);
    const sizes = bufferSizes(options, slots, this.#host);
    const id = this.#reserve();
    const owned: DmaBuffer[] = [];
    try {
      const vector = options.completion === 'interrupt' ? await this.#vector(id) : undefined;
      const { pageSize, maxTransferBytes, usesSgls, device } = this.#host;
      const memory = await QueueMemory.allocate(device, { entries, slots, pageSize, maxTransferBytes });
      owned.push(memory.buffer);
      const buffers =
        sizes === undefined ? undefined : await IoBuffers.allocate(device, { ...sizes, pageSize, usesSgls });
      if (buffers !== undefined) owned.push(buffers.buffer);
      return await this.#start(id, namespace, { entries, slots, memory, buffers, vector }, options);
    } catch (error) {
      // Without an answer of the controller's to go by it may have the queue, until it is disabled.
      if (error instanceof NvmeStatusError || error instanceof UnsupportedError)
        for (const buffer of owned) buffer.close().catch(() => undefined);
      else this.#orphans.push(...owned);
      throw error;
    } finally {
      this.#reserved.delete(id);
    }
  }

  /** The controller was disabled: nothing of what was in flight is, and no queue exists. */
  recover(): void {
    for (const member of this.#members.values()) {
      member.isCreated = false;
      member.commands.recover();
    }
    for (const buffer of this.#orphans.splice(0)) buffer.close().catch(() => undefined);
  }

  /** What a queue was made for, and the controller does not grant any more; undefined where it grants all. */
  whatIsMissing({ maxQueueEntries, maxTransferBytes, usesSgls }: QueueNeeds): string | undefined {
    for (const { queue, commands, entries, needs, isLeaving } of this.#members.values()) {
      if (commands.isRetired || isLeaving) continue;
      if (queue.id > this.limit) return `${this.limit} I/O queue pairs, and queue ${queue.id} is in use`;
      if (entries > maxQueueEntries)
        return `${maxQueueEntries} entries a queue, and queue ${queue.id} has ${entries}`;
      if (needs.maxTransferBytes > maxTransferBytes)
        return `transfers of ${maxTransferBytes} bytes, and queue ${queue.id} was made for ${needs.maxTransferBytes}`;
      if (needs.usesSgls && !usesSgls) return `no SGLs, and queue ${queue.id} uses them`;
    }
    return undefined;
  }

  /** Makes all queues again in a controller that was reset, but for those that have ended. */
  async recreate(admin: Admin): Promise<void> {
    for (const member of this.#members.values()) {
      if (!member.commands.isRetired && !member.isLeaving) await this.#createIn(member, admin);
    }
  }

  resume(): void {
    for (const { commands } of this.#members.values()) commands.resume();
  }

  /** Nothing is sent from here on. */
  suspend(): void {
    for (const { commands } of this.#members.values()) commands.pair.close();
  }

  /** Runs while nothing is sent; the controller keeps the queues. */
  async paused(run: () => Promise<void>): Promise<void> {
    for (const { commands } of this.#members.values()) commands.pair.pause();
    await run();
    for (const { commands, isCreated } of this.#members.values()) {
      if (!isCreated || commands.isRetired) continue;
      commands.pair.reopen();
      commands.resume();
    }
  }

  /** Ends the queues of a namespace that is not what it was. */
  endThoseOf(namespace: NvmeNamespace, error: () => Error): void {
    for (const { queue, commands } of this.#members.values())
      if (queue.namespace === namespace) commands.retire(error);
  }

  end(error: () => Error): void {
    for (const { commands } of this.#members.values()) commands.end(error);
  }

  /** The queues have ended, and the controller does not use the callers' buffers any more. */
  giveBack(): void {
    for (const { commands } of this.#members.values()) commands.giveBack();
  }

  /** Gives back memory that the controller, which is disabled, does not use any more. */
  async free(): Promise<void> {
    for (const member of this.#members.values()) await freeMemory(member);
    this.#members.clear();
    for (const buffer of this.#orphans.splice(0)) await buffer.free();
  }

  /** Of a controller that is disabled. */
  async disableInterrupts(): Promise<void> {
    if (this.#usesInterrupts) await this.#host.device.irqs.msix.disable();
    this.#usesInterrupts = false;
  }

  /** Waits for what is in flight, deletes the queue, and gives its memory back. Idempotent. */
  close(queue: NvmeQueue): Promise<void> {
    const member = this.#members.get(queue.id);
    if (member?.queue !== queue) return Promise.resolve();
    return (member.closing ??= this.#close(member));
  }

  /** Waits for what is in flight, as long as commands may take; nothing else is taken. */
  async drain(): Promise<void> {
    await Promise.all([...this.#members.values()].map((member) => drain(member)));
  }

  /** Deletes all queues, as far as the controller obeys: it is disabled next. */
  async deleteAll(): Promise<void> {
    for (const { queue, isCreated } of this.#members.values())
      if (isCreated) await this.#host.admin.deleteQueues(queue.id);
  }

  async #start(
    id: number,
    namespace: NvmeNamespace,
    parts: Pick<Member, 'memory' | 'buffers' | 'entries'> & {
      slots: number;
      vector: Vector | undefined;
    },
    options: NvmeQueueOptions,
  ): Promise<NvmeQueue> {
    const { memory, buffers, entries, slots, vector } = parts;
    const pair = new QueuePair({
      id,
      entries,
      slots,
      sq: memory.sq,
      cq: memory.cq,
      tellsHeadAtOnce: vector !== undefined,
    });
    pair.onViolation = (error) => this.#host.onViolation(error);
    const commands = new CommandQueue({
      pair,
      prps: memory.prps,
      timeoutMs: options.timeoutMs ?? this.#host.timeoutMs,
      isPolled: vector === undefined,
      spinUs: this.#host.device.spinUs,
      usesSgls: this.#host.usesSgls,
      ...this.#host.watch,
    });
    const doorbell = this.#host.doorbells.pair(id).sq.kind;
    const queue = new NvmeQueue(this.#host, commands, namespace, buffers, doorbell);
    const member: Member = {
      queue,
      commands,
      memory,
      buffers,
      entries,
      needs: { maxTransferBytes: this.#host.maxTransferBytes, usesSgls: this.#host.usesSgls },
      vector: vector?.subindex,
      stopListening: vector?.onInterrupt(() => commands.lookSafely()),
      stopWatching: memory.buffer.onRelease((reason) => this.#host.onMemoryLost(reason)),
      isCreated: false,
      closing: undefined,
      isLeaving: false,
    };
    try {
      await certain(this.#createIn(member, this.#host.admin));
    } catch (error) {
      member.stopListening?.();
      member.stopWatching();
      commands.end(() => new ClosedError(`queue ${id} was not created`, { cause: error }));
      throw error;
    }
    this.#members.set(id, member);
    return queue;
  }

  /** 3.3.1.1 (of the PCIe transport): the completion queue first, both empty. */
  async #createIn(member: Member, admin: Admin): Promise<void> {
    const { commands, memory, entries, vector } = member;
    const { pair } = commands;
    pair.clear();
    const doorbells = this.#host.doorbells.pair(pair.id);
    const cq = { id: pair.id, entries, address: memory.cqAddress };
    await createCompletionQueue(admin, cq, vector);
    try {
      await admin.createSubmissionQueue({ id: pair.id, entries, address: memory.sqAddress }, pair.id);
    } catch (error) {
      if (error instanceof NvmeStatusError) await dropCompletionQueue(admin, pair.id);
      throw error;
    }
    member.isCreated = true;
    pair.open(doorbells.sq, doorbells.cq);
  }

  async #close(member: Member): Promise<void> {
    const { commands, queue } = member;
    const closed = () => new ClosedError(`queue ${queue.id} is closed`);
    await drain(member);
    member.isLeaving = true;
    try {
      // Again where a reset comes between, after which the controller does not have it.
      await this.#host.whenLive(async () => {
        if (member.isCreated) await this.#delete(member);
        // The controller does not have the queue any more.
        commands.end(closed, true);
        commands.giveBack();
        this.#members.delete(queue.id);
        await freeMemory(member);
      });
    } catch (error) {
      member.closing = undefined;
      // A controller that has ended has no queues, and gives their memory back itself.
      if (!commands.hasEnded) throw error;
    }
  }

  async #delete({ commands, queue }: Member): Promise<void> {
    commands.pair.close();
    await certain(this.#host.admin.deleteQueues(queue.id));
    // What was completed before.
    commands.look();
  }

  #reserve(): number {
    for (let id = 1; id <= this.limit; id++) {
      if (this.#members.has(id) || this.#reserved.has(id)) continue;
      this.#reserved.add(id);
      return id;
    }
    throw new UnsupportedError(`the controller has ${this.limit} I/O queue pairs, and all are in use`);
  }

  /** One of its own for each queue, as far as there are as many; vector 0 is the admin queue's. */
  async #vector(id: number): Promise<Vector> {
    const { msix } = this.#host.device.irqs;
    const { count } = msix;
    if (count === 0) throw new UnsupportedError('the controller has no MSI-X vectors');
    this.#usesInterrupts = true;
    const start = count === 1 ? 0 : 1 + ((id - 1) % (count - 1));
    // A set that cannot grow is enabled whole, as far as it is of use. The admin queue is signalled in any case.
    const wanted = msix.noResize ? { start: 0, count: Math.min(count, this.limit + 1) } : { start, count: 1 };
    if (!msix.noResize) await msix.enable(1);
    const vectors = await msix.enable(wanted);
    const vector = vectors.find(({ subindex }) => subindex === start);
    if (vector === undefined) throw new UnsupportedError(`MSI-X vector ${start} was closed`);
    return vector;
  }
}

/** Waits for `promise`, but no longer than that. */
async function within(promise: Promise<void>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, timeoutMs)));
  await Promise.race([promise, over]);
  clearTimeout(timer);
}

/** Nothing is taken any more. Waits for what is under way, as long as commands may take. */
async function drain({ commands, queue }: Member): Promise<void> {
  commands.refuse(() => new ClosedError(`queue ${queue.id} is being closed`));
  await within(commands.idle(), commands.timeoutMs);
}

async function freeMemory({ queue, memory, buffers, ...member }: Member): Promise<void> {
  member.stopListening?.();
  member.stopWatching();
  for (const buffer of [memory.buffer, buffers?.buffer, queue.poolBuffer]) await buffer?.free();
}

function bufferSizes(
  { buffers }: NvmeQueueOptions,
  slots: number,
  { maxTransferBytes, pageSize }: Pick<IoQueuesHost, 'maxTransferBytes' | 'pageSize'>,
): BufferSizes | undefined {
  if (buffers === undefined) return undefined;
  const { pageOffset = 0 } = buffers;
  if (!Number.isInteger(pageOffset) || pageOffset < 0 || pageOffset > pageSize - 4) {
    throw outOfRange(`buffers.pageOffset is a whole number from 0 to ${pageSize - 4}, not ${pageOffset}`);
  }
  if (pageOffset % 4 !== 0) throw outOfRange(`buffers.pageOffset is a multiple of 4, not ${pageOffset}`);
  return {
    pageOffset,
    count: buffers.count ?? slots,
    bytes: integer('buffers.bytes', buffers.bytes ?? DEFAULT_BUFFER_BYTES, 1, maxTransferBytes),
  };
}

/** @throws UncertainChange where no answer comes; what else `change` throws. */
async function certain(change: Promise<void>): Promise<void> {
  try {
    await change;
  } catch (error) {
    throw error instanceof TimeoutError ? new UncertainChange(error) : error;
  }
}

/**
 * SPDK's target keeps a completion queue over a reset that came before its submission queue was made: the identifier is
 * freed, and the queue made again.
 */
async function createCompletionQueue(
  admin: Admin,
  ring: QueueCreation,
  vector: number | undefined,
): Promise<void> {
  try {
    await admin.createCompletionQueue(ring, vector);
  } catch (error) {
    if (!(error instanceof NvmeStatusError) || error.statusName !== 'INVALID_QUEUE_IDENTIFIER') throw error;
    try {
      await admin.deleteCompletionQueue(ring.id);
    } catch (cause) {
      throw cause instanceof NvmeStatusError ? error : cause;
    }
    await admin.createCompletionQueue(ring, vector);
  }
}

/** Of a pair that has no submission queue. */
async function dropCompletionQueue(admin: Admin, id: number): Promise<void> {
  try {
    await admin.deleteCompletionQueue(id);
  } catch (cause) {
    // Not a status: the memory stays reserved.
    throw new NvmeControllerError(`completion queue ${id} cannot be deleted`, { cause });
  }
}
