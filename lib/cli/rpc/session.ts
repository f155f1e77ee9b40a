/**
 * `vfio-user rpc`: a device for programs in other languages. Each line of stdin is a request,
 * `{ "id": 1, "method": "read", "params": { … } }`, each line of stdout its answer, `{ "id": 1, "result": … }` or
 * `{ "id": 1, "error": { "code", "message" } }`. Requests are begun in their order, and answered when they are done.
 */
import type { Device, DmaBuffer, IrqIndex, Region, Vector } from '../../index.js';
import { outOfRange, wrongType } from '../../fields.js';
import type { RegisterPlacement } from '../../registers/index.js';
import { bindPlacement, type BoundRegister } from '../register-map.js';
import { METHODS } from './methods.js';

/** Requests that are not answered yet; further ones wait to be read. */
export const MOST_PENDING = 256;
/** DMA buffers at a time. */
const MOST_BUFFERS = 1024;

export type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };
export type Params = Readonly<Record<string, unknown>>;

/** A request that has been looked at. */
interface Request {
  readonly id: Json;
  readonly method: string;
  readonly params: Params;
}

/** A device, and what its client has of it. */
export class RpcSession {
  readonly #connect: () => Promise<Device>;
  readonly #placement: RegisterPlacement | undefined;
  readonly #buffers = new Map<number, DmaBuffer>();
  #device: Device | undefined;
  #opening = false;
  #registers: readonly BoundRegister[] | undefined;
  #lastBuffer = 0;
  #isClosed = false;

  constructor(connect: () => Promise<Device>, placement: RegisterPlacement | undefined) {
    this.#connect = connect;
    this.#placement = placement;
  }

  /** Whether `close` was asked for. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** @throws where there is no open device. */
  get device(): Device {
    if (this.#device !== undefined) return this.#device;
    throw refused('there is no device: open comes first');
  }

  async open(): Promise<Device> {
    if (this.#device !== undefined || this.#opening) throw refused('the device is open already');
    this.#opening = true;
    try {
      const device = await this.#connect();
      if (!this.#isClosed) return (this.#device = device);
      await device.close();
      throw refused('close has come meanwhile');
    } finally {
      this.#opening = false;
    }
  }

  /** The device could not be made ready: it is closed, and may be opened again. */
  async giveUp(): Promise<void> {
    const device = this.#device;
    this.#device = undefined;
    await device?.close();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.giveUp();
  }

  irq(type: string): IrqIndex {
    return this.device.irqs[type as 'intx' | 'msi' | 'msix'];
  }

  /** @throws RangeError where it is not enabled. */
  vector(type: string, number: number): Vector {
    const vector = this.irq(type).vectors.find(({ subindex }) => subindex === number);
    if (vector !== undefined) return vector;
    throw outOfRange(`vector ${number} of ${type} is not enabled`);
  }

  /** Keeps a buffer, and gives it a number. */
  keep(buffer: DmaBuffer): number {
    this.#buffers.set(++this.#lastBuffer, buffer);
    return this.#lastBuffer;
  }

  /** @throws RangeError where there are as many as there may be. */
  requireRoom(): void {
    if (this.#buffers.size < MOST_BUFFERS) return;
    throw outOfRange(`there are ${MOST_BUFFERS} DMA buffers, and there may be no more`);
  }

  buffer(number: number): DmaBuffer {
    const buffer = this.#buffers.get(number);
    if (buffer !== undefined) return buffer;
    throw outOfRange(`there is no DMA buffer ${number}`);
  }

  forget(number: number): void {
    this.#buffers.delete(number);
  }

  /** The register of a name, and the field. @throws where there is no map, or no such name. */
  register(name: string): { bound: BoundRegister; field: string | undefined; region: Region } {
    if (this.#placement === undefined) throw refused("a register's name needs --map");
    const { register, field } = this.#placement.find(name);
    this.#registers ??= bindPlacement(this.device, this.#placement);
    const bound = this.#registers.find((one) => one.register === register);
    if (bound === undefined) throw outOfRange(`${name} is beyond the end of its region`);
    return { bound, field: field?.name, region: this.device.region(this.#placement.region) };
  }

  /** The answer to a line, as an object for JSON. */
  async answer(line: string | undefined): Promise<Json> {
    let id: Json = null;
    try {
      const request = requestOf(line);
      id = request.id;
      const method = Object.hasOwn(METHODS, request.method) ? METHODS[request.method] : undefined;
      if (method === undefined) {
        const names = Object.keys(METHODS).join(', ');
        throw refused(
          `there is no method ${JSON.stringify(request.method.slice(0, 40))}; there are ${names}`,
        );
      }
      method.params.check(request.method, request.params);
      return { id, result: await method.run(this, request.params) };
    } catch (error) {
      if (id === null) id = idOf(line);
      return { id, error: described(error) };
    }
  }
}

/** A request that makes no sense. */
function refused(message: string): Error {
  return Object.assign(new TypeError(message), { code: 'ERR_VFIO_USER_RPC' });
}

function parsed(line: string | undefined): unknown {
  if (line === undefined) throw refused('the line is too long');
  try {
    return JSON.parse(line) as unknown;
  } catch {
    throw refused('the line is no JSON');
  }
}

function requestOf(line: string | undefined): Request {
  const value = parsed(line);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw refused('a request is an object with id, method and params');
  }
  const { id, method, params = {} } = value as Record<string, unknown>;
  if (!isId(id)) throw refused('the id of a request is a number or a string of up to 64 characters');
  if (typeof method !== 'string') throw Object.assign(refused('the method of a request is a string'), { id });
  if (typeof params !== 'object' || params === null || Array.isArray(params)) {
    throw Object.assign(wrongType('params', 'an object', params), { id });
  }
  return { id, method, params: params as Params };
}

function isId(id: unknown): id is number | string {
  return typeof id === 'number' || (typeof id === 'string' && id.length <= 64);
}

/** Of a request that is wrong otherwise. */
function idOf(line: string | undefined): Json {
  try {
    const { id } = parsed(line) as { id?: unknown };
    return isId(id) ? id : null;
  } catch {
    return null;
  }
}

function described(error: unknown): Json {
  if (!(error instanceof Error)) return { code: 'ERR_VFIO_USER_RPC', message: String(error) };
  const { code } = error as { code?: unknown };
  return { code: typeof code === 'string' ? code : error.name, message: error.message };
}
