/**
 * What bridges have in their header: PCI-to-PCI bridges, type 1 (PCI Express Base 6.0 section 7.5.1.3), and CardBus
 * bridges, type 2 (PC Card Standard 8.0, volume 7).
 */
import type { ConfigReader } from './config-reader.js';
import { PciConfig, PciHeaderType } from './registers.js';

/** The bus numbers of a bridge. */
export interface BridgeBuses {
  /** The bus that the bridge itself is on. */
  readonly primary: number;
  /** The bus behind it; a CardBus bridge's CardBus. */
  readonly secondary: number;
  /** The highest bus number behind it. */
  readonly subordinate: number;
}

/** Addresses that a bridge passes on to its secondary side. */
export interface BridgeWindow {
  /** Which addresses: I/O, memory, or prefetchable memory. */
  readonly kind: 'io' | 'memory' | 'prefetchable';
  /** The first address of the window. */
  readonly base: bigint;
  /** The last address of the window. The window is closed where it is below `base`. */
  readonly limit: bigint;
}

/** What a bridge's header has beside what all headers have. */
export interface BridgeFields extends BridgeBuses {
  /** In clocks of the secondary bus. */
  readonly secondaryLatencyTimer: number;
  /** Bits as in `PciStatus`, of the secondary side. */
  readonly secondaryStatus: number;
  /** The bridge control register. */
  readonly control: number;
}

/** Bits of a PCI-to-PCI bridge's window registers that say how wide the addresses are. */
const RANGE_TYPE_MASK = 0xf;
const RANGE_TYPE_WIDE = 0x1;

/** Bits of a CardBus bridge's control register. */
const CARDBUS_PREFETCH_0 = 0x0100;
/** A CardBus I/O window counts in dwords; the lowest bit says whether it has 32 bits. */
const CARDBUS_IO_WIDE = 0x1;

/** `registers` reads as zero past the end of a space that was cut short. Null for a device. */
export function decodeBridge(registers: ConfigReader, headerType: number): BridgeFields | null {
  const isCardBus = headerType === PciHeaderType.CARDBUS;
  if (!isCardBus && headerType !== PciHeaderType.BRIDGE) return null;
  return {
    primary: registers.getUInt8(PciConfig.PRIMARY_BUS),
    secondary: registers.getUInt8(PciConfig.SECONDARY_BUS),
    subordinate: registers.getUInt8(PciConfig.SUBORDINATE_BUS),
    secondaryLatencyTimer: registers.getUInt8(PciConfig.SECONDARY_LATENCY_TIMER),
    secondaryStatus: registers.getUInt16(
      isCardBus ? PciConfig.CARDBUS_SECONDARY_STATUS : PciConfig.SECONDARY_STATUS,
    ),
    control: registers.getUInt16(PciConfig.BRIDGE_CONTROL),
  };
}

/** I/O, memory and prefetchable memory of a PCI-to-PCI bridge; two of memory and two of I/O of a CardBus bridge. */
export function decodeBridgeWindows(registers: ConfigReader, headerType: number): BridgeWindow[] {
  return headerType === PciHeaderType.CARDBUS ? cardBusWindows(registers) : bridgeWindows(registers);
}

/** Their base registers have the upper bits of an address; those of a limit's below that are ones. */
function bridgeWindows(registers: ConfigReader): BridgeWindow[] {
  const ioBase = registers.getUInt8(PciConfig.IO_BASE);
  const ioLimit = registers.getUInt8(PciConfig.IO_LIMIT);
  const hasWideIo = (ioBase & RANGE_TYPE_MASK) === RANGE_TYPE_WIDE;
  const prefetchableBase = registers.getUInt16(PciConfig.PREFETCHABLE_BASE);
  const prefetchableLimit = registers.getUInt16(PciConfig.PREFETCHABLE_LIMIT);
  const hasWideMemory = (prefetchableBase & RANGE_TYPE_MASK) === RANGE_TYPE_WIDE;
  return [
    {
      kind: 'io',
      base: address(ioBase, 8, hasWideIo ? registers.getUInt16(PciConfig.IO_BASE_UPPER16) : 0, 16),
      limit:
        address(ioLimit, 8, hasWideIo ? registers.getUInt16(PciConfig.IO_LIMIT_UPPER16) : 0, 16) | 0xfffn,
    },
    {
      kind: 'memory',
      base: address(registers.getUInt16(PciConfig.MEMORY_BASE), 16, 0, 32),
      limit: address(registers.getUInt16(PciConfig.MEMORY_LIMIT), 16, 0, 32) | 0xf_ffffn,
    },
    {
      kind: 'prefetchable',
      base: address(
        prefetchableBase,
        16,
        hasWideMemory ? registers.getUInt32(PciConfig.PREFETCHABLE_BASE_UPPER32) : 0,
        32,
      ),
      limit:
        address(
          prefetchableLimit,
          16,
          hasWideMemory ? registers.getUInt32(PciConfig.PREFETCHABLE_LIMIT_UPPER32) : 0,
          32,
        ) | 0xf_ffffn,
    },
  ];
}

/** The register without its type bits, at `shift`, below the upper part at `upperShift`. */
function address(register: number, shift: number, upper: number, upperShift: number): bigint {
  const low = BigInt(register & ~RANGE_TYPE_MASK) << BigInt(shift);
  return (BigInt(upper) << BigInt(upperShift)) | low;
}

function cardBusWindows(registers: ConfigReader): BridgeWindow[] {
  const control = registers.getUInt16(PciConfig.BRIDGE_CONTROL);
  const memory = [0, 1].map((i): BridgeWindow => {
    const at = PciConfig.CARDBUS_MEMORY_BASE_0 + 8 * i;
    return {
      kind: (control & (CARDBUS_PREFETCH_0 << i)) === 0 ? 'memory' : 'prefetchable',
      base: BigInt(registers.getUInt32(at)) & ~0xfffn,
      limit: BigInt(registers.getUInt32(at + 4)) | 0xfffn,
    };
  });
  const io = [0, 1].map((i): BridgeWindow => {
    const at = PciConfig.CARDBUS_IO_BASE_0 + 8 * i;
    const base = registers.getUInt32(at);
    const mask = (base & CARDBUS_IO_WIDE) === 0 ? 0xffffn : 0xffff_ffffn;
    return {
      kind: 'io',
      base: BigInt(base) & mask & ~3n,
      limit: (BigInt(registers.getUInt32(at + 4)) & mask) | 3n,
    };
  });
  return [...memory, ...io];
}
