/** Vendors' own extended capabilities, and a device's serial number (PCI Express Base 6.0 sections 7.9.3 to 7.9.6). */
import { fits, type CapabilityPlace } from './capability-list.js';
import { copyBytes } from './config-reader.js';
import { hex } from './registers.js';

/** Device Serial Number (PCI Express Base 6.0 section 7.9.3). */
export interface SerialNumberFields {
  /** Which capability it is. */
  readonly kind: 'serial-number';
  /** The EUI-64. */
  readonly serialNumber: bigint;
  /** The same as people write it: `ca-fe-ba-be-de-ad-be-ef`. */
  readonly text: string;
}

/** A vendor's own extended capability (PCI Express Base 6.0 section 7.9.5). */
export interface VendorSpecificExtendedFields {
  /** Which capability it is. */
  readonly kind: 'vendor-specific';
  /** The vendor's own id, revision and length (headers included). */
  readonly vendorCapabilityId: number;
  /** The vendor's revision of it. */
  readonly revision: number;
  /** Bytes, headers included. */
  readonly length: number;
  /** What follows both headers, as far as it is there. */
  readonly bytes: Uint8Array;
}

/** A capability that its vendor, who need not be the device's, defines: CXL, for example. */
export interface DesignatedVendorSpecificFields {
  /** Which capability it is. */
  readonly kind: 'designated-vendor-specific';
  /** Whose it is; 0x1e98 for CXL. */
  readonly vendorId: number;
  /** That vendor's id for it. */
  readonly vendorCapabilityId: number;
  /** The vendor's revision of it. */
  readonly revision: number;
  /** Bytes, headers included. */
  readonly length: number;
  /** What follows the headers, as far as it is there. */
  readonly bytes: Uint8Array;
}

const VENDOR_HEADER_SIZE = 8;
/** 16 bits of the second header are the vendor's already, and no part of `bytes`. */
const DESIGNATED_HEADER_SIZE = 10;

export function decodeSerialNumber(place: CapabilityPlace): SerialNumberFields | null {
  const { config, offset } = place;
  if (!fits(place, 12, 'Device Serial Number')) return null;
  const low = config.getUInt32(offset + 4);
  const high = config.getUInt32(offset + 8);
  const serialNumber = (BigInt(high) << 32n) | BigInt(low);
  const digits = serialNumber.toString(16).padStart(16, '0');
  return { kind: 'serial-number', serialNumber, text: digits.replaceAll(/..(?!$)/g, '$&-') };
}

export function decodeVendorSpecificExtended(place: CapabilityPlace): VendorSpecificExtendedFields | null {
  const { config, offset } = place;
  const name = 'Vendor Specific Extended';
  if (!fits(place, VENDOR_HEADER_SIZE, name)) return null;
  const header = config.getUInt32(offset + 4);
  return {
    kind: 'vendor-specific',
    vendorCapabilityId: header & 0xffff,
    revision: (header >> 16) & 0xf,
    length: header >>> 20,
    bytes: vendorBytes(place, name, header >>> 20, VENDOR_HEADER_SIZE),
  };
}

export function decodeDesignatedVendorSpecific(
  place: CapabilityPlace,
): DesignatedVendorSpecificFields | null {
  const { config, offset } = place;
  const name = 'Designated Vendor-Specific Extended';
  if (!fits(place, DESIGNATED_HEADER_SIZE, name)) return null;
  const header = config.getUInt32(offset + 4);
  return {
    kind: 'designated-vendor-specific',
    vendorId: header & 0xffff,
    vendorCapabilityId: config.getUInt16(offset + 8),
    revision: (header >> 16) & 0xf,
    length: header >>> 20,
    bytes: vendorBytes(place, name, header >>> 20, DESIGNATED_HEADER_SIZE),
  };
}

/** From the headers to the end that the capability states, as far as that is there. */
function vendorBytes(place: CapabilityPlace, name: string, length: number, headerSize: number): Uint8Array {
  const { config, offset, limit, problems } = place;
  if (length < headerSize)
    problems.push(`${name} at ${hex(offset)}: length ${length} is less than its headers`);
  fits(place, length, name);
  return copyBytes(config, offset + headerSize, Math.min(offset + Math.max(length, headerSize), limit));
}
