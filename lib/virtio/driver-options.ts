/** What can be said about any virtio driver. */
import * as option from '../options.js';

/** The options that every virtio driver takes. */
export interface VirtioOptions {
  /** The deadline of a request that is given none, and of a device reset. Milliseconds from 1; default 5,000. */
  timeoutMs?: number | undefined;
  /** How many times a request that a device reset interrupted is sent again, 0 to 100. Default 1. */
  retries?: number | undefined;
  /** `'packed'` uses packed virtqueues where the device offers them (section 2.8). Default `'split'`. */
  ring?: 'split' | 'packed' | undefined;
  /** The most entries of each queue, 2 to 32,768; the device's own limit holds in any case. Default 256. */
  entries?: number | undefined;
  /**
   * `'poll'` polls for completions while requests are in flight: the lowest latency, for a CPU's time.
   * `'interrupt'` waits for MSI-X vectors, or INTx where there are none. Default `'poll'`.
   */
  completion?: 'poll' | 'interrupt' | undefined;
  /** Takes INDIRECT_DESC where it is offered: a request takes one entry of the queue. Default true. */
  indirect?: boolean | undefined;
  /** Takes EVENT_IDX where it is offered: fewer notifications and interrupts. Default true. */
  eventIndex?: boolean | undefined;
}

export interface VirtioSettings {
  readonly timeoutMs: number;
  readonly retries: number;
  readonly ring: 'split' | 'packed';
  readonly entries: number;
  readonly isPolled: boolean;
  readonly indirect: boolean;
  readonly eventIndex: boolean;
}

const MAX_TIMEOUT_MS = 0x7fff_ffff;
const MOST_ENTRIES = 32_768;

export const VIRTIO_CHECKS: option.Checks<VirtioOptions> = {
  timeoutMs: option.wholeNumber(1, MAX_TIMEOUT_MS),
  retries: option.wholeNumber(0, 100),
  ring: option.oneOf('split', 'packed'),
  entries: option.wholeNumber(2, MOST_ENTRIES),
  completion: option.oneOf('poll', 'interrupt'),
  indirect: option.boolean,
  eventIndex: option.boolean,
};

/** What they are by default. */
export function virtioSettings(options: VirtioOptions): VirtioSettings {
  return {
    timeoutMs: options.timeoutMs ?? 5_000,
    retries: options.retries ?? 1,
    ring: options.ring ?? 'split',
    entries: options.entries ?? 256,
    isPolled: options.completion !== 'interrupt',
    indirect: options.indirect ?? true,
    eventIndex: options.eventIndex ?? true,
  };
}
