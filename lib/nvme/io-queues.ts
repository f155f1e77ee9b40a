/** The I/O queue pairs of a controller: made, made again after a reset, and deleted. */
import { ClosedError, UnsupportedError, type DmaBuffer, type Vector } from '../index.js';
import type { Admin } from './admin.js';
import { CommandQueue, type CommandQueueOptions } from './command-queue.js';
import { wholeNumber, type NvmeQueueOptions } from './controller-options.js';
import type { DoorbellMap } from './doorbell-map.js';
import { NvmeControllerError, NvmeResetError } from './errors.js';
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
  readonly watch: Pick<CommandQueueOptions, 'onStuck' | 'onUnwanted'>;
  onViolation(error: Error): void;
  /** Settles when no reset is under way. */
  afterReset(): Promise<void>;
  /** Whether the controller obeys: nothing is deleted by command in a controller that does not. */
  readonly isLive: boolean;
}

interface Member {
  readonly queue: NvmeQueue;
  readonly commands: CommandQueue;
  readonly memory: QueueMemory;
  readonly buffers: IoBuffers | undefined;
  readonly entries: number;
  /** The interrupt's number. */
  readonly vector: number | undefined;
  readonly stopListening: (() => void) | undefined;
  closing: Promise<void> | undefined;
}

export class IoQueues {
  readonly #host: IoQueuesHost;
  readonly #members = new Map<number, Member>();
  /** Identifiers of queues that are being made. */
  readonly #reserved = new Set<number>();
  /** As the controller granted. */
  limit = 0;
  #usesInterrupts = false;

  constructor(host: IoQueuesHost) {
    this.#host = host;
  }

  get all(): NvmeQueue[] {
    return [...this.#members.values()].map(({ queue }) => queue);
  }

  /** @throws RangeError; UnsupportedError where the controller has no further queue or vector; what commands throw. */
  async create(namespace: NvmeNamespace, options: NvmeQueueOptions): Promise<NvmeQueue> {
    const { maxQueueEntries, maxOutstanding } = this.#host;
    const entries = wholeNumber(
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
      // Without an answer of the controller's to go by it may have the queue.
      if (error instanceof NvmeStatusError) for (const buffer of owned) buffer.close();
      throw error;
    } finally {
      this.#reserved.delete(id);
    }
  }

  /** The controller was disabled: nothing of what was in flight is, and no queue exists. */
  recover(): void {
    for (const { commands } of this.#members.values()) commands.recover();
  }

  /** Makes all queues again in a controller that was reset. */
  async recreate(): Promise<void> {
    for (const member of this.#members.values()) {
      if (member.closing === undefined) await this.#createIn(member);
    }
  }

  resume(): void {
    for (const { commands } of this.#members.values()) commands.resume();
  }

  suspend(): void {
    for (const { commands } of this.#members.values()) commands.pair.close();
  }

  end(error: () => Error): void {
    for (const { commands } of this.#members.values()) commands.end(error);
  }

  /** Gives back memory that the controller, which is disabled, does not use any more. */
  async free(): Promise<void> {
    for (const member of this.#members.values()) await freeMemory(member);
    this.#members.clear();
  }

  /** Of a controller that is disabled. */
  async disableInterrupts(): Promise<void> {
    if (this.#usesInterrupts) await this.#host.device.irqs.msix.disable();
    this.#usesInterrupts = false;
  }

  close(queue: NvmeQueue): Promise<void> {
    const member = this.#members.get(queue.id);
    if (member?.queue !== queue) return Promise.resolve();
    return (member.closing ??= this.#delete(member));
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
      vector: vector?.subindex,
      stopListening: vector?.onInterrupt(() => commands.look()),
      closing: undefined,
    };
    try {
      await this.#createIn(member);
    } catch (error) {
      member.stopListening?.();
      commands.end(() => new ClosedError(`queue ${id} was not created`, { cause: error }));
      throw error;
    }
    this.#members.set(id, member);
    return queue;
  }

  /** 3.3.1.1 (of the PCIe transport): the completion queue first, both empty. */
  async #createIn({ commands, memory, entries, vector }: Member): Promise<void> {
    const { admin, doorbells } = this.#host;
    const { pair } = commands;
    pair.clear();
    const { sq, cq } = doorbells.pair(pair.id);
    await admin.createCompletionQueue({ id: pair.id, entries, address: memory.cqAddress }, vector);
    try {
      await admin.createSubmissionQueue({ id: pair.id, entries, address: memory.sqAddress }, pair.id);
    } catch (error) {
      if (error instanceof NvmeStatusError) await this.#dropCompletionQueue(pair.id);
      throw error;
    }
    pair.open(sq, cq);
  }

  /** Of a pair that has no submission queue. */
  async #dropCompletionQueue(id: number): Promise<void> {
    try {
      await this.#host.admin.deleteCompletionQueue(id);
    } catch (cause) {
      // Not a status: the memory stays reserved.
      throw new NvmeControllerError(`completion queue ${id} cannot be deleted`, { cause });
    }
  }

  async #delete(member: Member): Promise<void> {
    const { commands } = member;
    const { id } = commands.pair;
    await within(commands.idle(), commands.timeoutMs);
    await this.#host.afterReset();
    if (!this.#host.isLive) return;
    commands.pair.close();
    try {
      await this.#host.admin.deleteQueues(id);
    } catch (error) {
      // A reset deletes all queues.
      if (!(error instanceof NvmeResetError)) throw error;
    }
    commands.look();
    commands.end(() => new ClosedError(`queue ${id} is closed`));
    this.#members.delete(id);
    await freeMemory(member);
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

async function freeMemory({ commands, queue, memory, buffers, stopListening }: Member): Promise<void> {
  stopListening?.();
  commands.pair.detach();
  for (const buffer of [memory.buffer, buffers?.buffer, queue.poolBuffer]) await buffer?.free();
}

function bufferSizes(
  { buffers }: NvmeQueueOptions,
  slots: number,
  { maxTransferBytes, pageSize }: Pick<IoQueuesHost, 'maxTransferBytes' | 'pageSize'>,
): BufferSizes | undefined {
  if (buffers === undefined) return undefined;
  const pageOffset = wholeNumber('buffers.pageOffset', buffers.pageOffset ?? 0, 0, pageSize - 4);
  if (pageOffset % 4 !== 0) throw new RangeError(`buffers.pageOffset is a multiple of 4, not ${pageOffset}`);
  return {
    pageOffset,
    count: wholeNumber('buffers.count', buffers.count ?? slots, 1, 0xffff),
    bytes: wholeNumber('buffers.bytes', buffers.bytes ?? DEFAULT_BUFFER_BYTES, 1, maxTransferBytes),
  };
}
