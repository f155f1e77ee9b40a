/**
 * An I/O queue pair (NVM Express Base 2.0, section 3.3.1): its memory, its interrupt, and whether the controller has it.
 *
 * ```
 *   absent ── create() ──▶ created ── leave() ──▶ leaving ── delete() ──▶ gone ── free()
 *     ▲ │                     │                      └── a reset ──▶ gone
 *     │ └── leave() ──▶ gone  │
 *     └────── a reset ────────┘
 * ```
 * From the first command of `create` the controller may have it: one that is left meanwhile is leaving, too.
 * One that is absent is made again when the controller starts (`isWanted`), unless it takes no commands any more.
 */
import { UncertainChange } from '../commands/device-lifecycle.js';
import { ClosedError, TimeoutError, type DmaBuffer, type Vector } from '../index.js';
import type { AdminCommands, QueueCreation } from './admin-commands.js';
import type { CommandQueueHost } from '../commands/command-queue.js';
import { NvmeCommandQueue } from './command-queue.js';
import type { ControllerInfo } from './controller-info.js';
import { BouncePool } from './data-pointers.js';
import type { DoorbellMap } from './doorbell-map.js';
import { NvmeControllerError } from './errors.js';
import type { IoBuffers } from './io-buffers.js';
import { freeAll, roundUp } from '../commands/driver-memory.js';
import type { QueueMemory } from './queue-memory.js';
import { QueuePair } from './queue-pair.js';
import type { DoorbellKind } from './rings.js';
import { NvmeStatusError } from './status.js';

const LEAST_POOL_BYTES = 1 << 20;

export interface IoQueuePairHost extends CommandQueueHost {
  /** The controller broke the rules of the ring. */
  onViolation: (error: Error) => void;
  /** The queue's memory is about to be taken away. */
  onMemoryLost: (reason: Error) => void;
}

export interface IoQueuePairOptions {
  /** The queue identifier, from 1. */
  id: number;
  entries: number;
  slots: number;
  memory: QueueMemory;
  /** Of the submit/poll API. */
  buffers: IoBuffers | undefined;
  /** Without one completions are polled for. */
  vector: Vector | undefined;
  /** The deadline of a command that says nothing, milliseconds. */
  timeoutMs: number;
  info: ControllerInfo;
  doorbells: DoorbellMap;
  host: IoQueuePairHost;
}

export class IoQueuePair {
  readonly id: number;
  readonly entries: number;
  readonly commands: NvmeCommandQueue;
  readonly buffers: IoBuffers | undefined;
  /** How the controller is told of commands. */
  readonly doorbell: DoorbellKind;
  /** What the queue was made for: the longest transfer of one command in bytes, and SGLs. */
  readonly maxTransferBytes: number;
  readonly usesSgls: boolean;
  readonly #info: ControllerInfo;
  readonly #doorbells: DoorbellMap;
  readonly #memory: QueueMemory;
  /** The interrupt's number. */
  readonly #vector: number | undefined;
  readonly #stopListening: (() => void) | undefined;
  readonly #stopWatching: () => void;
  #state: 'absent' | 'creating' | 'created' | 'leaving' | 'gone' = 'absent';
  #poolBuffer: DmaBuffer | undefined;

  constructor(options: IoQueuePairOptions) {
    const { id, entries, slots, memory, vector, info, host } = options;
    const { sq, cq, prps, buffer } = memory;
    const pair = new QueuePair({ id, slots, sq, cq, tellsHeadAtOnce: vector !== undefined });
    pair.onViolation = (error) => host.onViolation(error);
    const commands = new NvmeCommandQueue({
      ...{ pair, prps, host },
      timeoutMs: options.timeoutMs,
      isPolled: vector === undefined,
      spinUs: info.device.spinUs,
      usesSgls: info.usesSgls,
      onPoolWanted: () => this.#makePool(),
    });
    this.id = id;
    this.entries = entries;
    this.commands = commands;
    this.buffers = options.buffers;
    this.doorbell = options.doorbells.pair(id).sq.kind;
    this.maxTransferBytes = info.maxTransferBytes;
    this.usesSgls = info.usesSgls;
    this.#info = info;
    this.#doorbells = options.doorbells;
    this.#memory = memory;
    this.#vector = vector?.subindex;
    this.#stopListening = vector?.onInterrupt(() => commands.pollSafely());
    this.#stopWatching = buffer.onRelease((reason) => host.onMemoryLost(reason));
  }

