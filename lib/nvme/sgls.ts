/**
 * Scatter-gather lists (NVM Express Base 2.0, section 4.1.2), as far as commands here need them: one Data Block descriptor
 * in the command itself names all of its data, wherever that begins and however long it is. Its memory is contiguous. What
 * lies on one page has PRP1, which is as little.
 *
 * ```
 *   dwords 6, 7: address     dword 8: length     dword 9: type and subtype, both 0
 * ```
 */

/** PSDT 01b in dword 0 of a command: its data pointer is an SGL descriptor. Never in admin commands. */
export const USES_SGL = 1 << 14;

/** Whether a controller takes them, of any alignment or of dwords: SGLS as Identify Controller has it. */
export function takesSgls(sgls: number): boolean {
  const support = sgls & 3;
  return support === 1 || support === 2;
}
