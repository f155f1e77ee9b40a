/** Parts of registers. */

/** Whether bit `index` is set. */
export function bit(register: number, index: number): boolean {
  return ((register >>> index) & 1) !== 0;
}

/** What `table` says of `count` bits of `register` from bit `shift` on. It has an entry for each value of them. */
export function coded<T>(table: readonly T[], register: number, shift: number, count: number): T {
  return table[bits(register, shift, count)]!;
}

/** `count` bits of `register` from bit `shift` on. */
export function bits(register: number, shift: number, count: number): number {
  return (register >>> shift) & (2 ** count - 1);
}
