/** Accesses to regions. */
import {
  REGION_ACCESS_SIZE,
  checkRegionReadReply,
  checkRegionWriteReply,
  decodeRegionAccess,
  decodeRegionRead,
  decodeRegionWrite,
  type RegionAccess,
} from '../protocol/region-access.js';
import { decodeRegionWriteMulti, decodeRegionWriteMultiReply } from '../protocol/region-write-multi.js';
import { dataAt, type Fields, type Payload } from './payload-fields.js';

export function regionRead(bytes: Buffer, start: number, end: number): Payload {
  return { fields: regionAccessFields(decodeRegionRead(bytes, start, end)) };
}

/** Whether a reply is the one that was asked for is the connection's to know; here it must agree with itself. */
export function regionReadReply(bytes: Buffer, start: number, end: number): Payload {
  const access = decodeRegionAccess(bytes, start, end, 'REGION_READ reply');
  checkRegionReadReply(bytes, start, end, access.offset, access.region, access.count);
  return { fields: regionAccessFields(access), ...dataAt(start + REGION_ACCESS_SIZE, end) };
}

export function regionWrite(bytes: Buffer, start: number, end: number): Payload {
  const access = decodeRegionWrite(bytes, start, end);
  return { fields: regionAccessFields(access), ...dataAt(start + REGION_ACCESS_SIZE, end) };
}

export function regionWriteReply(bytes: Buffer, start: number, end: number): Payload {
  const access = decodeRegionAccess(bytes, start, end, 'REGION_WRITE reply');
  checkRegionWriteReply(bytes, start, end, access.offset, access.region, access.count);
  return { fields: regionAccessFields(access) };
}

function regionAccessFields({ offset, region, count }: RegionAccess): Fields {
  return { offset, region, count };
}

export function regionWriteMulti(bytes: Buffer, start: number, end: number): Payload {
  const writes = decodeRegionWriteMulti(bytes, start, end);
  return {
    fields: {
      wr_cnt: writes.length,
      wrs: writes.map(({ offset, region, data }) => ({
        offset,
        region,
        count: data.length,
        data: Buffer.from(data).toString('hex'),
      })),
    },
  };
}

export function regionWriteMultiReply(bytes: Buffer, start: number, end: number): Payload {
  return { fields: { wr_cnt: decodeRegionWriteMultiReply(bytes, start, end).count } };
}
