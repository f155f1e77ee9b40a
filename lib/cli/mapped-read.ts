/** Reading a range through mappings where there are any: some servers answer no read of what can be mapped. */
import type { Region } from '../index.js';
import { CHUNK_BYTES, type RegionRange } from './region-io.js';
import { UsageError } from './errors.js';

type Reader = (part: RegionRange) => AsyncIterable<Buffer>;

/**
 * The bytes of the range a chunk at a time: what can be mapped is copied out of the server's memory, the rest is
 * `readRest`'s.
 * @throws UsageError where nothing of it can be mapped; what `Region.map` and `copyOut` throw.
 */
export function readMapped(range: RegionRange, readRest: Reader): AsyncGenerator<Buffer, void, undefined> {
  const areas = areasOf(range);
  if (areas.length === 0) throw new UsageError('nothing there can be mapped: --mapped has nothing to do');
  return inChunks(readParts(range, areas, readRest));
}

interface Area {
  start: number;
  end: number;
}

/** What can be mapped of the range, in order and without overlap. */
function areasOf({ region, offset, length }: RegionRange): Area[] {
  const areas: Area[] = [];
  if (!region.mappable) return areas;
  let free = offset;
  for (const area of [...region.areas].sort((a, b) => a.offset - b.offset)) {
    const start = Math.max(free, area.offset);
    const end = Math.min(offset + length, area.offset + area.size);
    if (start >= end) continue;
    areas.push({ start, end });
    free = end;
  }
  return areas;
}

async function* readParts(
  range: RegionRange,
  areas: readonly Area[],
  readRest: Reader,
): AsyncGenerator<Buffer> {
  const end = range.offset + range.length;
  let at = range.offset;
  for (const area of [...areas, { start: end, end }]) {
    if (at < area.start) yield* readRest({ ...range, offset: at, length: area.start - at });
    if (area.start < area.end) yield* copyOut(range.region, area);
    at = area.end;
  }
}

function* copyOut(region: Region, { start, end }: Area): Generator<Buffer> {
  const mapped = region.map(start, end - start);
  try {
    for (let at = start; at < end; at += CHUNK_BYTES) {
      const bytes = Buffer.alloc(Math.min(CHUNK_BYTES, end - at));
      mapped.copyOut(at - start, bytes);
      yield bytes;
    }
  } finally {
    mapped.close();
  }
}

/** The same bytes, in chunks of whole lines but for the last one. */
async function* inChunks(parts: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  let waiting: Buffer[] = [];
  let length = 0;
  for await (const part of parts) {
    waiting.push(part);
    length += part.length;
    if (length < CHUNK_BYTES) continue;
    const bytes = Buffer.concat(waiting);
    const whole = length - (length % CHUNK_BYTES);
    for (let at = 0; at < whole; at += CHUNK_BYTES) yield bytes.subarray(at, at + CHUNK_BYTES);
    waiting = [bytes.subarray(whole)];
    length -= whole;
  }
  if (length > 0) yield Buffer.concat(waiting);
}
