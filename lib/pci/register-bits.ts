/** Parts of registers. */

/** Whether bit `index` is set. */
export function bit(register: number, index: number): boolean {
  return ((register >>> index) & 1) !== 0;
}

/** `count` bits of `register` from bit `shift` on. */
export function bits(register: number, shift: number, count: number): number {
  return (register >>> shift) & (2 ** count - 1);
}