  /** The controller has the queue, as far as is known. */
  get isCreated(): boolean {
    return this.#state === 'created' || this.#state === 'leaving';
  }

  /** It is to be there after the next start of the controller. */
  get isWanted(): boolean {
    return (this.#state === 'created' || this.#state === 'absent') && !this.commands.isRetired;
  }

  /**
   * Sections 5.4 and 5.5: the completion queue first, both empty.
   * @throws UncertainChange where no answer comes; NvmeStatusError, and what else commands throw.
   */
  async create(admin: AdminCommands): Promise<void> {
    const { id, entries } = this;
    const { pair } = this.commands;
    pair.clear();
    const doorbells = this.#doorbells.pair(id);
    const { sqAddress, cqAddress } = this.#memory;
    this.#state = 'creating';
    await createCompletionQueue(admin, { id, entries, address: cqAddress }, this.#vector);
    try {
      await admin.createSubmissionQueue({ id, entries, address: sqAddress }, id);
    } catch (error) {
      if (error instanceof NvmeStatusError) await dropCompletionQueue(admin, id);
      throw error;
    }
    this.#endCreation();
    pair.open(doorbells.sq, doorbells.cq);
  }

  /** The controller was disabled: it has no queues, and nothing of what was in flight is. */
  recover(): void {
    if (this.#state === 'created' || this.#state === 'creating') this.#state = 'absent';
    else if (this.#state === 'leaving') this.#state = 'gone';
    this.commands.recover();
  }

  /** Takes no calls any more. Waits for what is under way, as long as commands may take. */
  async drain(): Promise<void> {
    this.commands.drain(() => new ClosedError(`queue ${this.id} is being closed`));
    await within(this.commands.idle(), this.commands.timeoutMs);
  }

  /** It is about to be deleted, and is not made again. */
  leave(): void {
    if (this.#state === 'created' || this.#state === 'creating') this.#state = 'leaving';
    else if (this.#state === 'absent') this.#state = 'gone';
  }

  /**
   * The controller has no such queue after this: sections 5.6 and 5.7, unless a reset came between.
   * @throws UncertainChange where no answer comes; what else commands throw.
   */
  async delete(admin: AdminCommands): Promise<void> {
    if (this.#state === 'leaving') {
      this.commands.pair.close();
      await certain(admin.deleteQueues(this.id));
      // What was completed before.
      this.commands.poll();
      this.#state = 'gone';
    }
    this.commands.end(() => new ClosedError(`queue ${this.id} is closed`), true);
    this.commands.giveBack();
  }

  /** Before it was ever made: no interrupt or loss of memory is listened for any more. */
  discard(cause: unknown): void {
    this.#stopListening?.();
    this.#stopWatching();
    this.commands.end(() => new ClosedError(`queue ${this.id} was not created`, { cause }));
  }

  /** In a controller that does not have the queue. */
  async free(): Promise<void> {
    this.#stopListening?.();
    this.#stopWatching();
    await freeAll([this.#memory.buffer, this.buffers?.buffer, this.#poolBuffer]);
  }

  /** `leave` may have come meanwhile. */
  #endCreation(): void {
    if (this.#state === 'creating') this.#state = 'created';
  }

  /** Bounce pages are had when they are first needed. */
  #makePool(): void {
    const { commands } = this;
    const { device, pageSize } = this.#info;
    // In whole pages, which may be larger than what one command transfers.
    const size = Math.max(LEAST_POOL_BYTES, 2 * roundUp(this.maxTransferBytes, pageSize));
    device.dma.alloc(size, { alignment: pageSize }).then(
      (buffer) => {
        this.#poolBuffer = buffer;
        // The queue has been closed meanwhile, and its memory is free.
        if (commands.hasEnded) buffer.close().catch(() => undefined);
        commands.poolMade(new BouncePool(buffer, pageSize));
      },
      (error: unknown) => commands.memoryFailed(error),
    );
  }
}

/** Waits for `promise`, but no longer than that. */
async function within(promise: Promise<void>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, timeoutMs)));
  await Promise.race([promise, over]);
  clearTimeout(timer);
}

/** @throws UncertainChange where no answer comes; what else `change` throws. */
export async function certain(change: Promise<void>): Promise<void> {
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
  admin: AdminCommands,
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
async function dropCompletionQueue(admin: AdminCommands, id: number): Promise<void> {
  try {
    await admin.deleteCompletionQueue(id);
  } catch (cause) {
    // Not a status: the memory stays reserved.
    throw new NvmeControllerError(`completion queue ${id} cannot be deleted`, { cause });
  }
}
