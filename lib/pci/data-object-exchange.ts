/** Data Object Exchange (PCI Express Base 6.0 section 7.9.24). */
import { fits, type CapabilityPlace } from './capability-list.js';
import { bit, bits, type RegisterFields } from './register-bits.js';

export interface DataObjectExchangeFields {
  readonly kind: 'data-object-exchange';
  readonly interruptSupport: boolean;
  /** Meaningful with `interruptSupport`. */
  readonly interruptMessageNumber: number;
  readonly interruptEnabled: boolean;
  readonly status: RegisterFields<typeof decodeStatus>;
}

function decodeStatus(register: number) {
  return {
    busy: bit(register, 0),
    interrupt: bit(register, 1),
    error: bit(register, 2),
    objectReady: bit(register, 31),
  };
}

export function decodeDataObjectExchange(place: CapabilityPlace): DataObjectExchangeFields | null {
  const { config, offset } = place;
  if (!fits(place, 0x18, 'Data Object Exchange')) return null;
  const capabilities = config.getUInt32(offset + 0x04);
  return {
    kind: 'data-object-exchange',
    interruptSupport: (capabilities & 1) !== 0,
    interruptMessageNumber: bits(capabilities, 1, 11),
    interruptEnabled: (config.getUInt32(offset + 0x08) & 2) !== 0,
    status: decodeStatus(config.getUInt32(offset + 0x0c)),
  };
}
