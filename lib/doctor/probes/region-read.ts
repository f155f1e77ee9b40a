/** REGION_READ, and whether its reply is right. */
import { Command } from '../../protocol/constants.js';
import { regionAccess } from '../raw-messages.js';
import { isGood, shortAnswer, type Answer, type GoodReply, type RawConnection } from '../raw-connection.js';

/** Of a reply's payload: offset, region and count come before the data. */
const DATA_AT = 16;

export type RegionRead = { answer: GoodReply; data: Buffer } | { answer: Answer; data: undefined };

/** Reads `count` bytes. `data` is undefined where they were refused, or the reply is wrong. */
export async function readRegion(
  connection: RawConnection,
  region: number,
  offset: number,
  count: number,
): Promise<RegionRead> {
  const answer = await connection.ask(Command.REGION_READ, regionAccess(region, offset, count));
  if (!isGood(answer)) return { answer, data: undefined };
  const { payload } = answer;
  const isRight =
    payload.length === DATA_AT + count &&
    payload.readBigUInt64LE(0) === BigInt(offset) &&
    payload.readUInt32LE(8) === region &&
    payload.readUInt32LE(12) === count;
  return isRight ? { answer, data: payload.subarray(DATA_AT) } : { answer, data: undefined };
}

/** Reads the beginning of a region in accesses of these widths: those that were taken, and how the others were answered. */
export async function tryWidths(
  connection: RawConnection,
  region: number,
  widths: readonly number[],
): Promise<{ taken: number[]; refusals: ReadonlySet<string>; text: string }> {
  const taken: number[] = [];
  const refusals = new Set<string>();
  for (const width of widths) {
    const { answer, data } = await readRegion(connection, region, 0, width);
    if (data !== undefined) taken.push(width);
    else refusals.add(shortAnswer(answer));
  }
  const refused = refusals.size === 0 ? '' : `; refused: ${[...refusals].join(', ')}`;
  return { taken, refusals, text: `${taken.join(', ') || 'none'}${refused}` };
}
