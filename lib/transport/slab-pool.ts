/**
 * Receive memory is borrowed for the time that bytes are being sorted, and given back before the loop turns, so that
 * a thousand idle devices share a handful of slabs. One pool a thread.
 */
const SLAB_SIZE = 64 * 1024;
const KEPT = 4;

const free: Buffer[] = [];

/** A slab of 64 KiB, its content undefined. */
export function borrowSlab(): Buffer {
  return free.pop() ?? Buffer.allocUnsafeSlow(SLAB_SIZE);
}

/** Gives a slab back. */
export function returnSlab(slab: Buffer): void {
  if (free.length < KEPT) free.push(slab);
}
