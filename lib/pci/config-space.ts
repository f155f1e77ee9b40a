/** A whole configuration space at once. */
import { decodeCapabilities, type Capability } from './capabilities.js';
import type { ConfigReader } from './config-reader.js';
import {
  decodeExtendedCapabilities,
  hasExtendedSpace,
  type ExtendedCapability,
} from './extended-capabilities.js';
import { decodeHeader, type PciHeader } from './header.js';

export interface ConfigSpace {
  readonly header: PciHeader;
  readonly capabilities: readonly Capability[];
  /** None without PCI Express or PCI-X of mode 2: what then stands from 0x100 on is no extended space. */
  readonly extendedCapabilities: readonly ExtendedCapability[];
  /** All that is wrong with the bytes, for people; empty when all is sound. */
  readonly problems: readonly string[];
}

/** Decodes header, capabilities and extended capabilities. Nothing in the bytes makes it throw. */
export function decodeConfigSpace(config: ConfigReader): ConfigSpace {
  const header = decodeHeader(config);
  const { capabilities, problems } = decodeCapabilities(config);
  const extended = hasExtendedSpace(config)
    ? decodeExtendedCapabilities(config)
    : { extendedCapabilities: [], problems: [] };
  return {
    header,
    capabilities,
    extendedCapabilities: extended.extendedCapabilities,
    problems: [...header.problems, ...problems, ...extended.problems],
  };
}
