/** The BARs of a device that is made of a register map: what is in each, and how large it is. */
import { outOfRange } from '../../fields.js';
import * as option from '../../options.js';
import type { BarKind } from '../../pci/index.js';
import type { RegisterMap } from '../../register-map/map.js';
import { RegisterPlacement } from '../../register-map/placement.js';
import { MSIX_ENTRY_SIZE } from '../../pci/index.js';
import type { RegionHandler } from '../device-model.js';
import { pbaBytes, type MsixPlace } from './interrupts.js';

/** A BAR: registers of the map where neither `memory` nor `handler` is said. */
export interface DeviceBar {
  /** 0 to 5; a 64-bit one takes the register after it as well. */
  readonly index: number;
  /** A power of two. Of registers by default the least that holds them, and at least 4,096. */
  readonly size?: number | undefined;
  /** `memory32` by default. */
  readonly kind?: BarKind | undefined;
  /** Bit 3 of a memory BAR; false by default. */
  readonly prefetchable?: boolean | undefined;
  /** The block whose registers are in it; all blocks, at their distances, where nothing is said. */
  readonly block?: string | undefined;
  /** Where the registers begin, in bytes. Default 0. */
  readonly offset?: number | undefined;
  /** Memory: `'shared'` can be mapped by clients and needs the addon, `'private'` is reached by messages. */
  readonly memory?: 'shared' | 'private' | undefined;
  /** Answers all accesses itself. */
  readonly handler?: RegionHandler | undefined;
}

export const DEVICE_BAR = new option.OptionTable<DeviceBar>(
  {
    index: option.wholeNumber(0, 5),
    size: option.wholeNumber(1),
    kind: option.oneOf('memory32', 'memory64', 'io'),
    prefetchable: option.boolean,
    block: option.string,
    offset: option.wholeNumber(),
    memory: option.oneOf('shared', 'private'),
    handler: option.unchecked,
  },
  ['index'],
);

/** A BAR of which everything is known. */
export interface LaidBar {
  readonly index: number;
  readonly size: number;
  readonly kind: BarKind;
  readonly prefetchable: boolean;
  readonly content:
    | { readonly placement: RegisterPlacement }
    | { readonly memory: 'shared' | 'private' }
    | { readonly handler: RegionHandler };
}

const PAGE = 4096;
const MOST_PRIVATE = 1 << 30;

/** Lays the registers into the BARs. @throws RangeError, TypeError for what does not fit, or contradicts itself. */
export function layBars(map: RegisterMap, bars: readonly DeviceBar[]): LaidBar[] {
  const laid = bars.map((bar) => layBar(map, bar));
  const placed = new Map<string, number>();
  for (const { index, content } of laid) {
    if (!('placement' in content)) continue;
    for (const { block } of content.placement.blocks) {
      const other = placed.get(block.name);
      if (other !== undefined) {
        throw outOfRange(
          `defineDevice: the block ${block.name} is in BAR ${other} and BAR ${index}: say block of each`,
        );
      }
      placed.set(block.name, index);
    }
  }
  if (placed.size === 0) throw outOfRange('defineDevice: no BAR has registers of the map');
  return laid;
}

function layBar(map: RegisterMap, bar: DeviceBar): LaidBar {
  const { index, kind = 'memory32', prefetchable = false, memory, handler, block, offset } = bar;
  const name = `defineDevice: BAR ${index}`;
  const isRegisters = memory === undefined && handler === undefined;
  if (!isRegisters && (block !== undefined || offset !== undefined || (memory && handler) !== undefined)) {
    throw new TypeError(`${name} has registers, memory or a handler: one of them`);
  }
  if (!isRegisters) {
    if (bar.size === undefined) throw new TypeError(`${name} needs a size`);
    if (memory === 'private' && bar.size > MOST_PRIVATE) {
      throw outOfRange(`${name}: private memory has at most ${MOST_PRIVATE} bytes, got ${bar.size}`);
    }
    const content = memory !== undefined ? { memory } : { handler: handler! };
    return { index, size: bar.size, kind, prefetchable, content };
  }
  const placement = new RegisterPlacement(map, { block, region: index, offset });
  const end = placement.registers.reduce(
    (most, one) => Math.max(most, one.offset + one.register.bits / 8),
    0,
  );
  let size = bar.size ?? PAGE;
  if (bar.size === undefined) while (size < end) size *= 2;
  if (end > size) throw outOfRange(`${name} has ${size} bytes, and its registers end at ${end}`);
  return { index, size, kind, prefetchable, content: { placement } };
}

/** Whether registers and MSI-X keep out of each other's way. @throws RangeError */
export function checkMsix(bars: readonly LaidBar[], msix: MsixPlace): void {
  const bar = bars.find(({ index }) => index === msix.bar);
  if (bar === undefined) return;
  if (!('placement' in bar.content)) {
    throw outOfRange(`defineDevice: MSI-X is in BAR ${bar.index}, which has no registers: give it another`);
  }
  const { placement } = bar.content;
  for (const [offset, length] of msixRanges(msix)) {
    const name = placement.nameAt(bar.index, offset, length);
    if (name === undefined) continue;
    throw outOfRange(`defineDevice: MSI-X at ${offset} of BAR ${bar.index} overlaps ${name}`);
  }
}

/** Where the table and the pending bits are in their BAR. */
export function msixRanges({ table, pba, vectors }: MsixPlace): [offset: number, length: number][] {
  return [
    [table, vectors * MSIX_ENTRY_SIZE],
    [pba, pbaBytes(vectors)],
  ];
}
