/** Commands that callers wait for, on a queue pair. The admin queue and each I/O queue pair have one. */
import { CommandQueue, type CommandQueueHost } from '../commands/command-queue.js';
import type { NvmeCommand } from './command.js';
import { NvmeCommandsInFlight } from './commands-in-flight.js';
import type { BouncePool, PrpLists } from './data-pointers.js';
import { NvmeResetError } from './errors.js';
import type { QueuePair } from './queue-pair.js';

const ADMIN_QUEUE = 0;

export interface NvmeCommandQueueOptions {
  pair: QueuePair;
  prps: PrpLists;
  /** Milliseconds for commands that say nothing. */
  timeoutMs: number;
  /** Completions are polled for while they are waited for; otherwise an interrupt calls `pollSafely`. */
  isPolled: boolean;
  /** How long polling may keep the event loop from turning, in microseconds, where it pays. */
  spinUs: number;
  /** Contiguous data on more than one page is named by SGLs. */
  usesSgls: boolean;
  /** A command waits for bounce pages: `poolMade` or `memoryFailed` is to follow. */
  onPoolWanted?: () => void;
  host: CommandQueueHost;
}

export class NvmeCommandQueue extends CommandQueue<QueuePair, NvmeCommand> {
  readonly #inFlight: NvmeCommandsInFlight;

  constructor({ prps, usesSgls, onPoolWanted, ...options }: NvmeCommandQueueOptions) {
    const { pair } = options;
    const inFlight = new NvmeCommandsInFlight(pair, prps, usesSgls);
    if (onPoolWanted !== undefined) inFlight.onPoolWanted = onPoolWanted;
    super({
      ...options,
      inFlight,
      leavesAll: pair.id === ADMIN_QUEUE,
      resetError: (name) => new NvmeResetError(name),
    });
    this.#inFlight = inFlight;
  }

  /** Bounce pages, when a command wants them (`onPoolWanted`) or before: what waits for them is sent. */
  poolMade(pool: BouncePool): void {
    this.#inFlight.poolMade(pool);
    this.resume();
  }
}
