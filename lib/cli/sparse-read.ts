/** Reading a range that has areas which cannot be read: those are left out and listed. */
import { RemoteError } from '../errors.js';
import { CHUNK_BYTES, readRange, type RegionRange } from './region-io.js';
import { counted, hex } from './format-text.js';

/** Without a width of the accesses, how much of a chunk that fails is tried at once. */
const PIECE_BYTES = 4096;
const MOST_LISTED = 16;

/** Bytes `[start, end)` of the region that could not be read, and the first error. */
export interface Hole {
  start: number;
  end: number;
  error: RemoteError;
}

/** The bytes of the range a chunk at a time, with `fill` where the server answers an error; `holes` gets those. */
export async function* readSparse(
  range: RegionRange,
  fill: number,
  holes: Hole[],
): AsyncGenerator<Buffer, void, undefined> {
  const end = range.offset + range.length;
  for (let at = range.offset; at < end; at += CHUNK_BYTES) {
    const part = { ...range, offset: at, length: Math.min(CHUNK_BYTES, end - at) };
    const whole = await tryRead(part);
    yield Buffer.isBuffer(whole) ? whole : await readPieces(part, fill, holes);
  }
}

async function readPieces(chunk: RegionRange, fill: number, holes: Hole[]): Promise<Buffer> {
  const bytes = Buffer.alloc(chunk.length, fill);
  const piece = chunk.width ?? (chunk.byDword ? 4 : PIECE_BYTES);
  const parts: RegionRange[] = [];
  for (let at = 0; at < chunk.length; at += piece) {
    parts.push({ ...chunk, offset: chunk.offset + at, length: Math.min(piece, chunk.length - at) });
  }
  const outcomes = await Promise.all(parts.map(tryRead));
  for (const [i, outcome] of outcomes.entries()) {
    const { offset, length } = parts[i]!;
    if (Buffer.isBuffer(outcome)) outcome.copy(bytes, offset - chunk.offset);
    else addHole(holes, { start: offset, end: offset + length, error: outcome });
  }
  return bytes;
}

/** The bytes, which are no more than a chunk, or the error that the server answers; any other is thrown. */
async function tryRead(part: RegionRange): Promise<Buffer | RemoteError> {
  try {
    const chunks: Buffer[] = [];
    for await (const chunk of readRange(part)) chunks.push(chunk);
    return Buffer.concat(chunks);
  } catch (error) {
    if (!(error instanceof RemoteError)) throw error;
    return error;
  }
}

function addHole(holes: Hole[], hole: Hole): void {
  const last = holes.at(-1);
  if (last?.end === hole.start && last.error.code === hole.error.code) last.end = hole.end;
  else holes.push(hole);
}

export function holeBytes(holes: readonly Hole[]): number {
  return holes.reduce((sum, { start, end }) => sum + end - start, 0);
}

/** A line for each, as far as anybody would read them. */
export function describeHoles(holes: readonly Hole[]): string[] {
  const lines = holes.slice(0, MOST_LISTED).map(({ start, end, error }) => {
    return `${hex(start)} to ${hex(end - 1)} could not be read: ${error.code}`;
  });
  const more = holes.length - MOST_LISTED;
  return more > 0 ? [...lines, `and ${counted(more, 'area')} more`] : lines;
}
