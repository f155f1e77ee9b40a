/** Access Control Services and Alternative Routing-ID Interpretation (PCI Express Base 6.0 sections 7.7.11 and 7.8.8). */
import { fits, type CapabilityPlace } from './capability-list.js';
import { bit, bits } from './register-bits.js';

/** A bit for each of the access control services (7.7.11). */
export interface AccessControlServices {
  /** Source validation. */
  readonly sourceValidation: boolean;
  /** Translation blocking. */
  readonly translationBlocking: boolean;
  /** Peer-to-peer request redirect. */
  readonly requestRedirect: boolean;
  /** Peer-to-peer completion redirect. */
  readonly completionRedirect: boolean;
  /** Upstream forwarding. */
  readonly upstreamForwarding: boolean;
  /** Peer-to-peer egress control. */
  readonly egressControl: boolean;
  /** Direct translated peer-to-peer. */
  readonly directTranslated: boolean;
}

/** What function groups are used for (7.8.8). */
export interface FunctionGroups {
  /** Arbitration of a multi-function virtual channel. */
  readonly mfvc: boolean;
  /** Egress control of access control services. */
  readonly acs: boolean;
}

/** Access Control Services (PCI Express Base 6.0 section 7.7.11). */
export interface AccessControlFields {
  /** Which capability it is. */
  readonly kind: 'access-control-services';
  /** The services that the port has. */
  readonly capabilities: AccessControlServices;
  /** What of them is on. */
  readonly control: AccessControlServices;
  /** Bits of the egress control vector. */
  readonly egressVectorSize: number;
}

/** Alternative Routing-ID Interpretation (PCI Express Base 6.0 section 7.8.8). */
export interface AlternativeRoutingFields {
  /** Which capability it is. */
  readonly kind: 'alternative-routing-id';
  /** What function groups can be used for. */
  readonly capabilities: FunctionGroups;
  /** What of them is on. */
  readonly control: FunctionGroups;
  /** The device's next function; 0 at the last. */
  readonly nextFunction: number;
  /** The function's group. */
  readonly functionGroup: number;
}

function decodeServices(register: number): AccessControlServices {
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

function decodeFunctionGroups(register: number): FunctionGroups {
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
