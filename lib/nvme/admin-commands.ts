/** Admin commands (NVM Express Base 2.0, section 5), each as one function. */
import { outOfRange, UINT32_MAX, wrongType } from '../fields.js';
import { TimeoutError, UnsupportedError, type CallOptions } from '../index.js';
import * as option from '../options.js';
import type { CommandOrigin } from '../commands/command-queue.js';
import type { NvmeCommandQueue } from './command-queue.js';
import { NvmeCommand, field } from './command.js';
import type { ControllerInfo } from './controller-info.js';
import { IDENTIFY_SIZE } from './identify.js';
import { AdminOpcode, ALL_NAMESPACES } from './opcodes.js';
import {
  checkAdminLength,
  composed,
  formatDword,
  RAW_CHECKS,
  type FormatOptions,
  type RawCommand,
} from './passthrough.js';

/** The most data of one admin command. */
export const ADMIN_TRANSFER_BYTES = 64 * 1024;
/** Longer log pages are read in such parts, where the controller can. */
const LOG_PART_BYTES = 4096;
/** CDW11 of queue creation: physically contiguous; of completion queues: interrupts enabled. */
const CONTIGUOUS = 1;
const INTERRUPTS_ENABLED = 2;
/** CDW10 of Get Log Page: RAE. */
const RETAIN_ASYNC_EVENT = 1 << 15;
/** CDW14 of Get Log Page: OT, the offset is the index of a structure. */
const INDEX_OFFSET = 1 << 23;
/** A format erases what may be terabytes. */
const FORMAT_TIMEOUT_MS = 600_000;

export interface QueueCreation {
  id: number;
  entries: number;
  address: bigint;
}

/** The admin commands of one origin: see `CommandOrigin`. */
export class AdminCommands {
  readonly #queue: NvmeCommandQueue;
  readonly #origin: CommandOrigin;
  readonly #info: Pick<ControllerInfo, 'hasLogOffsets'>;

  constructor(queue: NvmeCommandQueue, origin: CommandOrigin, info: Pick<ControllerInfo, 'hasLogOffsets'>) {
    this.#queue = queue;
    this.#origin = origin;
    this.#info = info;
  }

