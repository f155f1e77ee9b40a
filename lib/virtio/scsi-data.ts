/** What SCSI units answer (SPC-4, SBC-3, SAM-5): INQUIRY, vital product data, capacities, lists of LUNs. All of it is checked. */
import { ProtocolError } from '../index.js';

const STANDARD_BYTES = 36;
const MOST_BLOCK = 1 << 20;
const MOST_LUNS = 4096;
const FLAT = 1;

/** Standard INQUIRY data (SPC-4, section 6.6.2). */
export interface ScsiInquiry {
  /** 0 where a unit is there; 1 and 3 where none is. */
  readonly qualifier: number;
  /** The peripheral device type: 0 is a disk, 5 a CD-ROM drive. */
  readonly deviceType: number;
  /** Its medium can be taken out. */
  readonly isRemovable: boolean;
  /** The standard that it claims: 5 is SPC-3, 6 is SPC-4. */
  readonly version: number;
  /** T10 vendor identification. */
  readonly vendor: string;
  /** Product identification. */
  readonly product: string;
  /** Product revision level. */
  readonly revision: string;
}

/** A designation descriptor of vital product data page 0x83 (SPC-4, section 7.8.6). */
export interface ScsiDesignator {
  /** 1 binary, 2 ASCII, 3 UTF-8. */
  readonly codeSet: number;
  /** 0 logical unit, 1 port, 2 device. */
  readonly association: number;
  /** 0 vendor, 1 T10, 2 EUI-64, 3 NAA, 8 a name as SCSI has it. */
  readonly type: number;
  /** Text of those that are text, hexadecimal digits of others. */
  readonly value: string;
}

/** How large a unit is. */
export interface ScsiCapacity {
  /** How many blocks there are. */
  readonly blocks: number;
  /** The length of a block, bytes. */
  readonly blockSize: number;
}

/** @throws ProtocolError for data that is too short. */
export function decodeInquiry(data: Buffer): ScsiInquiry {
  if (data.length < STANDARD_BYTES)
    throw new ProtocolError(`INQUIRY data of ${data.length} bytes: it has at least ${STANDARD_BYTES}`);
  return {
    qualifier: data[0]! >>> 5,
    deviceType: data[0]! & 0x1f,
    isRemovable: (data[1]! & 0x80) !== 0,
    version: data[2]!,
    vendor: text(data.subarray(8, 16)),
    product: text(data.subarray(16, 32)),
    revision: text(data.subarray(32, 36)),
  };
}

/** What follows a page's header. @throws ProtocolError for another page, or one that is not all there. */
export function decodePage(data: Buffer, page: number): Buffer {
  if (data.length < 4 || data[1] !== page)
    throw new ProtocolError(
      `vital product data of page 0x${(data[1] ?? 0).toString(16)}, not 0x${page.toString(16)}`,
    );
  const length = data.readUInt16BE(2);
  if (4 + length > data.length)
    throw new ProtocolError(
      `page 0x${page.toString(16)} says that it has ${length} bytes, and ${data.length - 4} came`,
    );
  return data.subarray(4, 4 + length);
}

/** @throws ProtocolError for a descriptor that goes beyond the page. */
export function decodeDesignators(page: Buffer): ScsiDesignator[] {
  const found: ScsiDesignator[] = [];
  for (let at = 0; at < page.length;) {
    const end = at + 4 + (page[at + 3] ?? 0);
    if (at + 4 > page.length || end > page.length)
      throw new ProtocolError(
        `a designation descriptor at ${at} goes beyond the page's ${page.length} bytes`,
      );
    const bytes = page.subarray(at + 4, end);
    const codeSet = page[at]! & 0x0f;
    const value = codeSet === 2 || codeSet === 3 ? text(bytes) : bytes.toString('hex');
    found.push({ codeSet, association: (page[at + 1]! >>> 4) & 3, type: page[at + 1]! & 0x0f, value });
    at = end;
  }
  return found;
}

/** Of READ CAPACITY(10). undefined where the unit is too large for it. @throws ProtocolError for what no unit has. */
export function decodeCapacity10(data: Buffer): ScsiCapacity | undefined {
  if (data.length < 8) throw short('READ CAPACITY(10)', data.length, 8);
  const last = data.readUInt32BE(0);
  return last === 0xffff_ffff ? undefined : capacity(BigInt(last), data.readUInt32BE(4));
}

/** Of READ CAPACITY(16). @throws ProtocolError for what no unit has. */
export function decodeCapacity16(data: Buffer): ScsiCapacity {
  if (data.length < 12) throw short('READ CAPACITY(16)', data.length, 12);
  return capacity(data.readBigUInt64BE(0), data.readUInt32BE(8));
}

function capacity(last: bigint, blockSize: number): ScsiCapacity {
  if (blockSize === 0 || blockSize > MOST_BLOCK)
    throw new ProtocolError(`the unit has blocks of ${blockSize} bytes: they have 1 to ${MOST_BLOCK}`);
  const blocks = last + 1n;
  if (blocks * BigInt(blockSize) > BigInt(Number.MAX_SAFE_INTEGER))
    throw new ProtocolError(`the unit has ${blocks} blocks of ${blockSize} bytes, too many for this library`);
  return { blocks: Number(blocks), blockSize };
}

/** Of REPORT LUNS: how many bytes the whole list has, and the LUNs that came. @throws ProtocolError. */
export function decodeLuns(data: Buffer): { bytes: number; luns: number[] } {
  if (data.length < 8) throw short('REPORT LUNS', data.length, 8);
  const bytes = data.readUInt32BE(0);
  if (bytes % 8 !== 0 || bytes > 8 * MOST_LUNS)
    throw new ProtocolError(`a list of LUNs of ${bytes} bytes: it has 8 for each, of at most ${MOST_LUNS}`);
  const luns: number[] = [];
  for (let at = 8; at + 8 <= Math.min(data.length, 8 + bytes); at += 8) {
    const method = data[at]! >>> 6;
    // Those of further levels have no number that virtio-scsi could say (section 5.6.6.1).
    if (method <= FLAT) luns.push(((data[at]! & 0x3f) << 8) | data[at + 1]!);
  }
  return { bytes, luns };
}

function short(command: string, length: number, least: number): ProtocolError {
  return new ProtocolError(`${command} gave ${length} bytes: it has at least ${least}`);
}

/** Padded with blanks, or cut off by a zero. */
function text(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('latin1', 0, end < 0 ? bytes.length : end).trim();
}
