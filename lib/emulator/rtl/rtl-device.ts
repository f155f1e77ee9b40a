/** A device whose behaviour is that of RTL in a simulator. */
import { forbidCloning } from '../../cloning.js';
import { ClosedError } from '../../errors.js';
import { integer } from '../../fields.js';
import type { DefinedDevice } from '../defined/defined-device.js';
import { DmaError, EFAULT } from '../device-error.js';
import type {
  ClientContext,
  ClientMemory,
  DeviceModel,
  IrqModel,
  RegionHandler,
  RegionModel,
} from '../device-model.js';
import { beatsOf, fromLanes, toLanes } from './beats.js';
import type { RtlError } from './rtl-error.js';
import type { SimulatorSide } from './simulator-link.js';
import type { Simulator } from './simulator.js';

/** Cycles in one `advance`: a day of a clock of 10 kHz. */
const MOST_CYCLES = 864_000_000;

/** What stands behind the device. */
export interface RtlParts {
  readonly simulator: Simulator;
  /** Says why, when the simulator has ended. */
  readonly ended: Promise<RtlError>;
  /** Ends it, and gives back what it took. */
  close(): Promise<void>;
}

/**
 * A device that a simulator is asked for: `openRtl` makes it. Config space, MSI-X and its table are done here; accesses to BARs
 * become beats of a bus, and the simulated device reaches the client's memory and raises interrupts.
 *
 * @example
 * ```ts
 * await using engine = await openRtl({ command: ['./engine', '{socket}'], id, bars: [{ index: 0, size: 4096 }] });
 * await using server = await serve(engine, { path: '/tmp/engine.sock' });
 * await engine.closed; // the simulator has ended
 * ```
 */
export class RtlDevice implements DeviceModel, AsyncDisposable {
  /** Resolves when the simulator has ended: with what went wrong, or undefined after `close`. */
  readonly closed: Promise<RtlError | undefined>;
  readonly #device: DefinedDevice;
  readonly #parts: RtlParts;
  #isClosed = false;
  #isClosing = false;

  /** @internal `device` has the regions that `regionOf` makes. */
  constructor(device: DefinedDevice, parts: RtlParts) {
    forbidCloning(this, 'an RtlDevice');
    this.#device = device;
    this.#parts = parts;
    this.closed = parts.ended.then((reason) => {
      this.#isClosed = true;
      return this.#isClosing ? undefined : reason;
    });
  }

  /** Config space, BARs and, where it has a BAR of its own, the MSI-X table. */
  get regions(): readonly RegionModel[] {
    return this.#device.regions;
  }

  /** The types of interrupts it has. */
  get irqs(): readonly IrqModel[] {
    return this.#device.irqs;
  }

  /** Whether the simulator has ended: accesses are answered EIO. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The simulated time in picoseconds, as the simulator said it last. */
  get simulatedTime(): bigint {
    return this.#parts.simulator.time;
  }

  /** A client has negotiated: simulated time passes for it, as long as the device is not idle. */
  attach(client: ClientContext): void {
    this.#device.attach(client);
    this.#parts.simulator.wake();
  }

  /** The client has disconnected. With nobody connected simulated time stands still. */
  detach(client: ClientContext): void {
    this.#device.detach(client);
  }

  /** DEVICE_RESET: the simulated device's reset, then config space and interrupts as at first. */
  reset(): Promise<void> {
    return this.#parts.simulator.reset(() => this.#device.reset());
  }

  /**
   * Lets simulated time pass: so many cycles of the device's clock, whether or not it has something to do.
   * @param cycles - 1 to 864,000,000
   * @throws RtlError, DeviceError where the simulator ends; RangeError.
   */
  async advance(cycles: number): Promise<void> {
    integer('RtlDevice.advance: cycles', cycles, 1, MOST_CYCLES);
    await this.#parts.simulator.advance(cycles);
  }

  /** Ends the simulator, in order where it still answers, so that its waveform is whole. Idempotent. */
  async close(): Promise<void> {
    this.#isClosing = true;
    await this.#parts.close();
    await this.closed;
  }

  /** Does what `close` does. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** What a device has of its bus. */
export interface Bus {
  /** Bytes in a beat. */
  readonly width: number;
  /** Cycles that a beat may take. */
  readonly cycles: number;
}

/** The client that host memory is of: who had the last access, as long as it is there. */
export class DmaOwner {
  readonly #clients: () => ReadonlySet<ClientContext>;
  #last: ClientContext | undefined;

  constructor(clients: () => ReadonlySet<ClientContext>) {
    this.#clients = clients;
  }

  set(client: ClientContext): void {
    this.#last = client;
  }

  /** @throws DmaError where nobody is connected. */
  memory(): ClientMemory {
    const [first] = this.#clients();
    const owner = this.#last?.isConnected === true ? this.#last : first;
    this.#last = owner;
    if (owner === undefined) throw new DmaError(EFAULT, 'no client is connected');
    return owner.dma;
  }
}

/** What the simulator reaches: the memory of a client, and interrupts of all. */
export function sideOf(device: () => DefinedDevice, vectors: number, owner: DmaOwner): SimulatorSide {
  return {
    vectors,
    interrupt: (vector, isUp) => (isUp ? device().handle.raise(vector) : device().handle.lower(vector)),
    read: async (address, length) => owner.memory().read(address, length),
    write: async (address, data) => owner.memory().write(address, data),
  };
}

/** Accesses to a BAR, as beats. A client that goes meanwhile has the rest left out. */
export function regionOf(
  region: number,
  bus: Bus,
  owner: DmaOwner,
  simulator: () => Simulator,
): RegionHandler {
  const { cycles, width } = bus;
  return {
    read: async (offset, count, client) => {
      owner.set(client);
      const bytes = Buffer.alloc(count);
      for (const beat of beatsOf(offset, count, width)) {
        requireConnected(client);
        fromLanes(await simulator().read({ ...beat, region, cycles }), bytes, beat);
      }
      return bytes;
    },
    write: async (offset, data, client) => {
      owner.set(client);
      for (const beat of beatsOf(offset, data.length, width)) {
        requireConnected(client);
        await simulator().write({ ...beat, region, cycles }, toLanes(data, beat));
      }
    },
  };
}

function requireConnected(client: ClientContext): void {
  if (!client.isConnected) throw new ClosedError('the client disconnected');
}