  async execute(request: AdminCommand, options?: CallOptions): Promise<AdminResult> {
    const { opcode, send, receive = 0 } = request;
    checkTransfer(send, receive);
    checkAdminLength(request, send?.length ?? 0, receive);
    const command = composed(`admin command 0x${hex(opcode)}`, request);
    const data = Buffer.alloc(receive);
    if (send !== undefined) command.through(send, true);
    else if ((opcode & 2) !== 0) command.into(data);
    return { result: await this.#run(command, options), data };
  }

  /** 5.17 */
  async identify(cns: number, namespace: number, options?: CallOptions): Promise<Buffer> {
    const data = Buffer.alloc(IDENTIFY_SIZE);
    const command = new NvmeCommand(`Identify 0x${hex(cns)}`, AdminOpcode.IDENTIFY, namespace);
    command.cdw10 = field('CNS', cns, 8);
    await this.#run(command.into(data), options);
    return data;
  }

  /** 5.16 */
  async logPage(page: number, length: number, options: LogPageOptions = {}): Promise<Buffer> {
    const { offset = 0, isIndexOffset = false, retainEvent = false } = options;
    checkDwords('length', length, 4);
    checkDwords('offset', offset, 0, isIndexOffset ? 1 : 4);
    const inParts = this.#info.hasLogOffsets && !isIndexOffset;
    // How many structures a part has is the page's own: there is no index to go on at.
    if (isIndexOffset && length > ADMIN_TRANSFER_BYTES)
      throw outOfRange(
        `length must be at most ${ADMIN_TRANSFER_BYTES} where the offset is an index, got ${length}`,
      );
    const part = inParts ? LOG_PART_BYTES : ADMIN_TRANSFER_BYTES;
    if (!this.#info.hasLogOffsets && (offset > 0 || length > part)) {
      throw new UnsupportedError(
        `the controller does not support log page offsets (LPA bit 2): offset must be 0 and length at most ${part}, ` +
          `got ${offset} and ${length}`,
      );
    }
    const data = Buffer.alloc(length);
    const next = oneDeadline(`Get Log Page 0x${hex(page)}`, options);
    for (let at = 0; at < length; at += part) {
      // The page stays as it is, and its event with it, until all of it was read.
      const isRetained = retainEvent || at + part < length;
      await this.#logPart(page, data.subarray(at, at + part), offset + at, {
        ...next(),
        retainEvent: isRetained,
      });
    }
    return data;
  }

  /** 5.15 */
  async getFeature(feature: number, options: GetFeatureOptions = {}): Promise<AdminResult> {
    const { namespace = 0, cdw11 = 0, select = 0, receive = 0, uuidIndex = 0 } = options;
    checkTransfer(undefined, receive);
    const command = new NvmeCommand(`Get Features 0x${hex(feature)}`, AdminOpcode.GET_FEATURES, namespace);
    command.cdw10 = field('feature', feature, 8) | (field('select', select, 3) << 8);
    command.cdw11 = cdw11;
    command.cdw14 = field('UUID index', uuidIndex, 7);
    const data = Buffer.alloc(receive);
    return { result: await this.#run(command.into(data), options), data };
  }

  /** 5.27. The promise gives dword 0 of the completion. */
  async setFeature(feature: number, options: SetFeatureOptions = {}): Promise<number> {
    const { namespace = 0, cdw11 = 0, cdw12 = 0, save = false, send, uuidIndex = 0 } = options;
    checkTransfer(send, 0);
    const command = new NvmeCommand(`Set Features 0x${hex(feature)}`, AdminOpcode.SET_FEATURES, namespace);
    command.cdw10 = (field('feature', feature, 8) | (save ? 1 << 31 : 0)) >>> 0;
    command.cdw11 = cdw11;
    command.cdw12 = cdw12;
    command.cdw14 = field('UUID index', uuidIndex, 7);
    if (send !== undefined) command.through(send, true);
    return this.#run(command, options);
  }

  /** 5.14. The controller may take minutes. */
  async format(options: FormatOptions): Promise<void> {
    const command = new NvmeCommand('Format NVM', AdminOpcode.FORMAT_NVM, options.namespace);
    command.cdw10 = formatDword(options);
    await this.#run(command, { timeoutMs: FORMAT_TIMEOUT_MS, ...callOptions(options) });
  }

  /** 5.1. Whether the command was aborted: it is completed with ABORT_REQUESTED then. */
  async abort(queue: number, commandId: number, options?: CallOptions): Promise<boolean> {
    const command = new NvmeCommand('Abort', AdminOpcode.ABORT, 0);
    command.cdw10 = halves('SQID', queue, 'CID', commandId);
    return ((await this.#run(command, options)) & 1) === 0;
  }

  /** 5.4. `vector` undefined leaves interrupts off. */
  async createCompletionQueue(
    { id, entries, address }: QueueCreation,
    vector: number | undefined,
  ): Promise<void> {
    const command = new NvmeCommand('Create I/O Completion Queue', AdminOpcode.CREATE_IO_CQ, 0);
    command.cdw10 = halves('QID', id, 'QSIZE', entries - 1);
    const flags = CONTIGUOUS | (vector === undefined ? 0 : INTERRUPTS_ENABLED);
    command.cdw11 = halves('flags', flags, 'IV', vector ?? 0);
    return this.#createQueue(command, address);
  }

  /** 5.5 */
  async createSubmissionQueue(
    { id, entries, address }: QueueCreation,
    completionQueue: number,
  ): Promise<void> {
    const command = new NvmeCommand('Create I/O Submission Queue', AdminOpcode.CREATE_IO_SQ, 0);
    command.cdw10 = halves('QID', id, 'QSIZE', entries - 1);
    command.cdw11 = halves('flags', CONTIGUOUS, 'CQID', completionQueue);
    return this.#createQueue(command, address);
  }

  /** 5.6, 5.7: the submission queue first, then the completion queue. */
  async deleteQueues(id: number): Promise<void> {
    await this.#deleteQueue('Delete I/O Submission Queue', AdminOpcode.DELETE_IO_SQ, id);
    await this.deleteCompletionQueue(id);
  }

  deleteCompletionQueue(id: number): Promise<void> {
    return this.#deleteQueue('Delete I/O Completion Queue', AdminOpcode.DELETE_IO_CQ, id);
  }

  /** 5.8: both buffers are one page. */
  async configureDoorbellBuffers(shadow: bigint, eventIndexes: bigint): Promise<void> {
    const command = new NvmeCommand('Doorbell Buffer Config', AdminOpcode.DOORBELL_BUFFER_CONFIG, 0);
    command.low = Number(BigInt.asUintN(32, shadow));
    command.high = Number(shadow >> 32n);
    command.secondPointer = eventIndexes;
    await this.#run(command);
  }

  async #createQueue(command: NvmeCommand, address: bigint): Promise<void> {
    command.low = Number(BigInt.asUintN(32, address));
    command.high = Number(address >> 32n);
    await this.#run(command);
  }

  async #deleteQueue(name: string, opcode: number, id: number): Promise<void> {
    const command = new NvmeCommand(name, opcode, 0);
    command.cdw10 = field('QID', id, 16);
    await this.#run(command);
  }

  async #logPart(page: number, into: Buffer, offset: number, options: LogPageOptions): Promise<void> {
    const { namespace = ALL_NAMESPACES, specific = 0, retainEvent = false } = options;
    const { specificIdentifier = 0, uuidIndex = 0, commandSet = 0, isIndexOffset = false } = options;
    const dwords = into.length / 4 - 1;
    const command = new NvmeCommand(`Get Log Page 0x${hex(page)}`, AdminOpcode.GET_LOG_PAGE, namespace);
    const lower =
      field('log page', page, 8) |
      (field('log specific field', specific, 7) << 8) |
      (retainEvent ? RETAIN_ASYNC_EVENT : 0);
    command.cdw10 = halves('log page', lower, 'NUMDL', dwords & 0xffff);
    command.cdw11 = halves('NUMDU', dwords >>> 16, 'LSI', specificIdentifier);
    command.cdw12 = offset >>> 0;
    command.cdw13 = field('LPOU', Math.floor(offset / 2 ** 32), 32);
    const upper = (field('command set', commandSet, 8) << 24) | (isIndexOffset ? INDEX_OFFSET : 0);
    command.cdw14 = (field('UUID index', uuidIndex, 7) | upper) >>> 0;
    await this.#run(command.into(into), options);
  }

  #run(command: NvmeCommand, options?: CallOptions): Promise<number> {
    return this.#queue.execute<number>(command, options, this.#origin);
  }
}

