/** Admin commands of the emulated controller (section 5). */
import type { ClientMemory } from '../device-model.js';
import { ALL_NAMESPACES, PAGE, Status } from './constants.js';
import type { DoorbellPage } from './doorbell-page.js';
import { DEFERRED, type Engine } from './engine.js';
import { FEATURE_NUMBER_OF_QUEUES, FEATURE_TIMESTAMP, type NvmeFeatures } from './features.js';
import type { Health } from './health.js';
import {
  activeNamespaces,
  ASYNC_EVENT_LIMIT,
  identifyController,
  identifyNamespace,
  namespaceDescriptors,
  type Personality,
} from './identify-data.js';
import type { EmulatedNamespace } from './namespace.js';
import { dataSegments, readSegments, writeSegments } from './prps.js';
import { CompletionRing, SubmissionRing } from './rings.js';
import { ShadowDoorbells } from './shadow-doorbells.js';
import { CommandError, type Sqe } from './sqe.js';

const LOG_CHANGED_NAMESPACES = 0x04;
/** CDW10 of Get Log Page: the event stays as it is. */
const RETAIN_ASYNC_EVENT = 1 << 15;

const Opcode = {
  DELETE_SQ: 0x00,
  CREATE_SQ: 0x01,
  GET_LOG_PAGE: 0x02,
  DELETE_CQ: 0x04,
  CREATE_CQ: 0x05,
  IDENTIFY: 0x06,
  ABORT: 0x08,
  SET_FEATURES: 0x09,
  GET_FEATURES: 0x0a,
  ASYNC_EVENT: 0x0c,
  DOORBELL_BUFFER_CONFIG: 0x7c,
  FORMAT_NVM: 0x80,
} as const;

/** SEL of Get Features. */
const SELECT_SUPPORTED = 3;
/** SES of Format NVM. */
const MOST_SECURE_ERASE = 2;
/** CDW10 of Format NVM: MSET, PI. */
const FORMAT_UNSUPPORTED = 0xf0;

/** Command Set Identifier of the NVM command set. */
const CSI_NVM = 0;

/** More than any log page has: what a host asks for is memory that we take. */
const MAX_LOG_BYTES = 1 << 20;

export interface AdminContext {
  readonly engine: Engine;
  readonly memory: ClientMemory;
  readonly doorbells: DoorbellPage;
  readonly doorbellStride: number;
  readonly personality: Personality;
  readonly health: Health;
  readonly features: NvmeFeatures;
  /** The Changed Namespace List. */
  readonly changedNamespaces: Set<number>;
  /** I/O queue pairs that there can be. */
  readonly maxQueues: number;
  readonly maxQueueEntries: number;
  readonly vectors: number;
  /** Gives a namespace another of its formats, with nothing in its blocks. */
  format(namespace: EmulatedNamespace, index: number): Promise<void>;
}

export class AdminCommands {
  readonly #at: AdminContext;
  /** Asynchronous Event Requests that wait for an event. */
  readonly #eventRequests: number[] = [];
  /** Events that wait for a request. */
  readonly #events: number[] = [];

  constructor(context: AdminContext) {
    this.#at = context;
  }

  /** Dword 0 of the completion. Throws a CommandError. */
  async execute(sq: SubmissionRing, sqe: Sqe): Promise<number> {
    // Fused operations, and SGLs, which no admin command has.
    if (sqe.flags !== 0) throw new CommandError(Status.INVALID_FIELD);
    switch (sqe.opcode) {
      case Opcode.IDENTIFY:
        return this.#give(sqe, this.#identify(sqe), PAGE);
      case Opcode.GET_LOG_PAGE:
        return this.#getLogPage(sqe);
      case Opcode.GET_FEATURES:
        return this.#getFeatures(sqe);
      case Opcode.SET_FEATURES:
        return this.#setFeatures(sqe);
      case Opcode.CREATE_CQ:
        return this.#createCq(sqe);
      case Opcode.CREATE_SQ:
        return this.#createSq(sqe);
      case Opcode.DELETE_CQ:
        return this.#deleteCq(sqe);
      case Opcode.DELETE_SQ:
        return this.#deleteSq(sqe);
      case Opcode.ABORT:
        return this.#at.engine.abort(sqe.cdw10 & 0xffff, sqe.cdw10 >>> 16) ? 0 : 1;
      case Opcode.ASYNC_EVENT:
        return this.#requestEvent(sq, sqe.cid);
      case Opcode.DOORBELL_BUFFER_CONFIG:
        return this.#configureDoorbells(sqe);
      case Opcode.FORMAT_NVM:
        return this.#format(sqe);
      default:
        throw new CommandError(Status.INVALID_OPCODE);
    }
  }

