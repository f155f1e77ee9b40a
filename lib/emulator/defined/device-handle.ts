/** The device, as the functions that its author writes have it. */
import { ClosedError } from '../../errors.js';
import { outOfRange, wrongType } from '../../fields.js';
import { DeviceError, DmaError, ECANCELED, EFAULT } from '../device-error.js';
import type { ClientContext, ClientMemory } from '../device-model.js';
import { isPromise } from '../maybe-async.js';
import type { DeviceValue, Named } from './behaviour.js';
import type { DeviceState } from './device-state.js';

/**
 * The device for one of its functions, until it is reset. A function that was under way at a reset has a handle of the device
 * as it was: what it sets and raises has no effect any more, its DMA is refused with ECANCELED, and `signal` is aborted.
 *
 * @example
 * ```ts
 * const on = {
 *   'CTRL.START': async (device: DeviceHandle) => {
 *     device.set('STATUS.BUSY', 1);
 *     await device.dma.write(device.getBigInt('DEST'), Buffer.alloc(device.get('LENGTH')));
 *     device.set('STATUS.BUSY', 0);
 *     device.raise();
 *   },
 * };
 * ```
 */
export class DeviceHandle {
  /** The client whose access it is; of what no client began, one that is connected, if any. */
  readonly client: ClientContext | undefined;
  /** That client's memory. */
  readonly dma: ClientMemory;
  readonly #state: DeviceState;
  readonly #epoch: number;

  /** @internal */
  constructor(state: DeviceState, client: ClientContext | undefined) {
    this.#state = state;
    this.#epoch = state.epoch;
    this.client = client;
    this.dma = {
      read: (address, length) => this.#transfer((memory) => memory.read(address, length)),
      write: (address, bytes) => this.#transfer((memory) => memory.write(address, bytes)),
    };
  }

  /** Whether the device has been reset since. */
  get isStale(): boolean {
    return this.#state.epoch !== this.#epoch;
  }

  /** Aborted when the device is reset. */
  get signal(): AbortSignal {
    return this.isStale ? AbortSignal.abort(wasReset()) : this.#state.signal;
  }

  /**
   * What a register or a field of at most 32 bits holds. Reading it so has no effect.
   * @throws RangeError for a name that there is not, and for what has more bits: `getBigInt` gives them.
   */
  get(name: string): number {
    const { named, bits } = this.#find(name);
    if (bits > 32) throw outOfRange(`${name} has ${bits} bits: getBigInt gives them`);
    return Number(this.#state.get(named));
  }

  /** As `get`, of any width. */
  getBigInt(name: string): bigint {
    return this.#state.get(this.#find(name).named);
  }

  /**
   * Sets a register or a field, whatever its access is: a number, a bigint, or the name of one of the field's values.
   * @throws RangeError for a name that there is not, and for a value that does not fit.
   */
  set(name: string, value: DeviceValue | string): void {
    const { named } = this.#find(name);
    const bits = typeof value === 'string' ? valueNamed(named, name, value) : integerOf(name, value);
    if (!this.isStale) this.#state.set(named, bits);
  }

  /**
   * Interrupts every client: by MSI-X where it has that, else by MSI, else by INTx, which stays up until `lower`.
   * @throws RangeError for a vector that the device does not have.
   */
  raise(vector = 0): void {
    this.#state.checkVector(vector);
    if (!this.isStale) this.#state.raise(vector);
  }

  /** Takes back what `raise` did to INTx, which goes down when nothing holds it up. */
  lower(vector = 0): void {
    this.#state.checkVector(vector);
    if (!this.isStale) this.#state.lower(vector);
  }

  /** The bytes of a BAR that has memory. @throws RangeError where it has none. */
  memory(bar: number): Buffer {
    return this.#state.memory(bar);
  }

  /** What a reset bit does: registers and interrupts as at first, config space as it is. */
  resetRegisters(): void {
    if (this.isStale) return;
    const own = this.#state.resetRegisters();
    if (isPromise(own)) this.#state.beside(this.#state.handle(), own);
  }

  #find(name: string): { named: Named; bits: number } {
    if (typeof name !== 'string') throw wrongType('the name of a register', 'a string', name);
    const named = this.#state.find(name);
    return { named, bits: named.field?.bits ?? named.register.bits };
  }

  async #transfer<T>(transfer: (memory: ClientMemory) => Promise<T>): Promise<T> {
    if (this.isStale) throw wasReset();
    if (this.client === undefined) throw new DmaError(EFAULT, 'no client is connected');
    const result = await transfer(this.client.dma);
    if (this.isStale) throw wasReset();
    return result;
  }
}

/** Whether an error says nothing but that the function's time was over. */
export function isOver(device: DeviceHandle, error: unknown): boolean {
  return device.isStale || (device.client?.isConnected === false && error instanceof ClosedError);
}

function wasReset(): DeviceError {
  return new DeviceError(ECANCELED, 'the device was reset');
}

function integerOf(name: string, value: unknown): bigint {
  if (typeof value === 'bigint' || Number.isSafeInteger(value)) return BigInt(value as number | bigint);
  throw wrongType(name, 'an integer, or the name of a value', value);
}

function valueNamed({ field }: Named, name: string, value: string): bigint {
  const values = [...(field?.values ?? []), ...(field?.writeValues ?? [])];
  const found = values.find((one) => one.name === value);
  if (found !== undefined) return found.value;
  const names = [...new Set(values.map((one) => one.name))].slice(0, 16).join(', ');
  const has = names === '' ? 'none of its values has a name' : `its values are ${names}`;
  throw outOfRange(`${name} has no value ${JSON.stringify(value.slice(0, 40))}; ${has}`);
}
