/** Where a PCI function is, as Linux writes it. */

const ADDRESS = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[01][0-9a-f]\.[0-7])$/i;

/**
 * The address in full: domain, bus, device and function, in lower case.
 * @throws TypeError for what is no address; `what` says where it was given.
 */
export function pciAddress(what: string, text: unknown): string {
  const match = typeof text === 'string' ? ADDRESS.exec(text) : null;
  if (match !== null) return `${match[1] ?? '0000'}:${match[2]}`.toLowerCase();
  throw new TypeError(`${what} must be a PCI address such as 0000:01:00.0, got ${JSON.stringify(text)}`);
}
