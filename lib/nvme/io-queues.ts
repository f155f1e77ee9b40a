/** The I/O queue pairs of a controller: made, made again after a reset, and deleted. */
import { integer, outOfRange } from '../fields.js';
import { UnsupportedError, type DmaBuffer, type Vector } from '../index.js';
import type { AdminCommands } from './admin-commands.js';
import type { ControllerInfo } from './controller-info.js';
import type { NvmeQueueOptions } from './controller-options.js';
import type { DoorbellMap } from './doorbell-map.js';
import { IoBuffers, type BufferSizes } from './io-buffers.js';
import { certain, IoQueuePair, type IoQueuePairHost } from './io-queue-pair.js';
import type { NvmeNamespace } from './namespace.js';
import { allOf, freeAll } from '../commands/driver-memory.js';
import { QueueMemory } from './queue-memory.js';
import { MOST_SLOTS } from './queue-pair.js';
import { NvmeQueue } from './queue.js';
import { NvmeStatusError } from './status.js';

/** Where nothing is said. */
const DEFAULT_ENTRIES = 256;
const LEAST_ENTRIES = 2;
const DEFAULT_BUFFER_BYTES = 4096;

export interface IoQueuesOptions {
  info: ControllerInfo;
  /** Commands of the driver. */
  admin: AdminCommands;
  doorbells: DoorbellMap;
  host: IoQueuePairHost;
  /** Runs while nothing else changes the controller's queues, and no reset is under way. @throws what ended the controller. */
  whenLive: (run: () => Promise<void>) => Promise<void>;
}

interface Member {
  readonly pair: IoQueuePair;
  readonly queue: NvmeQueue;
  closing: Promise<void> | undefined;
}

export class IoQueues {
  readonly #options: IoQueuesOptions;
  readonly #members = new Map<number, Member>();
  /** Identifiers of queues that are being made. */
  readonly #reserved = new Set<number>();
  /** Memory of queues that were never made, which the controller may have been told of: free when it is disabled. */
  readonly #orphans: DmaBuffer[] = [];
  /** How many the controller granted. */
  limit = 0;
  #usesInterrupts = false;

  constructor(options: IoQueuesOptions) {
    this.#options = options;
  }

