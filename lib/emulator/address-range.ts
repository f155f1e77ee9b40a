/** Ranges of DMA addresses. */

/** Addresses, both ends among them. */
export interface AddressRange {
  readonly first: bigint;
  readonly last: bigint;
}

/** `0x0 to 0xfedfffff, and 0xfef00000 to 0x7fffffffff`. */
export function rangesText(ranges: readonly AddressRange[]): string {
  const text = ranges.map(({ first, last }) => `0x${first.toString(16)} to 0x${last.toString(16)}`);
  return text.length === 0 ? 'none' : text.join(', and ');
}
