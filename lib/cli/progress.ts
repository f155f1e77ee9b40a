/** A bar on stderr for transfers that take a while, where somebody looks at it. */
import { SingleBar } from 'cli-progress';

/** Less than this is over before a bar says anything. */
const LEAST_BYTES = 1 << 22;

export interface Progress {
  add(bytes: number): void;
  stop(): void;
}

export function startProgress(totalBytes: number): Progress {
  if (process.stderr.isTTY !== true || totalBytes < LEAST_BYTES) return { add: () => {}, stop: () => {} };
  const bar = new SingleBar({
    format: '[{bar}] {percentage}%  {value} of {total} bytes',
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
  });
  bar.start(totalBytes, 0);
  return { add: (bytes) => bar.increment(bytes), stop: () => bar.stop() };
}
