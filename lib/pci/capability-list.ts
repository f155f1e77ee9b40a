/** Follows a list of capabilities whose pointers nobody vouches for. */
import { zeroExtended, type ConfigReader } from './config-reader.js';
import {
  HEADER_TYPE_MASK,
  hex,
  PCI_CONFIG_SIZE,
  PCI_HEADER_SIZE,
  PciConfig,
  PciHeaderType,
  PciStatus,
} from './registers.js';

/** Which capability a decoder looks at, and how far it may read. */
export interface CapabilityPlace {
  readonly config: ConfigReader;
  /** Offset of the capability's header in config space. */
  readonly offset: number;
  /** No byte of the capability stands at or beyond this offset. */
  readonly limit: number;
  /** Where a decoder says what is wrong. */
  readonly problems: string[];
}

/** What distinguishes the list of conventional capabilities from that of extended ones. */
export interface ListShape {
  /** Begins each message: `capability` or `extended capability`. */
  readonly what: string;
  /** The first offset where a capability may stand. */
  readonly lowest: number;
  /** The end of the area that capabilities stand in. */
  readonly limit: number;
  /** Bytes of a capability's header. */
  readonly headerSize: number;
  /** The pointer in the header at `offset`, 0 at the end of the list; what its bytes are where they are no header. */
  readonly next: (offset: number) => number | 'all ones' | 'all zeroes';
}

/**
 * The offsets of the capabilities, from the one at `first` on. The list ends where a pointer leaves the area or leads
 * back to a capability already seen, so there are at most as many as there are dwords in the area. The low two bits
 * of a pointer are reserved and ignored, as the specification has it.
 */
export function listOffsets(first: number, shape: ListShape, problems: string[]): number[] {
  const offsets = new Set<number>();
  let from = 'the first pointer';
  let pointer = first;
  while (pointer !== 0) {
    const offset = pointer & ~3;
    const refusal = refuse(offset, shape, offsets);
    if (offset !== pointer)
      problems.push(`${shape.what} list: ${from} (${hex(pointer)}) has reserved bits set`);
    if (refusal !== null) {
      problems.push(`${shape.what} list: ${from} (${hex(pointer)}) ${refusal}`);
      break;
    }
    const next = shape.next(offset);
    if (typeof next !== 'number') {
      problems.push(`${shape.what} list: there is no header at ${hex(offset)}, its bytes are ${next}`);
      break;
    }
    offsets.add(offset);
    from = `the pointer of ${hex(offset)}`;
    pointer = next;
  }
  return [...offsets];
}

function refuse(offset: number, shape: ListShape, seen: ReadonlySet<number>): string | null {
  if (offset < shape.lowest) return `leads below ${hex(shape.lowest)}`;
  if (offset + shape.headerSize > shape.limit) return `leads past the end at ${hex(shape.limit)}`;
  if (seen.has(offset)) return 'leads back into the list';
  return null;
}

/** Where the conventional capabilities stand, in the order of their list (PCI Local Bus 3.0 section 6.7). */
export function capabilityOffsets(config: ConfigReader, problems: string[] = []): number[] {
  const shape: ListShape = {
    what: 'capability',
    lowest: PCI_HEADER_SIZE,
    limit: Math.min(config.size, PCI_CONFIG_SIZE),
    headerSize: 2,
    next: (offset) => (config.getUInt8(offset) === 0xff ? 'all ones' : config.getUInt8(offset + 1)),
  };
  return listOffsets(capabilitiesPointer(config), shape, problems);
}

/** Where the first conventional capability with that id stands, if its `length` bytes are there. */
export function findCapabilityOffset(config: ConfigReader, id: number, length: number): number | undefined {
  const offset = capabilityOffsets(config).find((candidate) => config.getUInt8(candidate) === id);
  const limit = Math.min(config.size, PCI_CONFIG_SIZE);
  return offset !== undefined && offset + length <= limit ? offset : undefined;
}

/**
 * The pointer to the list of capabilities as it stands in the header; 0 where the status bit says that there is none, and
 * for a header type that is not defined: nobody knows where such a header has its pointer.
 */
export function capabilitiesPointer(config: ConfigReader): number {
  const registers = zeroExtended(config);
  if ((registers.getUInt16(PciConfig.STATUS) & PciStatus.CAPABILITIES_LIST) === 0) return 0;
  const headerType = registers.getUInt8(PciConfig.HEADER_TYPE) & HEADER_TYPE_MASK;
  if (headerType > PciHeaderType.CARDBUS) return 0;
  const isCardBus = headerType === PciHeaderType.CARDBUS;
  return registers.getUInt8(
    isCardBus ? PciConfig.CARDBUS_CAPABILITIES_POINTER : PciConfig.CAPABILITIES_POINTER,
  );
}

/** Whether the `length` bytes of a capability are there; says so when they are not. */
export function fits({ offset, limit, problems }: CapabilityPlace, length: number, name: string): boolean {
  if (offset + length <= limit) return true;
  problems.push(`${name} at ${hex(offset)}: its ${length} bytes reach past the end at ${hex(limit)}`);
  return false;
}
