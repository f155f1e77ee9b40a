/** Virtual I/O Device 1.2 as a device has it: written for the emulator, and shared with no driver. */

export const VIRTIO_VENDOR = 0x1af4;
export const MODERN_DEVICES = 0x1040;

export const Feature = {
  INDIRECT_DESC: 1n << 28n,
  EVENT_IDX: 1n << 29n,
  VERSION_1: 1n << 32n,
  ACCESS_PLATFORM: 1n << 33n,
  RING_PACKED: 1n << 34n,
} as const;

export const Status = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  NEEDS_RESET: 64,
  FAILED: 128,
} as const;

/** Of a descriptor. */
export const F_NEXT = 1;
export const F_WRITE = 2;
export const F_INDIRECT = 4;
export const F_AVAIL = 1 << 7;
export const F_USED = 1 << 15;
export const DESCRIPTOR = 16;

export const NO_VECTOR = 0xffff;

/** BAR 4: where each structure is, a page for each. */
export const Place = { COMMON: 0, ISR: 0x1000, DEVICE: 0x2000, NOTIFY: 0x3000, SIZE: 0x4000 } as const;
export const NOTIFY_MULTIPLIER = 4;
