/**
 * A register map as data: what the JSON file of one holds, what the importers make and generated files carry.
 * `schema.ts` has the JSON schema.
 */
import type { ReadEffect, WriteEffect } from './access.js';

/** `format` of the JSON file. */
export const REGISTER_MAP_FORMAT = 'vfio-user-registers/1';

/** An unsigned integer: a number, or in JSON beyond 53 bits a string of hexadecimal digits after `0x`. */
export type IntegerData = number | string;

/** A whole map. */
export interface RegisterMapData {
  /** Which version of this format it is. */
  readonly format: typeof REGISTER_MAP_FORMAT;
  /** The device. */
  readonly name: string;
  /** In words. */
  readonly description?: string | undefined;
  /** Its blocks. */
  readonly blocks: readonly RegisterBlockData[];
}

/** Registers that belong together: a peripheral, an address block. */
export interface RegisterBlockData {
  /** Letters, digits, `_` and `-`. */
  readonly name: string;
  /** In words. */
  readonly description?: string | undefined;
  /** Its address in the device's address space: what counts is the distance to other blocks. Default 0. */
  readonly base?: IntegerData | undefined;
  /** Registers and groups of them. */
  readonly children: readonly (RegisterData | RegisterGroupData)[];
}

/** What repeats. */
export interface ArrayData {
  /** How many there are; without it there is one, which is no array. */
  readonly count?: number | undefined;
  /** From one to the next, in bytes. */
  readonly stride?: number | undefined;
}

/** Registers within a block: a cluster, a register file. */
export interface RegisterGroupData extends ArrayData {
  /** Letters, digits, `_` and `-`. */
  readonly name: string;
  /** In words. */
  readonly description?: string | undefined;
  /** In bytes, from where the block or group around it begins. */
  readonly offset: number;
  /** Registers and groups of them. */
  readonly children: readonly (RegisterData | RegisterGroupData)[];
}

/** How registers and fields are accessed. Of what is not said, a field takes what its register says. */
export interface AccessData {
  /** `RW`, `RO`, `WO`, `NA`, `W1C`, `W1S`, `W1T`, `W0C`, `W0S`, `W0T`, `WC`, `WS`, `RC` or `RS`. Default `RW`. */
  readonly access?: string | undefined;
  /** What reads do to it, where the word does not say. */
  readonly onRead?: ReadEffect | undefined;
  /** What writes do to it, where the word does not say: `{ access: 'WO', onWrite: 'W1C' }`. */
  readonly onWrite?: WriteEffect | undefined;
  /** Only the first write after a reset counts. */
  readonly once?: boolean | undefined;
  /** The device takes back by itself what was written. */
  readonly selfClearing?: boolean | undefined;
  /** The device changes it by itself. */
  readonly volatile?: boolean | undefined;
  /** `checkRegisters` leaves it alone. */
  readonly noTest?: boolean | undefined;
}

/** A register. */
export interface RegisterData extends ArrayData, AccessData {
  /** Letters, digits, `_` and `-`. */
  readonly name: string;
  /** In words. */
  readonly description?: string | undefined;
  /** In bytes, from where the block or group around it begins. */
  readonly offset: number;
  /** 8, 16, 32 or 64. Default 32. */
  readonly bits?: number | undefined;
  /** Its value after a reset. */
  readonly reset?: IntegerData | undefined;
  /** Which bits of it have a defined value after a reset. Default all, where there is a `reset`. */
  readonly resetMask?: IntegerData | undefined;
  /** Its fields. */
  readonly fields?: readonly RegisterFieldData[] | undefined;
}

/** Some bits of a register. */
export interface RegisterFieldData extends AccessData {
  /** Letters, digits, `_` and `-`. */
  readonly name: string;
  /** In words. */
  readonly description?: string | undefined;
  /** Its lowest bit, from 0. */
  readonly lsb: number;
  /** How many bits it has. Default 1. */
  readonly bits?: number | undefined;
  /** What its values are called. */
  readonly values?: readonly EnumValueData[] | undefined;
  /** What values are called that are written, where these have names of their own. */
  readonly writeValues?: readonly EnumValueData[] | undefined;
}

/** A value with a name. */
export interface EnumValueData {
  /** Letters, digits, `_` and `-`. */
  readonly name: string;
  /** In words. */
  readonly description?: string | undefined;
  /** Of the field. */
  readonly value: IntegerData;
}
