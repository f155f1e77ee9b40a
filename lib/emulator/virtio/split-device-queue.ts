/** The device's side of a split virtqueue (Virtual I/O Device 1.2, section 2.7), in the driver's memory. */
import type { ClientMemory } from '../device-model.js';
import {
  Chain,
  hasNext,
  isIndirect,
  QueueFault,
  readTable,
  splitDescriptor,
  type Descriptor,
} from './chain.js';
import { DESCRIPTOR } from './constants.js';
import type { DeviceQueue, QueuePlace } from './device-queue.js';

const NO_NOTIFY = 1;
const NO_INTERRUPT = 1;

export class SplitDeviceQueue implements DeviceQueue {
  readonly #memory: ClientMemory;
  readonly #place: QueuePlace;
  readonly #hasEventIndex: boolean;
  #takenIndex = 0;
  #usedIndex = 0;
  /** The used index when the driver was last interrupted, or could have been. */
  #toldIndex = 0;
  /** Taken and not given back: a driver that offers the same descriptors again and again does not make us keep more. */
  #outstanding = 0;

  constructor(memory: ClientMemory, place: QueuePlace, hasEventIndex: boolean) {
    this.#memory = memory;
    this.#place = place;
    this.#hasEventIndex = hasEventIndex;
  }

  async begin(wantsNotifications: boolean): Promise<void> {
    await this.#write16(this.#place.device, wantsNotifications ? 0 : NO_NOTIFY);
  }

  async take(): Promise<Chain | undefined> {
    const { driver, device, size } = this.#place;
    const index = await this.#read16(driver + 2n);
    const taken = this.#takenIndex;
    if (index === taken) return undefined;
    const waiting = (index - taken) & 0xffff;
    if (waiting > size) throw new QueueFault(`${waiting} requests are available in a queue of ${size}`);
    if (this.#outstanding >= size)
      throw new QueueFault(`more requests than the ${size} that the queue has room for are under way`);
    this.#outstanding++;
    const head = await this.#read16(driver + 4n + BigInt(2 * (taken % size)));
    this.#takenIndex = (taken + 1) & 0xffff;
    if (this.#hasEventIndex) await this.#write16(device + 4n + BigInt(8 * size), this.#takenIndex);
    return this.#chain(head);
  }

  async use({ id }: Chain, length: number): Promise<void> {
    await this.useId(id, length);
  }

  async useId(id: number, length: number): Promise<void> {
    const { device, size } = this.#place;
    this.#outstanding = Math.max(0, this.#outstanding - 1);
    const element = Buffer.alloc(8);
    element.writeUInt32LE(id, 0);
    element.writeUInt32LE(length >>> 0, 4);
    await this.#memory.write(device + 4n + BigInt(8 * (this.#usedIndex % size)), element);
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
    await this.#write16(device + 2n, this.#usedIndex);
  }

  async jump(by: number): Promise<void> {
    this.#usedIndex = (this.#usedIndex + by) & 0xffff;
    await this.#write16(this.#place.device + 2n, this.#usedIndex);
  }

  async scribble({ id }: Chain): Promise<void> {
    const { descriptors, size } = this.#place;
    if (id < size)
      await this.#memory.write(descriptors + BigInt(id * DESCRIPTOR), Buffer.alloc(DESCRIPTOR, 0xa5));
  }

  async wantsInterrupt(): Promise<boolean> {
    const { driver, size } = this.#place;
    const old = this.#toldIndex;
    const now = this.#usedIndex;
    if (old === now) return false;
    this.#toldIndex = now;
    if (!this.#hasEventIndex) return ((await this.#read16(driver)) & NO_INTERRUPT) === 0;
    const event = await this.#read16(driver + 4n + BigInt(2 * size));
    return ((now - event - 1) & 0xffff) < ((now - old) & 0xffff);
  }

  async #chain(head: number): Promise<Chain> {
    const { descriptors, size } = this.#place;
    const chain = new Chain(this.#memory, head, 1);
    const fetch = async (index: number): Promise<Descriptor> => {
      if (index >= size) throw new QueueFault(`descriptor ${index} of ${size}`);
      return splitDescriptor(
        await this.#memory.read(descriptors + BigInt(index * DESCRIPTOR), DESCRIPTOR),
        0,
      );
    };
    let table: Descriptor[] | undefined;
    let descriptor = await fetch(head);
    if (isIndirect(descriptor)) {
      table = await readTable(this.#memory, descriptor);
      descriptor = table[0]!;
    }
    for (let count = 1; ; count++) {
      if (isIndirect(descriptor)) throw new QueueFault('an indirect descriptor within a chain');
      if (count > (table?.length ?? size)) throw new QueueFault('a chain that goes round');
      chain.append(descriptor);
      if (!hasNext(descriptor)) return chain;
      const next = table === undefined ? await fetch(descriptor.link) : table[descriptor.link];
      if (next === undefined) throw new QueueFault(`descriptor ${descriptor.link} of an indirect table`);
      descriptor = next;
    }
  }

  async #read16(address: bigint): Promise<number> {
    return (await this.#memory.read(address, 2)).readUInt16LE(0);
  }

  async #write16(address: bigint, value: number): Promise<void> {
    const bytes = Buffer.alloc(2);
    bytes.writeUInt16LE(value);
    await this.#memory.write(address, bytes);
  }
}
