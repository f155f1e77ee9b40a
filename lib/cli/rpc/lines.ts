/** Lines of a stream that is not trusted: each is bounded, and one that is too long is skipped. */

/** Base64 of 1 MiB, and what is around it. */
export const MOST_LINE_BYTES = 2 << 20;

const NEWLINE = 0x0a;

/** The lines; undefined for one that had more than `MOST_LINE_BYTES`. An end without a newline is one as well. */
export async function* boundedLines(
  stream: AsyncIterable<Uint8Array>,
): AsyncGenerator<string | undefined, void, undefined> {
  let parts: Uint8Array[] = [];
  let length = 0;
  const take = (): string | undefined => {
    const line = length > MOST_LINE_BYTES ? undefined : Buffer.concat(parts).toString('utf8');
    parts = [];
    length = 0;
    return line;
  };
  const add = (bytes: Uint8Array): void => {
    length += bytes.length;
    // What is skipped is not kept.
    if (length > MOST_LINE_BYTES) parts = [];
    else parts.push(bytes);
  };
  for await (const chunk of stream) {
    let from = 0;
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, from)) {
      add(chunk.subarray(from, at));
      yield take();
      from = at + 1;
    }
    if (from < chunk.length) add(chunk.subarray(from));
  }
  if (length > 0) yield take();
}
