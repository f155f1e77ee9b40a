/** The PCI Express capability (PCI Express Base 7.5.3). */
import { fits, type CapabilityPlace } from './capability-list.js';

/** What a link's capabilities or status register says of it. */
export interface LinkState {
  /** The register's code: 1 for 2.5 GT/s, 2 for 5 GT/s and so on; 0 where there is no link. */
  readonly speedCode: number;
  /** GT/s; null for codes that are not known. */
  readonly speed: number | null;
  /** Lanes. */
  readonly width: number;
}

export interface ExpressFields {
  readonly kind: 'express';
  readonly version: number;
  /** Device/port type. */
  readonly deviceType: number;
  readonly deviceTypeName: string;
  readonly slotImplemented: boolean;
  readonly interruptMessageNumber: number;
  /** The most that the device supports in a packet, bytes. */
  readonly maxPayloadSupported: number;
  /** What device control sets, bytes. */
  readonly maxPayload: number;
  readonly maxReadRequest: number;
  readonly functionLevelReset: boolean;
  /** Device status: requests of the device are on their way. */
  readonly transactionsPending: boolean;
  /** The fastest and widest that the link can be; null without link registers. */
  readonly linkCapabilities: LinkState | null;
  /** The link as it is; null without link registers. */
  readonly linkStatus: LinkState | null;
}

const DEVICE_TYPES: Readonly<Record<number, string>> = {
  0: 'Endpoint',
  1: 'Legacy endpoint',
  4: 'Root port',
  5: 'Upstream switch port',
  6: 'Downstream switch port',
  7: 'PCI Express to PCI bridge',
  8: 'PCI to PCI Express bridge',
  9: 'Root complex integrated endpoint',
  10: 'Root complex event collector',
};
const HAVE_NO_LINK: readonly number[] = [9, 10];

/** GT/s by speed code. */
const SPEEDS: Readonly<Record<number, number>> = { 1: 2.5, 2: 5, 3: 8, 4: 16, 5: 32, 6: 64 };

/** Up to device status, which all have; and up to link status, which all with a link have. */
const DEVICE_LENGTH = 0x0c;
const LINK_LENGTH = 0x14;

export function decodeExpress(place: CapabilityPlace): ExpressFields | null {
  const { config, offset } = place;
  if (!fits(place, DEVICE_LENGTH, 'PCI Express')) return null;
  const flags = config.readUInt16(offset + 0x02);
  const deviceCapabilities = config.readUInt32(offset + 0x04);
  const deviceControl = config.readUInt16(offset + 0x08);
  const deviceStatus = config.readUInt16(offset + 0x0a);
  const deviceType = (flags >> 4) & 0xf;
  const hasLink = !HAVE_NO_LINK.includes(deviceType) && fits(place, LINK_LENGTH, 'PCI Express');
  return {
    kind: 'express',
    version: flags & 0xf,
    deviceType,
    deviceTypeName: DEVICE_TYPES[deviceType] ?? `type ${deviceType}`,
    slotImplemented: (flags & 0x0100) !== 0,
    interruptMessageNumber: (flags >> 9) & 0x1f,
    maxPayloadSupported: 128 << (deviceCapabilities & 0x7),
    maxPayload: 128 << ((deviceControl >> 5) & 0x7),
    maxReadRequest: 128 << ((deviceControl >> 12) & 0x7),
    functionLevelReset: (deviceCapabilities & 0x1000_0000) !== 0,
    transactionsPending: (deviceStatus & 0x0020) !== 0,
    linkCapabilities: hasLink ? linkState(config.readUInt32(offset + 0x0c)) : null,
    linkStatus: hasLink ? linkState(config.readUInt16(offset + 0x12)) : null,
  };
}

/** Both registers have the speed in bits 0 to 3 and the width in bits 4 to 9. */
function linkState(register: number): LinkState {
  const speedCode = register & 0xf;
  return { speedCode, speed: SPEEDS[speedCode] ?? null, width: (register >> 4) & 0x3f };
}
