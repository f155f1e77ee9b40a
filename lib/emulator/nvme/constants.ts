/** Numbers of the NVM Express Base Specification 2.0 that the controller answers to. */

/** Registers, offsets in BAR0. */
export const Reg = {
  CAP: 0x00,
  VS: 0x08,
  INTMS: 0x0c,
  INTMC: 0x10,
  CC: 0x14,
  CSTS: 0x1c,
  AQA: 0x24,
  ASQ: 0x28,
  ACQ: 0x30,
  /** Nothing from here to the doorbells. */
  END: 0x40,
  DOORBELLS: 0x1000,
} as const;

export const CC_EN = 1;
export const CSTS_RDY = 1;
export const CSTS_CFS = 2;
export const CSTS_SHST_MASK = 0xc;
export const CSTS_SHST_COMPLETE = 0x8;

export const SQE_BYTES = 64;
export const CQE_BYTES = 16;
export const PAGE = 4096;

/** Status codes as a completion has them: type in bits 10:8, code in bits 7:0. */
export const Status = {
  SUCCESS: 0x000,
  INVALID_OPCODE: 0x001,
  INVALID_FIELD: 0x002,
  DATA_TRANSFER_ERROR: 0x004,
  INTERNAL_ERROR: 0x006,
  ABORT_REQUESTED: 0x007,
  ABORTED_SQ_DELETION: 0x008,
  INVALID_NAMESPACE: 0x00b,
  COMMAND_SEQUENCE_ERROR: 0x00c,
  INVALID_SGL_SEGMENT_DESCRIPTOR: 0x00d,
  INVALID_NUMBER_OF_SGL_DESCRIPTORS: 0x00e,
  DATA_SGL_LENGTH_INVALID: 0x00f,
  SGL_DESCRIPTOR_TYPE_INVALID: 0x011,
  PRP_OFFSET_INVALID: 0x013,
  LBA_OUT_OF_RANGE: 0x080,
  FORMAT_IN_PROGRESS: 0x084,
  COMPLETION_QUEUE_INVALID: 0x100,
  INVALID_QUEUE_IDENTIFIER: 0x101,
  INVALID_QUEUE_SIZE: 0x102,
  ASYNC_EVENT_LIMIT_EXCEEDED: 0x105,
  INVALID_INTERRUPT_VECTOR: 0x108,
  INVALID_LOG_PAGE: 0x109,
  INVALID_FORMAT: 0x10a,
  INVALID_QUEUE_DELETION: 0x10c,
  FEATURE_NOT_SAVEABLE: 0x10d,
  FEATURE_NOT_CHANGEABLE: 0x10e,
  COMPARE_FAILURE: 0x285,
} as const;

/** Or'ed to a status: do not retry. */
export const DO_NOT_RETRY = 1 << 14;

export const ALL_NAMESPACES = 0xffff_ffff;