  get all(): NvmeQueue[] {
    return [...this.#members.values()].map(({ queue }) => queue);
  }

  /**
   * In a controller that is live, and that nobody else changes.
   * @throws RangeError; UnsupportedError where the controller has no further queue or vector; what commands throw.
   */
  async create(namespace: NvmeNamespace, options: NvmeQueueOptions): Promise<NvmeQueue> {
    const { info } = this.#options;
    const { maxQueueEntries } = info.capabilities;
    const wanted = options.entries ?? Math.min(DEFAULT_ENTRIES, maxQueueEntries);
    const entries = integer('entries', wanted, LEAST_ENTRIES, maxQueueEntries);
    // MAXCMD; 0 where the controller does not say.
    const most = info.identity.maxOutstandingCommands || MOST_SLOTS;
    const slots = Math.min(entries - 1, most, MOST_SLOTS);
    const sizes = bufferSizes(options, slots, info);
    const id = this.#reserve();
    const owned: DmaBuffer[] = [];
    try {
      const vector = options.completion === 'interrupt' ? await this.#vector(id) : undefined;
      const { pageSize, maxTransferBytes, usesSgls, device } = info;
      const memory = await QueueMemory.allocate(device, { entries, slots, pageSize, maxTransferBytes });
      owned.push(memory.buffer);
      const buffers =
        sizes === undefined ? undefined : await IoBuffers.allocate(device, { ...sizes, pageSize, usesSgls });
      if (buffers !== undefined) owned.push(buffers.buffer);
      const { admin, doorbells, host } = this.#options;
      const timeoutMs = options.timeoutMs ?? info.settings.timeoutMs;
      const parts = { memory, buffers, vector, timeoutMs, info, doorbells, host };
      const pair = new IoQueuePair({ id, entries, slots, ...parts });
      const queue = new NvmeQueue(pair, namespace, info, () => this.#close(member));
      const member: Member = { pair, queue, closing: undefined };
      try {
        await certain(pair.create(admin));
      } catch (error) {
        pair.discard(error);
        throw error;
      }
      this.#members.set(id, member);
      return queue;
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
    for (const { pair } of this.#members.values()) pair.recover();
    for (const buffer of this.#orphans.splice(0)) buffer.close().catch(() => undefined);
  }

  /** What a queue was made for, and the controller does not grant any more; undefined where it grants all. */
  whatIsMissing({ capabilities, maxTransferBytes, usesSgls }: ControllerInfo): string | undefined {
    const { maxQueueEntries } = capabilities;
    for (const { pair } of this.#members.values()) {
      if (!pair.isWanted) continue;
      if (pair.id > this.limit) return `${this.limit} I/O queue pairs, and queue ${pair.id} is in use`;
      if (pair.entries > maxQueueEntries)
        return `${maxQueueEntries} entries a queue, and queue ${pair.id} has ${pair.entries}`;
      if (pair.maxTransferBytes > maxTransferBytes)
        return `transfers of ${maxTransferBytes} bytes, and queue ${pair.id} was made for ${pair.maxTransferBytes}`;
      if (pair.usesSgls && !usesSgls) return `no SGLs, and queue ${pair.id} uses them`;
    }
    return undefined;
  }

  /** Makes all queues again in a controller that was reset, but for those that have ended. */
  async recreate(admin: AdminCommands): Promise<void> {
    for (const { pair } of this.#members.values()) if (pair.isWanted) await pair.create(admin);
  }

  /** Commands are sent again. */
  resume(): void {
    for (const { pair } of this.#members.values()) pair.commands.resume();
  }

  /** Nothing is sent from here on. */
  suspend(): void {
    for (const { pair } of this.#members.values()) pair.commands.pair.close();
  }

  /** Runs while nothing is sent; the controller keeps the queues. */
  async paused(run: () => Promise<void>): Promise<void> {
    for (const { pair } of this.#members.values()) pair.commands.pair.pause();
    await run();
    for (const { pair } of this.#members.values()) {
      if (!pair.isCreated || pair.commands.isRetired) continue;
      pair.commands.pair.resume();
      pair.commands.resume();
    }
  }

  /** Ends the queues of a namespace that is not what it was. */
  retireThoseOf(namespace: NvmeNamespace, error: () => Error): void {
    for (const { pair, queue } of this.#members.values())
      if (queue.namespace === namespace) pair.commands.retire(error);
  }

  /** The controller has ended. */
  end(error: () => Error): void {
    for (const { pair } of this.#members.values()) pair.commands.end(error);
  }

  /** The queues have ended, and the controller does not use the callers' buffers any more. */
  giveBack(): void {
    for (const { pair } of this.#members.values()) pair.commands.giveBack();
  }

  /** Gives back memory that the controller, which is disabled, does not use any more. */
  async free(): Promise<void> {
    const pairs = [...this.#members.values()].map(({ pair }) => pair);
    this.#members.clear();
    await allOf([...pairs.map((pair) => () => pair.free()), () => freeAll(this.#orphans.splice(0))]);
  }

  /** Of a controller that is disabled. */
  async disableInterrupts(): Promise<void> {
    if (this.#usesInterrupts) await this.#options.info.device.irqs.msix.disable();
    this.#usesInterrupts = false;
  }

  /** Waits for what is in flight, as long as commands may take; nothing else is taken. */
  async drain(): Promise<void> {
    await Promise.all([...this.#members.values()].map(({ pair }) => pair.drain()));
  }

  /** Deletes all queues, as far as the controller obeys: it is disabled next. */
  async deleteAll(): Promise<void> {
    for (const { pair } of this.#members.values())
      if (pair.isCreated) await this.#options.admin.deleteQueues(pair.id);
  }

  /** Waits for what is in flight, deletes the queue, and gives its memory back. Idempotent. */
  #close(member: Member): Promise<void> {
    if (this.#members.get(member.pair.id) !== member) return Promise.resolve();
    return (member.closing ??= this.#delete(member));
  }

  async #delete(member: Member): Promise<void> {
    const { pair } = member;
    await pair.drain();
    pair.leave();
    try {
      // Again where a reset comes between, after which the controller does not have it.
      await this.#options.whenLive(async () => {
        await pair.delete(this.#options.admin);
        this.#members.delete(pair.id);
        await pair.free();
      });
    } catch (error) {
      member.closing = undefined;
      // A controller that has ended has no queues, and gives their memory back itself.
      if (!pair.commands.hasEnded) throw error;
    }
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
    const { msix } = this.#options.info.device.irqs;
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

/** @throws RangeError. */
function bufferSizes(
  { buffers }: NvmeQueueOptions,
  slots: number,
  { maxTransferBytes, pageSize }: ControllerInfo,
): BufferSizes | undefined {
  if (buffers === undefined) return undefined;
  const { pageOffset = 0 } = buffers;
  if (!Number.isInteger(pageOffset) || pageOffset < 0 || pageOffset > pageSize - 4) {
    throw outOfRange(`buffers.pageOffset must be an integer from 0 to ${pageSize - 4}, got ${pageOffset}`);
  }
  if (pageOffset % 4 !== 0) throw outOfRange(`buffers.pageOffset must be a multiple of 4, got ${pageOffset}`);
  return {
    pageOffset,
    count: buffers.count ?? slots,
    bytes: integer('buffers.bytes', buffers.bytes ?? DEFAULT_BUFFER_BYTES, 1, maxTransferBytes),
  };
}
