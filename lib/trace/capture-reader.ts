/**
 * Reads messages from a pcapng file, as this library and the proxy write them; also when tools like `editcap` and
 * `mergecap` have been at it, in either byte order. What is in the file is not trusted: everything is bounded, and a
 * file that breaks the format ends in a CaptureError.
 */
import { open } from 'node:fs/promises';
import { BlockSource } from './block-source.js';
import { CaptureError } from './capture-error.js';
import { CaptureSection } from './capture-section.js';
import { isMessage, type TracedEvent, type TracedMessage } from './message.js';
import { BLOCK_SECTION } from './pcapng.js';

/** The messages of a capture file. Iterate over it, or over its `events`, once. */
export class CaptureReader implements AsyncIterable<TracedMessage> {
  readonly #path: string;
  #cutBytes = 0;
  #skipped = 0;

  constructor(path: string) {
    this.#path = path;
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

  /** The messages alone. @throws CaptureError for what is not pcapng, and what `fs.open` and `fs.read` throw. */
  async *[Symbol.asyncIterator](): AsyncGenerator<TracedMessage, void, undefined> {
    for await (const event of this.events()) if (isMessage(event)) yield event;
  }

  /** Messages and interrupts, in order. @throws as iterating does. */
  async *events(): AsyncGenerator<TracedEvent, void, undefined> {
    const file = await open(this.#path, 'r');
    try {
      const blocks = new BlockSource(file);
      let section: CaptureSection | undefined;
      for (let block = await blocks.next(); block !== undefined; block = await blocks.next()) {
        if (block.type === BLOCK_SECTION) section = new CaptureSection(block);
        else if (section === undefined)
          throw new CaptureError('no section header: this is not a pcapng file', 0);
        const event = section.take(block);
        if (event === 'foreign') this.#skipped++;
        else if (event !== undefined) yield event;
      }
      this.#cutBytes = blocks.left;
    } finally {
      await file.close();
    }
  }
}
