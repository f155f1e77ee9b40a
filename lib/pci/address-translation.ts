/** Address Translation Services, Page Request Interface and PASID (PCI Express Base 6.0 sections 10.5 and 7.8.9). */
import { fits, type CapabilityPlace } from './capability-list.js';
import { bit, bits } from './register-bits.js';

/** Page Request Status (10.5.2.3). */
export interface PageRequestStatus {
  /** A Response Failure was received. */
  readonly responseFailure: boolean;
  /** A response of an unexpected group was received. */
  readonly unexpectedGroupIndex: boolean;
  /** All requests of a stopped interface are complete. */
  readonly stopped: boolean;
  /** The function expects a PASID in responses to requests that had one. */
  readonly pasidRequired: boolean;
}

/** Bits that the PASID Capability and Control have in common (7.8.9). */
export interface PasidModes {
  /** Of execute permission. */
  readonly executePermission: boolean;
  /** Of privileged mode. */
  readonly privilegedMode: boolean;
}

/** Address Translation Services (PCI Express Base 6.0 section 10.5.1). */
export interface AddressTranslationFields {
  /** Which capability it is. */
  readonly kind: 'address-translation-services';
  /** Invalidate requests that the function takes before it holds the link up; 0 stands for 32. */
  readonly invalidateQueueDepth: number;
  /** The untranslated address of a request is always aligned to a page. */
  readonly pageAlignedRequest: boolean;
  /** Invalidation of all PASIDs at once is supported. */
  readonly globalInvalidate: boolean;
  /** The function may cache translations. */
  readonly enabled: boolean;
  /** n for 2^(n + 12) bytes. */
  readonly smallestTranslationUnit: number;
}

/** Page Request Interface (PCI Express Base 6.0 section 10.5.2). */
export interface PageRequestFields {
  /** Which capability it is. */
  readonly kind: 'page-request-interface';
  /** The function may make page requests. */
  readonly enabled: boolean;
  /** The interface is being reset. */
  readonly reset: boolean;
  /** The status register. */
  readonly status: PageRequestStatus;
  /** Requests that may be outstanding. */
  readonly capacity: number;
  /** Those that software allows. */
  readonly allocation: number;
}

/** Process Address Space ID (PCI Express Base 6.0 section 7.8.9). */
export interface PasidFields {
  /** Which capability it is. */
  readonly kind: 'pasid';
  /** What the function supports. */
  readonly capabilities: PasidModes;
  /** What is enabled of it. */
  readonly control: PasidModes & { readonly enabled: boolean };
  /** Bits of a process address space id. */
  readonly maxWidth: number;
}

function decodePageRequestStatus(register: number): PageRequestStatus {
  return {
    responseFailure: bit(register, 0),
    unexpectedGroupIndex: bit(register, 1),
    stopped: bit(register, 8),
    pasidRequired: bit(register, 15),
  };
}

function decodePasidModes(register: number): PasidModes {
  return { executePermission: bit(register, 1), privilegedMode: bit(register, 2) };
}

export function decodeAddressTranslation(place: CapabilityPlace): AddressTranslationFields | null {
  const { config, offset } = place;
  if (!fits(place, 8, 'Address Translation Services')) return null;
  const capabilities = config.getUInt16(offset + 4);
  const control = config.getUInt16(offset + 6);
  return {
    kind: 'address-translation-services',
    invalidateQueueDepth: bits(capabilities, 0, 5),
    pageAlignedRequest: (capabilities & 0x20) !== 0,
    globalInvalidate: (capabilities & 0x40) !== 0,
    enabled: (control & 0x8000) !== 0,
    smallestTranslationUnit: bits(control, 0, 5),
  };
}

export function decodePageRequest(place: CapabilityPlace): PageRequestFields | null {
  const { config, offset } = place;
  if (!fits(place, 0x10, 'Page Request Interface')) return null;
  const control = config.getUInt16(offset + 4);
  return {
    kind: 'page-request-interface',
    enabled: (control & 1) !== 0,
    reset: (control & 2) !== 0,
    status: decodePageRequestStatus(config.getUInt16(offset + 6)),
    capacity: config.getUInt32(offset + 8),
    allocation: config.getUInt32(offset + 12),
  };
}

export function decodePasid(place: CapabilityPlace): PasidFields | null {
  const { config, offset } = place;
  if (!fits(place, 8, 'Process Address Space ID')) return null;
  const capabilities = config.getUInt16(offset + 4);
  const control = config.getUInt16(offset + 6);
  return {
    kind: 'pasid',
    capabilities: decodePasidModes(capabilities),
    control: { ...decodePasidModes(control), enabled: (control & 1) !== 0 },
    maxWidth: bits(capabilities, 8, 5),
  };
}
