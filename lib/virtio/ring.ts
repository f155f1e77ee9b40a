/**
 * The rings of a virtqueue, split or packed, as the driver's side sees them. A request has a slot, and a chain of descriptors
 * that is composed off the ring (`chains`): the device can change what lies in the ring, so nothing of it is read back but
 * what the device is to write, once and checked.
 */

/** Words of a descriptor in `chains`: address, low and high; length; `DESC_WRITE` where the device writes it. */
export const CHAIN_WORDS = 4;

/** What `next` gives where there is no slot: nothing was used; what was used makes no sense, and `problem` says why. */
export const NOTHING_USED = -1;
export const BROKEN = -2;

export interface RingOptions {
  /** Entries; a power of two for split rings. */
  readonly size: number;
  /** The most descriptors of one request. */
  readonly maxDescriptors: number;
  /** VIRTIO_F_INDIRECT_DESC: a request takes one entry, whatever its chain. */
  readonly isIndirect: boolean;
  /** VIRTIO_F_EVENT_IDX: each side says at which index it wants to hear. */
  readonly hasEventIndex: boolean;
}

/** Where the device finds the three parts of a queue. */
export interface RingAddresses {
  readonly descriptors: bigint;
  readonly driver: bigint;
  readonly device: bigint;
}

export interface Ring {
  /** Requests that may be outstanding. */
  readonly slots: number;
  readonly addresses: RingAddresses;
  /** Chains as they are composed: `chainAt(slot)` and on. */
  readonly chains: Uint32Array;
  /** Of the last `next`: how many bytes the device says that it wrote. */
  readonly usedLength: number;
  /** Of the last `next` that gave BROKEN. */
  readonly problem: string;
  /** Requests were added that the device does not know of. */
  readonly hasNew: boolean;
  /** Makes the ring a new queue's. */
  clear(): void;
  /** The memory is somebody else's from here on. */
  detach(): void;
  /** Where in `chains` the slot's chain begins. */
  chainAt(slot: number): number;
  /** Puts the slot's chain, of `count` descriptors, into the ring. There is room, as each slot has its own. */
  add(slot: number, count: number): void;
  /** Shows the device what was added. Whether it wants to be told. */
  publish(): boolean;
  /** The slot that was used next, as far as the ring can tell; its length is in `usedLength`. */
  next(): number;
  /** Goes on behind it. */
  advance(slot: number): void;
  /** Wants no interrupts. */
  disarm(): void;
  /** Wants an interrupt for what is used next. Whether something was used before it could say so. */
  arm(): boolean;
}

/** How many requests a ring has room for. */
export function slotsOf({ size, maxDescriptors, isIndirect }: RingOptions): number {
  return isIndirect ? size : Math.floor(size / maxDescriptors);
}
