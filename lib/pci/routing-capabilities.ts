/** Access Control Services and Alternative Routing-ID Interpretation (PCI Express Base 6.0 sections 7.7.11 and 7.8.8). */
import { fits, type CapabilityPlace } from './capability-list.js';
import { bit, bits, type RegisterFields } from './register-bits.js';

export interface AccessControlFields {
  readonly kind: 'access-control-services';
  readonly capabilities: RegisterFields<typeof decodeServices>;
  /** What of them is on. */
  readonly control: RegisterFields<typeof decodeServices>;
  /** Bits of the egress control vector. */
  readonly egressVectorSize: number;
}

export interface AlternativeRoutingFields {
  readonly kind: 'alternative-routing-id';
  readonly capabilities: RegisterFields<typeof decodeFunctionGroups>;
  /** What of them is on. */
  readonly control: RegisterFields<typeof decodeFunctionGroups>;
  /** The device's next function; 0 at the last. */
  readonly nextFunction: number;
  readonly functionGroup: number;
}

function decodeServices(register: number) {
  return {
    sourceValidation: bit(register, 0),
    translationBlocking: bit(register, 1),
    requestRedirect: bit(register, 2),
    completionRedirect: bit(register, 3),
    upstreamForwarding: bit(register, 4),
    egressControl: bit(register, 5),
    directTranslated: bit(register, 6),
  };
}

function decodeFunctionGroups(register: number) {
  return { mfvc: bit(register, 0), acs: bit(register, 1) };
}

export function decodeAccessControl(place: CapabilityPlace): AccessControlFields | null {
  const { config, offset } = place;
  if (!fits(place, 8, 'Access Control Services')) return null;
  const capabilities = config.getUInt16(offset + 4);
  return {
    kind: 'access-control-services',
    capabilities: decodeServices(capabilities),
    control: decodeServices(config.getUInt16(offset + 6)),
    egressVectorSize: bits(capabilities, 8, 8),
  };
}

export function decodeAlternativeRouting(place: CapabilityPlace): AlternativeRoutingFields | null {
  const { config, offset } = place;
  if (!fits(place, 8, 'Alternative Routing-ID Interpretation')) return null;
  const capabilities = config.getUInt16(offset + 4);
  const control = config.getUInt16(offset + 6);
  return {
    kind: 'alternative-routing-id',
    capabilities: decodeFunctionGroups(capabilities),
    control: decodeFunctionGroups(control),
    nextFunction: bits(capabilities, 8, 8),
    functionGroup: bits(control, 4, 3),
  };
}
