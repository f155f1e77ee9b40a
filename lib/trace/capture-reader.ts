/**
 * Reads messages from a capture, as this library and the proxy write them; also when tools like `editcap` and `mergecap`
 * have been at it: pcapng or classic pcap, in either byte order, compressed by gzip or not. What is in the file is not
 * trusted: everything is bounded, and a file that breaks the format ends in a CaptureError.
 */
import { wrongType } from '../fields.js';
import { BlockSource } from './block-source.js';
import { ByteSource, type CaptureSource } from './byte-source.js';
import { CaptureError } from './capture-error.js';
import { CaptureSection } from './capture-section.js';
import { isMessage, type TracedEvent, type TracedMessage } from './traced-message.js';
import { pcapEvents, pcapFormat } from './pcap.js';
import { BLOCK_SECTION } from './pcapng.js';

const MAGIC_SIZE = 4;

function isSource(source: unknown): boolean {
  if (typeof source === 'string') return source !== '';
  if (typeof source !== 'object' || source === null) return false;
  return typeof (source as { [Symbol.asyncIterator]?: unknown })[Symbol.asyncIterator] === 'function';
}

/**
 * The messages of a capture file, or of a stream that brings one. Iterate over it, or over its `events`, once.
 *
 * What a format does not hold is not there: classic pcap has no names of sockets, fds or notes, simple packets of pcapng
 * no times either (0n). A direction that is not said is that of a client's request or of a reply to it.
 *
 * @example
 * ```ts
 * for await (const message of new CaptureReader('dev.pcapng')) {
 *   console.log(message.direction, describe(message.bytes).command);
 * }
 * ```
 */
export class CaptureReader implements AsyncIterable<TracedMessage> {
  readonly #source: CaptureSource;
  #cutBytes = 0;
  #skipped = 0;

  /** @param source - the path of a file, or its bytes, `process.stdin` for example */
  constructor(source: CaptureSource) {
    if (!isSource(source)) {
      throw wrongType('CaptureReader: source', 'the path of a file, or an async iterable of bytes', source);
    }
    this.#source = source;
  }

  /**
   * Bytes at the end that are not a whole block: the file was being written, or its writer died. Known once the
   * iteration has ended.
   */
  get cutBytes(): number {
    return this.#cutBytes;
  }

  /** Packets that are not of this protocol. */
  get skipped(): number {
    return this.#skipped;
  }

  /** The messages alone. @throws CaptureError for what is no capture, and what `fs.open` and `fs.read` throw. */
  async *[Symbol.asyncIterator](): AsyncGenerator<TracedMessage, void, undefined> {
    for await (const event of this.events()) if (isMessage(event)) yield event;
  }

  /** Messages and interrupts, in order. @throws as iterating does. */
  async *events(): AsyncGenerator<TracedEvent, void, undefined> {
    const bytes = new ByteSource(this.#source);
    try {
      for await (const event of eventsOf(bytes)) {
        if (event === 'foreign') this.#skipped++;
        else yield event;
      }
      this.#cutBytes = bytes.left;
    } finally {
      await bytes.close();
    }
  }
}

async function* eventsOf(bytes: ByteSource): AsyncGenerator<TracedEvent | 'foreign', void, undefined> {
  const magic = await bytes.peek(MAGIC_SIZE);
  if (magic === undefined && bytes.left === 0) throw new CaptureError('the file is empty: it is no capture');
  const format = magic === undefined ? undefined : pcapFormat(magic);
  if (format !== undefined) yield* pcapEvents(bytes, format);
  else if (magic?.readUInt32LE(0) === BLOCK_SECTION) yield* pcapngEvents(bytes);
  else
    throw new CaptureError(
      'this is not a pcapng file, nor a pcap file: it begins with the header of neither',
      0,
    );
}

async function* pcapngEvents(bytes: ByteSource): AsyncGenerator<TracedEvent | 'foreign', void, undefined> {
  const blocks = new BlockSource(bytes);
  let section: CaptureSection | undefined;
  for (let block = await blocks.next(); block !== undefined; block = await blocks.next()) {
    if (block.type === BLOCK_SECTION) section = new CaptureSection(block);
    const event = section?.take(block);
    if (event !== undefined) yield event;
  }
}
