/** The device's side of a packed virtqueue (Virtual I/O Device 1.2, section 2.8), in the driver's memory. */
import type { ClientMemory } from '../device-model.js';
import {
  Chain,
  hasNext,
  isIndirect,
  packedDescriptor,
  QueueFault,
  readTable,
  type Descriptor,
} from './chain.js';
import { DESCRIPTOR, F_AVAIL, F_USED, F_WRITE } from './constants.js';
import type { DeviceQueue, QueuePlace } from './device-queue.js';

const EVENTS_DISABLED = 1;
const EVENTS_AT_OFFSET = 2;

export class PackedDeviceQueue implements DeviceQueue {
  readonly #memory: ClientMemory;
  readonly #place: QueuePlace;
  readonly #hasEventIndex: boolean;
  #at = 0;
  #wrap = true;
  #usedAt = 0;
  #usedWrap = true;
  /** Entries that were used since the driver was last interrupted, or could have been. */
  #untold = 0;
  /** Entries that were taken and not given back: one that is offered again before that does not make us keep more. */
  #outstanding = 0;

  constructor(memory: ClientMemory, place: QueuePlace, hasEventIndex: boolean) {
    this.#memory = memory;
    this.#place = place;
    this.#hasEventIndex = hasEventIndex;
  }

  async begin(wantsNotifications: boolean): Promise<void> {
    const event = Buffer.alloc(4);
    event.writeUInt16LE(wantsNotifications ? 0 : EVENTS_DISABLED, 2);
    await this.#memory.write(this.#place.device, event);
  }

  async take(): Promise<Chain | undefined> {
    const first = await this.#fetch(this.#at);
    const isAvailable =
      ((first.flags & F_AVAIL) !== 0) === this.#wrap && ((first.flags & F_USED) !== 0) !== this.#wrap;
    if (!isAvailable) return undefined;
    const descriptors: Descriptor[] = [first];
    this.#advance();
    while (hasNext(descriptors.at(-1)!)) {
      if (descriptors.length >= this.#place.size) throw new QueueFault('a chain that goes round');
      descriptors.push(await this.#fetch(this.#at));
      this.#advance();
    }
    this.#outstanding += descriptors.length;
    if (this.#outstanding > this.#place.size)
      throw new QueueFault(
        `more requests than the ${this.#place.size} that the queue has room for are under way`,
      );
    const chain = new Chain(this.#memory, descriptors.at(-1)!.link, descriptors.length);
    if (isIndirect(first)) {
      if (descriptors.length > 1) throw new QueueFault('an indirect descriptor with a next one');
      for (const { address, length, link, flags } of await readTable(this.#memory, first)) {
        // In a table the last two fields of a packed descriptor are as in the ring: id, then flags.
        chain.append({ address, length, flags: link & F_WRITE, link: flags });
      }
    } else for (const descriptor of descriptors) chain.append(descriptor);
    return chain;
  }

  async use({ id, entries }: Chain, length: number): Promise<void> {
    await this.#use(id, length, entries);
  }

  async useId(id: number, length: number): Promise<void> {
    await this.#use(id, length, 1);
  }

  async jump(by: number): Promise<void> {
    for (let i = 0; i < by; i++) await this.#use(0xfff0 + i, 0, 1);
  }

  async scribble(): Promise<void> {
    const at = (this.#usedAt + this.#place.size - 1) % this.#place.size;
    await this.#memory.write(this.#place.descriptors + BigInt(at * DESCRIPTOR), Buffer.alloc(8, 0xa5));
  }

  async wantsInterrupt(): Promise<boolean> {
    const untold = this.#untold;
    this.#untold = 0;
    if (untold === 0) return false;
    const event = await this.#memory.read(this.#place.driver, 4);
    const flags = event.readUInt16LE(2);
    if (flags !== EVENTS_AT_OFFSET || !this.#hasEventIndex) return flags !== EVENTS_DISABLED;
    const at = event.readUInt16LE(0);
    const wrap = at >>> 15 === 1;
    const offset = (at & 0x7fff) - (wrap === this.#usedWrap ? 0 : this.#place.size);
    return ((this.#usedAt - offset - 1) & 0xffff) < untold;
  }

  async #use(id: number, length: number, entries: number): Promise<void> {
    const address = this.#place.descriptors + BigInt(this.#usedAt * DESCRIPTOR);
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(length >>> 0, 0);
    bytes.writeUInt16LE(id, 4);
    bytes.writeUInt16LE((length > 0 ? F_WRITE : 0) | (this.#usedWrap ? F_AVAIL | F_USED : 0), 6);
    // The flags last: they say whose the descriptor is.
    await this.#memory.write(address + 8n, bytes.subarray(0, 6));
    await this.#memory.write(address + 14n, bytes.subarray(6));
    this.#untold += entries;
    this.#outstanding = Math.max(0, this.#outstanding - entries);
    this.#usedAt += entries;
    if (this.#usedAt < this.#place.size) return;
    this.#usedAt -= this.#place.size;
    this.#usedWrap = !this.#usedWrap;
  }

  async #fetch(index: number): Promise<Descriptor> {
    const address = this.#place.descriptors + BigInt(index * DESCRIPTOR);
    return packedDescriptor(await this.#memory.read(address, DESCRIPTOR), 0);
  }

  #advance(): void {
    if (++this.#at < this.#place.size) return;
    this.#at = 0;
    this.#wrap = !this.#wrap;
  }
}
