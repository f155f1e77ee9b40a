/** Numbers of Virtual I/O Device (VIRTIO) 1.2. */

export const VIRTIO_VENDOR_ID = 0x1af4;
/** Device ids are this plus the device's type; below are transitional ones (section 4.1.2). */
export const FIRST_MODERN_DEVICE_ID = 0x1040;

/** Types of devices (section 5). */
export const VirtioDeviceType = {
  NETWORK: 1,
  BLOCK: 2,
  CONSOLE: 3,
  ENTROPY: 4,
  SCSI: 8,
} as const;

/** Device Status Field (section 2.1). */
export const DeviceStatus = {
  ACKNOWLEDGE: 0x01,
  DRIVER: 0x02,
  DRIVER_OK: 0x04,
  FEATURES_OK: 0x08,
  NEEDS_RESET: 0x40,
  FAILED: 0x80,
} as const;

/** Common configuration structure layout (section 4.1.4.3). */
export const CommonConfig = {
  DEVICE_FEATURE_SELECT: 0x00,
  DEVICE_FEATURE: 0x04,
  DRIVER_FEATURE_SELECT: 0x08,
  DRIVER_FEATURE: 0x0c,
  CONFIG_MSIX_VECTOR: 0x10,
  NUM_QUEUES: 0x12,
  DEVICE_STATUS: 0x14,
  CONFIG_GENERATION: 0x15,
  QUEUE_SELECT: 0x16,
  QUEUE_SIZE: 0x18,
  QUEUE_MSIX_VECTOR: 0x1a,
  QUEUE_ENABLE: 0x1c,
  QUEUE_NOTIFY_OFF: 0x1e,
  QUEUE_DESC: 0x20,
  QUEUE_DRIVER: 0x28,
  QUEUE_DEVICE: 0x30,
  /** The length without what features add. */
  SIZE: 0x38,
} as const;

/** VIRTIO_MSI_NO_VECTOR. */
export const NO_VECTOR = 0xffff;

/** Of descriptors, split and packed (sections 2.7.5 and 2.8). */
export const DESC_NEXT = 1;
export const DESC_WRITE = 2;
export const DESC_INDIRECT = 4;
export const DESC_BYTES = 16;
