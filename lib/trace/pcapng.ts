/**
 * The parts of pcapng that captures are made of ("PCAP Now Generic Capture File Format", IETF draft).
 *
 * ```
 *  every block         | type u32 | total length u32 | body, padded to 4 bytes | total length u32 |
 *  Section Header      | byte-order magic u32 | major u16 | minor u16 | section length i64 | options |
 *  Interface Desc.     | link type u16 | reserved u16 | snap length u32 | options |        one for each socket
 *  Enhanced Packet     | interface u32 | time, high u32 | time, low u32 | captured u32 | original u32 | data | options |
 *  Simple Packet       | original u32 | data |                                       read, and never written
 *  Packet (obsolete)   | interface u16 | drops u16 | as an Enhanced Packet           read, and never written
 *  an option           | code u16 | length u16 | value, padded to 4 bytes |
 * ```
 *
 * The link type is WIRESHARK_UPPER_PDU: each packet says in front of the message which dissector it is for, so that
 * Wireshark with the dissector in tools/wireshark decodes it without any preference, and without it at least says what
 * is missing. (One of the USER link types would have to be mapped to the protocol by each user, and clash with theirs.)
 *
 * ```
 *  data of a packet    | tag 12 u16 | length u16 | "vfio_user", padded | tag 0 u16 | length 0 u16 | the message |
 *                        '- both big-endian, whatever the section is
 * ```
 *
 * A message's fds stand in its comment: `fds: 3,4`. A second comment is what was to be noted of it.
 *
 * An interrupt is a packet for another dissector, inbound, without fds:
 *
 * ```
 *  data of a packet    | tag 12 u16 | length u16 | "vfio_user_irq", padded | tag 0 u16 | length 0 u16 |
 *                      | index u32 | subindex u32 | count u64 |                little-endian, whatever the section is
 * ```
 */
import type { TracedInterrupt, TracedMessage } from './traced-message.js';

export const BLOCK_SECTION = 0x0a0d0d0a;
export const BLOCK_INTERFACE = 1;
/** Obsolete: before there were enhanced ones. */
export const BLOCK_OBSOLETE_PACKET = 2;
export const BLOCK_SIMPLE_PACKET = 3;
export const BLOCK_PACKET = 6;
export const BYTE_ORDER_MAGIC = 0x1a2b3c4d;

export const OPTION_END = 0;
export const OPTION_COMMENT = 1;
export const SECTION_APPLICATION = 4;
export const INTERFACE_NAME = 2;
export const INTERFACE_RESOLUTION = 9;
export const INTERFACE_OFFSET = 14;
export const PACKET_FLAGS = 2;
/** The lowest two bits of the packet flags. */
export const DIRECTION_MASK = 3;
export const DIRECTION_INBOUND = 1;
export const DIRECTION_OUTBOUND = 2;

export const LINKTYPE_WIRESHARK_UPPER_PDU = 252;
export const PDU_TAG_END = 0;
export const PDU_TAG_DISSECTOR = 12;
export const DISSECTOR = 'vfio_user';
export const INTERRUPT_DISSECTOR = 'vfio_user_irq';
/** Bytes that say which interrupt it was. */
export const INTERRUPT_SIZE = 16;

/** Type and twice the total length. */
export const BLOCK_OVERHEAD = 12;
/** Bytes of a packet block's body before the data. */
export const PACKET_HEAD = 20;
export const SIMPLE_PACKET_HEAD = 4;
export const FDS_COMMENT = 'fds: ';

/** An option has 16 bits for its length; a character of a note may take three bytes. */
const MAX_NOTE = 4_096;

const APPLICATION = 'vfio-user for Node.js';
/** Times are nanoseconds: 10 to the power of minus this. */
const RESOLUTION = 9;

/** Tell the dissector of every packet. */
const PDU_TAGS = pduTags(DISSECTOR);
const INTERRUPT_TAGS = pduTags(INTERRUPT_DISSECTOR);

function pduTags(dissector: string): Buffer {
  const name = padded(Buffer.from(dissector));
  const tags = Buffer.alloc(4 + name.length + 4);
  tags.writeUInt16BE(PDU_TAG_DISSECTOR, 0);
  tags.writeUInt16BE(name.length, 2);
  tags.set(name, 4);
  return tags;
}

