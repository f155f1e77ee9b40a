/** How a bench goes, on stderr while it runs: on a terminal, or where it is asked for. */

const EVERY_MS = 500;

export interface Live {
  /** `p50Us` is asked for where the line is shown. */
  show(what: string, iops: number, bytesPerSecond: number, p50Us: () => number): void;
  stop(): void;
}

export function liveLine(isWanted: boolean): Live {
  const isTerminal = process.stderr.isTTY === true;
  if (!isTerminal && !isWanted) return { show: () => undefined, stop: () => undefined };
  let last = 0;
  let isShown = false;
  return {
    show(what, iops, bytesPerSecond, p50Us) {
      const now = performance.now();
      if (now - last < EVERY_MS) return;
      last = now;
      const line = `${what}: ${Math.round(iops)} IOPS, ${(bytesPerSecond / 1e6).toFixed(1)} MB/s, median ${p50Us()} µs`;
      process.stderr.write(isTerminal ? `\r\u001b[K${line}` : `${line}\n`);
      isShown = isTerminal;
    },
    stop() {
      if (isShown) process.stderr.write('\r\u001b[K');
      isShown = false;
    },
  };
}
