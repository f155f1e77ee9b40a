/** The eventfds that the client has given for interrupts, by index and number ("VFIO_USER_DEVICE_SET_IRQS"). */
import { isEventFd } from '../emulator/irq-table.js';
import { ProtocolError } from '../errors.js';
import { MOST_SIGNALLED, native, type NativeEventFd } from '../native.js';
import {
  HEADER_SIZE,
  IRQ_SET_ACTION_TRIGGER,
  IRQ_SET_DATA_EVENTFD,
  IRQ_SET_DATA_NONE,
} from '../protocol/constants.js';
import { decodeSetIrqs, type SetIrqs } from '../protocol/set-irqs.js';
import type { TracedInterrupt } from '../trace/index.js';

export class Eventfds {
  readonly #eventfds = new Map<string, NativeEventFd>();
  readonly #most: number;
  readonly #note: (note: string) => void;

  /** Keeps `most` of them; `note` is told where there were more. */
  constructor(most: number, note: (note: string) => void) {
    this.#most = most;
    this.#note = note;
  }

  /** Does what a SET_IRQS that the recorded server accepted asks. The fds that it keeps are taken out of `fds`. */
  set(bytes: Buffer, fds: number[]): void {
    const request = decoded(bytes);
    if (request === undefined || (request.flags & IRQ_SET_ACTION_TRIGGER) === 0) return;
    const { index, start, count, flags } = request;
    if ((flags & IRQ_SET_DATA_NONE) !== 0 && count === 0) this.#disable(index);
    if ((flags & IRQ_SET_DATA_EVENTFD) === 0) return;
    // No loop over a count that the client only claims.
    if (fds.length === 0) this.#deassign(index, start, start + count);
    for (const [i, fd] of fds.splice(0, count).entries()) this.#assign(`${index}.${start + i}`, fd);
  }

  /** Whether there was an eventfd to signal. */
  signal({ index, subindex, count }: TracedInterrupt): boolean {
    return this.#eventfds.get(`${index}.${subindex}`)?.signal(Math.min(count, MOST_SIGNALLED)) === 0;
  }

  close(): void {
    for (const eventfd of this.#eventfds.values()) eventfd.close();
    this.#eventfds.clear();
  }

  /** What is no eventfd would be written to all the same, or make us wait. */
  #assign(key: string, fd: number): void {
    this.#eventfds.get(key)?.close();
    this.#eventfds.delete(key);
    if (isEventFd(fd) && this.#eventfds.size < this.#most) {
      this.#eventfds.set(key, new (native().EventFd)(fd, () => {}));
      return;
    }
    native().closeFd(fd);
    if (this.#eventfds.size >= this.#most) this.#note(`of the client's eventfds ${this.#most} were kept`);
  }

  #deassign(index: number, start: number, end: number): void {
    for (const [key, eventfd] of this.#eventfds) {
      const [of, subindex] = key.split('.').map(Number) as [number, number];
      if (of !== index || subindex < start || subindex >= end) continue;
      eventfd.close();
      this.#eventfds.delete(key);
    }
  }

  #disable(index: number): void {
    this.#deassign(index, 0, Infinity);
  }
}

/** Undefined where it is malformed: the recorded server accepted it, whatever it made of it. */
function decoded(bytes: Buffer): SetIrqs | undefined {
  try {
    return decodeSetIrqs(bytes, HEADER_SIZE, bytes.length);
  } catch (error) {
    if (error instanceof ProtocolError) return undefined;
    throw error;
  }
}
