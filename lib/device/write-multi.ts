/** Several small writes in one message (specification: VFIO_USER_REGION_WRITE_MULTI). */
import type { CallOptions } from '../connection/index.js';
import { RemoteError, UnsupportedError } from '../errors.js';
import { integer, UINT32_MAX, wrongType } from '../fields.js';
import * as option from '../options.js';
import { Command, HEADER_SIZE } from '../protocol/constants.js';
import { REGION_ACCESS_SIZE } from '../protocol/region-access.js';
import {
  MAX_MULTI_WRITES,
  decodeRegionWriteMultiReply,
  encodeRegionWriteMulti,
  type RegionWrite,
} from '../protocol/region-write-multi.js';
import type { DeviceContext } from './device-context.js';

const WRITE = new option.OptionTable<RegionWrite>(
  {
    region: option.wholeNumber(0, UINT32_MAX),
    offset: option.wholeNumber(),
    data: option.bytes,
  },
  ['region', 'offset', 'data'],
);

/** Header, wr_cnt, and what each write takes. */
const HEAD_BYTES = HEADER_SIZE + 8;
const WRITE_BYTES = 24;

/** See `Device.writeMulti`. `checkAccess` throws where a region does not have the bytes of a write, or cannot be written. */
export async function writeMulti(
  context: DeviceContext,
  writes: readonly RegionWrite[],
  checkAccess: (write: RegionWrite) => void,
  options: CallOptions | undefined,
): Promise<void> {
  option.CALL_OPTIONS.check('Device.writeMulti', options);
  checkWrites(writes);
  const { userConnection, negotiated } = context;
  const { writeMultiple, maxDataXferSize } = negotiated.capabilities;
  if (!writeMultiple) {
    throw new UnsupportedError('REGION_WRITE_MULTI: the server does not offer the capability write_multiple');
  }
  integer('Device.writeMulti: writes.length', writes.length, 1, mostWrites(maxDataXferSize));
  const payload = encodeRegionWriteMulti(writes);
  for (const write of writes) checkAccess(write);
  const { count } = await userConnection.call(
    Command.REGION_WRITE_MULTI,
    payload,
    null,
    (bytes, start, end) => decodeRegionWriteMultiReply(bytes, start, end),
    options,
  );
  if (count >= writes.length) return;
  throw new RemoteError('REGION_WRITE_MULTI', 0, {}, `${count} of ${writes.length} writes were done`);
}

/** What can be seen before the message is made, which checks the rest. @throws TypeError */
function checkWrites(writes: readonly RegionWrite[]): void {
  if (!Array.isArray(writes)) {
    throw wrongType('Device.writeMulti: writes', 'a list of { region, offset, data }', writes);
  }
  for (const [i, write] of writes.entries()) {
    const problem = WRITE.find('Device.writeMulti', `writes[${i}].`, write);
    if (problem !== undefined) throw problem;
  }
}

/** How many writes fit a message to a server that takes messages with `maxDataXferSize` bytes of data. */
function mostWrites(maxDataXferSize: number): number {
  const room = HEADER_SIZE + REGION_ACCESS_SIZE + maxDataXferSize - HEAD_BYTES;
  return Math.min(MAX_MULTI_WRITES, Math.floor(room / WRITE_BYTES));
}
