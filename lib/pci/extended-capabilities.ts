/** The list of PCI Express extended capabilities (PCI Express Base 6.0 section 7.6), from 0x100 on. */
import {
  decodeAddressTranslation,
  decodePageRequest,
  decodePasid,
  type AddressTranslationFields,
  type PageRequestFields,
  type PasidFields,
} from './address-translation.js';
import { findCapabilityOffset, listOffsets, type CapabilityPlace } from './capability-list.js';
import type { CapabilityHeader, OtherFields } from './capabilities.js';
import { PciCapabilityId } from './capability-ids.js';
import type { ConfigReader } from './config-reader.js';
import { decodeDataObjectExchange, type DataObjectExchangeFields } from './data-object-exchange.js';
import {
  decodeContainment,
  decodeErrorReporting,
  type DownstreamPortContainmentFields,
  type ErrorReportingFields,
} from './error-capabilities.js';
import { ExpressType, expressType } from './express-capability.js';
import {
  decodeL1Substates,
  decodeLatencyTolerance,
  decodePrecisionTime,
  type L1SubstatesFields,
  type LatencyToleranceFields,
  type PrecisionTimeFields,
} from './power-and-time.js';
import { PCI_CONFIG_SIZE, PCI_EXTENDED_CONFIG_SIZE, hex } from './registers.js';
import {
  decodeResizableBar,
  decodeVfResizableBar,
  type ResizableBarFields,
  type VfResizableBarFields,
} from './resizable-bar.js';
import {
  decodeAccessControl,
  decodeAlternativeRouting,
  type AccessControlFields,
  type AlternativeRoutingFields,
} from './routing-capabilities.js';
import { decodeSrIov, type SrIovFields } from './sr-iov.js';
import {
  decodeDesignatedVendorSpecific,
  decodeSerialNumber,
  decodeVendorSpecificExtended,
  type DesignatedVendorSpecificFields,
  type SerialNumberFields,
  type VendorSpecificExtendedFields,
} from './vendor-capabilities.js';

const NAMES: Readonly<Record<number, string>> = {
  0x00: 'Null',
  0x01: 'Advanced Error Reporting',
  0x02: 'Virtual Channel',
  0x03: 'Device Serial Number',
  0x04: 'Power Budgeting',
  0x05: 'Root Complex Link Declaration',
  0x06: 'Root Complex Internal Link Control',
  0x07: 'Root Complex Event Collector Endpoint Association',
  0x08: 'Multi-Function Virtual Channel',
  0x09: 'Virtual Channel (with MFVC)',
  0x0a: 'RCRB Header',
  0x0b: 'Vendor Specific Extended',
  0x0c: 'Configuration Access Correlation',
  0x0d: 'Access Control Services',
  0x0e: 'Alternative Routing-ID Interpretation',
  0x0f: 'Address Translation Services',
  0x10: 'Single Root I/O Virtualization',
  0x11: 'Multi-Root I/O Virtualization',
  0x12: 'Multicast',
  0x13: 'Page Request Interface',
  0x15: 'Resizable BAR',
  0x16: 'Dynamic Power Allocation',
  0x17: 'TPH Requester',
  0x18: 'Latency Tolerance Reporting',
  0x19: 'Secondary PCI Express',
  0x1a: 'Protocol Multiplexing',
  0x1b: 'Process Address Space ID',
  0x1c: 'LN Requester',
  0x1d: 'Downstream Port Containment',
  0x1e: 'L1 PM Substates',
  0x1f: 'Precision Time Measurement',
  0x20: 'PCI Express over M-PHY',
  0x21: 'FRS Queueing',
  0x22: 'Readiness Time Reporting',
  0x23: 'Designated Vendor-Specific Extended',
  0x24: 'VF Resizable BAR',
  0x25: 'Data Link Feature',
  0x26: 'Physical Layer 16.0 GT/s',
  0x27: 'Lane Margining at the Receiver',
  0x28: 'Hierarchy ID',
  0x29: 'Native PCIe Enclosure Management',
  0x2a: 'Physical Layer 32.0 GT/s',
  0x2b: 'Alternate Protocol',
  0x2c: 'System Firmware Intermediary',
  0x2d: 'Shadow Functions',
  0x2e: 'Data Object Exchange',
  0x2f: 'Device 3',
  0x30: 'Integrity and Data Encryption',
  0x31: 'Physical Layer 64.0 GT/s',
  0x32: 'Flit Logging',
  0x33: 'Flit Performance Measurement',
  0x34: 'Flit Error Injection',
  0x35: 'Streamlined Virtual Channel',
  0x36: 'MMIO Register Block Locator',
  0x37: 'NOP Flit',
  0x38: 'Scalable I/O Virtualization',
  0x39: 'Physical Layer 128.0 GT/s',
  0x3a: 'Captured Data',
};

