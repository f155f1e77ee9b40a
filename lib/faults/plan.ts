/** Decides which faults happen. Each fault counts for itself, over all clients. */
import {
  checkPlan,
  kindOf,
  type CheckedDmaFault,
  type CheckedEventFault,
  type CheckedInterruptFault,
  type CheckedMessageFault,
  type CheckedRegisterFault,
  type Fault,
  type FaultKind,
  type Place,
} from './check-plan.js';
import { describeFault } from './describe.js';
import { Random } from './random.js';
import type { FaultPlanSpec, FaultSpec, Way } from './spec.js';

/** Of a message what faults are selected by. */
export interface Selectable {
  direction: Way;
  socket: 'main' | 'twin';
  command: number;
  isReply: boolean;
  /** Bytes of all of it. */
  size: number;
  fds: number;
}

/** A fault that happens. */
export interface Firing<F extends Fault = Fault> {
  /** Its place among the faults, from 1. */
  number: number;
  fault: F;
  random: Random;
}

/** A fault that has happened. */
export interface FiredFault {
  /** Its place among the faults, from 1. */
  readonly number: number;
  /** What it does: `wrong-value ID=0xdead`. */
  readonly fault: string;
  /** To what: `read of ID`, `REGION_READ reply`, `msi 0`. */
  readonly what: string;
}

/** What has become of a plan. */
export interface FaultReport {
  /** What chance began with. */
  readonly seed: number;
  /** Each fault of the plan: how often what it is for came, and how often it happened. */
  readonly faults: readonly {
    readonly number: number;
    readonly fault: string;
    readonly seen: number;
    readonly fired: number;
  }[];
  /** What happened, in its order; the first 10,000. */
  readonly fired: readonly FiredFault[];
  /** How many more there were. */
  readonly omitted: number;
}

interface State extends Firing {
  readonly kind: FaultKind;
  seen: number;
  fired: number;
}

const MOST_KEPT = 10_000;

/**
 * Faults, and what has become of them: to be given to `serve` or `proxy` as `faults`. One that is given to several servers counts
 * over all of them.
 *
 * @example
 * ```ts
 * const faults = new FaultPlan({ seed: 7, map: placement, faults: [{ fault: 'lost-write', register: 'CTRL', nth: 2 }] });
 * await using server = await serve(new EduDevice(), { path: '/tmp/edu.sock', faults });
 * console.log(faults.report().fired);
 * ```
 */
export class FaultPlan {
  /** What chance begins with. */
  readonly seed: number;
  readonly #states: State[];
  readonly #kinds: ReadonlySet<FaultKind>;
  readonly #history: FiredFault[] = [];
  #fired = 0;