/** What a file begins with. */
export function sectionHeader(): Buffer {
  const body = Buffer.alloc(16);
  body.writeUInt32LE(BYTE_ORDER_MAGIC, 0);
  body.writeUInt16LE(1, 4);
  body.writeUInt16LE(0, 6);
  // The section's length is not known while it is written.
  body.writeBigInt64LE(-1n, 8);
  return block(BLOCK_SECTION, [body, option(SECTION_APPLICATION, Buffer.from(APPLICATION)), endOfOptions()]);
}

/** A socket, known by its place among the interfaces from here on. */
export function interfaceDescription(name: string): Buffer {
  const body = Buffer.alloc(8);
  body.writeUInt16LE(LINKTYPE_WIRESHARK_UPPER_PDU, 0);
  return block(BLOCK_INTERFACE, [
    body,
    option(INTERFACE_NAME, Buffer.from(name)),
    option(INTERFACE_RESOLUTION, Buffer.of(RESOLUTION)),
    endOfOptions(),
  ]);
}

/** A packet as the parts of one write: what stands before the message, the message itself, what stands behind it. */
export function packetParts(interfaceId: number, message: TracedMessage): Buffer[] {
  const { bytes, size, time, direction, fds, note } = message;
  const options = [packetFlags(direction === 'sent' ? DIRECTION_OUTBOUND : DIRECTION_INBOUND)];
  if (fds.length > 0) options.push(option(OPTION_COMMENT, Buffer.from(FDS_COMMENT + fds.join(','))));
  if (note !== undefined) options.push(option(OPTION_COMMENT, Buffer.from(note.slice(0, MAX_NOTE))));
  return packet(interfaceId, time, PDU_TAGS, bytes, size, options);
}

/** An interrupt, as a packet. */
export function interruptParts(interfaceId: number, interrupt: TracedInterrupt): Buffer[] {
  const { time, index, subindex, count } = interrupt;
  const bytes = Buffer.alloc(INTERRUPT_SIZE);
  bytes.writeUInt32LE(index, 0);
  bytes.writeUInt32LE(subindex, 4);
  bytes.writeBigUInt64LE(BigInt(count), 8);
  return packet(interfaceId, time, INTERRUPT_TAGS, bytes, INTERRUPT_SIZE, [packetFlags(DIRECTION_INBOUND)]);
}

function packetFlags(direction: number): Buffer {
  const flags = Buffer.alloc(4);
  flags.writeUInt32LE(direction);
  return option(PACKET_FLAGS, flags);
}

function packet(
  interfaceId: number,
  time: bigint,
  tags: Buffer,
  bytes: Buffer,
  size: number,
  options: readonly Buffer[],
): Buffer[] {
  const tail = Buffer.concat([
    Buffer.alloc(padding(bytes.length)),
    ...options,
    endOfOptions(),
    Buffer.alloc(4),
  ]);
  const head = Buffer.alloc(8 + PACKET_HEAD + tags.length);
  const total = head.length + bytes.length + tail.length;
  head.writeUInt32LE(BLOCK_PACKET, 0);
  head.writeUInt32LE(total, 4);
  head.writeUInt32LE(interfaceId, 8);
  head.writeUInt32LE(Number((time >> 32n) & 0xffff_ffffn), 12);
  head.writeUInt32LE(Number(time & 0xffff_ffffn), 16);
  head.writeUInt32LE(tags.length + bytes.length, 20);
  head.writeUInt32LE(tags.length + size, 24);
  head.set(tags, 28);
  tail.writeUInt32LE(total, tail.length - 4);
  return [head, bytes, tail];
}

function block(type: number, body: readonly Buffer[]): Buffer {
  const length = BLOCK_OVERHEAD + body.reduce((sum, part) => sum + part.length, 0);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(type, 0);
  head.writeUInt32LE(length, 4);
  return Buffer.concat([head, ...body, head.subarray(4)]);
}

function option(code: number, value: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16LE(code, 0);
  head.writeUInt16LE(value.length, 2);
  return Buffer.concat([head, padded(value)]);
}

function endOfOptions(): Buffer {
  return Buffer.alloc(4);
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(padding(bytes.length))]);
}

/** Bytes up to the next multiple of 4. */
export function padding(length: number): number {
  return -length & 3;
}
