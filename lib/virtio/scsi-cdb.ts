/** Command descriptor blocks (SPC-4, SBC-3). */

const INQUIRY = 0x12;
const READ_CAPACITY_10 = 0x25;
const READ_10 = 0x28;
const WRITE_10 = 0x2a;
const SYNCHRONIZE_CACHE_10 = 0x35;
const READ_16 = 0x88;
const WRITE_16 = 0x8a;
const SERVICE_ACTION_IN_16 = 0x9e;
const REPORT_LUNS = 0xa0;
const READ_CAPACITY_16 = 0x10;
const EVPD = 1;
const MOST_10_BLOCKS = 0xffff;
const LBAS_10 = 2 ** 32;

export const TEST_UNIT_READY_CDB: Buffer = Buffer.alloc(6);

/** Standard data, or a page of vital product data. */
export function inquiryCdb(page: number | undefined, bytes: number): Buffer {
  const cdb = Buffer.from([INQUIRY, page === undefined ? 0 : EVPD, page ?? 0, 0, 0, 0]);
  cdb.writeUInt16BE(bytes, 3);
  return cdb;
}

export function reportLunsCdb(bytes: number): Buffer {
  const cdb = Buffer.alloc(12);
  cdb[0] = REPORT_LUNS;
  cdb.writeUInt32BE(bytes, 6);
  return cdb;
}

export function readCapacity10Cdb(): Buffer {
  return Buffer.from([READ_CAPACITY_10, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

export function readCapacity16Cdb(bytes: number): Buffer {
  const cdb = Buffer.alloc(16);
  cdb[0] = SERVICE_ACTION_IN_16;
  cdb[1] = READ_CAPACITY_16;
  cdb.writeUInt32BE(bytes, 10);
  return cdb;
}

/** The whole unit. */
export function synchronizeCacheCdb(): Buffer {
  return Buffer.from([SYNCHRONIZE_CACHE_10, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

/** READ and WRITE: of 10 bytes where those can say it, of 16 elsewhere. */
export function transferCdb(isWrite: boolean, lba: number, blocks: number): Buffer {
  if (lba + blocks <= LBAS_10 && blocks <= MOST_10_BLOCKS) {
    const cdb = Buffer.alloc(10);
    cdb[0] = isWrite ? WRITE_10 : READ_10;
    cdb.writeUInt32BE(lba, 2);
    cdb.writeUInt16BE(blocks, 7);
    return cdb;
  }
  const cdb = Buffer.alloc(16);
  cdb[0] = isWrite ? WRITE_16 : READ_16;
  cdb.writeBigUInt64BE(BigInt(lba), 2);
  cdb.writeUInt32BE(blocks, 10);
  return cdb;
}