/** Ids of the extended capabilities whose fields are decoded. */
export const PciExtendedCapabilityId = {
  ADVANCED_ERROR_REPORTING: 0x01,
  SERIAL_NUMBER: 0x03,
  VENDOR_SPECIFIC: 0x0b,
  ACCESS_CONTROL_SERVICES: 0x0d,
  ALTERNATIVE_ROUTING_ID: 0x0e,
  ADDRESS_TRANSLATION_SERVICES: 0x0f,
  SR_IOV: 0x10,
  PAGE_REQUEST_INTERFACE: 0x13,
  RESIZABLE_BAR: 0x15,
  LATENCY_TOLERANCE_REPORTING: 0x18,
  PASID: 0x1b,
  DOWNSTREAM_PORT_CONTAINMENT: 0x1d,
  L1_PM_SUBSTATES: 0x1e,
  PRECISION_TIME_MEASUREMENT: 0x1f,
  DESIGNATED_VENDOR_SPECIFIC: 0x23,
  VF_RESIZABLE_BAR: 0x24,
  DATA_OBJECT_EXCHANGE: 0x2e,
} as const;

const HEADER_SIZE = 4;

/** An extended capability; `kind` says which fields it has. */
export type ExtendedCapability = CapabilityHeader & { readonly version: number } & (
    | AccessControlFields
    | AddressTranslationFields
    | AlternativeRoutingFields
    | DataObjectExchangeFields
    | DesignatedVendorSpecificFields
    | DownstreamPortContainmentFields
    | ErrorReportingFields
    | L1SubstatesFields
    | LatencyToleranceFields
    | PageRequestFields
    | PasidFields
    | PrecisionTimeFields
    | ResizableBarFields
    | SerialNumberFields
    | SrIovFields
    | VendorSpecificExtendedFields
    | VfResizableBarFields
    | OtherFields
  );

/** The name of an extended capability id. */
export function extendedCapabilityName(id: number): string {
  return NAMES[id] ?? `Extended capability ${hex(id)}`;
}

/** Bits of PCI-X status: the function can be on a bus of mode 2, which has the extended space. */
const PCI_X_MODE_2 = 0xc000_0000;

/**
 * Whether the function can have an extended space: with PCI Express, or with PCI-X of mode 2. In all others the bytes from
 * 0x100 on are whatever the bus makes of them: often those from 0 on, again.
 */
export function hasExtendedSpace(config: ConfigReader): boolean {
  if (findCapabilityOffset(config, PciCapabilityId.EXPRESS, 2) !== undefined) return true;
  const pciX = findCapabilityOffset(config, PciCapabilityId.PCI_X, 8);
  return pciX !== undefined && (config.getUInt32(pciX + 4) & PCI_X_MODE_2) !== 0;
}

/**
 * The extended capabilities in the order of their list; none where the space ends at 256 bytes. Nothing in the bytes
 * makes it throw, as with `decodeCapabilities`. Whether the function has an extended space at all is not asked:
 * `decodeConfigSpace` does.
 */
