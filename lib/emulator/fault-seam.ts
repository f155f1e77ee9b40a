/**
 * Faults of a device, between the session and the model: the session serves a model that stands before the author's, and has
 * its regions, interrupts and memory go through `DeviceFaults`.
 *
 * ```
 *   session ──▶ handlers that ask for faults ──▶ the author's handlers
 *   session ◀── interrupts, DMA that ask ◀────── the author's device
 * ```
 */
import { ClosedError, type VfioUserError } from '../errors.js';
import {
  DeviceFaults,
  FaultPlan,
  type FaultClient,
  type FaultPlanSpec,
  type FaultSpec,
} from '../faults/index.js';
import { Command } from '../protocol/constants.js';
import { ENODEV } from '../system-numbers.js';
import { DmaError } from './device-error.js';
import type {
  ClientContext,
  ClientMemory,
  DeviceModel,
  IrqLine,
  RegionHandler,
  RegionModel,
} from './device-model.js';
import type { Settings } from './emulator-options.js';
import type { Verdict } from './faults.js';
import { andThen, isPromise } from './maybe-async.js';

/** Who serves the device. */
export interface FaultSeamHost {
  /** All clients are to go; new ones are refused for as long as `isAway`. `forGood`: the server ends. */
  endServer(reason: VfioUserError, forGood: boolean): void;
}

/** @throws TypeError for what is wrong with the faults, and for those that happen to messages. */
export function planOf(
  caller: string,
  faults: readonly FaultSpec[] | FaultPlanSpec | FaultPlan | undefined,
  device: DeviceModel,
): FaultPlan | undefined {
  if (faults === undefined) return undefined;
  const plan = faults instanceof FaultPlan ? faults : new FaultPlan(faults);
  const ofMessages = plan.messageFault();
  if (ofMessages !== undefined)
    throw new TypeError(`${caller}: faults: ${ofMessages} happens to messages: only a proxy has it`);
  if (device.hardware !== undefined)
    throw new TypeError(`${caller}: faults are for models, not for hardware`);
  return plan.size === 0 ? undefined : plan;
}

export class FaultSeam {
  /** What is served. */
  readonly device: DeviceModel;
  /** What the sessions are told. */
  readonly settings: Settings;
  readonly #faults: DeviceFaults;
  readonly #model: DeviceModel;
  readonly #host: FaultSeamHost;
  readonly #onError: (error: unknown) => void;
  readonly #clients = new WeakMap<ClientContext, FaultyClient>();
  readonly #attached = new Set<FaultyClient>();
  #awayUntil = 0;

