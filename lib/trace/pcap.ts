/**
 * Classic pcap, as `tcpdump -w` and `editcap -F pcap` write it ("PCAP Capture File Format", IETF draft):
 *
 * ```
 *  file header         | magic u32 | major u16 | minor u16 | 8 bytes | snap length u32 | link type u32 |
 *  a packet            | seconds u32 | fraction u32 | captured u32 | original u32 | data |
 * ```
 * The magic gives the byte order of all and says whether fractions are of micro- or of nanoseconds. There are no names of
 * sockets, directions, fds or notes. The data of a packet is that of pcapng.
 */
import { MAX_PACKET, readUInt16, readUInt32 } from './block-source.js';
import type { ByteSource } from './byte-source.js';
import { CaptureError } from './capture-error.js';
import { eventOf } from './packet.js';
import type { TracedEvent } from './traced-message.js';
import { LINKTYPE_WIRESHARK_UPPER_PDU } from './pcapng.js';

const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const MAGIC_NANOSECONDS = 0xa1b23c4d;
const FILE_HEADER = 24;
const PACKET_HEADER = 16;
const MAJOR = 2;
/** Above it stands how long a frame check sequence is. */
const LINK_TYPE_MASK = 0xffff;
const SECOND = 1_000_000_000n;
const SOCKET = 'interface 0';

/** What the file's first four bytes say of it; undefined where they are no magic of pcap. */
interface Format {
  littleEndian: boolean;
  /** Nanoseconds of a fraction. */
  unit: bigint;
}

export function pcapFormat(magic: Buffer): Format | undefined {
  for (const littleEndian of [true, false]) {
    const value = readUInt32(magic, 0, littleEndian);
    if (value === MAGIC_MICROSECONDS) return { littleEndian, unit: 1_000n };
    if (value === MAGIC_NANOSECONDS) return { littleEndian, unit: 1n };
  }
  return undefined;
}

/** Messages and interrupts; `foreign` for each packet of another protocol. @throws CaptureError, and what reading throws. */
export async function* pcapEvents(
  bytes: ByteSource,
  { littleEndian, unit }: Format,
): AsyncGenerator<TracedEvent | 'foreign', void, undefined> {
  if ((await bytes.peek(FILE_HEADER)) === undefined) return;
  const header = bytes.take(FILE_HEADER);
  const major = readUInt16(header, 4, littleEndian);
  if (major !== MAJOR) throw new CaptureError(`the file is pcap version ${major}, not ${MAJOR}`, 0);
  const linkType = readUInt32(header, 20, littleEndian) & LINK_TYPE_MASK;
  for (;;) {
    const head = await bytes.peek(PACKET_HEADER);
    if (head === undefined) return;
    const { offset } = bytes;
    const [seconds, fraction, captured, original] = [0, 4, 8, 12].map((at) =>
      readUInt32(head, at, littleEndian),
    ) as [number, number, number, number];
    if (captured > MAX_PACKET) {
      throw new CaptureError(`a packet of ${captured} bytes; packets have at most ${MAX_PACKET}`, offset);
    }
    if ((await bytes.peek(PACKET_HEADER + captured)) === undefined) return;
    const data = bytes.take(PACKET_HEADER + captured).subarray(PACKET_HEADER);
    const time = BigInt(seconds) * SECOND + BigInt(fraction) * unit;
    const packet = { socket: SOCKET, time, data, size: original, offset, flags: 0, fds: [], note: undefined };
    yield (linkType === LINKTYPE_WIRESHARK_UPPER_PDU ? eventOf(packet) : undefined) ?? 'foreign';
  }
}
