/** Speeds of PCI Express links, by the code that their registers have for them. */

/** From 1 on, GT/s: also the bits of a vector of speeds, from bit 0 on. */
const SPEEDS: readonly number[] = [2.5, 5, 8, 16, 32, 64];

/** GT/s; null for a code that is not known. */
export function linkSpeed(code: number): number | null {
  return SPEEDS[code - 1] ?? null;
}

/** The speeds, GT/s, whose bits are set. */
export function linkSpeeds(vector: number): number[] {
  return SPEEDS.filter((_, bit) => (vector & (1 << bit)) !== 0);
}
