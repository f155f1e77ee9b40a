/** A whole configuration space at once. */
import { decodeCapabilities, type Capability } from './capabilities.js';
import type { ConfigReader } from './config-reader.js';
import { decodeExtendedCapabilities, type ExtendedCapability } from './extended-capabilities.js';
import { decodeHeader, type PciHeader } from './header.js';

export interface ConfigSpace {
  readonly header: PciHeader;
  readonly capabilities: readonly Capability[];
  readonly extendedCapabilities: readonly ExtendedCapability[];
  /** All that is wrong with the bytes, for people; empty when all is sound. */
  readonly problems: readonly string[];
}

/** Decodes header, capabilities and extended capabilities. Nothing in the bytes makes it throw. */
export function decodeConfigSpace(config: ConfigReader): ConfigSpace {
  const header = decodeHeader(config);
  const { capabilities, problems } = decodeCapabilities(config);
  const extended = decodeExtendedCapabilities(config);
  return {
    header,
    capabilities,
    extendedCapabilities: extended.extendedCapabilities,
    problems: [...header.problems, ...problems, ...extended.problems],
  };
}
