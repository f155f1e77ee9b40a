/** Decides which faults a message meets. Each fault counts for itself, over all clients of the proxy. */
import type { Fault, Way } from './fault-spec.js';

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

/** A fault that happens to a message. */
export interface Firing {
  /** Its place among the faults, from 1. */
  number: number;
  fault: Fault;
  random: Random;
}

interface State extends Firing {
  seen: number;
  fired: number;
}

export class FaultPlan {
  readonly #states: State[];
  #fired = 0;

  constructor(faults: readonly Fault[], seed: number) {
    // A generator for each: one fault more does not change when the others happen.
    this.#states = faults.map((fault, i) => ({
      number: i + 1,
      fault,
      random: new Random((seed + Math.imul(i, 0x9e3779b1)) >>> 0),
      seen: 0,
      fired: 0,
    }));
  }

  /** Faults that have happened. */
  get fired(): number {
    return this.#fired;
  }

  /** To be asked once for each message, in order. The faults come in the order of the plan. */
  firings(message: Selectable): Firing[] {
    const firings: Firing[] = [];
    for (const state of this.#states) {
      if (!selects(state.fault, message) || !this.#fires(state)) continue;
      state.fired++;
      this.#fired++;
      firings.push(state);
    }
    return firings;
  }

  #fires(state: State): boolean {
    const { nth, every, probability, times = Infinity } = state.fault;
    const seen = ++state.seen;
    // The generator moves with each message that is selected, whatever `times` says.
    const lucky = probability === undefined || state.random.next() < probability;
    if (state.fired >= times || !lucky) return false;
    if (nth !== undefined) return seen === nth;
    return every === undefined || seen % every === 0;
  }
}

function selects(fault: Fault, message: Selectable): boolean {
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

/** Numbers that look random and come again with the same seed (SplitMix32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 to 1, 1 not included. */
  next(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 0x1_0000_0000;
  }

  /** A whole number from 0 on, less than `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }
}