/**
 * A deadline that a caller gives is for the whole call: gives the options of each of its commands, with what is left.
 * @throws (the function that it gives) TimeoutError where nothing is left.
 */
export function oneDeadline<T extends CallOptions>(what: string, options: T): () => T {
  const { timeoutMs } = options;
  if (timeoutMs === undefined) return () => options;
  const end = performance.now() + timeoutMs;
  return () => {
    const left = end - performance.now();
    if (left <= 0) throw new TimeoutError(what, timeoutMs);
    return { ...options, timeoutMs: left };
  };
}

function callOptions({ timeoutMs, signal }: CallOptions): CallOptions {
  return { ...(timeoutMs !== undefined && { timeoutMs }), ...(signal !== undefined && { signal }) };
}

function checkTransfer(send: Uint8Array | undefined, receive: number): void {
  const length = send?.length ?? receive;
  if (send !== undefined && receive > 0)
    throw new TypeError('an admin command transfers data in one direction: give send or receive, not both');
  if (length === 0) return;
  checkDwords('the length of the data', length, 4);
  if (length > ADMIN_TRANSFER_BYTES) {
    throw outOfRange(`the length of the data must be at most ${ADMIN_TRANSFER_BYTES} bytes, got ${length}`);
  }
}

function checkDwords(what: string, value: number, least: number, unit: 1 | 4 = 4): void {
  if (Number.isSafeInteger(value) && value >= least && value % unit === 0) return;
  if (typeof value !== 'number') throw wrongType(what, 'a number', value);
  const kind = unit === 1 ? 'a whole number' : `a multiple of ${unit}`;
  throw outOfRange(`${what} must be ${kind} and at least ${least}, got ${value}`);
}

/** A dword of two fields of 16 bits. @throws RangeError. */
function halves(lowName: string, low: number, highName: string, high: number): number {
  return (field(lowName, low, 16) | (field(highName, high, 16) << 16)) >>> 0;
}

function hex(value: number): string {
  // What is no number is refused where it is encoded.
  return Number(value).toString(16).padStart(2, '0');
}

/** An admin command (NVM Express Base 2.0, sections 3.3.3.1 and 5). `send` and `receive` exclude each other. */
export interface AdminCommand extends RawCommand {
  /** Data to the controller: a multiple of 4 bytes, at most 64 KiB. */
  send?: Uint8Array | undefined;
  /**
   * How many bytes come from the controller: a multiple of 4, at most 64 KiB; those that it leaves out are zeroes. Default 0.
   */
  receive?: number | undefined;
}

