/** Data Object Exchange (PCI Express Base 6.0 section 7.9.24). */
import { fits, type CapabilityPlace } from './capability-list.js';
import { bit, bits } from './register-bits.js';

/** DOE Status (7.9.24.4). */
export interface DataObjectExchangeStatus {
  /** The instance cannot take a data object. */
  readonly busy: boolean;
  /** An interrupt was raised. */
  readonly interrupt: boolean;
  /** An error was detected. */
  readonly error: boolean;
  /** A data object can be read. */
  readonly objectReady: boolean;
}

/** Data Object Exchange (PCI Express Base 6.0 section 7.9.24). */
export interface DataObjectExchangeFields {
  /** Which capability it is. */
  readonly kind: 'data-object-exchange';
  /** The instance can interrupt. */
  readonly interruptSupport: boolean;
  /** Meaningful with `interruptSupport`. */
  readonly interruptMessageNumber: number;
  /** The instance interrupts. */
  readonly interruptEnabled: boolean;
  /** The status register. */
  readonly status: DataObjectExchangeStatus;
}

function decodeStatus(register: number): DataObjectExchangeStatus {
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
