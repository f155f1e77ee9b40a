/** SOCKET on the command line: where a server is, or a PCI function of this machine. What the library takes, with what is no address as wrong usage. */
import type { Endpoint } from '../index.js';
import { listeningPath, parseAddress, type Address } from '../transport/index.js';
import { UsageError } from './errors.js';
import { pciAddress } from '../vfio/pci-address.js';

/** A PCI function of this machine; a file of such a name is `./pci:…`. */
const PCI = 'pci:';

/** @throws UsageError for what is no address that can be connected to. */
export function endpointOf(text: string): Endpoint {
  const pci = pciFunctionOf(text);
  if (pci !== undefined) return `${PCI}${pci}`;
  const address = addressOf(text);
  if ((address.kind === 'tcp' || address.kind === 'tls') && address.port === 0)
    throw new UsageError(`'${text}' has no port`);
  return text;
}

/**
 * The address in full of what is `pci:ADDRESS`; undefined for all else.
 * @throws UsageError for what begins so and has no address.
 */
export function pciFunctionOf(text: string): string | undefined {
  if (!text.startsWith(PCI)) return undefined;
  return orUsage(() => pciAddress(`'${text}' is no PCI function: it`, text.slice(PCI.length)));
}

/** @throws UsageError for what is no address. */
export function addressOf(text: string): Address {
  return orUsage(() => parseAddress(`'${text}' is no address: it`, text));
}

/**
 * Where to listen, of a server that passes file descriptors: no TCP port, nor a file that is called like one.
 * @throws UsageError
 */
export function listeningAddress(text: string): string {
  if (!/^(?:tcp|tls|ssh|fd|vsock|pci):/.test(text)) return orUsage(() => listeningPath('--socket', text));
  const forTcp = text.startsWith('tcp:') ? '; `vfio-user proxy` listens on TCP in front of it' : '';
  throw new UsageError(
    `--socket is a path or @name, not '${text}'${forTcp}. A file of that name is './${text}'`,
  );
}

function orUsage<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw error instanceof TypeError ? new UsageError(error.message) : error;
  }
}
