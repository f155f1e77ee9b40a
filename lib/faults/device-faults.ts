/**
 * What goes wrong with a device, wherever it is looked at from: an emulated device asks here at its handlers, a proxy at the
 * messages.
 *
 * ```
 *   an access, an interrupt, DMA ──▶ FaultPlan: which faults? ──▶ what becomes of it
 *                                          └── link down, server killed ──▶ the state of the device, for all that follows
 * ```
 */
import { EFAULT, MAX_TIMER_MS } from '../system-numbers.js';
import type { CheckedDmaFault, CheckedEventFault, CheckedRegisterFault, Place } from './check-plan.js';
import { irqWord, regionWord } from './checks.js';
import type { FaultPlan, FiredFault, Firing } from './plan.js';
import { turnBits } from './random.js';

/** What stands around the device. */
export interface FaultHost {
  /** The server ends: it is there again after so many milliseconds, or never. */
  onServerEnd(reason: string, backAfterMs: number | undefined): void;
  /** A fault has happened. */
  onFault(fault: FiredFault): void;
}

/** A client of the device. */
export interface FaultClient {
  /** Raises an interrupt that the device did not raise. */
  signal(irq: number, vector: number): void;
}

/** What becomes of an access to a region. */
export interface AccessOutcome {
  /** It does not reach the device: reads give ones, writes do nothing. */
  readonly isCut: boolean;
  /** The server has ended: there is no answer. */
  readonly isOver: boolean;
  /** The answer is late by so many milliseconds, and all that follows with it. */
  readonly stallMs: number;
  /** Puts into what was read what the faults say. */
  readonly change: ((data: Uint8Array) => void) | undefined;
  /** What happened, for logs. */
  readonly note: string | undefined;
}

/** What becomes of an interrupt. */
export interface InterruptOutcome {
  /** How often it arrives. */
  readonly signals: number;
  /** And how many milliseconds later. */
  readonly delayMs: number;
}

/** What becomes of an access to the client's memory. */
export interface DmaOutcome {
  /** It is not made, and fails so. */
  readonly errno: number | undefined;
  readonly delayMs: number;
  readonly address: bigint;
  /** Damages its data. */
  readonly corrupt: ((data: Uint8Array) => void) | undefined;
  readonly note: string | undefined;
}

const UNTOUCHED: AccessOutcome = {
  isCut: false,
  isOver: false,
  stallMs: 0,
  change: undefined,
  note: undefined,
};
const FOR_GOOD = MAX_TIMER_MS;
const DEFAULT_BACK_MS = 100;
const DEFAULT_STORM = 1_000;
const DEFAULT_STORM_MS = 1;
const DEFAULT_XOR = 0xff;
/** How often one interrupt may arrive, whatever doubles it. */
const MOST_SIGNALS = 1_024;
const LAST_PAGE = 0xffff_ffff_ffff_f000n;

/** One server's device, with all its clients. */
export class DeviceFaults {
  readonly plan: FaultPlan;
  readonly #host: FaultHost;
  /** What each client still has to come, and who is told where it goes first. */
  readonly #timers = new Map<FaultClient, Map<NodeJS.Timeout, (() => void) | undefined>>();
  #isRemoved = false;
  /** The link is down: until when, and for how many more accesses. */
  #downUntil = 0;
  #downAccesses = 0;
  #stalledUntil = 0;
  #stalls = 0;

  constructor(plan: FaultPlan, host: FaultHost) {
    this.plan = plan;
    this.#host = host;
  }

  /** A client has come. */
  attach(client: FaultClient): void {
    this.#timers.set(client, new Map());
    for (const { ms, firing } of this.plan.timed()) {
      this.later(client, ms, () => {
        const fired = firing();
        if (fired !== undefined) this.#happen(fired, `${ms} ms after a client came`);
      });
    }
  }

  /** It has gone. */
  detach(client: FaultClient): void {
    const timers = this.#timers.get(client) ?? [];
    this.#timers.delete(client);
    for (const [timer, gone] of timers) {
      clearTimeout(timer);
      gone?.();
    }
  }

  /** Whether the device is out of reach: its interrupts and its DMA do not pass. */
  get isDown(): boolean {
    return this.#isRemoved || this.#downAccesses > 0 || performance.now() < this.#downUntil;
  }

