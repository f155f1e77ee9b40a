/** Waiting for something that comes about by itself. */

/** Patience of a machine that has other things to do, and below a test's own: what is waited for is named. */
const PATIENCE_MS = 25_000;

/**
 * Lets the loop turn until `isSo`. A loop without an end would go on when its test is over, and keep jest from ending.
 * @throws Error where it does not come about; `what` is the condition's source, where nothing is said.
 */
export async function until(
  isSo: () => boolean | Promise<boolean>,
  what: string = String(isSo),
  pauseMs = 1,
): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`not within ${PATIENCE_MS / 1000} seconds: ${what}`);
    await new Promise((resolve) => (pauseMs === 0 ? setImmediate(resolve) : setTimeout(resolve, pauseMs)));
  }
}