export function decodeExtendedCapabilities(config: ConfigReader): {
  extendedCapabilities: ExtendedCapability[];
  problems: string[];
} {
  const problems: string[] = [];
  const limit = Math.min(config.size, PCI_EXTENDED_CONFIG_SIZE);
  if (limit < PCI_CONFIG_SIZE + HEADER_SIZE) return { extendedCapabilities: [], problems };
  // All zeroes is an empty list (7.6.2), all ones a space that is not there.
  const first = config.getUInt32(PCI_CONFIG_SIZE);
  if (first === 0 || first === 0xffff_ffff) return { extendedCapabilities: [], problems };

  const shape = {
    what: 'extended capability',
    lowest: PCI_CONFIG_SIZE,
    limit,
    headerSize: HEADER_SIZE,
    next: (offset: number) => {
      const header = config.getUInt32(offset);
      if (header === 0) return 'all zeroes';
      return header === 0xffff_ffff ? 'all ones' : header >>> 20;
    },
  };
  const offsets = listOffsets(PCI_CONFIG_SIZE, shape, problems);
  const portType = devicePortType(config);
  const extendedCapabilities = offsets.map((offset) => {
    const header = config.getUInt32(offset);
    const id = header & 0xffff;
    const fields = decodeKnown(id, { config, offset, limit, problems }, portType) ?? {
      kind: 'other' as const,
    };
    return { id, name: extendedCapabilityName(id), offset, version: (header >> 16) & 0xf, ...fields };
  });
  return { extendedCapabilities, problems };
}

/** The device/port type of the PCI Express capability, on which the registers of others depend. */
function devicePortType(config: ConfigReader): number | undefined {
  const offset = findCapabilityOffset(config, PciCapabilityId.EXPRESS, 4);
  return offset === undefined ? undefined : expressType(config.getUInt16(offset + 2));
}

function decodeKnown(id: number, place: CapabilityPlace, portType: number | undefined) {
  switch (id) {
    case PciExtendedCapabilityId.ADVANCED_ERROR_REPORTING:
      return decodeErrorReporting(
        place,
        portType === ExpressType.ROOT_PORT || portType === ExpressType.EVENT_COLLECTOR,
      );
    case PciExtendedCapabilityId.SERIAL_NUMBER:
      return decodeSerialNumber(place);
    case PciExtendedCapabilityId.VENDOR_SPECIFIC:
      return decodeVendorSpecificExtended(place);
    case PciExtendedCapabilityId.ACCESS_CONTROL_SERVICES:
      return decodeAccessControl(place);
    case PciExtendedCapabilityId.ALTERNATIVE_ROUTING_ID:
      return decodeAlternativeRouting(place);
    case PciExtendedCapabilityId.ADDRESS_TRANSLATION_SERVICES:
      return decodeAddressTranslation(place);
    case PciExtendedCapabilityId.SR_IOV:
      return decodeSrIov(place);
    case PciExtendedCapabilityId.PAGE_REQUEST_INTERFACE:
      return decodePageRequest(place);
    case PciExtendedCapabilityId.RESIZABLE_BAR:
      return decodeResizableBar(place);
    case PciExtendedCapabilityId.LATENCY_TOLERANCE_REPORTING:
      return decodeLatencyTolerance(place);
    case PciExtendedCapabilityId.PASID:
      return decodePasid(place);
    case PciExtendedCapabilityId.DOWNSTREAM_PORT_CONTAINMENT:
      return decodeContainment(place);
    case PciExtendedCapabilityId.L1_PM_SUBSTATES:
      return decodeL1Substates(place);
    case PciExtendedCapabilityId.PRECISION_TIME_MEASUREMENT:
      return decodePrecisionTime(place);
    case PciExtendedCapabilityId.DESIGNATED_VENDOR_SPECIFIC:
      return decodeDesignatedVendorSpecific(place);
    case PciExtendedCapabilityId.VF_RESIZABLE_BAR:
      return decodeVfResizableBar(place);
    case PciExtendedCapabilityId.DATA_OBJECT_EXCHANGE:
      return decodeDataObjectExchange(place);
    default:
      return null;
  }
}
