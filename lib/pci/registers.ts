/** Offsets, sizes and bits of the PCI configuration space (PCI Local Bus 3.0 section 6, PCI Express Base 7.5.1). */

/** Size of the space of a conventional device, bytes. */
export const PCI_CONFIG_SIZE = 0x100;
/** Size of the space of a PCI Express device, bytes. */
export const PCI_EXTENDED_CONFIG_SIZE = 0x1000;
/** Size of the header that every space begins with, bytes. */
export const PCI_HEADER_SIZE = 0x40;

/** Offsets of the header's registers: those of every header and of type 0, then those of bridges. */
export const PciConfig = {
  VENDOR_ID: 0x00,
  DEVICE_ID: 0x02,
  COMMAND: 0x04,
  STATUS: 0x06,
  REVISION_ID: 0x08,
  CLASS_PROG_IF: 0x09,
  CLASS_SUB: 0x0a,
  CLASS_BASE: 0x0b,
  CACHE_LINE_SIZE: 0x0c,
  LATENCY_TIMER: 0x0d,
  HEADER_TYPE: 0x0e,
  BIST: 0x0f,
  BAR0: 0x10,
  BAR1: 0x14,
  BAR2: 0x18,
  BAR3: 0x1c,
  BAR4: 0x20,
  BAR5: 0x24,
  CARDBUS_CIS_POINTER: 0x28,
  SUBSYSTEM_VENDOR_ID: 0x2c,
  SUBSYSTEM_ID: 0x2e,
  EXPANSION_ROM: 0x30,
  CAPABILITIES_POINTER: 0x34,
  INTERRUPT_LINE: 0x3c,
  INTERRUPT_PIN: 0x3d,
  MIN_GRANT: 0x3e,
  MAX_LATENCY: 0x3f,

  /** Bridges: type 1, and what type 2 shares with it. */
  PRIMARY_BUS: 0x18,
  SECONDARY_BUS: 0x19,
  SUBORDINATE_BUS: 0x1a,
  SECONDARY_LATENCY_TIMER: 0x1b,
  BRIDGE_CONTROL: 0x3e,

  /** Type 1 only. */
  IO_BASE: 0x1c,
  IO_LIMIT: 0x1d,
  SECONDARY_STATUS: 0x1e,
  MEMORY_BASE: 0x20,
  MEMORY_LIMIT: 0x22,
  PREFETCHABLE_BASE: 0x24,
  PREFETCHABLE_LIMIT: 0x26,
  PREFETCHABLE_BASE_UPPER32: 0x28,
  PREFETCHABLE_LIMIT_UPPER32: 0x2c,
  IO_BASE_UPPER16: 0x30,
  IO_LIMIT_UPPER16: 0x32,
  BRIDGE_EXPANSION_ROM: 0x38,

  /** CardBus bridges (type 2) only. */
  CARDBUS_CAPABILITIES_POINTER: 0x14,
  CARDBUS_SECONDARY_STATUS: 0x16,
  CARDBUS_MEMORY_BASE_0: 0x1c,
  CARDBUS_IO_BASE_0: 0x2c,
  CARDBUS_SUBSYSTEM_VENDOR_ID: 0x40,
  CARDBUS_SUBSYSTEM_ID: 0x42,
} as const;

/** Bits of the command register. */
export const PciCommand = {
  IO: 0x0001,
  MEMORY: 0x0002,
  BUS_MASTER: 0x0004,
  SPECIAL_CYCLES: 0x0008,
  MEMORY_WRITE_INVALIDATE: 0x0010,
  VGA_PALETTE_SNOOP: 0x0020,
  PARITY_ERROR_RESPONSE: 0x0040,
  SERR_ENABLE: 0x0100,
  FAST_BACK_TO_BACK: 0x0200,
  INTX_DISABLE: 0x0400,
} as const;

/** Bits of the status register. */
export const PciStatus = {
  IMMEDIATE_READINESS: 0x0001,
  INTERRUPT: 0x0008,
  CAPABILITIES_LIST: 0x0010,
  CAPABLE_66_MHZ: 0x0020,
  FAST_BACK_TO_BACK: 0x0080,
  MASTER_DATA_PARITY_ERROR: 0x0100,
  DEVSEL_TIMING: 0x0600,
  SIGNALED_TARGET_ABORT: 0x0800,
  RECEIVED_TARGET_ABORT: 0x1000,
  RECEIVED_MASTER_ABORT: 0x2000,
  SIGNALED_SYSTEM_ERROR: 0x4000,
  DETECTED_PARITY_ERROR: 0x8000,
} as const;

/** The low seven bits of the header type register; the eighth says that the device has several functions. */
export const PciHeaderType = { DEVICE: 0, BRIDGE: 1, CARDBUS: 2 } as const;
export const HEADER_TYPE_MASK = 0x7f;
export const HEADER_TYPE_MULTIFUNCTION = 0x80;

/** `0x` and hexadecimal digits, for messages. */
export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
