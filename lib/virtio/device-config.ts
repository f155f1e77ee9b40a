/** What a device of any type that we know says of itself, with all features that it offers: for `describeVirtio`. */
import { readBlkConfig } from './blk-config.js';
import { VirtioDeviceType } from './constants.js';
import { ConsoleFeature, hasFeature, NetFeature } from './features.js';
import { readScsiConfig } from './scsi-config.js';
import type { DeviceConfigReader, VirtioTransport } from './transport.js';

/** Section 5.1.4. */
const Net = { MAC: 0, STATUS: 6, MAX_PAIRS: 8, MTU: 10, SPEED: 12, DUPLEX: 16 } as const;
const MAC_BYTES = 6;
const LINK_UP = 1;
const UNKNOWN_SPEED = 0xffff_ffff;
const DUPLEX_NAMES: readonly string[] = ['half', 'full'];
/** Section 5.3.4. */
const Console = { COLS: 0, ROWS: 2, MAX_PORTS: 4 } as const;

/** null for types without a configuration, or of which we know none. @throws ProtocolError, UnsupportedError; what registers throw. */
export async function readDeviceConfig(transport: VirtioTransport, features: bigint): Promise<object | null> {
  switch (transport.type) {
    case VirtioDeviceType.BLOCK:
      return readBlkConfig(transport, features);
    case VirtioDeviceType.SCSI:
      return readScsiConfig(transport);
    case VirtioDeviceType.NETWORK:
      return transport.readConfig((config) => readNet(config, features));
    case VirtioDeviceType.CONSOLE:
      return transport.readConfig((config) => readConsole(config, features));
    default:
      return null;
  }
}

/** Fields of features that are not offered are null. */
async function readNet(config: DeviceConfigReader, features: bigint): Promise<object> {
  const has = (feature: number) => hasFeature(features, feature);
  const hasSpeed = has(NetFeature.SPEED_DUPLEX);
  const speed = hasSpeed ? await config.uint32(Net.SPEED) : UNKNOWN_SPEED;
  return {
    mac: has(NetFeature.MAC) ? await readMac(config) : null,
    isUp: has(NetFeature.STATUS) ? ((await config.uint16(Net.STATUS)) & LINK_UP) !== 0 : null,
    queuePairs: has(NetFeature.MQ) || has(NetFeature.RSS) ? await config.uint16(Net.MAX_PAIRS) : 1,
    mtu: has(NetFeature.MTU) ? await config.uint16(Net.MTU) : null,
    speedMbps: speed === UNKNOWN_SPEED ? null : speed,
    duplex: hasSpeed ? (DUPLEX_NAMES[await config.uint8(Net.DUPLEX)] ?? null) : null,
  };
}

async function readMac(config: DeviceConfigReader): Promise<string> {
  const bytes: string[] = [];
  for (let i = 0; i < MAC_BYTES; i++)
    bytes.push((await config.uint8(Net.MAC + i)).toString(16).padStart(2, '0'));
  return bytes.join(':');
}

/** Columns and rows are null without SIZE; there is one port without MULTIPORT. */
async function readConsole(config: DeviceConfigReader, features: bigint): Promise<object> {
  const hasSize = hasFeature(features, ConsoleFeature.SIZE);
  const hasPorts = hasFeature(features, ConsoleFeature.MULTIPORT);
  return {
    cols: hasSize ? await config.uint16(Console.COLS) : null,
    rows: hasSize ? await config.uint16(Console.ROWS) : null,
    maxPorts: hasPorts ? await config.uint32(Console.MAX_PORTS) : 1,
    emergencyWrite: hasFeature(features, ConsoleFeature.EMERG_WRITE),
  };
}
