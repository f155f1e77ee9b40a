/** How a recording is replayed. */
import { constants } from 'node:os';
import { UINT32_MAX } from '../fields.js';
import * as option from '../options.js';
import { Comparison } from './comparison.js';
import type { MappingPolicy } from './placeholder-fds.js';
import { MAX_TIMER_MS } from '../system-numbers.js';

/** What `replay` can be told. */
export interface ReplayOptions {
  /** Where to listen: a path, or an abstract name that begins with NUL. Default: a path in a directory of its own. */
  path?: string | undefined;
  /**
   * `'ordered'`, by default: the requests come in the recorded order. `'matching'`: in any order, and each is answered
   * as the next recorded one that is equal to it; for clients whose order differs from run to run.
   */
  mode?: 'ordered' | 'matching' | undefined;
  /**
   * With `'matching'`: a request whose recorded answers are used up is answered once more as the last one was, for
   * registers that are polled. Default false.
   */
  repeatLast?: boolean | undefined;
  /** Which connection of the capture: its number, from 1, or the name of its socket. Default 1. */
  connection?: number | string | undefined;
  /**
   * What becomes of a client that does something else than is recorded. `'refuse'`, by default: this request and all
   * later ones are answered with `errno`. `'continue'`: it is, and the recording goes on where the client finds back
   * to it. `'close'`: the connection ends.
   */
  afterDifference?: 'refuse' | 'continue' | 'close' | undefined;
  /** The errno of requests that are not recorded. Default EIO. */
  errno?: number | undefined;
  /** `'fast'`, by default: everything as soon as its turn has come. `'recorded'`: with the recorded times between. */
  timing?: 'fast' | 'recorded' | undefined;
  /** What becomes of regions that could be mapped, whose memory no capture has. Default `'withhold'`. */
  mappings?: MappingPolicy | undefined;
  /** Fields that may differ: `DMA_READ.data` (what the client's memory held), `DMA_MAP.address`, `DEVICE_SET_IRQS.fds`. */
  ignore?: readonly string[] | undefined;
  /** How long a client may take to answer a recorded DMA_READ or DMA_WRITE, in milliseconds. Default 5,000. */
  answerTimeoutMs?: number | undefined;
  /** How long a client may take to send VERSION once it is connected, in milliseconds. Default 5,000. */
  versionTimeoutMs?: number | undefined;
  /** How long the rest of a message may take that has begun, in milliseconds. Default 10,000. */
  messageTimeoutMs?: number | undefined;
}

/** The options with their defaults, checked. */
export interface ReplaySettings {
  mode: 'ordered' | 'matching';
  repeatLast: boolean;
  connection: number | string;
  afterDifference: 'refuse' | 'continue' | 'close';
  errno: number;
  timing: 'fast' | 'recorded';
  mappings: MappingPolicy;
  comparison: Comparison;
  answerTimeoutMs: number;
  versionTimeoutMs: number;
  messageTimeoutMs: number;
}

const DEFAULT_ANSWER_TIMEOUT_MS = 5_000;
const DEFAULT_VERSION_TIMEOUT_MS = 5_000;
const DEFAULT_MESSAGE_TIMEOUT_MS = 10_000;

const OPTIONS = new option.OptionTable<ReplayOptions>({
  path: option.path,
  mode: option.oneOf('ordered', 'matching'),
  repeatLast: option.boolean,
  connection: option.byType("a connection's number or its socket's name", {
    number: option.wholeNumber(1),
    string: option.string,
  }),
  afterDifference: option.oneOf('refuse', 'continue', 'close'),
  errno: option.wholeNumber(1, UINT32_MAX),
  timing: option.oneOf('fast', 'recorded'),
  mappings: option.oneOf('withhold', 'blank'),
  ignore: option.listOf('names of fields', option.string),
  answerTimeoutMs: option.wholeNumber(1, MAX_TIMER_MS),
  versionTimeoutMs: option.wholeNumber(1, MAX_TIMER_MS),
  messageTimeoutMs: option.wholeNumber(1, MAX_TIMER_MS),
});

/** @throws TypeError and RangeError for options that make no sense. */
export function settingsOf(options: ReplayOptions): ReplaySettings {
  OPTIONS.check('replay', options);
  const settings: ReplaySettings = {
    mode: options.mode ?? 'ordered',
    repeatLast: options.repeatLast ?? false,
    connection: options.connection ?? 1,
    afterDifference: options.afterDifference ?? 'refuse',
    errno: options.errno ?? constants.errno.EIO,
    timing: options.timing ?? 'fast',
    mappings: options.mappings ?? 'withhold',
    comparison: new Comparison(options.ignore ?? []),
    answerTimeoutMs: options.answerTimeoutMs ?? DEFAULT_ANSWER_TIMEOUT_MS,
    versionTimeoutMs: options.versionTimeoutMs ?? DEFAULT_VERSION_TIMEOUT_MS,
    messageTimeoutMs: options.messageTimeoutMs ?? DEFAULT_MESSAGE_TIMEOUT_MS,
  };
  if (settings.repeatLast && settings.mode === 'ordered') {
    throw new TypeError("repeatLast goes with mode 'matching': in order there is no last one");
  }
  return settings;
}

/**
 * Options of `connect` with which all that passes between client and device is messages, and so in the capture: the
 * device's memory is not mapped, and it gets none of ours.
 *
 * ```ts
 * await using device = await connect('/run/dev.sock', { ...RECORDABLE, capture: 'boot.pcapng' });
 * ```
 */
export const RECORDABLE = { mmap: 'never', secureDma: true } as const;