  /** Tells the host of an event, or the next host that asks: dword 0 of the completion (section 5.2.1). */
  raiseEvent(dword: number): void {
    const cid = this.#eventRequests.shift();
    const sq = this.#at.engine.sqs.get(0);
    if (cid === undefined || sq === undefined) this.#events.push(dword);
    else this.#at.engine.complete({ sq, cid, status: Status.SUCCESS, result: dword });
  }

  async #give(sqe: Sqe, bytes: Buffer, length: number): Promise<number> {
    const { memory } = this.#at;
    await writeSegments(memory, await dataSegments(memory, sqe.prp1, sqe.prp2, length), bytes);
    return 0;
  }

  #identify({ cdw10, cdw11, nsid }: Sqe): Buffer {
    const { personality } = this.#at;
    switch (cdw10 & 0xff) {
      case 0x00:
        return nsid === ALL_NAMESPACES ? commonNamespace() : identifyNamespace(this.#namespace(nsid));
      case 0x01:
        return identifyController(personality);
      case 0x02:
        if (nsid >= ALL_NAMESPACES - 1) throw new CommandError(Status.INVALID_NAMESPACE);
        return activeNamespaces(personality.namespaces, nsid);
      case 0x03:
        return namespaceDescriptors(this.#namespace(nsid));
      case 0x05:
        // What it adds to a namespace: no format has protection information that is longer than 8 bytes.
        this.#namespace(nsid);
        if (cdw11 >>> 24 !== CSI_NVM) throw new CommandError(Status.INVALID_FIELD);
        return Buffer.alloc(PAGE);
      case 0x06:
        // What the NVM command set adds to the limits of the controller: nothing.
        if (cdw11 >>> 24 !== CSI_NVM) throw new CommandError(Status.INVALID_FIELD);
        return Buffer.alloc(PAGE);
      default:
        throw new CommandError(Status.INVALID_FIELD);
    }
  }

  #namespace(nsid: number): EmulatedNamespace {
    const namespace = this.#at.personality.namespaces.find(({ id }) => id === nsid);
    if (namespace === undefined) throw new CommandError(Status.INVALID_NAMESPACE);
    return namespace;
  }

  #getLogPage(sqe: Sqe): Promise<number> {
    const length = (((sqe.cdw11 << 16) | (sqe.cdw10 >>> 16)) >>> 0) * 4 + 4;
    const offset = sqe.cdw13 * 2 ** 32 + sqe.cdw12;
    const log = this.#log(sqe.cdw10 & 0xff);
    const { mdts } = this.#at.personality;
    const isTooLong = length > MAX_LOG_BYTES || (mdts !== 0 && length > 2 ** mdts * PAGE);
    if (offset % 4 !== 0 || offset > log.byteLength || isTooLong) {
      throw new CommandError(Status.INVALID_FIELD);
    }
    const isRetained = (sqe.cdw10 & RETAIN_ASYNC_EVENT) !== 0;
    if ((sqe.cdw10 & 0xff) === LOG_CHANGED_NAMESPACES && !isRetained) this.#at.changedNamespaces.clear();
    const bytes = Buffer.alloc(Math.max(length, log.byteLength - offset));
    log.copy(bytes, 0, offset);
    return this.#give(sqe, bytes.subarray(0, length), length);
  }

  #log(id: number): Buffer {
    const { health, personality } = this.#at;
    switch (id) {
      case 0x01:
        return health.errorLog();
      case 0x02:
        return health.smartLog();
      case 0x03:
        return health.firmwareLog(personality.firmwareRevision);
      case LOG_CHANGED_NAMESPACES:
        return this.#changedNamespaces();
      default:
        throw new CommandError(Status.INVALID_LOG_PAGE);
    }
  }

  /** Section 5.16.1.5; too many of them are all. */
  #changedNamespaces(): Buffer {
    const bytes = Buffer.alloc(PAGE);
    const ids = [...this.#at.changedNamespaces].sort((a, b) => a - b);
    if (ids.length > PAGE / 4) bytes.writeUInt32LE(ALL_NAMESPACES, 0);
    else for (const [i, id] of ids.entries()) bytes.writeUInt32LE(id, 4 * i);
    return bytes;
  }

  get #queueCount(): number {
    return (this.#at.maxQueues - 1) | ((this.#at.maxQueues - 1) << 16);
  }

  #getFeatures(sqe: Sqe): number | Promise<number> {
    const { features } = this.#at;
    const id = sqe.cdw10 & 0xff;
    if (id === FEATURE_NUMBER_OF_QUEUES) return this.#queueCount;
    const isValue = ((sqe.cdw10 >>> 8) & 7) !== SELECT_SUPPORTED;
    if (id !== FEATURE_TIMESTAMP || !isValue) return features.get(sqe);
    const bytes = features.timestamp();
    return this.#give(sqe, bytes, bytes.length);
  }

  /** Section 5.14: user data and cryptographic erase are the same here, and blocks read as zeroes after either. */
  async #format({ nsid, cdw10 }: Sqe): Promise<number> {
    const { namespaces } = this.#at.personality;
    const index = (cdw10 & 0xf) | (((cdw10 >>> 12) & 3) << 4);
    if (((cdw10 >>> 9) & 7) > MOST_SECURE_ERASE) throw new CommandError(Status.INVALID_FIELD);
    const wanted = nsid === ALL_NAMESPACES ? namespaces : [this.#namespace(nsid)];
    // Neither interleaved metadata nor protection information.
    const isOffered = wanted.every(({ formats }) => index < formats.length);
    if (!isOffered || (cdw10 & FORMAT_UNSUPPORTED) !== 0) throw new CommandError(Status.INVALID_FORMAT);
    for (const namespace of [...wanted]) await this.#at.format(namespace, index);
    return 0;
  }

  async #setTimestamp(sqe: Sqe): Promise<number> {
    const { memory, features } = this.#at;
    const segments = await dataSegments(memory, sqe.prp1, sqe.prp2, features.timestamp().length);
    features.setTimestamp(sqe, await readSegments(memory, segments));
    return 0;
  }

  #setFeatures(sqe: Sqe): number | Promise<number> {
    if ((sqe.cdw10 & 0xff) === FEATURE_TIMESTAMP) return this.#setTimestamp(sqe);
    if ((sqe.cdw10 & 0xff) !== FEATURE_NUMBER_OF_QUEUES) {
      this.#at.features.set(sqe);
      return 0;
    }
    const { engine } = this.#at;
    if (engine.cqs.size > 1) throw new CommandError(Status.COMMAND_SEQUENCE_ERROR);
    if ((sqe.cdw11 & 0xffff) === 0xffff || sqe.cdw11 >>> 16 === 0xffff)
      throw new CommandError(Status.INVALID_FIELD);
    return this.#queueCount;
  }

  #createCq({ cdw10, cdw11, prp1 }: Sqe): number {
    const { engine, vectors, doorbells } = this.#at;
    const { id, size } = this.#checkQueue(cdw10, cdw11, prp1, engine.cqs);
    const vector = cdw11 >>> 16;
    if (vector >= vectors) throw new CommandError(Status.INVALID_INTERRUPT_VECTOR);
    doorbells.clear(id, 'head');
    engine.cqs.set(id, new CompletionRing(id, prp1, size, (cdw11 & 2) === 0 ? undefined : vector));
    return 0;
  }

  #createSq({ cdw10, cdw11, prp1 }: Sqe): number {
    const { engine, doorbells } = this.#at;
    const { id, size } = this.#checkQueue(cdw10, cdw11, prp1, engine.sqs);
    const cqId = cdw11 >>> 16;
    const cq = engine.cqs.get(cqId);
    if (cq === undefined || cqId === 0) throw new CommandError(Status.COMPLETION_QUEUE_INVALID);
    cq.users++;
    doorbells.clear(id, 'tail');
    engine.sqs.set(id, new SubmissionRing(id, prp1, size, cq));
    return 0;
  }

  #checkQueue(
    cdw10: number,
    cdw11: number,
    address: bigint,
    existing: ReadonlyMap<number, unknown>,
  ): { id: number; size: number } {
    const id = cdw10 & 0xffff;
    const size = (cdw10 >>> 16) + 1;
    if (id === 0 || id > this.#at.maxQueues || existing.has(id))
      throw new CommandError(Status.INVALID_QUEUE_IDENTIFIER);
    if (size < 2 || size > this.#at.maxQueueEntries) throw new CommandError(Status.INVALID_QUEUE_SIZE);
    // CAP.CQR: queues are contiguous.
    if ((cdw11 & 1) === 0) throw new CommandError(Status.INVALID_FIELD);
    if (address % BigInt(PAGE) !== 0n) throw new CommandError(Status.PRP_OFFSET_INVALID);
    return { id, size };
  }

  #deleteCq({ cdw10 }: Sqe): number {
    const { engine } = this.#at;
    const id = cdw10 & 0xffff;
    const cq = id === 0 ? undefined : engine.cqs.get(id);
    if (cq === undefined) throw new CommandError(Status.INVALID_QUEUE_IDENTIFIER);
    if (cq.users > 0) throw new CommandError(Status.INVALID_QUEUE_DELETION);
    engine.cqs.delete(id);
    return 0;
  }

  async #deleteSq({ cdw10 }: Sqe): Promise<number> {
    const { engine } = this.#at;
    const id = cdw10 & 0xffff;
    const sq = id === 0 ? undefined : engine.sqs.get(id);
    if (sq === undefined) throw new CommandError(Status.INVALID_QUEUE_IDENTIFIER);
    await engine.remove(sq);
    return 0;
  }

  #requestEvent(sq: SubmissionRing, cid: number): number {
    const event = this.#events.shift();
    if (event !== undefined) return event;
    if (this.#eventRequests.length > ASYNC_EVENT_LIMIT)
      throw new CommandError(Status.ASYNC_EVENT_LIMIT_EXCEEDED);
    this.#eventRequests.push(cid);
    sq.outstanding.get(cid)!.cancel = () => {
      this.#eventRequests.splice(this.#eventRequests.indexOf(cid), 1);
    };
    return DEFERRED;
  }

  #configureDoorbells({ prp1, prp2 }: Sqe): number {
    const { engine, memory, personality, doorbellStride } = this.#at;
    if (!personality.hasShadowDoorbells) throw new CommandError(Status.INVALID_OPCODE);
    const isAligned = (prp1 | prp2) % BigInt(PAGE) === 0n;
    if (!isAligned || prp1 === 0n || prp1 === prp2) throw new CommandError(Status.INVALID_FIELD);
    engine.shadow = new ShadowDoorbells(memory, prp1, prp2, doorbellStride);
    return 0;
  }
}

/** What all namespaces have in common: nothing but the formats, and those are each their own. */
function commonNamespace(): Buffer {
  return Buffer.alloc(PAGE);
}
