/** What the device's memory may hold: each write fills a page with a number of its own. */
import type { Device } from '../../../lib/index.js';
import { VfioUserError } from '../../../lib/index.js';
import { RAM_BYTES } from './machine.js';
import type { Record } from './record.js';

const PAGE = 4096;
export const RAM_PAGES = RAM_BYTES / PAGE;

interface Poke {
  page: number;
  begun: number;
  /** Infinity as long as it is not known to be done. */
  done: number;
}

export class Ram {
  readonly #record: Record;
  /** By number. */
  readonly #pokes: Poke[] = [];

  constructor(record: Record) {
    this.#record = record;
    for (let page = 0; page < RAM_PAGES; page++) this.#pokes.push({ page, begun: 0, done: 0 });
  }

  /** As it is at first. */
  fill(ram: Buffer): void {
    for (const [number, { page }] of this.#pokes.entries()) bytesOf(number).copy(ram, page * PAGE);
  }

  poke(device: Device, which: number): Promise<void> {
    const poke: Poke = { page: which % RAM_PAGES, begun: this.#record.now(), done: Infinity };
    const number = this.#pokes.push(poke) - 1;
    return this.#record.call({
      label: `poke ${number} in page ${poke.page}`,
      promise: device.bar(2).write(poke.page * PAGE, bytesOf(number)),
      onValue: () => (poke.done = this.#record.now()),
      whyNot: (error) => (error instanceof VfioUserError ? undefined : 'an error that it must not have'),
    });
  }

  /** What is wrong with this memory, which was the device's at some time since `from`. */
  whatIsWrong(ram: Buffer, from: number): string | undefined {
    for (let page = 0; page < RAM_PAGES; page++) {
      const bytes = ram.subarray(page * PAGE, (page + 1) * PAGE);
      const number = bytes.readUInt32LE(0);
      const poke = this.#pokes[number];
      if (poke?.page !== page || !bytes.equals(bytesOf(number)))
        return `page ${page} holds what nobody wrote to it`;
      const later = this.#pokes.findIndex(
        (other) => other.page === page && other.begun > poke.done && other.done < from,
      );
      if (later >= 0) return `page ${page} is older than poke ${later}`;
    }
    return undefined;
  }
}

function bytesOf(number: number): Buffer {
  const words = new Uint32Array(PAGE / 4).fill(number);
  return Buffer.from(words.buffer);
}
