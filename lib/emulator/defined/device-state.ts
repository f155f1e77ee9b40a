/** What a device made of a register map holds between the accesses of its clients. */
import { integer, outOfRange } from '../../fields.js';
import type { RegisterPlacement } from '../../register-map/placement.js';
import type { ClientContext } from '../device-model.js';
import { oneNamed, type Named } from './behaviour.js';
import { DeviceHandle, isOver } from './device-handle.js';
import { RegisterFile } from './register-file.js';

/** The interrupts of the device. */
export interface Interrupts {
  /** How many there are, of the type that has the most. */
  readonly vectors: number;
  raise(vector: number): void;
  lower(vector: number): void;
}

/** How many names are looked up once only. */
const MOST_KEPT_NAMES = 4096;

export class DeviceState {
  readonly placements: readonly RegisterPlacement[];
  /** In the order of the placements. */
  readonly files: readonly RegisterFile[];
  readonly #interrupts: Interrupts;
  readonly #memories: ReadonlyMap<number, Buffer>;
  readonly #clients: () => ReadonlySet<ClientContext>;
  readonly #onError: (error: unknown) => void;
  readonly #onReset: (device: DeviceHandle) => void | Promise<void>;
  readonly #names = new Map<string, Named>();
  #controller = new AbortController();
  #epoch = 0;

  constructor(parts: {
    placements: readonly RegisterPlacement[];
    interrupts: Interrupts;
    memories: ReadonlyMap<number, Buffer>;
    clients: () => ReadonlySet<ClientContext>;
    onError: (error: unknown) => void;
    onReset: (device: DeviceHandle) => void | Promise<void>;
  }) {
    this.placements = parts.placements;
    this.#interrupts = parts.interrupts;
    this.#memories = parts.memories;
    this.#clients = parts.clients;
    this.#onError = parts.onError;
    this.#onReset = parts.onReset;
    this.files = parts.placements.map(
      (placement) => new RegisterFile(placement, (device, work) => this.beside(device, work)),
    );
  }

  /** Counts resets. */
  get epoch(): number {
    return this.#epoch;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The device for a function that is called for this client, or for none. */
  handle(client?: ClientContext): DeviceHandle {
    const [first] = this.#clients();
    return new DeviceHandle(this, client ?? first);
  }

  /** What goes on beside: an error has nobody else to tell. */
  beside(device: DeviceHandle, work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      if (!isOver(device, error)) this.#onError(error);
    });
  }

  /** @throws RangeError */
  find(name: string): Named {
    const known = this.#names.get(name);
    if (known !== undefined) return known;
    const named = oneNamed(this.placements, name);
    if (this.#names.size < MOST_KEPT_NAMES) this.#names.set(name, named);
    return named;
  }

  get(named: Named): bigint {
    return this.#fileOf(named).get(named);
  }

  set(named: Named, value: bigint): void {
    this.#fileOf(named).set(named, value);
  }

  checkVector(vector: number): void {
    const { vectors } = this.#interrupts;
    if (vectors === 0) throw outOfRange('the device has no interrupts');
    integer('vector', vector, 0, vectors - 1);
  }

  raise(vector: number): void {
    this.#interrupts.raise(vector);
  }

  lower(vector: number): void {
    this.#interrupts.lower(vector);
  }

  memory(bar: number): Buffer {
    const memory = this.#memories.get(bar);
    if (memory !== undefined) return memory;
    throw outOfRange(`BAR ${String(bar)} of the device has no memory`);
  }

  /** What was under way is over: registers are as at first, and the author's own part is called. */
  resetRegisters(): void | Promise<void> {
    this.#epoch++;
    this.#controller.abort();
    this.#controller = new AbortController();
    for (const file of this.files) file.reset();
    for (let vector = 0; vector < this.#interrupts.vectors; vector++) this.#interrupts.lower(vector);
    return this.#onReset(this.handle());
  }

  #fileOf({ register }: Named): RegisterFile {
    const file = this.files.find((one) => one.has(register));
    if (file !== undefined) return file;
    throw outOfRange(`the device has no register ${register.path}`);
  }
}
