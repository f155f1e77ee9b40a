/**
 * The controller's registers, BAR 0 (NVM Express Base Specification 2.0, section 3.1.3), and where its doorbells are
 * (NVMe over PCIe Transport Specification 1.0, section 3.1.2).
 */

/** Offsets. CAP, ASQ and ACQ have 8 bytes, the others 4. */
export const NvmeRegister = {
  CAP: 0x00,
  VS: 0x08,
  INTMS: 0x0c,
  INTMC: 0x10,
  CC: 0x14,
  CSTS: 0x1c,
  NSSR: 0x20,
  AQA: 0x24,
  ASQ: 0x28,
  ACQ: 0x30,
  DOORBELLS: 0x1000,
} as const;

/** Bits and fields of CC, Controller Configuration (3.1.3.5). */
export const ControllerConfiguration = {
  EN: 1,
  /** Shutdown notification: 01b normal, in bits 15:14. */
  SHN_MASK: 3 << 14,
  SHN_NORMAL: 1 << 14,
  SHN_ABRUPT: 2 << 14,
} as const;

/** Bits and fields of CSTS, Controller Status (3.1.3.6). */
export const ControllerStatus = {
  RDY: 1,
  /** Controller fatal status. */
  CFS: 2,
  /** Shutdown status: 10b complete, in bits 3:2. */
  SHST_MASK: 3 << 2,
  SHST_COMPLETE: 2 << 2,
  /** What reads back of a device that is gone. */
  GONE: 0xffff_ffff,
} as const;

/** Entries of a submission queue have 2^6 bytes, those of a completion queue 2^4: the only sizes of the NVM command set. */
const IOSQES = 6;
const IOCQES = 4;
/** CC.CSS: NVM command set, all supported I/O command sets. */
const CSS_NVM = 0b000;
const CSS_ALL = 0b110;

/** CAP, Controller Capabilities (NVM Express Base 2.0, section 3.1.3.1). */
export interface ControllerCapabilities {
  /** The most entries of an I/O queue: MQES, made one-based. */
  readonly maxQueueEntries: number;
  /** Queues must be physically contiguous. */
  readonly contiguousQueuesRequired: boolean;
  /** How long the controller may take for CSTS.RDY to follow CC.EN, milliseconds. */
  readonly readyTimeoutMs: number;
  /** Bytes from one doorbell to the next. */
  readonly doorbellStride: number;
  /** NSSRS: the controller supports an NVM subsystem reset. */
  readonly subsystemReset: boolean;
  /** CSS bits: 0 NVM command set, 6 I/O command sets, 7 none but admin. */
  readonly commandSets: number;
  /** Bytes, from MPSMIN. */
  readonly minPageSize: number;
  /** Bytes, from MPSMAX. */
  readonly maxPageSize: number;
}

export function decodeCapabilities(cap: bigint): ControllerCapabilities {
  const low = Number(BigInt.asUintN(32, cap));
  const high = Number(BigInt.asUintN(32, cap >> 32n));
  return {
    maxQueueEntries: (low & 0xffff) + 1,
    contiguousQueuesRequired: (low & (1 << 16)) !== 0,
    readyTimeoutMs: (low >>> 24) * 500,
    doorbellStride: 4 << (high & 0xf),
    subsystemReset: (high & (1 << 4)) !== 0,
    commandSets: (high >>> 5) & 0xff,
    minPageSize: 2 ** (12 + ((high >>> 16) & 0xf)),
    maxPageSize: 2 ** (12 + ((high >>> 20) & 0xf)),
  };
}

/** `1.4.0` and the like, from VS or Identify's VER (3.1.3.2). */
export function versionText(version: number): string {
  return `${version >>> 16}.${(version >>> 8) & 0xff}.${version & 0xff}`;
}

/** The value of CC that enables the controller, with that memory page size (3.1.3.5). */
export function enabledConfiguration(pageSize: number, commandSets: number): number {
  const css = (commandSets & (1 << 6)) !== 0 ? CSS_ALL : CSS_NVM;
  const mps = Math.log2(pageSize) - 12;
  return ControllerConfiguration.EN | (css << 4) | (mps << 7) | (IOSQES << 16) | (IOCQES << 20);
}

/** AQA for admin queues of so many entries (3.1.3.8). */
export function adminQueueAttributes(entries: number): number {
  return ((entries - 1) << 16) | (entries - 1);
}

/** Where the doorbell of a submission queue's tail is in BAR 0. */
export function submissionDoorbell(queue: number, stride: number): number {
  return NvmeRegister.DOORBELLS + 2 * queue * stride;
}

/** Where the doorbell of a completion queue's head is in BAR 0. */
export function completionDoorbell(queue: number, stride: number): number {
  return NvmeRegister.DOORBELLS + (2 * queue + 1) * stride;
}
