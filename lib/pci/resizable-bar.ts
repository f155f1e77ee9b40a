/** Resizable BARs, of a function and of its virtual ones (PCI Express Base 6.0 sections 7.8.6 and 7.8.7). */
import { fits, type CapabilityPlace } from './capability-list.js';
import { hex } from './registers.js';
import { bits } from './register-bits.js';

/** A BAR whose size software may choose. */
export interface ResizableBar {
  /** The BAR's number, 0 to 5. */
  readonly index: number;
  /** Bytes. */
  readonly size: bigint;
  /** The sizes that it can have, bytes. */
  readonly supportedSizes: readonly bigint[];
}

/** Resizable BARs (PCI Express Base 6.0 section 7.8.6). */
export interface ResizableBarFields {
  /** Which capability it is. */
  readonly kind: 'resizable-bar';
  /** The BARs whose size can be chosen. */
  readonly bars: readonly ResizableBar[];
}

/** The BARs of the function's virtual functions. */
export interface VfResizableBarFields {
  /** Which capability it is. */
  readonly kind: 'vf-resizable-bar';
  /** The BARs whose size can be chosen. */
  readonly bars: readonly ResizableBar[];
}

const MOST_BARS = 6;
/** Sizes are powers of two of this. */
const MIB = 1n << 20n;
/** The capability register has a bit for each from 1 MiB to 128 TiB on, the control register those beyond. */
const CAPABILITY_SIZES = 28;
const CONTROL_SIZES = 16;

export function decodeResizableBar(place: CapabilityPlace): ResizableBarFields | null {
  const bars = decodeBars(place, 'Resizable BAR');
  return bars === null ? null : { kind: 'resizable-bar', bars };
}

export function decodeVfResizableBar(place: CapabilityPlace): VfResizableBarFields | null {
  const bars = decodeBars(place, 'VF Resizable BAR');
  return bars === null ? null : { kind: 'vf-resizable-bar', bars };
}

function decodeBars(place: CapabilityPlace, name: string): ResizableBar[] | null {
  const { config, offset, problems } = place;
  if (!fits(place, 12, name)) return null;
  const count = bits(config.getUInt32(offset + 8), 5, 3);
  if (count < 1 || count > MOST_BARS)
    problems.push(`${name} at ${hex(offset)}: it is of ${count} BARs, not of 1 to ${MOST_BARS}`);
  const bars: ResizableBar[] = [];
  for (let i = 0; i < Math.min(count, MOST_BARS) && fits(place, 12 + 8 * i, name); i++) {
    const capability = config.getUInt32(offset + 4 + 8 * i);
    const control = config.getUInt32(offset + 8 + 8 * i);
    bars.push({
      index: bits(control, 0, 3),
      size: MIB << BigInt(bits(control, 8, 6)),
      supportedSizes: [
        ...sizes(capability >>> 4, CAPABILITY_SIZES, MIB),
        ...sizes(control >>> 16, CONTROL_SIZES, MIB << BigInt(CAPABILITY_SIZES)),
      ],
    });
  }
  return bars;
}

/** One for each bit that is set, from `first` on. */
function sizes(vector: number, count: number, first: bigint): bigint[] {
  const exponents = Array.from({ length: count }, (_, bit) => bit).filter(
    (bit) => bits(vector, bit, 1) !== 0,
  );
  return exponents.map((bit) => first << BigInt(bit));
}
