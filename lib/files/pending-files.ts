/** Files that are not whole yet: none stays behind when the process ends, by itself or by a signal. */

interface PendingFile {
  /** Synchronous: there are no more turns of the loop. */
  discard(): void;
}

const FATAL_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

const pending = new Set<PendingFile>();

export function addPending(file: PendingFile): void {
  if (pending.size === 0) {
    process.on('exit', discardAll);
    // In front of the others: who takes itself away when it is called is still counted.
    for (const signal of FATAL_SIGNALS) process.prependListener(signal, onSignal);
  }
  pending.add(file);
}

export function removePending(file: PendingFile): void {
  if (!pending.delete(file) || pending.size > 0) return;
  process.off('exit', discardAll);
  for (const signal of FATAL_SIGNALS) process.off(signal, onSignal);
}

function discardAll(): void {
  for (const file of [...pending]) file.discard();
}

/** Without a listener the signal would have ended the process, and so it does. */
function onSignal(signal: NodeJS.Signals): void {
  if (process.listenerCount(signal) > 1) return;
  discardAll();
  // Nothing is pending any more, so nobody listens.
  process.kill(process.pid, signal);
}
