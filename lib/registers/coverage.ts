/** What of a map was touched, how often, and in which order. */
import { RegisterPlacement } from '../register-map/placement.js';
import { wrongType } from '../fields.js';

/** A register, and how it was touched. */
export interface RegisterTouches {
  /** `CTRL`; `UART0.CTRL` where the map has several blocks. */
  readonly name: string;
  /** In its region, in bytes. */
  readonly offset: number;
  /** How many reads touched it. */
  readonly reads: number;
  /** How many writes touched it. */
  readonly writes: number;
  /** Which register it was in the order of first accesses, from 1; undefined where it was not touched. */
  readonly order: number | undefined;
}

/** What of a map was touched. */
export interface CoverageReport {
  /** All registers, by their offsets. */
  readonly registers: readonly RegisterTouches[];
  /** How many of them were read or written. */
  readonly touched: number;
  /** How many readable registers there are, and how many were read. */
  readonly readable: { readonly count: number; readonly read: number };
  /** How many writable registers there are, and how many were written. */
  readonly writable: { readonly count: number; readonly written: number };
  /** How many accesses to the region touched no register. */
  readonly outside: number;
}

/**
 * Counts the accesses to a map's registers: of a capture, or of a program as it runs.
 *
 * @example
 * ```ts
 * const coverage = new RegisterCoverage(placement);
 * coverage.add('read', 0, 0x104, 4);
 * const missed = coverage.report().registers.filter(({ order }) => order === undefined);
 * ```
 */
export class RegisterCoverage {
  readonly #placement: RegisterPlacement;
  readonly #counts: { reads: number; writes: number; order: number | undefined }[];
  readonly #indexes: ReadonlyMap<unknown, number>;
  #touched = 0;
  #outside = 0;

  /** @throws TypeError for what is no placement. */
  constructor(placement: RegisterPlacement) {
    if (!(placement instanceof RegisterPlacement)) {
      throw wrongType('RegisterCoverage: placement', 'a RegisterPlacement', placement);
    }
    this.#placement = placement;
    this.#counts = placement.registers.map(() => ({ reads: 0, writes: 0, order: undefined }));
    this.#indexes = new Map(placement.registers.map((placed, i) => [placed, i]));
  }

  /** An access of `length` bytes at `offset` in a region. */
  add(kind: 'read' | 'write', region: number, offset: number, length: number): void {
    if (region !== this.#placement.region) return;
    const placed = this.#placement.at(region, offset, length);
    if (placed.length === 0) this.#outside++;
    for (const one of placed) {
      const count = this.#counts[this.#indexes.get(one) ?? -1];
      if (count === undefined) continue;
      count.order ??= ++this.#touched;
      if (kind === 'read') count.reads++;
      else count.writes++;
    }
  }

  /** What was counted so far. */
  report(): CoverageReport {
    const registers = this.#placement.registers.map(({ name, offset, register }, i) => {
      const { reads = 0, writes = 0, order } = this.#counts[i] ?? {};
      const { access, fields } = register;
      const all = fields.length === 0 ? [access] : fields.map((field) => field.access);
      return { name, offset, reads, writes, order, all };
    });
    const readable = registers.filter(({ all }) => all.some((access) => access.readable));
    const writable = registers.filter(({ all }) => all.some((access) => access.writable));
    return {
      registers: registers.map(({ name, offset, reads, writes, order }) => ({
        name,
        offset,
        reads,
        writes,
        order,
      })),
      touched: this.#touched,
      readable: { count: readable.length, read: readable.filter(({ reads }) => reads > 0).length },
      writable: { count: writable.length, written: writable.filter(({ writes }) => writes > 0).length },
      outside: this.#outside,
    };
  }
}
