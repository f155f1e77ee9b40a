/** Numbers of commands and of what they ask for (NVM Express Base 2.0, figures 138, 273, 317; NVM Command Set 1.0, 2). */

/** Opcodes of admin commands (NVM Express Base 2.0, figure 138). */
export const AdminOpcode = {
  DELETE_IO_SQ: 0x00,
  CREATE_IO_SQ: 0x01,
  GET_LOG_PAGE: 0x02,
  DELETE_IO_CQ: 0x04,
  CREATE_IO_CQ: 0x05,
  IDENTIFY: 0x06,
  ABORT: 0x08,
  SET_FEATURES: 0x09,
  GET_FEATURES: 0x0a,
  ASYNC_EVENT_REQUEST: 0x0c,
  DOORBELL_BUFFER_CONFIG: 0x7c,
  FORMAT_NVM: 0x80,
} as const;

/** Opcodes of I/O commands (NVM Command Set 1.0, section 3.2). */
export const NvmOpcode = {
  FLUSH: 0x00,
  WRITE: 0x01,
  READ: 0x02,
  COMPARE: 0x05,
  WRITE_ZEROES: 0x08,
  DATASET_MANAGEMENT: 0x09,
} as const;

/** What Identify tells: CNS, Controller or Namespace Structure (NVM Express Base 2.0, figure 273). */
export const IdentifyCns = {
  NAMESPACE: 0x00,
  CONTROLLER: 0x01,
  ACTIVE_NAMESPACES: 0x02,
  NAMESPACE_OF_COMMAND_SET: 0x05,
} as const;

/** Log page identifiers (NVM Express Base 2.0, section 5.16.1). */
export const LogPageId = {
  ERROR_INFORMATION: 0x01,
  SMART_HEALTH: 0x02,
  FIRMWARE_SLOT: 0x03,
  CHANGED_NAMESPACES: 0x04,
} as const;

/** Feature identifiers (NVM Express Base 2.0, figure 317). */
export const FeatureId = {
  ARBITRATION: 0x01,
  POWER_MANAGEMENT: 0x02,
  TEMPERATURE_THRESHOLD: 0x04,
  ERROR_RECOVERY: 0x05,
  VOLATILE_WRITE_CACHE: 0x06,
  NUMBER_OF_QUEUES: 0x07,
  INTERRUPT_COALESCING: 0x08,
  INTERRUPT_VECTOR_CONFIGURATION: 0x09,
  WRITE_ATOMICITY: 0x0a,
  ASYNC_EVENT_CONFIGURATION: 0x0b,
  TIMESTAMP: 0x0e,
} as const;

/** For log pages and features that are the controller's own, and for Flush of all namespaces. */
export const ALL_NAMESPACES = 0xffff_ffff;

/** Of one command: NLB has 16 bits. */
export const MAX_BLOCKS_A_COMMAND = 65_536;