/** What an admin command gave. */
export interface AdminResult {
  /** Dword 0 of the completion. */
  result: number;
  /** What came, `receive` bytes. */
  data: Buffer;
}

/** The options of `NvmeController.logPage` (Get Log Page, section 5.16). */
export interface LogPageOptions extends CallOptions {
  /** NSID. Default: FFFFFFFFh, the log of the controller. */
  namespace?: number | undefined;
  /** LPO, where to begin in the page: bytes, a multiple of 4. Default 0. */
  offset?: number | undefined;
  /** LSP, log specific field, 0 to 127. Default 0. */
  specific?: number | undefined;
  /** LSI, log specific identifier, 16 bits. Default 0. */
  specificIdentifier?: number | undefined;
  /** RAE: the asynchronous event that the page is about stays as it is. Default false. Read in parts, it stays until the last. */
  retainEvent?: boolean | undefined;
  /** UUID index, 0 to 127. Default 0. */
  uuidIndex?: number | undefined;
  /** CSI, command set identifier, 0 to 255. Default 0. */
  commandSet?: number | undefined;
  /**
   * OT: `offset` is the index of a structure of the page, any whole number, and the page is read in one piece of at most 64 KiB.
   * Default false.
   */
  isIndexOffset?: boolean | undefined;
}

/** What Get Features and Set Features have in common. */
export interface FeatureOptions extends CallOptions {
  /** NSID. Default 0, for features of the controller. */
  namespace?: number | undefined;
  /** Command dword 11, 32 bits: what it means depends on the feature. Default 0. */
  cdw11?: number | undefined;
  /** UUID index, 0 to 127. Default 0. */
  uuidIndex?: number | undefined;
}

/** The options of `NvmeController.getFeature` (section 5.15). */
export interface GetFeatureOptions extends FeatureOptions {
  /** SEL, which value: 0 current, 1 default, 2 saved, 3 what is supported. Default 0. */
  select?: 0 | 1 | 2 | 3 | undefined;
  /** How many bytes of data the feature has: a multiple of 4, at most 64 KiB. Default 0. */
  receive?: number | undefined;
}

/** The options of `NvmeController.setFeature` (section 5.27). */
export interface SetFeatureOptions extends FeatureOptions {
  /** Command dword 12, 32 bits: what it means depends on the feature. Default 0. */
  cdw12?: number | undefined;
  /** SV: keeps the value over resets, where the feature can. Default false. */
  save?: boolean | undefined;
  /** Data of the feature: a multiple of 4 bytes, at most 64 KiB. */
  send?: Uint8Array | undefined;
}

/** @internal */
export const ADMIN_COMMAND = new option.OptionTable<AdminCommand>(
  { ...RAW_CHECKS, send: option.bytes, receive: option.wholeNumber() },
  ['opcode'],
);
/** @internal */
export const LOG_PAGE_OPTIONS = new option.OptionTable<LogPageOptions>({
  ...option.CALL_CHECKS,
  namespace: option.wholeNumber(0, UINT32_MAX),
  offset: option.wholeNumber(),
  specific: (value, caller) => option.wholeNumber(0, 0x7f)(value, caller, 'log specific field'),
  specificIdentifier: option.wholeNumber(0, 0xffff),
  retainEvent: option.boolean,
  uuidIndex: option.wholeNumber(0, 0x7f),
  commandSet: option.wholeNumber(0, 0xff),
  isIndexOffset: option.boolean,
});
const FEATURE_CHECKS = {
  ...option.CALL_CHECKS,
  namespace: option.wholeNumber(0, UINT32_MAX),
  cdw11: option.wholeNumber(0, UINT32_MAX),
  uuidIndex: option.wholeNumber(0, 0x7f),
} as const;
/** @internal */
export const GET_FEATURE_OPTIONS = new option.OptionTable<GetFeatureOptions>({
  ...FEATURE_CHECKS,
  select: option.oneOf(0, 1, 2, 3),
  receive: option.wholeNumber(),
});
/** @internal */
export const SET_FEATURE_OPTIONS = new option.OptionTable<SetFeatureOptions>({
  ...FEATURE_CHECKS,
  cdw12: option.wholeNumber(0, UINT32_MAX),
  save: option.boolean,
  send: option.bytes,
});