  /** Whether it has been pulled out. */
  get isRemoved(): boolean {
    return this.#isRemoved;
  }

  /** How many milliseconds the server still says nothing. */
  get stallMs(): number {
    return Math.max(0, Math.min(FOR_GOOD, this.#stalledUntil - performance.now()));
  }

  /** How often the server has stalled. */
  get stalls(): number {
    return this.#stalls;
  }

  /** The server has been started anew. */
  renew(): void {
    this.#stalledUntil = 0;
    this.#downUntil = 0;
    this.#downAccesses = 0;
  }

  /** An access to a region, before it reaches the device. */
  access(kind: 'read' | 'write', region: number, offset: number, count: number): AccessOutcome {
    const wasDown = this.#isRemoved || performance.now() < this.#downUntil || this.#downAccesses > 0;
    if (this.#downAccesses > 0) this.#downAccesses--;
    const { registers, events } = this.plan.accessFirings(kind, region, offset, count);
    if (registers.length === 0 && events.length === 0) {
      return wasDown ? { ...UNTOUCHED, isCut: true } : UNTOUCHED;
    }
    const what = `${kind} of ${count} bytes at ${regionWord(region)}+0x${offset.toString(16)}`;
    const notes = [...registers, ...events].map((firing) => this.#record(firing, what));
    let isOver = false;
    let stallMs = 0;
    let isCut = wasDown;
    for (const { fault } of events) {
      isOver ||= fault.fault === 'server-killed' || fault.fault === 'server-restarted';
      if (fault.fault === 'server-stalled') stallMs = fault.ms ?? FOR_GOOD;
      isCut ||= fault.fault === 'all-ones' || fault.fault === 'surprise-removal';
      this.#carryOut(fault, true);
    }
    isCut ||= registers.some(({ fault }) => fault.fault === 'lost-write');
    const changes = registers.filter(({ fault }) => fault.fault !== 'lost-write');
    const change =
      changes.length === 0
        ? undefined
        : (data: Uint8Array) => changes.forEach((firing) => changeRead(firing, offset, data));
    return { isCut, isOver, stallMs, change, note: notes.join('; ') };
  }

  /** An interrupt that the device raises. */
  interrupt(irq: number, vector: number): InterruptOutcome {
    if (this.isDown) return { signals: 0, delayMs: 0 };
    let signals = 1;
    let delayMs = 0;
    for (const firing of this.plan.interruptFirings(irq, vector)) {
      this.#record(firing, `${irqWord(irq)} ${vector}`);
      if (firing.fault.fault === 'lost-interrupt') signals = 0;
      else if (firing.fault.fault === 'late-interrupt') delayMs += firing.fault.ms;
      else signals = Math.min(signals * 2, MOST_SIGNALS);
    }
    return { signals, delayMs };
  }

  /** The device wants to read or write the client's memory. */
  dma(dma: 'read' | 'write', address: bigint, length: number): DmaOutcome {
    if (this.isDown) {
      return { errno: EFAULT, delayMs: 0, address, corrupt: undefined, note: undefined };
    }
    const firings = this.plan.dmaFirings(dma, address, BigInt(length));
    let errno: number | undefined;
    let delayMs = 0;
    let at = address;
    const notes: string[] = [];
    const damages: Firing<CheckedDmaFault>[] = [];
    for (const firing of firings) {
      const { fault } = firing;
      notes.push(this.#record(firing, `DMA ${dma} of ${length} bytes at 0x${address.toString(16)}`));
      if (fault.fault === 'dma-refused') errno ??= fault.errno ?? EFAULT;
      else if (fault.fault === 'dma-delayed') delayMs += fault.ms;
      else if (fault.fault === 'dma-out-of-range') at = fault.to ?? LAST_PAGE;
      else damages.push(firing);
    }
    const corrupt =
      damages.length === 0
        ? undefined
        : (data: Uint8Array) => damages.forEach((firing) => damage(firing, data));
    const note = notes.length === 0 ? undefined : notes.join('; ');
    return { errno, delayMs, address: at, corrupt, note };
  }

  /** Does something for a client later; calls `gone` instead where it has gone by then. */
  later(client: FaultClient, ms: number, work: () => void, gone?: () => void): void {
    const timers = this.#timers.get(client);
    if (timers === undefined) {
      gone?.();
      return;
    }
    const timer = setTimeout(() => {
      timers.delete(timer);
      work();
    }, ms);
    // The connection keeps the process alive, not what may happen to it.
    timer.unref();
    timers.set(timer, gone);
  }

  #happen(firing: Firing<CheckedEventFault>, what: string): void {
    this.#record(firing, what);
    this.#carryOut(firing.fault, false);
  }

  #record(firing: Firing, what: string): string {
    const event = this.plan.record(firing, what);
    this.#host.onFault(event);
    return `fault ${event.number}: ${event.fault}`;
  }

  /** `isAccess`: the access that brings it about is the first of those that are cut. */
  #carryOut(fault: CheckedEventFault, isAccess: boolean): void {
    switch (fault.fault) {
      case 'spurious-interrupt':
        for (const client of this.#timers.keys()) client.signal(fault.irq, fault.vector ?? 0);
        return;
      case 'interrupt-storm': {
        const { irq, vector = 0, count = DEFAULT_STORM, ms = DEFAULT_STORM_MS } = fault;
        for (const client of this.#timers.keys()) this.#storm(client, { irq, vector, left: count, ms });
        return;
      }
      case 'all-ones':
        if (fault.accesses !== undefined) this.#downAccesses = fault.accesses - (isAccess ? 1 : 0);
        else this.#downUntil = performance.now() + (fault.ms ?? Infinity);
        return;
      case 'surprise-removal':
        this.#isRemoved = true;
        return;
      case 'server-stalled':
        this.#stalls++;
        this.#stalledUntil = performance.now() + (fault.ms ?? Infinity);
        return;
      case 'server-killed':
        this.#host.onServerEnd('the server was killed by a fault', undefined);
        return;
      case 'server-restarted':
        this.#host.onServerEnd('the server was restarted by a fault', fault.ms ?? DEFAULT_BACK_MS);
    }
  }

  #storm(client: FaultClient, storm: { irq: number; vector: number; left: number; ms: number }): void {
    client.signal(storm.irq, storm.vector);
    if (--storm.left > 0) this.later(client, storm.ms, () => this.#storm(client, storm));
  }
}

/** Puts a fault's bits into what was read from `offset` on; the part of its register that was read. */
function changeRead({ fault, random }: Firing<CheckedRegisterFault>, offset: number, data: Uint8Array): void {
  const { place } = fault;
  if (fault.fault === 'lost-write') return;
  if (fault.value !== undefined) {
    const value = fault.value;
    eachByte(place, offset, data, (old, mask, shift) => {
      return (old & ~mask) | (Number((value >> shift) & 0xffn) & mask);
    });
    return;
  }
  // Bits of the place that were read and that are not turned yet.
  const bits: bigint[] = [];
  for (let bit = 0n; bit < BigInt((place.bytes ?? 0) * 8); bit++) {
    if (((place.mask >> bit) & 1n) !== 0n) bits.push(bit);
  }
  let turned = 0n;
  for (
    let left = fault.fault === 'wrong-value' ? (fault.bits ?? 0) : 0;
    left > 0 && bits.length > 0;
    left--
  ) {
    turned |= 1n << (bits.splice(random.below(bits.length), 1)[0] ?? 0n);
  }
  eachByte(place, offset, data, (old, _mask, shift) => old ^ Number((turned >> shift) & 0xffn));
}

function eachByte(
  { offset: from, bytes = 0, mask }: Place,
  offset: number,
  data: Uint8Array,
  change: (old: number, mask: number, shift: bigint) => number,
): void {
  for (let i = 0; i < bytes; i++) {
    const at = from + i - offset;
    const old = data[at];
    if (old === undefined) continue;
    const shift = BigInt(i * 8);
    data[at] = change(old, Number((mask >> shift) & 0xffn), shift);
  }
}

function damage({ fault, random }: Firing<CheckedDmaFault>, data: Uint8Array): void {
  if (fault.fault !== 'dma-corrupted' || data.length === 0) return;
  const { offset, xor = DEFAULT_XOR, bits = 1 } = fault;
  if (offset === undefined) turnBits(data, 0, bits, random);
  else if (offset < data.length) data[offset] = (data[offset] ?? 0) ^ xor;
}
