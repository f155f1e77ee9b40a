/** Get Features and Set Features (sections 5.15 and 5.27). */
import { Status } from './constants.js';
import { CommandError, type Sqe } from './sqe.js';

export const FEATURE_NUMBER_OF_QUEUES = 0x07;
export const FEATURE_TIMESTAMP = 0x0e;
const ASYNC_EVENT_CONFIGURATION = 0x0b;
/** CDW10 of Set Features. */
const SAVE = 0x8000_0000;
/** The data of the timestamp: milliseconds in 6 bytes, and how they came there. */
const TIMESTAMP_BYTES = 8;
const SET_BY_HOST = 1 << 1;
const NAMESPACE_NOTICES = 1 << 8;

/** Every feature there is, with its default. */
const DEFAULTS: ReadonlyMap<number, number> = new Map([
  // Arbitration, power management, temperature threshold, error recovery, volatile write cache.
  [0x01, 6],
  [0x02, 0],
  [0x04, 343],
  [0x05, 0],
  [0x06, 1],
  // Interrupt coalescing, vector configuration, write atomicity, asynchronous events.
  [0x08, 0],
  [0x09, 0],
  [0x0a, 0],
  [ASYNC_EVENT_CONFIGURATION, 0],
  // The timestamp has data.
  [FEATURE_TIMESTAMP, 0],
]);
/** What is supported: the feature can be changed. */
const CHANGEABLE = 1 << 2;

export class NvmeFeatures {
  readonly #values = new Map(DEFAULTS);
  /** The host's timestamp, and when it came. */
  #timestamp: { ms: number; at: number } | undefined;
  readonly #since = performance.now();

  /** Asynchronous Event Configuration: Namespace Attribute Notices. */
  get sendsNamespaceNotices(): boolean {
    return (this.#values.get(ASYNC_EVENT_CONFIGURATION)! & NAMESPACE_NOTICES) !== 0;
  }

  /** A feature's dword. */
  get({ cdw10 }: Sqe): number {
    const id = cdw10 & 0xff;
    const value = this.#values.get(id);
    if (value === undefined) throw new CommandError(Status.INVALID_FIELD);
    switch ((cdw10 >>> 8) & 7) {
      case 0:
        return value;
      // Nothing is saved: what would be there after a power cycle is the default.
      case 1:
      case 2:
        return DEFAULTS.get(id)!;
      case 3:
        return CHANGEABLE;
      default:
        throw new CommandError(Status.INVALID_FIELD);
    }
  }

  set({ cdw10, cdw11 }: Sqe): void {
    const id = cdw10 & 0xff;
    this.#checkSave(cdw10);
    if (!this.#values.has(id)) throw new CommandError(Status.INVALID_FIELD);
    this.#values.set(id, cdw11);
  }

  /** Section 5.27.1.10: milliseconds since 1970, or since the controller was enabled where no host has said. */
  timestamp(): Buffer {
    const bytes = Buffer.alloc(TIMESTAMP_BYTES);
    const { ms, at } = this.#timestamp ?? { ms: 0, at: this.#since };
    bytes.writeUIntLE(Math.floor(ms + performance.now() - at) % 2 ** 48, 0, 6);
    bytes[6] = this.#timestamp === undefined ? 0 : SET_BY_HOST;
    return bytes;
  }

  setTimestamp({ cdw10 }: Sqe, data: Buffer): void {
    this.#checkSave(cdw10);
    this.#timestamp = { ms: data.readUIntLE(0, 6), at: performance.now() };
  }

  /** Nothing is saved (ONCS). */
  #checkSave(cdw10: number): void {
    if ((cdw10 & SAVE) !== 0) throw new CommandError(Status.FEATURE_NOT_SAVEABLE);
  }
}
