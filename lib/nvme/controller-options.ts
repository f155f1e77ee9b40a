/** What can be said about a controller and its queues. */
import { UINT32_MAX, wrongType } from '../fields.js';
import * as option from '../options.js';
import { NvmeNamespace } from './namespace.js';

/** The options of `NvmeController.open`. */
export interface NvmeOptions {
  /** The deadline of a command that is given none, and of what follows a missed one. Milliseconds from 1; default 5,000. */
  timeoutMs?: number | undefined;
  /** How many I/O queue pairs to ask for, 1 to 65,535; the controller may grant fewer. Default 65,535. */
  queues?: number | undefined;
  /**
   * The longest transfer of one command, 4,096 bytes to 1 GiB; longer ones are split. Default 4 MiB. The controller's own
   * limit (MDTS) holds in any case.
   */
  maxTransferBytes?: number | undefined;
  /** Uses shadow doorbells (Doorbell Buffer Config, section 5.8) where the controller has them. Default true. */
  shadowDoorbells?: boolean | undefined;
  /**
   * Commands name contiguous data that lies on more than one page by one SGL descriptor, where the controller takes those;
   * all else by PRPs. Default true.
   */
  sgls?: boolean | undefined;
  /**
   * The driver keeps an Asynchronous Event Request outstanding, and hears of namespaces that change. With false they are
   * the caller's to send (`adminCommand`), and changes show at the next reset. Default true.
   */
  asyncEvents?: boolean | undefined;
  /** How many times a command that a controller reset interrupted is sent again, 0 to 100. Default 1. */
  retries?: number | undefined;
}

/** The options of `NvmeController.createQueue`. */
export interface NvmeQueueOptions {
  /** The namespace of commands that do not name another one. Default: the first that is active. */
  namespace?: number | NvmeNamespace | undefined;
  /**
   * Entries of each ring, 2 to `maxQueueEntries`; one less can be in flight, and no more than 32,767, which leaves a bit of
   * the command identifier to know a late completion by. Default 256, or `maxQueueEntries`.
   */
  entries?: number | undefined;
  /**
   * `'poll'` polls for completions while commands are in flight: the lowest latency, for a CPU's time.
   * `'interrupt'` waits for an MSI-X vector. Default `'poll'`.
   */
  completion?: 'poll' | 'interrupt' | undefined;
  /** Buffers for the submit/poll API. Without them it can submit no command that transfers data. */
  buffers?: NvmeBufferOptions | undefined;
  /** The deadline of a command that is given none. Milliseconds from 1; default: the controller's. */
  timeoutMs?: number | undefined;
}

/** The buffers of a queue's submit/poll API: DMA memory of one length each. */
export interface NvmeBufferOptions {
  /** How many, 1 to 65,535. Default: as many as commands can be in flight. */
  count?: number | undefined;
  /** The length of each in bytes, 1 to `maxTransferBytes`. Default 4,096. */
  bytes?: number | undefined;
  /**
   * Where each begins within a page of memory: a multiple of 4, less than a page. Default 0. A buffer of one page then lies
   * on two, and takes two PRPs; there are controllers in software that copy faster from there (docs/benchmarks.md).
   */
  pageOffset?: number | undefined;
}

export interface NvmeSettings {
  timeoutMs: number;
  queues: number;
  maxTransferBytes: number;
  shadowDoorbells: boolean;
  sgls: boolean;
  asyncEvents: boolean;
  retries: number;
}

/** Number of Queues has 16 bits, of which 65,535 is not allowed; made one-based. */
const MOST_QUEUES = 65_535;
const DEFAULT_MAX_TRANSFER = 4 << 20;
const MAX_TIMEOUT_MS = 0x7fff_ffff;
const LEAST_TRANSFER = 4096;
const MOST_TRANSFER = 1 << 30;

const NVME_OPTIONS = new option.OptionTable<NvmeOptions>({
  timeoutMs: option.wholeNumber(1, MAX_TIMEOUT_MS),
  queues: option.wholeNumber(1, MOST_QUEUES),
  maxTransferBytes: option.wholeNumber(LEAST_TRANSFER, MOST_TRANSFER),
  shadowDoorbells: option.boolean,
  sgls: option.boolean,
  asyncEvents: option.boolean,
  retries: option.wholeNumber(0, 100),
});
const BUFFER_OPTIONS = new option.OptionTable<NvmeBufferOptions>({
  count: option.wholeNumber(1, 0xffff),
  bytes: option.wholeNumber(1, MOST_TRANSFER),
  // How far it may go depends on the controller's page.
  pageOffset: (value, caller, name) =>
    typeof value === 'number' ? undefined : wrongType(`${caller}: ${name}`, 'a number', value),
});
const NAMESPACE = 'the number of a namespace, or an NvmeNamespace';
/** @internal The controller's own limits are checked when the queue is made. */
export const QUEUE_OPTIONS = new option.OptionTable<NvmeQueueOptions>({
  namespace: option.byType(NAMESPACE, {
    number: option.wholeNumber(0, UINT32_MAX),
    object: (value, caller, name) =>
      value instanceof NvmeNamespace ? undefined : wrongType(`${caller}: ${name}`, NAMESPACE, value),
  }),
  entries: option.wholeNumber(2, 65_536),
  completion: option.oneOf('poll', 'interrupt'),
  buffers: option.options(BUFFER_OPTIONS),
  timeoutMs: option.wholeNumber(1, MAX_TIMEOUT_MS),
});

/** @throws TypeError and RangeError for what makes no sense. */
export function nvmeSettings(options: NvmeOptions): NvmeSettings {
  NVME_OPTIONS.check('NvmeController.open', options);
  return {
    timeoutMs: options.timeoutMs ?? 5_000,
    queues: options.queues ?? MOST_QUEUES,
    maxTransferBytes: options.maxTransferBytes ?? DEFAULT_MAX_TRANSFER,
    shadowDoorbells: options.shadowDoorbells ?? true,
    sgls: options.sgls ?? true,
    asyncEvents: options.asyncEvents ?? true,
    retries: options.retries ?? 1,
  };
}
