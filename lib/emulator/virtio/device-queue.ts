/** A virtqueue as the device has it: what the driver made available is taken, and given back used. */
import type { Chain } from './chain.js';

/** Where a driver put a queue. */
export interface QueuePlace {
  readonly size: number;
  readonly descriptors: bigint;
  readonly driver: bigint;
  readonly device: bigint;
}

export interface DeviceQueue {
  /** The driver runs: says whether the device wants to be notified. */
  begin(wantsNotifications: boolean): Promise<void>;
  /** The next chain; undefined where there is none. @throws QueueFault, and DmaError for memory that is not there. */
  take(): Promise<Chain | undefined>;
  /** Gives it back: the device has written `length` bytes. */
  use(chain: Chain, length: number): Promise<void>;
  /** Whether the driver wants an interrupt for what was used since this was last asked. */
  wantsInterrupt(): Promise<boolean>;
  /** A lie: gives back a request that may be none. */
  useId(id: number, length: number): Promise<void>;
  /** A lie: more was used than there is. */
  jump(by: number): Promise<void>;
  /** A trick: changes the descriptors of a chain that was given back. */
  scribble(chain: Chain): Promise<void>;
}
