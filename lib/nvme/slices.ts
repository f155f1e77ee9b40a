/** Work that may be long is done in slices, between which the event loop turns. */

/** No slice takes much longer. */
const SLICE_MS = 8;

/** Calls `step` until it says that nothing is left, in this turn of the loop and, where that is not enough, in later ones. */
export function inSlices(step: () => boolean): void {
  const end = performance.now() + SLICE_MS;
  while (step()) {
    if (performance.now() < end) continue;
    setImmediate(inSlices, step);
    return;
  }
}