  /** @throws TypeError that says where and what is wrong with the faults. */
  constructor(spec: readonly FaultSpec[] | FaultPlanSpec) {
    const { seed, faults } = checkPlan(spec);
    this.seed = seed;
    // A generator for each: one fault more does not change when the others happen.
    this.#states = faults.map((fault, i) => ({
      number: i + 1,
      kind: kindOf(fault),
      fault,
      random: new Random((seed + Math.imul(i, 0x9e3779b1)) >>> 0),
      seen: 0,
      fired: 0,
    }));
    this.#kinds = new Set(this.#states.map(({ kind }) => kind));
  }

  /** How often faults have happened. */
  get fired(): number {
    return this.#fired;
  }

  /** What happened, and how often. */
  report(): FaultReport {
    return {
      seed: this.seed,
      faults: this.#states.map(({ number, fault, seen, fired }) => ({
        number,
        fault: describeFault(fault),
        seen,
        fired,
      })),
      fired: [...this.#history],
      omitted: this.#fired - this.#history.length,
    };
  }

  /** @internal */
  get size(): number {
    return this.#states.length;
  }

  /** @internal Whether it has faults of the device. */
  get isOfDevice(): boolean {
    return this.#states.some(({ kind }) => kind !== 'message');
  }

  /** @internal Whether there are faults of this kind. */
  has(kind: FaultKind): boolean {
    return this.#kinds.has(kind);
  }

  /** @internal The first fault of messages. */
  messageFault(): string | undefined {
    return this.#states.find(({ kind }) => kind === 'message')?.fault.fault;
  }

  /** @internal Whether faults must see each access to the region. */
  watches(region: number): boolean {
    return this.#states.some(({ fault }) => {
      if (fault.fault === 'all-ones' || fault.fault === 'surprise-removal') return true;
      return 'place' in fault && fault.place?.region === region;
    });
  }

  /** @internal Whether interrupts must be seen, or be made. */
  get needsInterrupts(): boolean {
    return this.#states.some(
      ({ kind, fault }) =>
        kind === 'interrupt' ||
        ['spurious-interrupt', 'interrupt-storm', 'all-ones', 'surprise-removal'].includes(fault.fault),
    );
  }

  /** @internal Whether DMA to this range must be seen. */
  watchesDma(address: bigint, size: bigint): boolean {
    return this.#states.some(({ kind, fault }) => {
      if (fault.fault === 'all-ones' || fault.fault === 'surprise-removal') return true;
      return kind === 'dma' && touches(fault as CheckedDmaFault, address, size);
    });
  }

  /** @internal To be asked once for each message, in order. The faults come in the order of the plan. */
  firings(message: Selectable): Firing<CheckedMessageFault>[] {
    return this.#firing('message', (fault) => selects(fault as CheckedMessageFault, message));
  }

  /** @internal To be asked once for each access to a region: faults of its registers, and what it brings about. */
  accessFirings(
    kind: 'read' | 'write',
    region: number,
    offset: number,
    count: number,
  ): { registers: Firing<CheckedRegisterFault>[]; events: Firing<CheckedEventFault>[] } {
    const isThere = (place: Place): boolean =>
      place.region === region &&
      (place.bytes === undefined || (offset < place.offset + place.bytes && place.offset < offset + count));
    return {
      registers: this.#firing<CheckedRegisterFault>('register', (fault) => {
        const { place, fault: name } = fault as CheckedRegisterFault;
        return (name === 'lost-write') === (kind === 'write') && isThere(place);
      }),
      events: this.#firing<CheckedEventFault>('event', (fault) => {
        const { place, access } = fault as CheckedEventFault;
        return place !== undefined && (access === undefined || access === kind) && isThere(place);
      }),
    };
  }

  /** @internal To be asked once for each interrupt. */
  interruptFirings(irq: number, vector: number): Firing<CheckedInterruptFault>[] {
    return this.#firing('interrupt', (fault) => {
      const own = fault as CheckedInterruptFault;
      return (own.irq ?? irq) === irq && (own.vector ?? vector) === vector;
    });
  }

  /** @internal To be asked once for each access to the client's memory. */
  dmaFirings(dma: 'read' | 'write', address: bigint, size: bigint): Firing<CheckedDmaFault>[] {
    return this.#firing('dma', (fault) => {
      const own = fault as CheckedDmaFault;
      return (own.dma ?? dma) === dma && touches(own, address, size);
    });
  }

  /** @internal The faults that happen some time after a client has come. */
  timed(): { ms: number; firing: () => Firing<CheckedEventFault> | undefined }[] {
    return this.#states.flatMap((state) => {
      const { afterMs, times = Infinity } = state.fault as CheckedEventFault;
      if (state.kind !== 'event' || afterMs === undefined) return [];
      const firing = (): Firing<CheckedEventFault> | undefined => {
        state.seen++;
        if (state.fired >= times) return undefined;
        return this.#fire(state) as Firing<CheckedEventFault>;
      };
      return [{ ms: afterMs, firing }];
    });
  }

  /** @internal Writes down what a fault has happened to. */
  record({ number, fault }: Firing, what: string): FiredFault {
    const event = { number, fault: describeFault(fault), what };
    if (this.#history.length < MOST_KEPT) this.#history.push(event);
    return event;
  }

  #firing<F extends Fault>(kind: FaultKind, isFor: (fault: Fault) => boolean): Firing<F>[] {
    if (!this.#kinds.has(kind)) return [];
    const firings: Firing[] = [];
    for (const state of this.#states) {
      if (state.kind !== kind || !isFor(state.fault) || !this.#fires(state)) continue;
      firings.push(this.#fire(state));
    }
    return firings as Firing<F>[];
  }

  #fire(state: State): Firing {
    state.fired++;
    this.#fired++;
    return state;
  }

  #fires(state: State): boolean {
    const { nth, every, probability, times = Infinity } = state.fault;
    const seen = ++state.seen;
    // The generator moves with each one that is selected, whatever `times` says.
    const lucky = probability === undefined || state.random.next() < probability;
    if (state.fired >= times || !lucky) return false;
    if (nth !== undefined) return seen === nth;
    return every === undefined || seen % every === 0;
  }
}

/** Whether an access of the device's is of the range that a fault is for. */
function touches({ address, size = 1n }: CheckedDmaFault, from: bigint, count: bigint): boolean {
  return address === undefined || (from < address + size && address < from + count);
}

function selects(fault: CheckedMessageFault, message: Selectable): boolean {
  const { direction, socket, command, kind } = fault;
  if (direction !== undefined && direction !== message.direction) return false;
  if (socket !== undefined && socket !== message.socket) return false;
  if (command !== undefined && command !== message.command) return false;
  if (kind !== undefined && (kind === 'reply') !== message.isReply) return false;
  // What a fault cannot happen to it is not for.
  if (fault.fault === 'withhold-fd') return message.fds > (fault.fd === 'all' ? 0 : (fault.fd ?? 0));
  if (fault.fault === 'corrupt') return message.size > (fault.offset ?? 0);
  return true;
}
