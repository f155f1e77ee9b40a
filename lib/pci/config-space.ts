/** A whole configuration space at once. */
import { decodeCapabilities, type Capability } from './capabilities.js';
import type { ConfigReader } from './config-reader.js';
import {
  decodeExtendedCapabilities,
  hasExtendedSpace,
  type ExtendedCapability,
} from './extended-capabilities.js';
import { decodeHeader, type PciHeader } from './header.js';

/** What `decodeConfigSpace` makes of a configuration space. */
export interface ConfigSpace {
  /** The header. */
  readonly header: PciHeader;
  /** The conventional capabilities, in the order of their list. */
  readonly capabilities: readonly Capability[];
  /** None without PCI Express or PCI-X of mode 2: what then stands from 0x100 on is no extended space. */
  readonly extendedCapabilities: readonly ExtendedCapability[];
  /** All that is wrong with the bytes, for people; empty when all is sound. */
  readonly problems: readonly string[];
}

/**
 * Decodes header, capabilities and extended capabilities. Nothing in the bytes makes it throw: what is wrong with them is in
 * `problems`.
 *
 * @example
 * ```ts
 * const bytes = await readFile('/sys/bus/pci/devices/0000:00:02.0/config');
 * const { header, capabilities } = decodeConfigSpace(configReader(bytes));
 * console.log(header.classCode.name, findCapability(capabilities, 'msix')?.tableSize);
 * ```
 */
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