  constructor(model: DeviceModel, plan: FaultPlan, settings: Settings, host: FaultSeamHost) {
    this.#model = model;
    this.#host = host;
    this.#onError = settings.onError;
    const { onFault } = settings;
    this.#faults = new DeviceFaults(plan, {
      onServerEnd: (reason, backAfterMs) => this.#endServer(reason, backAfterMs),
      onFault: (fault) => this.#guarded(() => onFault?.(fault)),
    });
    this.device = this.#inFront(model);
    this.settings = { ...settings, intercept: (message) => this.#verdict(message, settings.intercept) };
  }

  /** By a fault the server is not there. */
  get isAway(): boolean {
    return performance.now() < this.#awayUntil;
  }

  #verdict(
    message: Parameters<NonNullable<Settings['intercept']>>[0],
    own: Settings['intercept'],
  ): Verdict | void {
    const { stallMs } = this.#faults;
    if (stallMs > 0) return { delayMs: Math.ceil(stallMs) };
    if (this.#faults.isRemoved && message.command === Command.DEVICE_RESET) return { errno: ENODEV };
    return own?.(message);
  }

  #inFront(model: DeviceModel): DeviceModel {
    const { flags, migrationData } = model;
    const [canReset, hasFeatures] = [model.reset !== undefined, model.feature !== undefined];
    return {
      ...(flags !== undefined && { flags }),
      regions: model.regions.map((region) => this.#region(region)),
      irqs: model.irqs,
      attach: (client) => {
        const own = this.#of(client);
        this.#attached.add(own);
        this.#faults.attach(own);
        model.attach?.(own);
      },
      detach: (client) => {
        const own = this.#of(client);
        this.#faults.detach(own);
        this.#attached.delete(own);
        model.detach?.(own);
      },
      ...(canReset && { reset: (client) => model.reset?.(this.#of(client)) }),
      ...(hasFeatures && {
        feature: (request, client) => model.feature?.(request, this.#of(client)),
      }),
      ...(migrationData !== undefined && {
        migrationData: {
          read: (size, client) => migrationData.read(size, this.#of(client)),
          write: (data, client) => migrationData.write(data, this.#of(client)),
        },
      }),
    };
  }

  /** A region that faults are for is reached by messages alone: accesses to mapped memory are seen by nobody. */
  #region(region: RegionModel): RegionModel {
    const { index, size, flags, handler, memory } = region;
    const isWatched = this.#faults.plan.watches(index);
    const inner = handler ?? (isWatched && memory !== undefined ? memoryHandler(memory.bytes) : undefined);
    if (inner === undefined) return region;
    const asking = this.#handler(index, inner);
    if (!isWatched) return withHandler(region, asking);
    return { index, size, ...(flags !== undefined && { flags }), handler: asking };
  }

  #handler(index: number, inner: RegionHandler): RegionHandler {
    return {
      read: (offset, count, client) => {
        const own = this.#of(client);
        const { isCut, isOver, stallMs, change } = this.#faults.access('read', index, offset, count);
        const ones = (): Uint8Array => Buffer.alloc(count, 0xff);
        if (isOver) return ones();
        return this.#after(stallMs, own, () => {
          if (isCut) return ones();
          const data = inner.read(offset, count, own);
          return change === undefined ? data : andThen(data, (read) => changed(read, change));
        });
      },
      write: (offset, data, client) => {
        const own = this.#of(client);
        const { isCut, isOver, stallMs } = this.#faults.access('write', index, offset, data.length);
        if (isOver) return undefined;
        return this.#after(stallMs, own, () => (isCut ? undefined : inner.write(offset, data, own)));
      },
    };
  }

  #after<T>(stallMs: number, client: FaultyClient, work: () => T | Promise<T>): T | Promise<T> {
    if (stallMs === 0) return work();
    return waitOut(this.#faults, client, stallMs).then(work);
  }

  /** The client as the author's device sees it. */
  #of(client: ClientContext): FaultyClient {
    let own = this.#clients.get(client);
    if (own === undefined) this.#clients.set(client, (own = new FaultyClient(client, this.#faults)));
    return own;
  }

  #endServer(reason: string, backAfterMs: number | undefined): void {
    this.#awayUntil = performance.now() + (backAfterMs ?? Infinity);
    const [client] = this.#attached;
    // A process that was started anew has a device as after a reset.
    if (backAfterMs !== undefined && client !== undefined) {
      const done = (async () => this.#model.reset?.(client))();
      done.catch((error: unknown) => this.#onError(error));
    }
    this.#faults.renew();
    this.#host.endServer(new ClosedError(reason), backAfterMs === undefined);
  }

  #guarded(tell: () => void): void {
    try {
      tell();
    } catch (error) {
      this.#onError(error);
    }
  }
}

/** @throws ClosedError where the client goes first: nobody waits for it any more. */
function waitOut(faults: DeviceFaults, client: FaultClient, ms: number): Promise<void> {
  return new Promise((resolve, reject) => {
    faults.later(client, ms, resolve, () => reject(new ClosedError('the client has gone')));
  });
}

/** A region whose members may be getters of a class. */
function withHandler(region: RegionModel, handler: RegionHandler): RegionModel {
  const { index, size, flags, memory, file, mappable, ioFds } = region;
  return {
    index,
    size,
    handler,
    ...(flags !== undefined && { flags }),
    ...(memory !== undefined && { memory }),
    ...(file !== undefined && { file }),
    ...(mappable !== undefined && { mappable }),
    ...(ioFds !== undefined && { ioFds }),
  };
}

function memoryHandler(bytes: Uint8Array): RegionHandler {
  return {
    read: (offset, count) => bytes.subarray(offset, offset + count),
    write: (offset, data) => bytes.set(data, offset),
  };
}

/** What the device gave stays the device's: a copy is changed. What is no bytes is said of the device as ever. */
function changed(read: Uint8Array, change: (data: Uint8Array) => void): Uint8Array {
  if (!(read instanceof Uint8Array)) return read;
  const copy = Buffer.from(read);
  change(copy);
  return copy;
}

class FaultyClient implements ClientContext, FaultClient {
  readonly dma: ClientMemory;
  readonly #client: ClientContext;
  readonly #faults: DeviceFaults;

  constructor(client: ClientContext, faults: DeviceFaults) {
    this.#client = client;
    this.#faults = faults;
    this.dma = {
      read: async (address, length) => {
        const outcome = this.#dma('read', address, length);
        // Where nothing is in the way, what can be done at once is done before this returns.
        const { at, corrupt } = isPromise(outcome) ? await outcome : outcome;
        const data = await client.dma.read(at, length);
        corrupt?.(data);
        return data;
      },
      write: async (address, bytes) => {
        const outcome = this.#dma('write', address, bytes.byteLength);
        const { at, corrupt } = isPromise(outcome) ? await outcome : outcome;
        const damaged = corrupt === undefined ? bytes : Buffer.from(bytes);
        corrupt?.(damaged);
        await client.dma.write(at, damaged);
      },
    };
  }

  get isConnected(): boolean {
    return this.#client.isConnected;
  }

  irq(index: number, sub = 0): IrqLine {
    return new FaultyLine(this.#client.irq(index, sub), () => this.#raise(index, sub));
  }

  signal(irq: number, vector: number): void {
    if (this.#client.isConnected) this.#client.irq(irq, vector).trigger();
  }

  #raise(index: number, sub: number): boolean {
    const { signals, delayMs } = this.#faults.interrupt(index, sub);
    const line = this.#client.irq(index, sub);
    let wasSignalled = false;
    const signal = (): void => {
      for (let i = 0; i < signals; i++) wasSignalled = line.trigger();
    };
    if (delayMs > 0 && signals > 0) this.#faults.later(this, delayMs, signal);
    else signal();
    return wasSignalled;
  }

  /** Where the access is to go, and what is done to its data. At once, where no fault delays it. */
  #dma(way: 'read' | 'write', address: bigint, length: number): DmaPlan | Promise<DmaPlan> {
    // What is wrong with the arguments is the memory's to say.
    if (typeof address !== 'bigint') return { at: address, corrupt: undefined };
    const { errno, delayMs, address: at, corrupt } = this.#faults.dma(way, address, length);
    if (errno !== undefined)
      throw new DmaError(errno, `a fault refused DMA of ${length} bytes at 0x${address.toString(16)}`);
    if (delayMs === 0) return { at, corrupt };
    return waitOut(this.#faults, this, delayMs).then(() => ({ at, corrupt }));
  }
}

interface DmaPlan {
  at: bigint;
  corrupt: ((data: Uint8Array) => void) | undefined;
}

class FaultyLine implements IrqLine {
  readonly #line: IrqLine;
  readonly #raise: () => boolean;

  constructor(line: IrqLine, raise: () => boolean) {
    this.#line = line;
    this.#raise = raise;
  }

  get isArmed(): boolean {
    return this.#line.isArmed;
  }

  get isMasked(): boolean {
    return this.#line.isMasked;
  }

  trigger(): boolean {
    return this.#raise();
  }
}
