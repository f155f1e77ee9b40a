/** What has been said, as far back as is kept: messages, interrupts, and the DMA regions that they made. */
import {
  describe,
  formatDescription,
  type Description,
  type TracedInterrupt,
  type TracedMessage,
} from '../../trace/index.js';
import { registerOf } from '../../trace/format-line.js';
import type { RegisterPlacement } from '../../registers/index.js';

/** An event for the page. */
export interface LoggedEvent {
  /** Counted from 0. */
  readonly number: number;
  /** In microseconds, from the first event. */
  readonly time: number;
  readonly kind: 'request' | 'reply' | 'interrupt';
  readonly direction: 'sent' | 'received';
  /** `REGION_READ`; of an interrupt its name. */
  readonly what: string;
  readonly text: string;
  /** The register of an access, where a map names it. */
  readonly register: string | undefined;
  readonly errno: string | undefined;
}

/** A DMA region, from when it was mapped. Times are an event's. */
export interface LoggedMapping {
  readonly address: string;
  readonly size: string;
  readonly from: number;
  to: number | undefined;
}

export interface LogPage {
  /** The oldest number that is kept, and the one after the newest. */
  readonly first: number;
  readonly end: number;
  readonly events: readonly LoggedEvent[];
  readonly mappings: readonly LoggedMapping[];
}

const IRQ_NAMES = ['INTx', 'MSI', 'MSI-X', 'ERR', 'REQ'];
/** DMA regions that are remembered, the unmapped ones included. */
const MOST_MAPPINGS = 1_024;
/** Requests whose replies are awaited. */
const MOST_PENDING = 4_096;
/** The most events of an answer. */
const MOST_PER_PAGE = 1_000;

export class EventLog {
  readonly #most: number;
  readonly #placement: RegisterPlacement | undefined;
  #events: LoggedEvent[] = [];
  #first = 0;
  #begun: bigint | undefined;
  readonly #mappings: LoggedMapping[] = [];
  /** DMA_MAP and DMA_UNMAP that are not answered, by id. */
  readonly #pending = new Map<string, Description>();

  /** Keeps so many events. */
  constructor(most: number, placement: RegisterPlacement | undefined) {
    this.#most = most;
    this.#placement = placement;
  }

  /** The number after the newest event's. */
  get end(): number {
    return this.#first + this.#events.length;
  }

  message({ time, direction, bytes, fds, socket, note }: TracedMessage, known?: Description): void {
    const description = known ?? describe(bytes, { direction, fds });
    const { kind, command, errno } = description;
    const at = this.#timeOf(time);
    this.#followDma(`${socket} ${description.id}`, description, at);
    const text = formatDescription(description);
    this.#add({
      time: at,
      kind,
      direction,
      what: command,
      text: note === undefined ? text : `${text} (${note})`,
      register: registerOf(bytes, this.#placement),
      errno,
    });
  }

  interrupt({ time, index, subindex, count }: Omit<TracedInterrupt, 'socket'>): void {
    const what = `${IRQ_NAMES[index] ?? `interrupt ${index}`} ${subindex}`;
    const text = count === 1 ? 'signalled' : `signalled ${count} times`;
    const rest = { register: undefined, errno: undefined };
    this.#add({ time: this.#timeOf(time), kind: 'interrupt', direction: 'received', what, text, ...rest });
  }

  /** At most `count` events from `from` on; where that is gone, from the oldest on. */
  page(from: number, count: number): LogPage {
    const begin = Math.max(from, this.#first) - this.#first;
    const events = this.#events.slice(begin, begin + Math.min(count, MOST_PER_PAGE));
    return { first: this.#first, end: this.end, events, mappings: this.#mappings };
  }

  #timeOf(time: bigint): number {
    this.#begun ??= time;
    return Number(time - this.#begun) / 1_000;
  }

  #add(event: Omit<LoggedEvent, 'number'>): void {
    this.#events.push({ number: this.end, ...event });
    // Half of them at once, or each event would move all others.
    if (this.#events.length < this.#most * 2) return;
    this.#events = this.#events.slice(this.#most);
    this.#first += this.#most;
  }

  #followDma(key: string, description: Description, time: number): void {
    const { command, kind, errno } = description;
    if (command !== 'DMA_MAP' && command !== 'DMA_UNMAP') return;
    if (kind === 'request') {
      if (this.#pending.size < MOST_PENDING) this.#pending.set(key, description);
      return;
    }
    const request = this.#pending.get(key);
    this.#pending.delete(key);
    if (request === undefined || errno !== undefined) return;
    const { address, size, flags } = request.fields;
    if (command === 'DMA_MAP') this.#mapped(hexOf(address), hexOf(size), time);
    else if (Array.isArray(flags) && flags.includes('ALL')) this.#unmapped(undefined, time);
    else this.#unmapped(hexOf(address), time);
  }

  #mapped(address: string, size: string, from: number): void {
    this.#mappings.push({ address, size, from, to: undefined });
    if (this.#mappings.length <= MOST_MAPPINGS) return;
    const oldest = this.#mappings.findIndex(({ to }) => to !== undefined);
    this.#mappings.splice(Math.max(0, oldest), 1);
  }

  #unmapped(address: string | undefined, time: number): void {
    for (const mapping of this.#mappings) {
      if (mapping.to === undefined && (address === undefined || mapping.address === address))
        mapping.to = time;
    }
  }
}

function hexOf(value: unknown): string {
  return typeof value === 'bigint' || typeof value === 'number' ? `0x${value.toString(16)}` : '?';
}
