/** Get Features and Set Features (sections 5.15 and 5.27). */
import { Status } from './constants.js';
import { CommandError, type Sqe } from './sqe.js';

export const FEATURE_NUMBER_OF_QUEUES = 0x07;
const ASYNC_EVENT_CONFIGURATION = 0x0b;
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
]);
/** What is supported: the feature can be changed. */
const CHANGEABLE = 1 << 2;

export class NvmeFeatures {
  readonly #values = new Map(DEFAULTS);

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
    if (!this.#values.has(id)) throw new CommandError(Status.INVALID_FIELD);
    this.#values.set(id, cdw11);
  }
}
